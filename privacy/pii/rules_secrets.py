"""Secrets: keys and tokens by their issuers' forms, key blocks, credentials in addresses and assignments.

An issuer's form is certain. A value after a word such as ``password`` or ``api_key`` must look
like a secret rather than like code or prose: no variable name, no placeholder, no word.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import log2
from typing import Any, Final

import regex

from privacy.pii.entities import Span
from privacy.pii.rules import ASCII, Rule, time_limit

_CERTAIN: Final = 0.97

# Forms as their issuers publish them for secret scanners.
_ISSUED: Final = {
    "aws_access_key": r"(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA)[A-Z0-9]{16}",
    "github_token": r"gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{22,255}",
    "gitlab_token": r"gl(?:pat|dt|rt|ptt|cbt|ft|imt|agent|soat)-[A-Za-z0-9_.-]{20,64}",
    "slack_token": r"xox[abeoprs]-[A-Za-z0-9-]{10,250}|xapp-\d-[A-Za-z0-9-]{10,250}",
    "stripe_key": r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,250}|whsec_[A-Za-z0-9+/=]{24,}",
    "anthropic_key": r"sk-ant-[A-Za-z0-9_-]{16,200}",
    "openai_key": r"sk-(?:proj-|svcacct-|admin-|or-v1-)?[A-Za-z0-9_-]{16,250}",
    "prefixed_key": r"(?:pk|rk)-[A-Za-z0-9_-]{16,200}",
    "huggingface_token": r"(?:hf|api_org)_[A-Za-z0-9]{20,100}",
    "npm_token": r"npm_[A-Za-z0-9]{36}",
    "pypi_token": r"pypi-[A-Za-z0-9_-]{16,300}",
    "google_api_key": r"AIza[A-Za-z0-9_-]{30,40}",
    "google_oauth": r"ya29\.[A-Za-z0-9_-]{20,300}|GOCSPX-[A-Za-z0-9_-]{20,40}|1//0[A-Za-z0-9_-]{30,120}",
    "sendgrid_key": r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}",
    "twilio_key": r"(?:AC|SK)[0-9a-f]{32}",
    "mailgun_key": r"key-[0-9a-f]{32}",
    "telegram_token": r"\d{8,10}:[A-Za-z0-9_-]{35}",
    "digitalocean_token": r"do[opr]_v1_[a-f0-9]{64}",
    "shopify_token": r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
    "square_token": r"sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,43}|EAAA[A-Za-z0-9_-]{56,64}",
    "databricks_token": r"dapi[a-f0-9]{32}(?:-\d)?",
    "vault_token": r"hv[sbr]\.[A-Za-z0-9_-]{20,200}",
    "docker_token": r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,60}",
    "grafana_token": r"gl(?:c|sa)_[A-Za-z0-9+/=_]{32,400}",
    "linear_key": r"lin_(?:api|oauth)_[A-Za-z0-9]{32,64}",
    "notion_token": r"(?:secret|ntn)_[A-Za-z0-9]{40,60}",
    "groq_key": r"gsk_[A-Za-z0-9]{40,60}",
    "replicate_token": r"r8_[A-Za-z0-9]{30,50}",
    "azure_client_secret": r"[A-Za-z0-9_~.]{3}[78]Q~[A-Za-z0-9_~.-]{31,34}",
    "json_web_token": r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*",
}
_BEGIN: Final = r"(?<![A-Za-z0-9_/.-])"
_TOKEN: Final = regex.compile(
    _BEGIN
    + "(?:"
    + "|".join(f"(?P<{name}>{form})" for name, form in _ISSUED.items())
    + ")(?![A-Za-z0-9])",
    ASCII,
)
# No issuer's token is shorter; prose rarely holds so long a run, so most texts are settled here.
_LONG_RUN: Final = regex.compile(r"[A-Za-z0-9_.:/+-]{18}", ASCII)

_KEY_BLOCK: Final = regex.compile(
    r"-----BEGIN (?P<kind>[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?:.*?-----END (?P=kind)-----|[A-Za-z0-9+/=\s\\]*)",
    ASCII | regex.DOTALL,
)
_CREDENTIAL_URL: Final = regex.compile(
    r"(?<![A-Za-z0-9])(?:jdbc:)?[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s:/?#@\[\]\"'<>]{0,100}:"
    r"(?P<password>[^\s/\"'<>]{1,200})@[^\s\"'<>,;]{1,300}",
    ASCII,
)
# JDBC and ODBC carry the password as a parameter.
_CREDENTIAL_PARAMETER: Final = regex.compile(
    r"(?:(?:jdbc:[a-z0-9:]{2,30}//|(?:Server|Data Source|Driver|DefaultEndpointsProtocol|Endpoint)\s{0,2}=)[^\s\"'<>]{0,300}?)"
    r"(?<=[?&;])(?:password|pwd|AccountKey|SharedAccessKey|SharedAccessSignature)\s{0,2}=(?P<value>[^\s&;\"'<>]{3,300})",
    ASCII | regex.IGNORECASE,
)
_AUTHORIZATION: Final = regex.compile(
    r"(?<![A-Za-z])(?:bearer|basic|token)\s{1,3}(?P<value>[A-Za-z0-9._~+/-]{12,2000}={0,2})",
    ASCII | regex.IGNORECASE,
)

_WORDS: Final = (
    r"pass(?:word|wd|phrase|code)|pwd|(?:api|access|secret|private|encryption|signing|auth|account|client|master"
    r"|storage|license)[ _.-]{0,2}(?:key|token|secret)(?:[ _-]{0,2}(?:id|key|token|secret))?|secret|token|credentials?"
    r"|pin(?: code| number)?|otp|one[- ]time (?:code|password)|verification code|recovery (?:code|key|phrase)"
    r"|contraseña|mot de passe|passwort|kennwort"
)
# The quotes may be escaped, as in JSON inside JSON.
_ASSIGNED: Final = regex.compile(
    rf"(?:(?<![A-Za-z])|(?<=[a-z](?=[A-Z]))|(?<=_))(?:{_WORDS})(?:\s(?:for|of|to)\s[\w .-]{{1,30}}?)?[\\\"'`*]{{0,3}}"
    r"(?P<link>\s{0,3}(?::=|=>|->|[:=])\s{0,3}|\s{1,3}(?:is|was|are|ist|es|est)(?:\s(?:now|still|set to|changed to))?:?\s{1,3}|\s{1,3}(?=[\"'`])|\s(?=\S*[0-9])(?=\S*[A-Za-z]))"
    r"(?P<quote>\\?[\"'`*]{0,3})(?P<value>[^\s\"'`<>\\]{4,300})",
    ASCII | regex.IGNORECASE,
)
# Behind these words a value may be an ordinary word: quoted, or alone to the end of its line.
_PASSWORD: Final = regex.compile(
    r"(?:(?<![A-Za-z])|(?<=[a-z](?=[A-Z]))|(?<=_))(?:pass(?:word|wd|phrase|code)|pwd|passwort|kennwort|contraseña)"
    r"(?:[\\\"'`*]{0,3}\s{0,3}(?:=>|[:=])\s{0,3}|\s{1,3}(?:is|was)\s{1,3})"
    r"(?:\\?(?P<q>[\"'`“])(?P<value>[^\"'`“”\n\\]{3,100})\\?[\"'`”]|(?P<value>[^\s\"'`<>\\,;&(){}\[\]$%]{4,100})(?=\s{0,3}(?:$|[\n;&])))",
    ASCII | regex.IGNORECASE | regex.MULTILINE,
)
_NO_PASSWORD: Final = regex.compile(
    r"(?i:str(?:ing)?|text|int|bool(?:ean)?|none|null|nil|true|false|undefined|required|optional|mandatory|incorrect"
    r"|wrong|invalid|correct|valid|expired?|expiring|missing|empty|blank|weak|strong|secure|changed|reset|set|hidden"
    r"|forgotten|stored|hashed|encrypted|protected|needed|unknown|unset|important|safe|known|long|short|different|shared|visible|saved|working|broken|locked|complex|enough|rejected|accepted|private|public|temporary|permanent|optional|unique|outdated|compromised|stolen|leaked|lost|gone|displayed|shown|entered|used|sent|here|below|above|following|same|too|not|password"
    r"|passwd|passphrase|secret|token|value|input|prompt|redacted|(?:your|my|the|new|old|enter|some)\b.*|x{3,}|\*+|\.{3,})"
    r"|[$%{<].*|.*[({].*|[a-z_]+(?:\.[a-z_]+)+|[a-z]+_[a-z_]*",
    ASCII,
)
_BASIC_OPTION: Final = regex.compile(
    r"(?:-u|--user|--proxy-user)[ =][\"']?(?P<value>[^\s:\"'$]{1,64}:[^\s\"'$]{3,100})", ASCII
)
_CHINESE: Final = regex.compile(
    r"(?:密码|口令|密钥|令牌|验证码)\s{0,3}(?:[:：=]|是|为)\s{0,3}(?P<value>[!-~]{4,100})"
)
_TRAILING: Final = ".,;:)]}"
_NUMERIC_WORD: Final = regex.compile(
    r"(?:pin|otp|code|pass(?:word|code|wd)|pwd|kennwort|passwort|contraseña|mot de passe)", regex.I
)
# What code puts behind such a word: calls, attributes, variables, types, templates, paths.
_CODE: Final = regex.compile(
    r".*[({\[].*|[$%{<].*|(?:self|this|os|env|process|config|settings|args|request|ctx)\..*"
    r"|[A-Za-z_]+(?:\.[A-Za-z_]+)+|[a-z]+(?:[_-][a-z]+)*|[A-Z]+(?:_[A-Z]+)*|[A-Z]?[a-z]+(?:[A-Z][a-z]+)*"
    r"|(?:https?:)?/.*|[*.xX•_#-]+|\.\.\.|[A-Z][A-Z_]+_\d{1,2}",
    ASCII,
)
_UUID: Final = regex.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", ASCII)
_WORD: Final = regex.compile(r"[A-Za-z]{3,}", ASCII)


def _entropy(value: str) -> float:
    """Shannon entropy of the characters, in bits per character."""
    counts = Counter(value)
    return -sum(n / len(value) * log2(n / len(value)) for n in counts.values())


def looks_secret(value: str, spoken: bool = False, numeric: bool = False) -> bool:
    """Whether a value behind a word such as ``password`` is one, rather than code or prose.

    ``spoken`` values follow "is", where prose may follow too; ``numeric`` words may be answered
    by digits alone.
    """
    if len(value) < 4 or _CODE.fullmatch(value):
        return False
    digits = sum(character.isdigit() for character in value)
    if digits == len(value):
        return numeric and len(value) <= 12
    letters = sum(character.isalpha() for character in value)
    if letters == 0:
        return len(value) >= 6 and not spoken
    if len(value) < 6 and not (digits and letters):
        return False
    if digits == 0 and letters == len(value):
        return len(value) >= 16 and _entropy(value) >= 3.5
    marks = len(value) - digits - letters
    if spoken and digits == 0 and marks <= 1 and value.strip("'-").isalpha():
        return False
    if digits == 0 and all(part.islower() for part in regex.split(r"[^A-Za-z]", value) if part):
        # Words with hyphens or slashes, as in option names; a mark of a password is another one.
        return bool(set(value) & set("!@#$%^&*+~?"))
    return _entropy(value) >= 1.5


_PASSWORD_HINTS: Final = ("pass", "pwd", "kennwort", "contrase")
_HINTS: Final = (
    *_PASSWORD_HINTS,
    "key",
    "secret",
    "token",
    "credential",
    "pin",
    "otp",
    "code",
    "mot de",
)


@dataclass(frozen=True)
class SecretRule(Rule):
    """All secrets; one quick look settles most texts."""

    def find(self, text: str) -> Iterator[Span]:
        if _LONG_RUN.search(text):
            for match in _TOKEN.finditer(text, timeout=time_limit(text)):
                yield _span(match.start(), match.end(), _CERTAIN, str(match.lastgroup))
            for match in _AUTHORIZATION.finditer(text, timeout=time_limit(text)):
                value = match.group("value")
                if any(c.isdigit() for c in value) and not _UUID.fullmatch(value):
                    yield _value(match, 0.9, "authorization_header")
        if "://" in text:
            for match in _CREDENTIAL_URL.finditer(text, timeout=time_limit(text)):
                if match.group("password")[0] not in "${<*":
                    yield _span(match.start(), match.end(), _CERTAIN, "credential_url")
        if "=" in text:
            for match in _CREDENTIAL_PARAMETER.finditer(text, timeout=time_limit(text)):
                yield _span(match.start(), match.end(), 0.95, "connection_string")
        if "PRIVATE KEY" in text:
            for match in _KEY_BLOCK.finditer(text, timeout=time_limit(text)):
                yield _span(match.start(), match.end(), 1.0, "private_key")
        if "-u" in text:
            for match in _BASIC_OPTION.finditer(text, timeout=time_limit(text)):
                yield _value(match, 0.85, "basic_credentials")
        folded = text.lower()
        if any(part in folded for part in _HINTS):
            for match in self.pattern.finditer(text, timeout=time_limit(text)):
                if (span := _assigned(match)) is not None:
                    yield span
        if any(part in folded for part in _PASSWORD_HINTS):
            for match in _PASSWORD.finditer(text, timeout=time_limit(text)):
                if not _NO_PASSWORD.fullmatch(match.group("value").strip(" .,;:!?")):
                    yield _value(match, 0.85, "assigned_password")
        if not text.isascii():
            for match in _CHINESE.finditer(text, timeout=time_limit(text)):
                if looks_secret(match.group("value"), numeric=True):
                    yield _value(match, 0.85, "assigned_secret")


def _assigned(match: Any) -> Span | None:
    value = match.group("value")
    if not match.group("quote"):
        value = value.rstrip(_TRAILING)
    link = match.group("link").strip()
    spoken = not any(mark in link for mark in ":=>") and not match.group("quote")
    numeric = _NUMERIC_WORD.match(match.group()) is not None
    if not value or not looks_secret(value, spoken, numeric):
        return None
    start = match.start("value")
    return _span(start, start + len(value), 0.85, "assigned_secret")


def _value(match: Any, score: float, name: str) -> Span:
    return _span(match.start("value"), match.end("value"), score, name)


def _span(start: int, end: int, score: float, name: str) -> Span:
    return Span(start, end, "SECRET", score, f"rule:{name}")


SECRET_RULES: Final[tuple[Rule, ...]] = (SecretRule("SECRET", _ASSIGNED),)
