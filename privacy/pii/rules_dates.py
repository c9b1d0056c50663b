"""Rules for dates of birth, ages and, where asked for, any calendar date and time of day.

Durations and relative times ("two weeks", "yesterday") say nothing about a person and are left.
"""

from typing import Any, Final

import regex

from privacy.pii.rules import DIGITS, Rule, rule

# Month names: English, German, French, Spanish, Italian, Dutch and Portuguese, with abbreviations.
_MONTHS: Final = (
    r"(?:jan(?:uary|uar|uari|v(?:ier|\.)?|eiro)?|jänner|feb(?:ruary|ruar|ruari|braio|rero|ereiro)?|févr(?:ier)?|fev(?:ereiro)?"
    r"|mar(?:ch|s|z|zo|ço)?|märz|maart|apr(?:il|ile)?|avr(?:il)?|abril|may|mai|mei|maggio|mayo|maio|june?|juni|juin|giugno|junio|junho"
    r"|july?|juli|juil(?:let)?|luglio|julio|julho|aug(?:ust|ustus)?|août|agosto|sept?(?:ember|embre|iembre)?|settembre|setembro"
    r"|o[ck]t(?:ober|obre|ubre)?|ottobre|outubro|nov(?:ember|embre|iembre|embro)?|de[cz](?:ember|embre|iembre)?|dicembre|diciembre"
    r"|déc(?:embre)?|dezembro|gennaio|enero)(?![a-zäöüéû])"
)
_DAY: Final = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH: Final = r"(?:0?[1-9]|1[0-2])"
_YEAR: Final = r"(?:18|19|20)\d\d"
_CLOCK: Final = r"(?:[01]?\d|2[0-3])(?::[0-5]\d){1,2}(?:\.\d{1,6})?(?: ?[ap]\.?m(?![a-z])\.?)?(?:Z| ?[+-]\d\d:?\d\d)?"
DATE: Final = (
    rf"(?:{_YEAR}([-/.]){_MONTH}\1{_DAY}(?:[T ]{_CLOCK})?"
    rf"|{_DAY}[-/.]{_DAY}[-/.](?:{_YEAR}|\d\d)(?:,? {_CLOCK})?"
    rf"|{_DAY}(?:st|nd|rd|th|\.|er)?(?: of| de)?[ -]{_MONTHS}\.?(?:,?[ -]| de )(?:{_YEAR}|'?\d\d)"
    rf"|{_MONTHS}\.? {_DAY}(?:st|nd|rd|th)?,? {_YEAR}"
    rf"|{_YEAR}[ -]{_MONTHS}[ -]{_DAY})"
)
_PARTIAL: Final = (
    rf"(?:{_DAY}(?:st|nd|rd|th)?(?: of)? {_MONTHS}|{_MONTHS}\.? {_DAY}(?:st|nd|rd|th)?|{_MONTHS},? {_YEAR}"
    rf"|{_MONTH}/{_YEAR})"
)
_WEEKDAY: Final = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_BIRTH_CUE: Final = (
    r"born(?: on| in)?|birth|birthday|birthdate|dob|d\.o\.b\.?|date of birth|b\.|geboren(?: am)?|geburtsdatum|geb\."
    r"|né(?:e|\(e\))?(?: le)?|naissance|nacid[oa](?: el)?|nacimiento|nat[oa](?: il)?|nascita"
)
_TENS: Final = r"(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)"
_ONES: Final = r"(?:one|two|three|four|five|six|seven|eight|nine)"
_TEENS: Final = (
    r"(?:ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen)"
)
_IN_WORDS: Final = rf"(?:{_TENS}(?:[ -]{_ONES})?|{_TEENS}|{_ONES})"
_AGE: Final = r"(?:1[01]\d|[1-9]?\d)"
_ANY_AGE: Final = rf"(?:{_AGE}|{_IN_WORDS})"
_UNIT: Final = r"(?:years?|yrs?\.?|months?|weeks?|days?|jahre?|ans|años|anni)"
_OLD: Final = (
    *("old", "of age", "of-age", "alt", "young", "y/o", "y.o"),
    *(f"{digit}{gap}yo" for digit in DIGITS for gap in ("", " ", "-")),
)
# What may follow "I am 34": nothing that makes the number an amount.
_SENTENCE_END: Final = (
    r"(?=\s{0,2}(?:[.,;:!?)]|$|\n|(?:and|but|now|today|next|this)(?![a-z])))(?![.,:]\d)"
)


def _rule(
    entity: str,
    pattern: str,
    score: float,
    name: str,
    *,
    flags: int = regex.IGNORECASE,
    **more: Any,
) -> Rule:
    return rule(entity, pattern, score, name=name, flags=flags | regex.MULTILINE, **more)


