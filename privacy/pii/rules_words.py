"""Rules for written things: e-mail and web addresses, handles, wallets, names beside a title.

They find names only where a title or a phrase gives them away; finding names in
running text takes a model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import regex

from privacy.pii.entities import Span
from privacy.pii.rules import LETTERS, Rule, rule
from privacy.pii.rules_dates import DATE_RULES
from privacy.pii.rules_roles import ROLE_RULES
from privacy.pii.rules_secrets import SECRET_RULES

_LOCAL: Final = r"\p{Latin}\p{Mn}0-9.!#$%&'*+/=?^_`{|}~\-"
_LABEL: Final = r"[\p{Latin}\p{Mn}0-9](?:[\p{Latin}\p{Mn}0-9-]{0,61}[\p{Latin}\p{Mn}0-9])?"
_DOMAINS: Final = (
    "com|org|net|edu|gov|info|biz|io|ai|app|dev|co|me|tv|us|uk|de|fr|es|it|nl|be|ch|at|se|no|dk|fi|pl|pt|cz"
    "|ie|eu|ca|au|nz|in|jp|cn|hk|tw|kr|sg|ru|br|mx|za|il|hu|is|cy|tn|gl|uy|ro|gr|tr|cc|xyz|online|site|top"
)

_NAME: Final = r"(?:\p{Lu}\.|\p{Lu}[\p{Latin}\p{Mn}]*(?:['-]\p{Lu}?[\p{Latin}\p{Mn}]+)*)"
_FULL_NAME: Final = rf"{_NAME}(?: (?:{_NAME}|de|da|del|van|von|der|den|bin|al|la|le|di)){{0,3}}"


# "john at example dot com": the last label must be a known domain, or the signs must be bracketed.
_AT: Final = r"(?:@| @ | ?[(\[{<] ?@ ?[)\]}>] ?| ?[(\[{<] ?at ?[)\]}>] ?)"
_AT_WORD: Final = r"(?:\s{1,2}at\s{1,2}|_at_|-at-)"
_DOT: Final = r"(?: ?[(\[{<] ?(?:dot|\.|punkt|punto|point) ?[)\]}>] ?|\.| \. |\s{1,2}dot\s{1,2})"
_DOT_WORD: Final = r"(?: ?[(\[{<] ?(?:dot|\.) ?[)\]}>] ?|\s{1,2}dot\s{1,2})"
_PART: Final = r"[\p{Latin}\p{Mn}0-9_+-]{1,64}"
_LOCAL_SPELLED: Final = (
    rf"{_PART}(?:(?:\.|\s{{1,2}}(?:dot|underscore|dash)\s{{1,2}}"
    rf"| ?[(\[{{<] ?(?:dot|\.|underscore) ?[)\]}}>] ?){_PART}){{0,5}}"
)
_AT_ANY: Final = regex.compile(rf"{_AT}|{_AT_WORD}", LETTERS | regex.IGNORECASE)
_BEFORE_AT: Final = regex.compile(
    rf"(?<![\p{{Latin}}\p{{Mn}}0-9._+-]){_LOCAL_SPELLED}\Z", LETTERS | regex.I
)
_END: Final = rf"(?:{_DOMAINS})(?![\p{{L}}0-9])"
# After a mere "at", a domain with ordinary dots is likelier a web address: only well-known ends count.
_AFTER_SIGN: Final = regex.compile(
    rf"{_PART}(?:{_DOT}{_PART}){{0,4}}{_DOT}{_END}", LETTERS | regex.I
)
_AFTER_WORD: Final = regex.compile(
    rf"{_PART}(?:{_DOT}{_PART}){{0,4}}{_DOT_WORD}{_END}", LETTERS | regex.I
)
_ACCOUNT_MARK: Final = regex.compile(r"[0-9._+-]")
_PROVIDER: Final = regex.compile(
    r"(?:gmail|googlemail|yahoo|hotmail|outlook|live|icloud|aol|protonmail|proton|gmx|web|mail|qq|163|126|yandex|zoho)\.",
    regex.IGNORECASE,
)
_LONGEST_LOCAL: Final = 100
_SPELLED_SIGNS: Final = (
    *("@", "dot", "(at", "[at", "{at", "<at", "( at", "[ at", "{ at", "< at"),
    *("[.", "(.", "{.", "<.", " at "),
)


@dataclass(frozen=True)
class SpelledAddresses(Rule):
    """E-mail addresses with words, brackets or spaces around their signs."""

    def find(self, text: str) -> Iterator[Span]:
        for sign in self.pattern.finditer(text):
            spoken = sign.group().strip(" \t\n_-").casefold() == "at"
            domain = (_AFTER_WORD if spoken else _AFTER_SIGN).match(text, sign.end())
            # "look at example.com": only an account's name or a mail provider makes it an address.
            plain = domain is None and spoken
            if plain:
                domain = _AFTER_SIGN.match(text, sign.end())
            if domain is None:
                continue
            first = max(0, sign.start() - _LONGEST_LOCAL)
            local = _BEFORE_AT.search(text[first : sign.start()])
            if local is not None and plain:
                account = _ACCOUNT_MARK.search(local.group()) is not None
                if not (account or _PROVIDER.match(domain.group())):
                    continue
            if local is not None:
                yield Span(
                    first + local.start(), domain.end(), self.entity, self.score, self.source
                )


def _domain_known(match: Any) -> float:
    return 1.0 if "." in match.group().rpartition("@")[2] else 0.7


WORD_RULES: Final[tuple[Rule, ...]] = (
    *SECRET_RULES,
    *DATE_RULES,
    *ROLE_RULES,
    Rule(
        "USER_HANDLE",
        regex.compile(
            r"(?<![A-Za-z0-9_.@/])@(?=[A-Za-z0-9_.]{0,29}[A-Za-z])[A-Za-z0-9_](?:[A-Za-z0-9_.]{0,28}[A-Za-z0-9_])?(?![A-Za-z0-9_@(/])"
        ),
        0.6,
        name="handle",
        needs=("@",),
    ),
    Rule(
        "USER_HANDLE",
        regex.compile(
            r"(?<![A-Za-z])(?:username|user name|user ?id|login|skype(?: id)?|discord|telegram|instagram|insta|twitter|snapchat|handle)"
            r"(?:\s(?:is|name)\s{1,3}(?=\S{0,31}[0-9_@.]\S)|:\s{0,3}|=)(?P<value>@?(?=[A-Za-z0-9_.#-]{0,31}[A-Za-z])[A-Za-z0-9][A-Za-z0-9_.#-]{2,31}(?<![.-]))",
            regex.IGNORECASE | regex.VERSION1,
        ),
        0.65,
        name="handle_after_word",
        latin=True,
    ),
    Rule(
        "EMAIL_ADDRESS",
        regex.compile(rf"(?<![{_LOCAL}])[{_LOCAL}]{{1,64}}@{_LABEL}(?:\.{_LABEL}){{0,8}}", LETTERS),
        check=_domain_known,
        name="email",
        needs=("@",),
    ),
    SpelledAddresses("EMAIL_ADDRESS", _AT_ANY, 0.9, name="email_spelled", needs=_SPELLED_SIGNS),
    Rule(
        "URL",
        regex.compile(
            r"(?<![A-Za-z0-9@])(?:https?://|ftp://|www\.)[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*[A-Za-z0-9/_=&#-]",
            LETTERS | regex.IGNORECASE,
        ),
        0.9,
        name="url",
        needs=("://", "www."),
    ),
    rule(
        "URL",
        rf"(?<![@.-])(?:[a-z0-9](?:[a-z0-9-]{{0,61}}[a-z0-9])?\.){{1,5}}(?:{_DOMAINS})(?![.-]?[A-Za-z0-9@])(?:/[A-Za-z0-9\-._~:/?#@!$&'*+,;=%]*[A-Za-z0-9/_=&#-])?",
        0.6,
        flags=regex.IGNORECASE,
        name="domain",
        needs=(".",),
        latin=True,
    ),
    rule(
        "CRYPTO",
        r"(?:bc1[a-z0-9]{25,59}|[13][a-km-zA-HJ-NP-Z1-9]{25,34}|0x[A-Fa-f0-9]{40})",
        0.8,
        name="wallet",
        latin=True,
        digits=1,
    ),
    rule(
        "PERSON",
        rf"(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Dame)\.? (?P<value>{_FULL_NAME})",
        0.8,
        name="name_after_title",
        latin=True,
    ),
    rule(
        "PERSON",
        rf"(?i:my name is|name is|full name:?|name:|employee:|contact:|attn:?|dear|regards,|sincerely,|signed,?)\s{{1,3}}(?!(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Your|Name|The|Our|All|Team|Sir|Madam)(?!\p{{L}}))(?P<value>{_FULL_NAME})",
        0.65,
        name="name_after_word",
        latin=True,
    ),
)
