"""Stand-ins are of the kind, script and form of what they stand for, by a key, and never it."""

import ipaddress

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.pii.entities import ENTITIES
from privacy.pii.finishing import normalise
from privacy.pii.patterns import PatternDetector
from privacy.pii.session import RedactionSession
from privacy.pii.stand_ins import StandIns, mask
from privacy.pii.surrogate_lists import GIVEN
from privacy.pii.surrogate_numbers import Dice
from privacy.pii.surrogates import Surrogates
from tests.privacy.pii.fakes import ToldDetector

KEY = b"0123456789abcdef"
MADE = Surrogates(KEY)
SHAPE = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ123456789", "A" * 26 + "0" * 9)


@settings(max_examples=300)
@given(st.text(min_size=1, max_size=20), st.sampled_from(sorted(ENTITIES)))
def test_a_surrogate_is_never_the_value(value: str, entity: str) -> None:
    """Whatever the value, its surrogate is another one, and the same at every time."""
    made = MADE.make(value, entity)
    assert normalise(made, entity) != normalise(value, entity)
    assert made == Surrogates(KEY).make(value, entity)


def test_another_key_gives_other_surrogates() -> None:
    """Nobody without the key can tell which surrogate a name would get."""
    names = ["Ruth Baker", "Thomas Miller", "王磊", "李小龙"]
    others = Surrogates(KEY[::-1])
    assert [MADE.make(name, "PERSON") for name in names] != [
        others.make(name, "PERSON") for name in names
    ]


def luhn(number: str) -> bool:
    """Whether the check digit is right (ISO/IEC 7812)."""
    digits = [int(c) for c in number if c.isdigit()][::-1]
    return sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)) % 10 == 0


@pytest.mark.parametrize(
    ("card", "ranges"),
    [
        ("4111 1111 1111 1111", ("424242",)),
        ("5105-1051-0510-5100", ("555555",)),
        ("371449635398431", ("378282",)),
        ("6222021234567890123", ("620000",)),
    ],
)
def test_cards_are_test_cards(card: str, ranges: tuple[str, ...]) -> None:
    """Same length, grouping and brand; a range for tests; a valid check digit."""
    made = MADE.make(card, "CREDIT_CARD")
    assert luhn(made)
    assert made.translate(SHAPE) == card.translate(SHAPE)
    assert "".join(c for c in made if c.isdigit()).startswith(ranges)


@pytest.mark.parametrize(
    "number",
    [
        "+44 191 496 0063",
        "+49 (30) 1234567",
        "+86 138 1234 5678",
        "+1 415-555-2671",
        "0033 1 42 68 53 00",
    ],
)
def test_telephone_numbers_keep_country_and_form(number: str) -> None:
    """Another number of the same country, written the same way."""
    made = MADE.make(number, "PHONE_NUMBER")
    assert made.translate(SHAPE) == number.translate(SHAPE)

    def country(text: str) -> int | None:
        return phonenumbers.parse(
            text.replace("00", "+", 1) if text[0] == "0" else text
        ).country_code

    assert country(made) == country(number)


@pytest.mark.parametrize("number", ["(415) 555-2671", "+1 415 555 2671", "1-415-555-2671"])
def test_north_american_numbers_are_fictional(number: str) -> None:
    """They come from the range that is kept for fiction, 555-0100 to 555-0199."""
    digits = "".join(c for c in MADE.make(number, "PHONE_NUMBER") if c.isdigit())
    assert digits[-7:-2] == "55501"


def test_identifiers_stay_valid() -> None:
    """Chinese resident and credit codes and IBANs keep length, form and valid check digits."""
    resident = MADE.make("11010519491231002X", "NATIONAL_ID")
    weights = [2 ** (17 - i) % 11 for i in range(17)]
    total = sum(int(c) * w for c, w in zip(resident, weights, strict=False))
    assert resident[17] == "10X98765432"[total % 11]
    code = MADE.make("91350100M000100Y43", "ID_NUMBER")
    alphabet = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    assert sum(alphabet.index(c) * (3**i % 31) for i, c in enumerate(code[:17])) % 31 == (
        -alphabet.index(code[17]) % 31
    )
    iban = MADE.make("GB82 WEST 1234 5698 7654 32", "IBAN_CODE").replace(" ", "")
    assert iban[:2] == "GB"
    assert len(iban) == 22
    assert int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1


def test_names_keep_script_case_and_first_names() -> None:
    """Chinese names stay Chinese, capitals capitals, and two people of one first name share it."""
    assert MADE.make("RUTH BAKER", "PERSON") == MADE.make("Ruth Baker", "PERSON").upper()
    first, second = (MADE.make(name, "PERSON") for name in ("Ruth Baker", "Ruth Miller"))
    assert first.split()[0] == second.split()[0] == MADE.make("Ruth", "PERSON")
    assert first != second
    assert MADE.make("Dr. Ruth Baker", "PERSON") == f"Dr. {first}"
    for name in ("王磊", "欧阳修文", "李小龙"):
        made = MADE.make(name, "PERSON")
        assert len(made) == len(name)
        assert all("\u4e00" <= character <= "\u9fff" for character in made)
    assert MADE.make("王小姐", "PERSON").endswith("小姐")


