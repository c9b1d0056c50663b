"""Rules for postal addresses in the American, British and Chinese manner."""

from typing import Final

import regex

from privacy.pii.rules import LETTERS, Rule, rule

# USPS Publication 28, appendix C1 (street suffixes), with the common abbreviations.
_SUFFIXES: Final = (
    "Alley|Avenue|Ave|Branch|Bridge|Brook|Brooks|Burg|Burgs|Bypass|Camp|Canyon|Cape|Causeway|Center|Centers|Circle"
    "|Circles|Cliff|Cliffs|Close|Club|Common|Corner|Corners|Course|Court|Courts|Cove|Coves|Creek|Crescent|Crest"
    "|Crossing|Crossroad|Curve|Dale|Dam|Divide|Drive|Drives|Dr|Estate|Estates|Expressway|Extension|Extensions|Fall"
    "|Falls|Ferry|Field|Fields|Flat|Flats|Ford|Fords|Forest|Forge|Forges|Fork|Forks|Fort|Freeway|Garden|Gardens"
    "|Gateway|Glen|Glens|Green|Greens|Grove|Groves|Harbor|Harbors|Haven|Heights|Highway|Hwy|Hill|Hills|Hollow|Inlet"
    "|Island|Islands|Isle|Junction|Junctions|Key|Keys|Knoll|Knolls|Lake|Lakes|Land|Landing|Lane|Ln|Light|Lights|Loaf"
    "|Lock|Locks|Lodge|Loop|Mall|Manor|Manors|Meadow|Meadows|Mews|Mill|Mills|Mission|Motorway|Mount|Mountain"
    "|Mountains|Neck|Orchard|Oval|Overpass|Park|Parks|Parkway|Parkways|Pass|Passage|Path|Pike|Pine|Pines|Place|Plain"
    "|Plains|Plaza|Point|Points|Port|Ports|Prairie|Radial|Ramp|Ranch|Rapid|Rapids|Rest|Ridge|Ridges|River|Road|Roads"
    "|Rd|Route|Row|Rue|Run|Shoal|Shoals|Shore|Shores|Skyway|Spring|Springs|Spur|Spurs|Square|Squares|Station"
    "|Stravenue|Stream|Street|Streets|St|Summit|Terrace|Throughway|Trace|Track|Trafficway|Trail|Tunnel|Turnpike"
    "|Underpass|Union|Unions|Valley|Valleys|Via|Viaduct|View|Views|Village|Villages|Ville|Vista|Walk|Walks|Wall|Way"
    "|Ways|Well|Wells|Boulevard|Blvd"
)
_PLAIN_SUFFIXES: Final = (
    "street|st|road|rd|avenue|ave|lane|ln|drive|boulevard|blvd|court|crescent|terrace|close"
)
_STATES: Final = (
    "A[AEKLPRSZ]|C[AOT]|D[CE]|F[LM]|G[AU]|HI|I[ADLN]|K[SY]|LA|M[ADEHINOPST]|N[CDEHJMVY]|O[HKR]|P[ARW]|RI|S[CD]"
    "|T[NX]|UT|V[AIT]|W[AIVY]"
)
_WORD: Final = r"\p{Lu}[\p{Latin}\p{Mn}]*(?:['-]\p{Latin}+)*\.?"
_UNIT: Final = r"(?i:apt|apartment|suite|ste|unit|flat|studio|room|floor|fl)\.? ?#?\d{1,5}[A-Za-z]?"
_BREAK: Final = r"(?:,? ?\n ?|, ?| )"
_CITY: Final = rf"{_WORD}(?: {_WORD}){{0,3}}"
_POSTCODE: Final = r"[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}"
_ZIP: Final = rf"(?:{_STATES}) \d{{5}}(?:-\d{{4}})?"
_STREET: Final = rf"{_WORD}(?: {_WORD}){{0,3}}? (?i:{_SUFFIXES})\.?(?![A-Za-z])"
_HOUSE: Final = r"\d{1,6}[A-Za-z]?(?:[-/]\d{1,4}[A-Za-z]?)?"
_TAIL: Final = rf"(?:{_BREAK}{_UNIT})?(?:{_BREAK}{_CITY}(?:{_BREAK}(?:{_POSTCODE}|{_ZIP}))|{_BREAK}(?:{_POSTCODE}|{_ZIP}))?"

