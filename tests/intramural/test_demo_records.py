import datetime as dt
import json
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from faker import Faker
from hypothesis import given, settings
from hypothesis import strategies as st

from intramural.demo import records as demo
from intramural.demo.records import (
    SLOT_ENTITIES,
    DemoRecord,
    department_records,
    held_out_records,
    template_slots,
    write_demo_data,
)
from intramural.demo.templates import (
    DEPARTMENTS,
    HELD_OUT,
    LABELS,
    TRAINING_EN,
    TRAINING_ZH,
    VARIATIONS,
)

COUNT = 400
SEED = 7


@pytest.fixture(scope="module")
def inboxes() -> dict[str, list[DemoRecord]]:
    return {name: department_records(name, COUNT, SEED) for name in DEPARTMENTS}


@pytest.fixture(scope="module")
def everything(inboxes: dict[str, list[DemoRecord]]) -> list[DemoRecord]:
    return [record for records in inboxes.values() for record in records]


def values_of(records: list[DemoRecord], entity: str) -> set[str]:
    return {v.value for record in records for v in record.personal if v.entity == entity}


def luhn_holds(number: str) -> bool:
    digits = [int(c) for c in reversed(number)]
    doubled = [sum(divmod(2 * d, 10)) for d in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def iban_holds(iban: str) -> bool:
    moved = iban[4:] + iban[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


def resident_id_holds(number: str) -> bool:
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2, 1)
    digits = [10 if c == "X" else int(c) for c in number]
    return sum(w * d for w, d in zip(weights, digits, strict=True)) % 11 == 1


class TestTemplates:
    def test_nine_labels_have_their_numbers_of_templates(self) -> None:
        """Each label has 14 English, 3 Chinese and 8 held-out templates."""
        assert len(LABELS) == len(set(LABELS)) == 9
        for source, size in ((TRAINING_EN, 14), (TRAINING_ZH, 3), (HELD_OUT, 8)):
            assert tuple(source) == LABELS
            assert {len(templates) for templates in source.values()} == {size}

    def test_no_template_occurs_twice_or_on_both_sides(self) -> None:
        """No template occurs twice, and held-out templates are disjoint from training templates."""
        templates = [
            " ".join(re.findall(r"\w+", re.sub(r"\{\w+\}|<\w+>", " ", template.lower())))
            for source in (TRAINING_EN, TRAINING_ZH, HELD_OUT)
            for of_label in source.values()
            for template in of_label
        ]
        assert len(set(templates)) == len(templates)

    @pytest.mark.parametrize("source", [TRAINING_EN, TRAINING_ZH], ids=["en", "zh"])
    def test_training_templates_carry_two_to_four_different_slots(
        self, source: dict[str, tuple[str, ...]]
    ) -> None:
        """Every training template carries 2 to 4 slots of personal data, none of them twice."""
        for templates in source.values():
            for template in templates:
                slots = template_slots(template)
                assert 2 <= len(slots) <= 4, template
                assert len(set(slots)) == len(slots), template
                assert set(slots) <= set(SLOT_ENTITIES), template

    def test_held_out_templates_vary_only_in_harmless_slots(self) -> None:
        """Every held-out template has a slot of VARIATIONS, no other, and known placeholders."""
        for templates in HELD_OUT.values():
            for template in templates:
                slots = template_slots(template)
                assert slots, template
                assert set(slots) <= set(VARIATIONS), template
                placeholders = set(re.findall(r"<(\w+)>", template))
                assert placeholders <= set(SLOT_ENTITIES.values()), template


class TestDepartmentRecords:
    def test_the_same_seed_gives_the_same_records(
        self, inboxes: dict[str, list[DemoRecord]]
    ) -> None:
        """The same arguments give the same records, whatever the global random state is."""
        random.seed(1)
        Faker.seed(1)
        assert department_records("hr", COUNT, SEED) == inboxes["hr"]

    def test_the_records_do_not_depend_on_the_day(
        self, inboxes: dict[str, list[DemoRecord]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A record never depends on the day on which it is asked for."""

        class Later(dt.date):
            @classmethod
            def today(cls) -> "Later":
                return cls(2041, 5, 17)

        monkeypatch.setattr(dt, "date", Later)
        assert department_records("hr", COUNT, SEED) == inboxes["hr"]

    def test_inventing_people_leaves_the_global_random_state_alone(self) -> None:
        """Faker and random are used through local instances only."""
        before = random.getstate()
        department_records("finance", 30, SEED)
        assert random.getstate() == before

    def test_another_seed_or_department_gives_other_people(
        self, inboxes: dict[str, list[DemoRecord]]
    ) -> None:
        """No subject is shared between departments or seeds."""
        other = department_records("hr", COUNT, SEED + 1)
        groups = [*inboxes.values(), other]
        subjects = [{r.subject_id for r in group} for group in groups]
        assert len(set.union(*subjects)) == sum(map(len, subjects))

    @pytest.mark.parametrize("department", DEPARTMENTS)
    def test_three_quarters_are_the_departments_own(
        self, inboxes: dict[str, list[DemoRecord]], department: str
    ) -> None:
        """Three quarters carry the department's own labels, evenly; all nine labels occur."""
        labels = Counter(record.label for record in inboxes[department])
        own = [labels[label] for label in DEPARTMENTS[department]]
        others = [labels[label] for label in LABELS if label not in DEPARTMENTS[department]]
        assert sum(own) == 300
        assert sum(others) == 100
        assert max(own) - min(own) <= 1
        assert max(others) - min(others) <= 1

    @settings(max_examples=25, deadline=None)
    @given(
        department=st.sampled_from(list(DEPARTMENTS)),
        count=st.integers(24, 60),
        seed=st.integers(0, 2**32),
    )
    def test_all_labels_occur_from_24_records_on(
        self, department: str, count: int, seed: int
    ) -> None:
        """Any inbox of 24 or more records has exactly its count, and all nine labels."""
        records = department_records(department, count, seed)
        assert len(records) == count
        assert {record.label for record in records} == set(LABELS)

    @pytest.mark.parametrize("department", DEPARTMENTS)
    def test_about_an_eighth_is_chinese(
        self, inboxes: dict[str, list[DemoRecord]], department: str
    ) -> None:
        """About 12 % of the records are written in Chinese, and marked so."""
        records = inboxes[department]
        for record in records:
            assert bool(re.search(r"[一-鿿]", record.text)) == (record.lang == "zh")
        assert 0.11 <= sum(r.lang == "zh" for r in records) / COUNT <= 0.13

    def test_personal_values_stand_in_the_text(self, everything: list[DemoRecord]) -> None:
        """Every personal value that a record names stands in its text, and every slot is filled."""
        for record in everything:
            assert 2 <= len(record.personal) <= 4
            assert all(value.value and value.value in record.text for value in record.personal)
            assert not re.search(r"[{}<>\n]", record.text)

    def test_nothing_but_personal_values_looks_personal(self, everything: list[DemoRecord]) -> None:
        """Once the named values are taken out, no e-mail address and no number remains."""
        for record in everything:
            rest = record.text
            for value in record.personal:
                rest = rest.replace(value.value, "")
            assert not re.search(r"@|\d", rest)

    def test_texts_have_the_length_of_a_short_mail(self, everything: list[DemoRecord]) -> None:
        """English texts take 60 to 170 characters and Chinese ones 25 to 120."""
        for record in everything:
            low, high = (60, 170) if record.lang == "en" else (25, 120)
            assert low <= len(record.text) <= high, record.text

    def test_nearly_all_texts_are_distinct(self, everything: list[DemoRecord]) -> None:
        """More than 95 % of the texts are distinct."""
        assert len({record.text for record in everything}) > 0.95 * len(everything)

    def test_a_writer_keeps_one_identity(self, everything: list[DemoRecord]) -> None:
        """A subject sends one to three records and has one value of each kind throughout."""
        of_subject: dict[str, list[DemoRecord]] = defaultdict(list)
        for record in everything:
            of_subject[record.subject_id].append(record)
        sizes = Counter(len(records) for records in of_subject.values())
        assert set(sizes) == {1, 2, 3}
        for subject, records in of_subject.items():
            assert re.fullmatch(r"s-[0-9a-f]{12}", subject)
            assert len({record.lang for record in records}) == 1
            for entity in set(SLOT_ENTITIES.values()) - {"DATE_TIME", "PERSON"}:
                assert len(values_of(records, entity)) <= 1

    def test_email_addresses_are_derived_from_the_name_and_reserved(
        self, everything: list[DemoRecord]
    ) -> None:
        """E-mail addresses hold a part of the writer's name and end in a reserved domain."""
        for record in everything:
            names = {name for name in values_of([record], "PERSON") if " " in name}
            for email in values_of([record], "EMAIL_ADDRESS"):
                assert re.fullmatch(r"[a-z]+(\.[a-z]+)?\d{0,2}@example\.(com|org|net)", email)
                for name in names:
                    parts = [re.sub("[^a-z]", "", part) for part in name.lower().split()]
                    assert any(part in email for part in parts)

    def test_card_numbers_pass_luhn(self, everything: list[DemoRecord]) -> None:
        """Cards have 16 digits, plain or in fours, and pass the Luhn check."""
        cards = values_of(everything, "CREDIT_CARD")
        assert len(cards) > 50
        for card in cards:
            assert re.fullmatch(r"\d{16}|\d{4}( \d{4}){3}", card)
            assert luhn_holds(card.replace(" ", ""))

    def test_ibans_pass_modulo_97(self, everything: list[DemoRecord]) -> None:
        """IBANs pass ISO 7064 MOD 97-10."""
        ibans = values_of(everything, "IBAN_CODE")
        assert len(ibans) > 50
        assert all(iban_holds(iban.replace(" ", "")) for iban in ibans)

    def test_resident_ids_pass_their_checksum(self, everything: list[DemoRecord]) -> None:
        """Chinese resident IDs pass ISO 7064 MOD 11-2 and hold a birthday."""
        numbers = values_of(everything, "NATIONAL_ID")
        assert numbers
        for number in numbers:
            assert resident_id_holds(number)
            dt.date.fromisoformat(f"{number[6:10]}-{number[10:12]}-{number[12:14]}")

    def test_phone_numbers_are_fictional(self, everything: list[DemoRecord]) -> None:
        """Phone numbers come from ranges for fiction, or have four zeros where none exists."""
        phones = values_of(everything, "PHONE_NUMBER")
        assert len(phones) > 50
        for phone in phones:
            digits = re.sub(r"\D", "", phone)
            assert re.search(
                r"55501\d\d$|(20)7946 ?0\d{3}$|1\d{2}4960\d{3}$|^1\d{2}0000\d{4}$", digits
            )

    @pytest.mark.parametrize(
        ("department", "count", "hint"),
        [("legal", 10, "finance, hr, it_support"), ("hr", 0, "count=0")],
    )
    def test_bad_arguments_are_refused(self, department: str, count: int, hint: str) -> None:
        """An unknown department or an empty inbox is refused with the way out."""
        with pytest.raises(ValueError, match=hint):
            department_records(department, count, SEED)


class TestHeldOutRecords:
    def test_the_same_seed_gives_the_same_records(self) -> None:
        """The same arguments give the same held-out records; another seed gives others."""
        assert held_out_records(180, SEED) == held_out_records(180, SEED)
        assert held_out_records(180, SEED) != held_out_records(180, SEED + 1)

    @settings(max_examples=50, deadline=None)
    @given(count=st.integers(1, 504), seed=st.integers(0, 2**32))
    def test_records_are_balanced_and_distinct(self, count: int, seed: int) -> None:
        """Labels, and templates within a label, differ by at most one record; no text repeats."""
        records = held_out_records(count, seed)
        assert len({record.text for record in records}) == len(records) == count
        labels = Counter(record.label for record in records)
        assert max(labels.values()) - min(labels[label] for label in LABELS) <= 1
        for label, templates in HELD_OUT.items():
            texts = [record.text for record in records if record.label == label]
            patterns = [
                re.compile(re.sub(r"\\\{\w+\\\}", ".+", re.escape(template)))
                for template in templates
            ]
            hits = [sum(bool(p.fullmatch(text)) for text in texts) for p in patterns]
            assert sum(hits) == len(texts)
            assert max(hits) - min(hits) <= 1

    def test_no_personal_data(self, everything: list[DemoRecord]) -> None:
        """No held-out record has a subject, personal data, an address or a long number."""
        personal = {v.value for r in everything for v in r.personal if v.distinctive}
        for record in held_out_records(504, SEED):
            assert record.personal == ()
            assert record.subject_id == ""
            assert not any(value in record.text for value in personal)
            assert not re.search(r"@|\d{4}|\{|\}", record.text)

    def test_no_training_text_is_held_out(self, everything: list[DemoRecord]) -> None:
        """No held-out text occurs among the training texts."""
        held_out = {record.text for record in held_out_records(504, SEED)}
        assert held_out.isdisjoint(record.text for record in everything)

    @pytest.mark.parametrize("count", [0, 505])
    def test_counts_out_of_range_are_refused(self, count: int) -> None:
        """A count that would repeat a text, or none at all, is refused with the bound."""
        with pytest.raises(ValueError, match=f"count={count} .*at (least 1|most 504)"):
            held_out_records(count, SEED)


class TestWriteDemoData:
    def test_files_hold_the_records(self, tmp_path: Path) -> None:
        """The files hold exactly the promised columns of the promised records."""
        files = write_demo_data(tmp_path / "data", 60, 36, SEED)
        assert files.labels == LABELS
        assert list(files.records) == list(DEPARTMENTS)
        for name, path in files.records.items():
            rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            assert rows == [
                {"text": r.text, "label": r.label, "subject_id": r.subject_id}
                for r in department_records(name, 60, SEED)
            ]
        rows = [json.loads(line) for line in files.held_out.read_text("utf-8").splitlines()]
        assert rows == [{"text": r.text, "label": r.label} for r in held_out_records(36, SEED)]
        assert {p.name for p in (tmp_path / "data").iterdir()} == {
            "finance.jsonl",
            "hr.jsonl",
            "it_support.jsonl",
            "held_out.jsonl",
        }

    def test_personal_values_are_all_distinctive_values(self, tmp_path: Path) -> None:
        """The values to search for are in the departments' files and never in the held-out one."""
        files = write_demo_data(tmp_path, 60, 504, SEED)
        private = "".join(p.read_text("utf-8") for p in files.records.values())
        public = files.held_out.read_text("utf-8")
        expected = {
            v.value
            for name in DEPARTMENTS
            for r in department_records(name, 60, SEED)
            for v in r.personal
            if v.entity != "DATE_TIME" and (v.entity != "PERSON" or len(v.value.split()) > 1)
        } | {
            v.value
            for name in DEPARTMENTS
            for r in department_records(name, 60, SEED)
            if r.lang == "zh"
            for v in r.personal
        }
        assert files.personal_values == expected
        assert all(value in private for value in files.personal_values)
        assert not any(value in public for value in files.personal_values)

    def test_nothing_is_written_when_a_count_is_refused(self, tmp_path: Path) -> None:
        """A refused count leaves no file and no directory behind."""
        with pytest.raises(ValueError, match="count=9999"):
            write_demo_data(tmp_path / "data", 30, 9999, SEED)
        assert not (tmp_path / "data").exists()

    def test_every_slot_has_a_value_and_an_entity(self) -> None:
        """Every slot of a training template is one that the records fill."""
        used = {
            slot
            for source in (TRAINING_EN, TRAINING_ZH)
            for templates in source.values()
            for template in templates
            for slot in template_slots(template)
        }
        assert used == set(demo.SLOT_ENTITIES)
