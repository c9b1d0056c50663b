"""Invented mail of three departments, with the personal data of people who don't exist.

Everything is drawn from the seed alone: two calls with the same arguments return the same records
(under the same release of Faker), on any day.

Knows neither the model nor the scrubber: this module only writes text.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import cycle, islice, product
from pathlib import Path
from string import Formatter
from typing import Final, Literal

from intramural.demo.people import Locale, People, Person
from intramural.demo.templates import (
    DEPARTMENTS,
    HELD_OUT,
    LABELS,
    TRAINING_EN,
    TRAINING_ZH,
    VARIATIONS,
)
from privacy.files import write_atomic

CHINESE_SHARE: Final = 0.12
"""Share of a department's records that Chinese writers send."""

MISADDRESSED_SHARE: Final = 0.25
"""Share of a department's records that belong to another department's labels."""

SLOT_ENTITIES: Final[Mapping[str, str]] = {
    "name": "PERSON",
    "first_name": "PERSON",
    "email": "EMAIL_ADDRESS",
    "phone": "PHONE_NUMBER",
    "iban": "IBAN_CODE",
    "card": "CREDIT_CARD",
    "address": "ADDRESS",
    "resident_id": "NATIONAL_ID",
    "employee_id": "ID_NUMBER",
    "date": "DATE_TIME",
}
"""Slot of a training template to the type of the personal data that fills it."""

_INDISTINCT_SLOTS: Final = frozenset({"first_name", "date"})


@dataclass(frozen=True, slots=True)
class PersonalValue:
    """One piece of personal data exactly as it stands in a record's text.

    Attributes:
        entity: its type, a value of `SLOT_ENTITIES`.
        distinctive: whether finding the value elsewhere shows a leak. Bare first names and dates
            don't: "Grace" and "May 2" stand in many texts.
    """

    entity: str
    value: str
    distinctive: bool = True


@dataclass(frozen=True, slots=True)
class DemoRecord:
    """One mail and the label that it belongs to.

    Attributes:
        subject_id: opaque and stable per writer within a department; empty in a held-out record.
        personal: every piece of personal data in the text, in the order of its appearance.
    """

    text: str
    label: str
    subject_id: str
    lang: Literal["en", "zh"]
    personal: tuple[PersonalValue, ...]


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Where the demonstration's data lies.

    Attributes:
        records: department to its JSONL file of {"text", "label", "subject_id"}.
        held_out: public JSONL file of {"text", "label"}.
        labels: all labels.
        personal_values: what a search for leaked data looks for: every distinctive value of every
            record.
    """

    records: Mapping[str, Path]
    held_out: Path
    labels: tuple[str, ...]
    personal_values: frozenset[str]


class _Templates:
    """Hands out each label's templates in a shuffled order, all of them before one repeats."""

    def __init__(self, rng: random.Random, source: Mapping[str, tuple[str, ...]]) -> None:
        self._cycles = {
            label: cycle(rng.sample(templates, k=len(templates)))
            for label, templates in source.items()
        }

    def next(self, label: str) -> str:
        return next(self._cycles[label])


def department_records(department: str, count: int, seed: int) -> list[DemoRecord]:
    """A department's inbox: its own labels, and a quarter misaddressed to it.

    From 24 records upward all nine labels occur. Each writer sends one to three of them.

    Raises:
        ValueError: an unknown department or a count below 1.
    """
    if department not in DEPARTMENTS:
        raise ValueError(
            f"unknown department {department!r}; the demo has {', '.join(DEPARTMENTS)}"
        )
    _require_positive("count", count)
    rng = _random(seed, department)
    labels = _inbox_labels(rng, department, count)
    people = People(rng)
    templates = {
        "en": _Templates(rng, TRAINING_EN),
        "zh": _Templates(rng, TRAINING_ZH),
    }
    records: list[DemoRecord] = []
    for locale, size in _writers(rng, count):
        person = people.invent(locale)
        lang: Literal["en", "zh"] = "zh" if locale == "zh_CN" else "en"
        records += [
            _fill(templates[lang].next(label), label, lang, person, rng)
            for label in labels[len(records) : len(records) + size]
        ]
    rng.shuffle(records)
    return records


