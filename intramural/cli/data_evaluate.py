"""``intramural data evaluate-pii``: what the detector finds of personal data that people labelled."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal

import typer

from intramural.cli.options import JsonOption
from intramural.cli.output import facts, note, print_json, print_table, say, table
from intramural.errors import CommandRefused

if TYPE_CHECKING:
    from privacy.pii.evaluation import Scores, Share

LanguageName = Literal["auto", "en", "zh"]
Wanted = Literal["labelled", "all", "policy"]


def evaluate_pii(
    labelled: Annotated[
        Path, typer.Argument(metavar="LABELLED", help="JSONL file of labelled texts.")
    ],
    language: Annotated[
        LanguageName,
        typer.Option(
            "--language", help="Languages to look in; auto is those of the policy, else both."
        ),
    ] = "auto",
    entities: Annotated[
        Wanted,
        typer.Option(
            "--entities",
            help="Kinds to look for: those that the labels name, all there are, or those that the"
            " policy has scrubbed.",
        ),
    ] = "labelled",
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions", metavar="OUT", help="Write what was found there, by id and offset."
        ),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", metavar="FILE", help="The policy to go by.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Measure the detector on labelled text.

    A line is {"id", "text", "spans": [[start, end, type], ...]} with offsets in characters. Labels
    of common corpora are understood; unknown ones are counted by their characters alone. Precision,
    recall, F1 and F2 are by characters, with 95 % intervals over records. By type, recall is the
    share of its characters that any finding covers, and strict recall the share found as that type.
    The file of predictions has {"id", "spans"} for each text, in the same order, and no text.

    \b
    Example:
      intramural data evaluate-pii labelled.jsonl --predictions found.jsonl
    """
    from intramural import parts
    from intramural.labelled import evaluate, kinds_for, labels_of, read_labelled
    from policies.model import PiiPolicy
    from privacy.pii.entities import ENTITIES, PERSONAL

    rules = None if policy is None else parts.read_policy(policy)
    labels = labels_of(read_labelled(labelled))
    pii = PiiPolicy() if rules is None else rules.pii
    if language != "auto":
        pii = pii.model_copy(update={"languages": (language,)})
    if entities == "policy":
        kinds = PERSONAL | (ENTITIES & pii.entities.keys())
    else:
        kinds = ENTITIES if entities == "all" else kinds_for(labels, ENTITIES)
    # Kinds that are rarely personal are looked for only where a rule names them.
    asked = {**dict.fromkeys(kinds - PERSONAL, "redact"), **pii.entities}
    if predictions is not None and predictions.absolute() == labelled.absolute():
        raise CommandRefused(f"{predictions} is the file with the labels; choose another name")
    note("opening the detector …")
    detector = parts.detector_for(pii.model_copy(update={"entities": asked}))
    with _written(predictions) as stream:
        scores = evaluate(read_labelled(labelled), detector, kinds, stream)
    if json_output:
        print_json(
            {
                "file": str(labelled),
                "languages": list(pii.languages),
                "entities": sorted(kinds),
                "policy": None if rules is None else rules.digest,
                "predictions": None if predictions is None else str(predictions),
                **scores.as_json(),
            }
        )
        return
    _print(scores, labelled)
    if predictions is not None:
        say(f"predictions written to {predictions}")


@contextmanager
def _written(path: Path | None) -> Iterator[IO[str] | None]:
    """A file that appears complete or not at all; None without a path."""
    if path is None:
        yield None
        return
    if path.is_dir() or not path.parent.is_dir():
        raise CommandRefused(f"{path} cannot be written: it is a folder, or is in none")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    finally:
        with suppress(FileNotFoundError):
            Path(name).unlink()


def _print(scores: "Scores", file: Path) -> None:
    facts(
        [
            ("file", file),
            ("texts", f"{scores.records:,} ({scores.characters:,} characters)"),
            ("labelled", f"{scores.labelled:,} characters"),
            ("found", f"{scores.found:,} characters"),
            ("precision", _told(scores.precision)),
            ("recall", _told(scores.recall)),
            ("F1", _told(scores.f1)),
            ("F2", _told(scores.f2)),
        ]
    )
    made = table(
        "label", "marks", "precision", "recall", "95 %", "strict", "F1", "F2", right=range(1, 8)
    )
    for kind in scores.kinds:
        made.add_row(
            kind.label,
            f"{kind.marks:,}",
            _figure(kind.precision.value),
            _figure(kind.recall.value),
            _interval(kind.recall),
            _figure(kind.strict_recall.value),
            _figure(kind.f1),
            _figure(kind.f2),
        )
    if made.row_count:
        print_table(made)
    if scores.unlabelled:
        told = ", ".join(f"{count:,} {kind}" for kind, count in scores.unlabelled.items())
        say(f"characters found outside of every label: {told}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(share: "Share") -> str:
    if share.least is None or share.greatest is None:
        return "-"
    return f"{share.least:.2f}-{share.greatest:.2f}"


def _told(share: "Share") -> str:
    if share.value is None:
        return "none to be had"
    return f"{share.value:.4f}  (95 %: {share.least:.4f} to {share.greatest:.4f})"
