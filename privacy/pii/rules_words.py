"""Rules for written things: e-mail and web addresses, dates of birth, secrets, names beside a title.

They find names only where a title or a phrase gives them away; finding names in
running text takes a model.
"""

from typing import Any, Final

import regex

from privacy.pii.rules import LETTERS, Rule, rule
from privacy.pii.surnames_zh import COMPOUND, FREQUENT

_LOCAL: Final = r"\p{Latin}\p{Mn}0-9.!#$%&'*+/=?^_`{|}~\-"
_LABEL: Final = r"[\p{Latin}\p{Mn}0-9](?:[\p{Latin}\p{Mn}0-9-]{0,61}[\p{Latin}\p{Mn}0-9])?"
_DOMAINS: Final = (
    "com|org|net|edu|gov|info|biz|io|ai|app|dev|co|me|tv|us|uk|de|fr|es|it|nl|be|ch|at|se|no|dk|fi|pl|pt|cz"
    "|ie|eu|ca|au|nz|in|jp|cn|hk|tw|kr|sg|ru|br|mx|za|il|hu|is|cy|tn|gl|uy|ro|gr|tr|cc|xyz|online|site|top"
)

_MONTHS: Final = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
DATE: Final = (
    r"(?:(?:19|20)\d\d[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])[-/.](?:0?[1-9]|[12]\d|3[01])[-/.](?:19|20)?\d\d"
    rf"|(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?(?: of)?[ -]{_MONTHS}\.?,?[ -](?:19|20)?\d\d"
    rf"|{_MONTHS}\.? (?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?,? (?:19|20)\d\d"
    r"|(?:19|20)\d\d年(?:0?[1-9]|1[0-2])月(?:0?[1-9]|[12]\d|3[01])[日号]?)"
)
_BIRTH_CUE: Final = r"born(?: on)?|birth|birthday|birthdate|dob|d\.o\.b\.?|date of birth|出生(?:日期|年月)?|生日|生于"

_NAME: Final = r"(?:\p{Lu}\.|\p{Lu}[\p{Latin}\p{Mn}]*(?:['-]\p{Lu}?[\p{Latin}\p{Mn}]+)*)"
_FULL_NAME: Final = rf"{_NAME}(?: (?:{_NAME}|de|da|del|van|von|der|den|bin|al|la|le|di)){{0,3}}"
_COMPOUND: Final = "|".join(COMPOUND)
_HAN_NAME: Final = rf"(?:{_COMPOUND}|[{FREQUENT}])[\u4e00-\u9fff]{{1,2}}"


def _domain_known(match: Any) -> float:
    return 1.0 if "." in match.group().rpartition("@")[2] else 0.7


WORD_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "EMAIL_ADDRESS",
        regex.compile(rf"(?<![{_LOCAL}])[{_LOCAL}]{{1,64}}@{_LABEL}(?:\.{_LABEL}){{0,8}}", LETTERS),
        check=_domain_known,
    ),
    rule(
        "EMAIL_ADDRESS",
        rf"[A-Za-z0-9._+-]{{1,64}} ?(?:\(at\)|\[at\]|\{{at\}}) ?{_LABEL}(?: ?(?:\(dot\)|\[dot\]|\.) ?{_LABEL}){{1,5}}",
        0.9,
        flags=regex.IGNORECASE,
    ),
    Rule(
        "URL",
        regex.compile(
            r"(?<![A-Za-z0-9@])(?:https?://|ftp://|www\.)[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*[A-Za-z0-9/_=&#-]",
            LETTERS | regex.IGNORECASE,
        ),
        0.9,
    ),
    rule(
        "URL",
        rf"(?<![@.-])(?:[a-z0-9](?:[a-z0-9-]{{0,61}}[a-z0-9])?\.){{1,5}}(?:{_DOMAINS})(?![.-]?[A-Za-z0-9@])(?:/[A-Za-z0-9\-._~:/?#@!$&'*+,;=%]*[A-Za-z0-9/_=&#-])?",
        0.6,
        flags=regex.IGNORECASE,
    ),
    rule("DATE_OF_BIRTH", DATE, cue=_BIRTH_CUE, cued=0.9, flags=regex.IGNORECASE),
    rule("DATE_TIME", DATE, 0.8, flags=regex.IGNORECASE),
    rule(
        "SECRET",
        r"(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}|AKIA[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{30,}"
        r"|xox[abprs]-[A-Za-z0-9-]{10,}|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+",
        0.95,
    ),
    Rule(
        "SECRET",
        regex.compile(
            r"(?:password|passwd|pwd|passcode|密码|口令)(?:\s+is\s+|\s*(?:[:=]|是|为)\s*)(?P<value>(?=\S{0,63}[0-9\W_])[!-~]{6,64}(?<![.,;!?]))",
            LETTERS | regex.IGNORECASE,
        ),
        0.8,
    ),
    rule(
        "CRYPTO", r"(?:bc1[a-z0-9]{25,59}|[13][a-km-zA-HJ-NP-Z1-9]{25,34}|0x[A-Fa-f0-9]{40})", 0.8
    ),
    rule(
        "PERSON",
        rf"(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Dame)\.? (?P<value>{_FULL_NAME})",
        0.8,
    ),
    rule(
        "PERSON",
        rf"(?i:my name is|name is|full name:?|name:|employee:|contact:|attn:?|dear|regards,|sincerely,|signed,?)\s{{1,3}}(?P<value>{_FULL_NAME})",
        0.65,
    ),
    Rule(
        "PERSON",
        regex.compile(
            rf"(?:姓名|联系人|收件人|收货人|申请人|经办人|负责人|持卡人|户名|我叫|名叫|叫做)(?:是|为)?[:： ]{{0,2}}(?P<value>{_HAN_NAME})",
            LETTERS,
        ),
        0.8,
    ),
    Rule(
        "PERSON",
        regex.compile(
            r"(?:姓名|联系人|收件人|收货人|申请人|经办人|持卡人|户名)[:：] ?(?P<value>[\u4e00-\u9fff]{2,4})(?=[\s,;.()，；。、（）]|$)",
            LETTERS,
        ),
        0.7,
    ),
    Rule(
        "PERSON",
        regex.compile(
            rf"(?P<value>(?:{_COMPOUND}|[{FREQUENT}])[\u4e00-\u9fff]{{0,2}}?)(?:先生|女士|小姐|老师|经理|主任|同学|教授|医生|工程师|总监)",
            LETTERS,
        ),
        0.65,
    ),
)