def held_out_records(count: int, seed: int) -> list[DemoRecord]:
    """Public records to measure on, spread evenly over labels and then over templates.

    All texts are distinct. They are fillings of 72 templates, so records of one template stand
    closer to each other than to the rest.

    Raises:
        ValueError: a count below 1, or one that could not be reached without repeating a text.
    """
    _require_positive("count", count)
    rng = _random(seed, "held out")
    fillings: dict[str, list[list[str]]] = {}
    for label, templates in HELD_OUT.items():
        fillings[label] = [_variants(rng, template) for template in templates]
        rng.shuffle(fillings[label])
    per_label = min(len(of_label) for of_label in fillings.values())
    fewest = min(len(variants) for of_label in fillings.values() for variants in of_label)
    limit = fewest * per_label * len(LABELS)
    if count > limit:
        raise ValueError(
            f"count={count} exceeds the {limit} held-out records that are distinct and balanced; "
            f"ask for at most {limit}"
        )
    texts = (
        (fillings[label][template][variant], label)
        for variant in range(fewest)
        for template in range(per_label)
        for label in LABELS
    )
    records = [DemoRecord(text, label, "", "en", ()) for text, label in islice(texts, count)]
    rng.shuffle(records)
    return records


def write_demo_data(directory: Path, per_department: int, held_out: int, seed: int) -> DemoFiles:
    """Write one JSONL file per department and the held-out file; each appears whole or not at all.

    Raises:
        ValueError: counts out of range; nothing is written then.
        OSError: the directory or a file cannot be written.
    """
    inboxes = {name: department_records(name, per_department, seed) for name in DEPARTMENTS}
    public = held_out_records(held_out, seed)
    personal_values = {
        value.value
        for records in inboxes.values()
        for record in records
        for value in record.personal
        if value.distinctive
    }
    directory.mkdir(parents=True, exist_ok=True)
    paths = {name: directory / f"{name}.jsonl" for name in DEPARTMENTS}
    for name, records in inboxes.items():
        _write_rows(
            paths[name],
            ({"text": r.text, "label": r.label, "subject_id": r.subject_id} for r in records),
        )
    held_out_path = directory / "held_out.jsonl"
    _write_rows(held_out_path, ({"text": r.text, "label": r.label} for r in public))
    return DemoFiles(paths, held_out_path, LABELS, frozenset(personal_values))


def _random(seed: int, purpose: str) -> random.Random:
    # A text seed is hashed with SHA-512, so neighbouring seeds and purposes share nothing.
    return random.Random(f"intramural demo/{seed}/{purpose}")  # noqa: S311 - invented people, no secret


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}={value} is too small; ask for at least 1")


def _inbox_labels(rng: random.Random, department: str, count: int) -> list[str]:
    own = DEPARTMENTS[department]
    others = [label for label in LABELS if label not in own]
    misaddressed = round(count * MISADDRESSED_SHARE)
    labels = [
        *islice(cycle(rng.sample(own, k=len(own))), count - misaddressed),
        *islice(cycle(rng.sample(others, k=len(others))), misaddressed),
    ]
    rng.shuffle(labels)
    return labels


def _writers(rng: random.Random, count: int) -> list[tuple[Locale, int]]:
    """Locale and number of records of each writer; the numbers sum to ``count``."""
    sizes: list[int] = []
    while (missing := count - sum(sizes)) > 0:
        sizes.append(min(rng.choice((1, 1, 2, 3)), missing))
    writers: list[tuple[Locale, int]] = []
    chinese = round(count * CHINESE_SHARE)
    for size in sizes:
        if chinese >= size:
            writers.append(("zh_CN", size))
            chinese -= size
        else:
            writers.append((rng.choice(("en_US", "en_GB")), size))
    return writers


def _fill(
    template: str, label: str, lang: Literal["en", "zh"], person: Person, rng: random.Random
) -> DemoRecord:
    values = {**person.identity, "date": _date(rng, person.locale)}
    personal = tuple(
        PersonalValue(SLOT_ENTITIES[slot], values[slot], slot not in _INDISTINCT_SLOTS)
        for slot in template_slots(template)
    )
    return DemoRecord(template.format_map(values), label, person.subject_id, lang, personal)


def _date(rng: random.Random, locale: Locale) -> str:
    day = date(2024, 1, 1) + timedelta(days=rng.randrange(366))
    year = rng.choice(("", f" {day.year}"))
    month = VARIATIONS["month"][day.month - 1]  # strftime would follow the process's language
    if locale == "en_GB":
        return f"{day.day} {month}{year}"
    return f"{month} {day.day}{year and ','}{year}"


def template_slots(template: str) -> tuple[str, ...]:
    """Names of a template's slots, in the order of their appearance."""
    return tuple(slot for _, slot, _, _ in Formatter().parse(template) if slot is not None)


def _variants(rng: random.Random, template: str) -> list[str]:
    slots = template_slots(template)
    choices: Sequence[tuple[str, ...]] = [VARIATIONS[slot] for slot in slots]
    texts = [
        template.format_map(dict(zip(slots, values, strict=True))) for values in product(*choices)
    ]
    rng.shuffle(texts)
    return texts


def _write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_atomic(path, "".join(lines).encode())