_PROVINCES: Final = (
    "北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州"
    "|云南|陕西|甘肃|青海|台湾|内蒙古|广西|西藏|宁夏|新疆|香港|澳门"
)
# Characters of sentences rather than of place names; they keep "he lives in" out of an address.
_HAN: Final = r"[\u4e00-\u9fff--[的了是我你他她它请把给住到从去为您在这那吗呢吧]]"
_HOUSE_ZH: Final = r"[0-9A-Za-z一二三四五六七八九十百甲乙丙丁-]{1,6}"
_DETAIL_ZH: Final = rf"(?:(?:第)?{_HOUSE_ZH} ?(?:号楼|号院|号|弄|座|栋|幢|楼|层|单元|室|户|房))"
# The unhurried quantifier stops at the first unit, and the outer repetition takes the next one.
_UNITS_ZH: Final = rf"(?:{_HAN}{{1,9}}?(?:自治区|自治州|特别行政区|开发区|新区|大道|胡同|小区|花园|(?<![上城都超夜股])市|省|州|盟|旗|县|(?<![地校社])区|镇|乡|村|街道|街|(?<![铁公道线思])路|巷|弄|苑|大厦|广场))"
_POSTCODE_ZH: Final = r"(?:[ ,，]*(?:邮编[:： ]*)?\d{6}(?!\d))?"

PLACE_RULES: Final[tuple[Rule, ...]] = (
    rule(
        "ADDRESS",
        rf"(?:{_UNIT}{_BREAK})?{_HOUSE},? (?:[NSEW]\.? |[NS][EW] )?{_STREET}{_TAIL}",
        0.85,
    ),
    rule("ADDRESS", rf"{_UNIT}{_BREAK}{_STREET}{_TAIL}", 0.85),
    rule(
        "ADDRESS",
        rf"\d{{1,5}} (?!(?:of|the|in|on|at|to|for|and|or|a|an|more|days?|years?|hours?|minutes?|people)(?![a-z]))[a-z][a-z'-]+(?: [a-z][a-z'-]+)? (?:{_PLAIN_SUFFIXES})\.?",
        0.6,
    ),
    rule("ADDRESS", rf"(?:{_CITY},? )?{_ZIP}", 0.85),
    rule("ADDRESS", rf"(?:{_CITY}{_BREAK})?{_POSTCODE}", 0.8),
    rule(
        "ADDRESS",
        r"[a-z]{1,2}\d[a-z\d]? \d[a-z]{2}",
        cue=r"post ?code|address|live|lives",
        cued=0.8,
    ),
    rule(
        "ADDRESS",
        r"(?:(?:USNV|USNS|USCGC|USS) [A-Z][a-z]+|PSC \d{1,5},? Box \d{1,5}|Unit \d{1,5},? Box \d{1,5})"
        r"(?:,? ?\n? ?[AFD]PO,? A[AEP] \d{5})?",
        0.9,
    ),
    rule("ADDRESS", r"(?i:P\.? ?O\.? Box|Post Office Box) \d{1,6}", 0.85),
    rule("ADDRESS", rf"(?:{_UNIT})", 0.6),
    rule(
        "ADDRESS",
        r"\d{5}(?:-\d{4})?|\d{6}",
        cue=r"zip(?: ?code)?|postal code|postcode|邮编|邮政编码",
        cued=0.85,
    ),
    Rule(
        "ADDRESS",
        regex.compile(
            rf"(?:{_PROVINCES})(?:省|市|自治区|壮族自治区|回族自治区|维吾尔自治区|特别行政区)?"
            rf"(?:{_UNITS_ZH}{{1,6}}(?:{_DETAIL_ZH}{{0,4}})|{_DETAIL_ZH}{{1,4}}){_POSTCODE_ZH}",
            LETTERS,
        ),
        0.9,
    ),
    Rule(
        "ADDRESS",
        regex.compile(
            rf"(?:{_HAN}{{1,7}}?(?:市|县|区|镇|乡|村))?{_HAN}{{1,6}}?(?:大道|胡同|路|街|巷|弄|道){_DETAIL_ZH}{{1,4}}{_POSTCODE_ZH}",
            LETTERS,
        ),
        0.85,
    ),
)