DATE_RULES: Final[tuple[Rule, ...]] = (
    _rule(
        "DATE_OF_BIRTH",
        rf"{DATE}|{_PARTIAL}|(?<=born (?:in )?){_YEAR}",
        0.0,
        "birth_date",
        cue=_BIRTH_CUE,
        cued=0.96,
        needs=(
            "birth",
            "born",
            "dob",
            "d.o.b",
            "b.",
            "geb",
            "né",
            "naiss",
            "naci",
            "nat",
            "nascita",
        ),
    ),
    _rule(
        "AGE",
        rf"(?P<value>{_ANY_AGE})(?:[ -]{{0,2}}{_UNIT}[ -]{{1,2}}(?:old|of[ -]age|alt|young)|[ -]?y/?o|[ -]?y\.o\.?)",
        0.9,
        "age_in_years",
        needs=_OLD,
    ),
    _rule(
        "AGE",
        rf"(?:(?:aged?|alter|âge|edad|età)(?: group)?(?: is|:|=)?(?: of| at)?|at (?:the )?(?:ripe )?(?:old )?age(?: of)?) {{0,2}}(?P<value>{_ANY_AGE})"
        r"(?!\d|[.:/-]\d|%)",
        0.85,
        "age_after_word",
        needs=("age", "alter", "âge", "edad", "età"),
    ),
    _rule(
        "AGE",
        rf"(?:turn(?:s|ed|ing)?|celebrat(?:es?|ed|ing) (?:his|her|their|my)) (?P<value>{_AGE})(?:st|nd|rd|th)?(?: birthday|{_SENTENCE_END})",
        0.75,
        "age_turned",
        needs=("turn", "celebrat"),
    ),
    _rule(
        "AGE",
        rf"(?:I am|I'm|he is|he's|she is|she's|(?<=, )who is|who's|is only|am only|is already) (?P<value>[1-9]\d){_SENTENCE_END}",
        0.65,
        "age_stated",
        needs=("i am", "i'm", "is ", "he's", "who's", "only"),
    ),
    _rule(
        "AGE",
        r"(?:(?<=(?:pt|Pt|PT|patient|Patient)\.?[:,]? (?:is )?(?:an? )?)(?P<value>[1-9]\d)[ -]?[MF](?![A-Za-z'-])|(?P<value>[1-9]\d) ?(?i:yo ?[mf])"
        r"|(?P<value>[1-9]\d)[MF](?=,? (?:with|w/|c/o|h/o|hx|s/p|here|present|complain|admitted|in|from)))",
        0.6,
        "age_sex",
        flags=0,
        latin=True,
        digits=2,
    ),
    _rule("AGE", r"[MF]/(?P<value>[1-9]\d)", 0.6, "sex_age", flags=0, latin=True, digits=2),
    _rule(
        "AGE",
        r"(?<=[,(] ?)(?P<value>[1-9]\d)(?=, ?(?:male|female|man|woman|from|of)(?![a-z])|\) ?(?:was|is|of|from|has|said)(?![a-z]))",
        0.6,
        "age_in_apposition",
        latin=True,
        digits=2,
    ),
    _rule(
        "AGE",
        r"in (?:his|her|my|their) (?P<value>(?:early |mid[ -]|late )?(?:[1-9]0s|(?:twen|thir|for|fif|six|seven|eigh|nine)ties))",
        0.7,
        "age_decade",
        needs=("in his", "in her", "in my", "in their"),
    ),
    _rule("DATE_TIME", rf"(?:{_WEEKDAY},? )?{DATE}", 0.8, "date", needs=DIGITS),
    _rule(
        "DATE_TIME",
        rf"(?:{_WEEKDAY},? )?{_PARTIAL}",
        0.6,
        "partial_date",
        needs=DIGITS,
    ),
    _rule("DATE_TIME", _WEEKDAY, 0.6, "weekday", needs=("day",)),
    _rule(
        "DATE_TIME",
        rf"{_CLOCK}|(?:1[0-2]|0?[1-9]) ?[ap]\.?m(?![a-z])\.?",
        0.6,
        "clock",
        needs=DIGITS,
    ),
    _rule(
        "DATE_TIME",
        r"(?<![.,#$£€/+-])(?<!(?:no|nr)\.? )(?:19[0-9]\d|20[0-4]\d)(?![.,/:-]\d|%| ?(?:units|items|people|employees|km|kg|g|mb|gb)(?![a-z]))",
        0.55,
        "year",
        needs=DIGITS,
    ),
)
