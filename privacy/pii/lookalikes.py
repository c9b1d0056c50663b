"""Characters that look like others: invisible ones, letters of other scripts, styled letters and digits.

Says what a reader sees, character by character; :mod:`privacy.pii.disguises` keeps the offsets.
Sources: Unicode Technical Standard 39 (confusables) for the letters that fool the eye at reading
size, Unicode Standard Annex 15 (NFKC) for styled ones.
"""

import unicodedata
from typing import Final

import regex

INVISIBLE_CLASS: Final = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    r"\uffa0\U000e0000-\U000e0fff"
)
# Marks that cross a letter out or underline it; accents stay.
_OVERLAY: Final = r"\u0332-\u0338\u20d0-\u20f0"
# Between these an invisible character hides something; beside emoji or Indic letters it has a task.
_VISIBLE: Final = r"\p{Latin}\p{Greek}\p{Cyrillic}\p{Han}0-9@.+_\-"
HIDDEN: Final = regex.compile(
    rf"(?<=[{_VISIBLE}][{INVISIBLE_CLASS}{_OVERLAY}]{{0,8}})[{INVISIBLE_CLASS}]+(?=[{INVISIBLE_CLASS}{_OVERLAY}]*[{_VISIBLE} ]|[{_OVERLAY}])"
    rf"|(?<=[{_VISIBLE}][{INVISIBLE_CLASS}]{{0,4}})[{_OVERLAY}]+",
    regex.VERSION1,
)

_PAIRS: Final = {
    # Cyrillic
    **dict(zip("АВЕЅІЈКМНОРСТУХԌԚԜҮѴ", "ABESIJKMHOPCTYXGQWYV", strict=True)),
    **dict(zip("аеѕіјорсухԁԛԝһӏѵқкмтпгв", "aesijopcyxdqwhlvkkmtnrb", strict=True)),
    # Greek
    **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABEZHIKMNOPTYX", strict=True)),
    **dict(zip("αικνορτυχηωγε", "aikvoptuxnwye", strict=True)),
    # Armenian, Cherokee and Latin letters
    **dict(zip("օոսհցքԼՏ", "onuhgpLS", strict=True)),
    **dict(zip("ᎪᏴᏟᎠᎬᎻᎫᏦᏞᎷᏢᎡᏚᎢᏙᎳᏃ", "ABCDEHJKLMPRSTVWZ", strict=True)),
    **dict(zip("ıɑɡɩʏɴʀʟʜɢɪʙ", "iagiynrlhgib", strict=True)),
    **dict(zip("ᴀᴄᴅᴇᴊᴋᴍᴏᴘᴛᴜᴠᴡᴢ", "acdejkmoptuvwz", strict=True)),
    # Signs
    **dict(zip("․﹒·﹫⁄∕⧸﹣−⁃‚٫", "...@///---,.", strict=True)),
}
_LETTERS: Final = {ord(one): plain for one, plain in _PAIRS.items()}
_FOREIGN: Final = regex.compile(r"[\p{Cyrillic}\p{Greek}\p{Armenian}\p{Cherokee}]", regex.VERSION1)
_LOOKALIKE: Final = regex.compile("[" + regex.escape("".join(_PAIRS)) + "]", regex.VERSION1)
_ASCII_LETTER: Final = regex.compile("[A-Za-z]")
_RUN: Final = regex.compile(r"\S+")
_STYLED: Final = regex.compile(
    r"[\U0001d400-\U0001d7ff\u2460-\u24ff\u2776-\u2793\u2100-\u214f\uff01-\uff5e\ufe50-\ufe6b\U0001f110-\U0001f189]"
    r"|[\u00b2\u00b3\u00b9\u2070-\u2079\u2080-\u2089]{3,}|(?![0-9])\p{Nd}",
    regex.VERSION1,
)
_NEGATIVE: Final = {0x1F150: "A", 0x1F170: "A", 0x1F130: "A"}
_WIDTH: Final = 26

Edit = tuple[int, int, str]
"""Replace ``text[start:end]`` by the string."""


def edits(text: str) -> list[Edit]:
    """What must change so that ``text`` is to a pattern what it is to a reader; in order, disjoint."""
    found: list[Edit] = [(match.start(), match.end(), "") for match in HIDDEN.finditer(text)]
    for match in _STYLED.finditer(text):
        found += [
            (at, at + 1, plain)
            for at in range(match.start(), match.end())
            if (plain := _unstyled(text[at])) is not None
        ]
    found += _letters(text)
    return sorted(found)


def _letters(text: str) -> list[Edit]:
    """Letters of another script among Latin ones; a text in that script is left alone."""
    if not _LOOKALIKE.search(text):
        return []
    foreign = _FOREIGN.findall(text)
    latin = len(_ASCII_LETTER.findall(text))
    written = any(ord(letter) not in _LETTERS for letter in foreign) or len(foreign) > latin
    parts = [(0, len(text))]
    if written:
        parts = [run.span() for run in _RUN.finditer(text) if _mixed(run.group())]
    return [
        (match.start(), match.end(), _LETTERS[ord(match.group())])
        for start, end in parts
        for match in _LOOKALIKE.finditer(text, start, end)
    ]


def _mixed(run: str) -> bool:
    """Whether letters that look alike stand between Latin letters, or make up an address."""
    if not _LOOKALIKE.search(run):
        return False
    others = [letter for letter in _FOREIGN.findall(run) if ord(letter) not in _LETTERS]
    return not others and ("@" in run or _ASCII_LETTER.search(run) is not None)


def _unstyled(character: str) -> str | None:
    """The ASCII form of a styled letter, digit or sign; None where it has none."""
    code = ord(character)
    for first, letter in _NEGATIVE.items():
        if first <= code < first + _WIDTH:
            return chr(ord(letter) + code - first)
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return str(digit)
    plain = unicodedata.normalize("NFKC", character).strip("()")
    return plain if plain.isascii() and plain != character and plain else None