def test_addresses_of_machines_and_mail_are_those_for_documentation() -> None:
    """RFC 5737 and 3849 networks, RFC 2606 domains."""
    nets = [ipaddress.ip_network(n) for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
    made = ipaddress.ip_address(MADE.make("10.0.0.1", "IP_ADDRESS"))
    assert any(made in net for net in nets)
    six = ipaddress.ip_address(MADE.make("fe80::1", "IP_ADDRESS"))
    assert six in ipaddress.ip_network("2001:db8::/32")
    mail = MADE.make("ruth.baker@corp.com", "EMAIL_ADDRESS")
    assert mail.partition("@")[2] in {"example.com", "example.org", "example.net"}
    assert [span.of(mail) for span in PatternDetector().detect(mail)] == [mail]


@pytest.mark.parametrize(
    ("first", "second", "days"),
    [
        ("1980-03-12", "1980-03-22", 10),
        ("12/03/1980", "22/03/1980", 10),
        ("1980年3月12日", "1980年3月22日", 10),
        ("March 12, 1980", "March 22, 1980", 10),
    ],
)
def test_dates_move_together(first: str, second: str, days: int) -> None:
    """All dates move by the same number of days, so that what lies between them stays."""
    import datetime as dt

    def read(text: str) -> dt.date:
        for form in ("%Y-%m-%d", "%d/%m/%Y", "%Y年%m月%d日", "%B %d, %Y"):
            try:
                return dt.datetime.strptime(text, form).date()  # noqa: DTZ007
            except ValueError:
                continue
        raise ValueError("no date")

    made = [MADE.make(text, "DATE_OF_BIRTH") for text in (first, second)]
    assert (read(made[1]) - read(made[0])).days == days
    assert made[0] != first


def test_masks_show_the_last_four_of_long_numbers_only() -> None:
    """Punctuation stays, four digits of a long number stay, everything else is stars."""
    assert mask("4111 1111 1111 1234", "CREDIT_CARD") == "**** **** **** 1234"
    assert mask("+44 191 496 0063", "PHONE_NUMBER") == "+** *** *** 0063"
    assert mask("1234567", "PHONE_NUMBER") == "*******"
    assert mask("Ruth O'Neill", "PERSON") == "**** *'*****"
    assert mask("ruth@corp.test", "EMAIL_ADDRESS") == "****@****.****"


def test_draws_are_even() -> None:
    """Each of ten outcomes is drawn about as often (chi-squared, false alarm 1e-6; a die that
    favours one outcome by half is rejected).
    """

    def statistic(counts: list[int]) -> float:
        expected = sum(counts) / len(counts)
        return sum((count - expected) ** 2 / expected for count in counts)

    counts, loaded = [0] * 10, [0] * 10
    for i in range(5_000):
        drawn = Dice(KEY, str(i)).below(10)
        counts[drawn] += 1
        loaded[0 if i % 20 == 0 else drawn] += 1
    critical = 44.81  # chi-squared with 9 degrees of freedom at 1e-6
    assert statistic(counts) < critical < statistic(loaded)


def test_a_surrogate_is_no_word_of_the_conversation() -> None:
    """A surrogate that was said by somebody is not taken, so that it restores to one value only."""
    told = {"Ruth Baker": "PERSON"}
    key = b"k" * 16
    usual = RedactionSession(ToldDetector(told), lambda _: "pseudonym", key=key).redact(
        "Ruth Baker"
    )
    one = RedactionSession(ToldDetector(told), lambda _: "pseudonym", key=key)
    text = f"Ruth Baker met {usual}"
    redacted = one.redact(text)
    assert redacted != f"{usual} met {usual}"
    assert one.restore(redacted) == text
    # In a later turn, the surrogate's own name is escaped like a placeholder of the caller's.
    later = f"Do you know {redacted.partition(' met')[0]}?"
    assert one.restore(one.redact(later)) == later


def test_first_names_of_surrogates_are_restored() -> None:
    """Models drop surnames; the first name of a surrogate becomes the first name it stands for."""
    one = RedactionSession(ToldDetector({"Ruth Baker": "PERSON"}), lambda _: "pseudonym")
    first, last = one.redact("Ruth Baker").split()
    assert one.restore(f"Dear {first}, or Ms {last.upper()}, {first}'s") == (
        "Dear Ruth, or Ms Baker, Ruth's"
    )
    stream = one.stream_restorer()
    assert stream.feed(f"Dear {first}") == "Dear "
    assert stream.feed(",") == "Ruth,"


def test_a_surname_alone_is_the_surname_of_its_surrogate() -> None:
    """Who is named in full has the same surrogate words when one of them stands alone."""
    told = dict.fromkeys(["Ruth Baker", "Baker"], "PERSON")
    one = RedactionSession(ToldDetector(told), lambda _: "pseudonym")
    full, alone = one.redact_many(["Ruth Baker", "Baker"])
    assert full.split()[1] == alone
    assert one.restore(f"{full}, {alone}") == "Ruth Baker, Baker"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(GIVEN)), min_size=2, max_size=40, unique=True))
def test_no_first_name_of_a_surrogate_stands_for_two_people(names: list[str]) -> None:
    """However many people there are, a first name in an answer is that of one person, or of none."""
    people = [f"{name} Quill" for name in names] + names[::2]
    one = RedactionSession(ToldDetector(dict.fromkeys(people, "PERSON")), lambda _: "pseudonym")
    made = one.redact_many(people)
    assert one.restore("\n".join(made)).split("\n") == people
    for surrogate, name in zip(made, names, strict=False):
        if not surrogate.startswith("<"):
            assert one.restore(surrogate.split()[0]) == name


@given(st.text(min_size=1, max_size=40), st.sampled_from(sorted(ENTITIES)))
def test_tokens_open_with_the_key(value: str, entity: str) -> None:
    """An encrypted value, lone surrogates included, comes back exactly, within any text."""
    made = StandIns(KEY)
    assert made.decrypt(f"a{made.encrypt(value, entity)}b") == f"a{value}b"
