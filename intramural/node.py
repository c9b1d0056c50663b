"""Builds a department's node from its file: read, scrub, encode into units, hand to its agent.

All of it happens in the department's own folder. What is counted here (records, findings by type)
is for the department's eyes and never becomes part of a reply.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from client.agent import NodeAgent
from client.blocks import BlockRegister
from client.encoding import encode_records
from client.errors import RecordError, RowFault
from client.formats import Row, iter_rows
from client.gate import Gate
from client.records import DataSource, Record, RecordSet, read_records, write_records
from intramural.parts import pseudonym_key, subject_pseudonym
from intramural.workspace import NodePaths
from policies.decisions import action_for
from policies.model import Policy
from privacy.code_digest import code_digest
from privacy.dp.encode import AnyExample, Unit
from privacy.dp.trainer import LoraTrainer
from privacy.files import write_atomic
from privacy.ledger.ledger import Ledger
from privacy.pii.detector import Detector
from privacy.pii.scrub import Scrubber
from privacy.signing import SigningKey

AT_ONCE = 64
ROWS_LOOKED_AT = 100
BLOCK_KEY = "block-register"
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Encoded:
    """A department's units of privacy; every count is local.

    ``examples`` counts the records in ``units``. ``faults``: every faulty row so far.
    ``without_subject``: records under unit "subject" that name none, each a subject of its own.
    """

    units: tuple[Unit, ...]
    examples: int
    faults: tuple[RowFault, ...]
    without_subject: int


@dataclass(frozen=True)
class Scrubbed:
    """A department's records without personal data; counts are local.

    ``findings`` counts what was replaced, by entity type. ``left_out`` counts rows by filter.
    ``fingerprint`` changes with the file, the way it is read and the PII rules; it stays local.
    """

    records: tuple[Record, ...]
    faults: tuple[RowFault, ...]
    left_out: dict[str, int]
    findings: dict[str, int]
    fingerprint: str


def scrub_department(
    department: str,
    source: DataSource,
    paths: NodePaths,
    policy: Policy,
    detector: Callable[[], Detector],
    *,
    tolerance: float,
    limit: int | None = None,
    advance: Advance | None = None,
) -> Scrubbed:
    """Read the file and scrub it into the node's folder; the work is reused while nothing changed.

    ``limit`` takes the first records only. They, and records that an earlier data block has, are
    counted as left out.

    Raises:
        RecordError: the file cannot be read, has more faulty rows than ``tolerance`` allows, or
            holds no record for the department's data block.
        AgentMisconfigured: the node's register of blocks is damaged.
        RedactionUnavailable: the detector failed; nothing is written then.
    """
    read = read_records(source, tolerance=tolerance)
    records = read.records[:limit]
    left_out = dict(read.left_out)
    if len(records) < len(read.records):
        left_out["limit"] = len(read.records) - len(records)
    block = policy.department(department).block
    known_to_block = _claim(records, paths, policy, block)
    if earlier := len(records) - len(known_to_block):
        left_out["earlier_block"] = earlier
        records = known_to_block
    if not records:
        raise RecordError(
            f"{source.path}: every record of department {department!r} belongs to a block before "
            f"{block!r}, whose budget pays for it; name that one in departments.{department}.block "
            "of the policy, or give new records"
        )
    state = _fingerprint(source, policy, limit, block)
    note = paths.scrubbed.with_suffix(".json")
    # The rules that scrub are code: after an update, records are scrubbed with the new ones.
    made_by = f"{state} {code_digest()}"
    known = _known_findings(note, made_by)
    if known is not None and paths.scrubbed.is_file():
        kept = read_records(DataSource(paths.scrubbed), tolerance=0.0)
        if len(kept) == len(records):
            return Scrubbed(kept.records, read.faults, left_out, known, state)
    key = pseudonym_key(paths.pseudonym_key)
    scrubber = Scrubber(detector(), lambda entity: action_for(policy, entity, "training"), key=key)
    subject = subject_pseudonym(key)
    done: list[Record] = []
    findings: dict[str, int] = {}
    for start in range(0, len(records), AT_ONCE):
        items, report = scrubber.scrub_items(
            records[start : start + AT_ONCE], lambda record, change: record.map_text(change)
        )
        done += [record.map_subject(subject) for record in items]
        for entity, count in report.counts.items():
            findings[entity] = findings.get(entity, 0) + count
        if advance is not None:
            advance(len(done), len(records))
    # A crash after the first write leaves scrubbed records without a note: scrubbed again.
    note.unlink(missing_ok=True)
    write_records(paths.scrubbed, done, overwrite=True)
    write_atomic(note, json.dumps({"state": made_by, "findings": findings}).encode())
    return Scrubbed(tuple(done), read.faults, left_out, dict(sorted(findings.items())), state)


def encode_department(
    scrubbed: Scrubbed, source: DataSource, trainer: LoraTrainer, policy: Policy, tolerance: float
) -> Encoded:
    """The records as units of privacy: each alone, or under unit "subject" by subject.

    Raises:
        RecordError: with the records that do not fit, more are faulty than ``tolerance`` allows.
    """
    examples, faults = encode_records(
        scrubbed.records, trainer.tokenizer, policy.training.max_tokens, file=str(source.path)
    )
    every = (*scrubbed.faults, *faults)
    considered = len(examples) + len(every)
    if len(every) > tolerance * considered or not examples:
        raise RecordError(
            f"{source.path}: {len(every):,} of {considered:,} records are faulty, more than the "
            f"tolerated share of {tolerance:.3g}; correct them or raise --tolerance",
            every,
        )
    if policy.privacy.unit == "record":
        return Encoded(tuple((example,) for example in examples), len(examples), every, 0)
    unfit = {fault.line for fault in faults}
    subjects = [r.subject_id for r in scrubbed.records if r.line not in unfit]
    return Encoded(_by_subject(subjects, examples), len(examples), every, subjects.count(None))


def _by_subject(subjects: Sequence[str | None], examples: Sequence[AnyExample]) -> tuple[Unit, ...]:
    """All examples of one subject together; one that names none is a subject of its own."""
    units: dict[str | int, list[AnyExample]] = {}
    for place, (subject, example) in enumerate(zip(subjects, examples, strict=True)):
        units.setdefault(place if subject is None else subject, []).append(example)
    return tuple(tuple(unit) for unit in units.values())


def open_agent(
    department: str,
    paths: NodePaths,
    policy: Policy,
    units: Sequence[Unit],
    trainer: LoraTrainer,
    code_digest: str,
    progress: Callable[[int, int], None] | None = None,
    *,
    gate: Gate,
) -> tuple[NodeAgent, Ledger, SigningKey]:
    """The department's agent over its own ledger and key; whoever opens it closes the ledger.

    ``units``: those of the records, and of the run's canaries.
    """
    key = SigningKey.load_or_create(paths.signing_key)
    key.verify_key.save(paths.public_key)
    ledger = Ledger(paths.ledger, key)
    agent = NodeAgent(
        department=department,
        policy=policy,
        gate=gate,
        units=units,
        trainer=trainer,
        ledger=ledger,
        key=key,
        state_dir=paths.state,
        code_digest=code_digest,
        progress=progress,
    )
    return agent, ledger, key


def read_public(source: DataSource, limit: int | None) -> RecordSet:
    """Public held-out records; a file with splits gives its split "test" unless told otherwise."""
    read = read_records(source)
    if limit is None or len(read) <= limit:
        return read
    # Evenly spread, so that a file sorted by label is not cut down to its first labels.
    chosen = tuple(read.records[i * len(read) // limit] for i in range(limit))
    return RecordSet(source, chosen, read.faults, {**read.left_out, "limit": len(read) - limit})


def _claim(
    records: Sequence[Record], paths: NodePaths, policy: Policy, block: str
) -> tuple[Record, ...]:
    """The records whose unit belongs to the policy's data block; new ones do from now on.

    By the raw record, or the subject's id: what scrubbing makes of them changes with its rules.
    """
    key = SigningKey.load_or_create(paths.signing_key).derive(BLOCK_KEY)
    units = [_unit_fingerprint(record, policy.privacy.unit) for record in records]
    claimed = BlockRegister(paths.blocks, key).claim(block, units)
    return tuple(record for record, own in zip(records, claimed, strict=True) if own)


def _unit_fingerprint(record: Record, unit: str) -> bytes:
    named = unit == "subject" and record.subject_id is not None
    content: object = ["subject", record.subject_id] if named else ["record", record.as_row()]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


def _fingerprint(source: DataSource, policy: Policy, limit: int | None, block: str) -> str:
    digest = hashlib.sha256()
    with source.path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    settings = asdict(source) | {"path": "", "pii": policy.pii.model_dump(), "limit": limit}
    # Which records an earlier block has depends on both.
    settings |= {"block": block, "unit": policy.privacy.unit}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _known_findings(note: Path, state: str) -> dict[str, int] | None:
    try:
        known = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict) or known.get("state") != state:
        return None
    findings: dict[str, int] = known["findings"]
    return findings


def held_out_split(path: Path) -> dict[str, str]:
    """The filter that takes the split "test" of a public file that has splits.

    Raises :class:`~client.errors.RecordError` where the file cannot be read.
    """
    has_splits = any(
        isinstance(row, Row) and "split" in row.values
        for row in islice(iter_rows(path, {"split"}), ROWS_LOOKED_AT)
    )
    return {"split": "test"} if has_splits else {}
