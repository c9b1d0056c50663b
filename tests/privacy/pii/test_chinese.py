"""The full detector on generated Chinese records and on texts that mix scripts."""

from collections import Counter

import pytest

from benchmarks.redaction_zh import KINDS, Writer
from privacy.pii.detector import Detector
from privacy.pii.entities import ENTITIES
from privacy.pii.lexical_zh import LexicalAnalyser
from tests.privacy.pii.models import full_detector, pii_models


@pytest.fixture(scope="module")
def detector() -> Detector:
    return full_detector(entities=frozenset(ENTITIES))


def test_generated_labels_lie_where_they_say() -> None:
    """Spans are inside the text, disjoint, of known kinds, and the same seed gives the same records."""
    for split in ("tune", "held-out"):
        records = list(Writer(split, 3).records(120))
        assert records == list(Writer(split, 3).records(120))
        for record in records:
            done = 0
            for start, end, kind in record["spans"]:
                assert done <= start < end <= len(record["text"])
                assert kind in ENTITIES
                done = end
    assert set(KINDS.values()) <= ENTITIES


@pytest.mark.e2e
@pytest.mark.parametrize("split", ["tune", "held-out"])
def test_generated_records_are_covered(detector: Detector, split: str) -> None:
    """Of labelled characters at least 99 % are found, and 95 % of what is found is labelled."""
    records = list(Writer(split, 11).records(400))
    found = detector.detect_many([record["text"] for record in records])
    right = wrong = missed = 0
    whole, total = Counter[str](), Counter[str]()
    for record, spans in zip(records, found, strict=True):
        text = record["text"]
        gold = {i for a, b, _ in record["spans"] for i in range(a, b) if text[i].isalnum()}
        seen = {i for s in spans for i in range(s.start, s.end) if text[i].isalnum()}
        dated = {
            i for s in spans if s.entity == "DATE_TIME" for i in range(s.start, s.end)
        }  # dates of other events are no label of these records
        right += len(gold & seen)
        wrong += len(seen - gold - dated)
        missed += len(gold - seen)
        for start, end, kind in record["spans"]:
            total[kind] += 1
            whole[kind] += all(i in seen for i in range(start, end) if text[i].isalnum())
    assert right / (right + missed) >= 0.99
    assert right / (right + wrong) >= 0.95
    for kind in total.keys() - {"PERSON", "ORGANIZATION"}:
        assert whole[kind] == total[kind], kind
    assert whole["PERSON"] / total["PERSON"] >= 0.975


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("請轉告張偉和陳淑芬小姐，電話0912-345-678", ["張偉", "陳淑芬"]),
        ("王小明来了，小明说他饿", ["王小明", "小明"]),
        ("我叫阿不都热依木·买买提，约翰逊也来了", ["阿不都热依木·买买提", "约翰逊"]),
        ("客户欧阳娜娜、上官雪来电", ["欧阳娜娜", "上官雪"]),
        ("抄送:刘洋;陈静", ["刘洋", "陈静"]),
        ("原告张亮诉被告史静红", ["张亮", "史静红"]),
        ("通知小段来取，陈总和余工也在", ["小段", "陈总", "余工"]),
        ("请联系Zhang Wei或者John Smith，谢谢", ["Zhang Wei", "John Smith"]),
        ('{"name":"赵敏","to":"孙悦"}', ["赵敏", "孙悦"]),
    ],
)
def test_names_of_many_kinds_are_found(detector: Detector, text: str, names: list[str]) -> None:
    """Traditional, repeated, foreign, compound, familiar and Latin names are each covered whole."""
    covered = {
        i for s in detector.detect(text) if s.entity == "PERSON" for i in range(s.start, s.end)
    }
    at = 0
    for name in names:
        at = text.index(name, at)
        assert covered.issuperset(range(at, at + len(name))), name
        at += len(name)


@pytest.mark.e2e
def test_a_name_ends_where_the_sentence_goes_on(detector: Detector) -> None:
    """Conjunctions, verbs and titles beside a name are left in the text."""
    text = "傅文和侯洁来了，请把韩玉的表给方医生，由林志平负责"
    people = [s.of(text) for s in detector.detect(text) if s.entity == "PERSON"]
    assert people == ["傅文", "侯洁", "韩玉", "方", "林志平"]


@pytest.mark.e2e
def test_sentences_of_any_length_share_a_batch_without_a_trace() -> None:
    """What stands beside a text in a batch changes nothing about the analyser's findings."""
    folder = pii_models().lexical_zh
    if folder is None:
        pytest.skip("the Chinese analyser was not fetched")
    analyser = LexicalAnalyser(folder)
    texts = [record["text"] for record in Writer("tune", 5).records(60)]
    together = analyser.find(texts, 0.5)
    assert [sorted(spans) for spans in together] == [
        sorted(analyser.find([text], 0.5)[0]) for text in texts
    ]
    assert any(together)
