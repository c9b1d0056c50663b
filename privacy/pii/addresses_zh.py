"""Chinese postal addresses: from the largest place to the room, written without spaces.

A house number, a building or a room is what gives an address away. From there the
address is read to the left up to a character that belongs to sentences rather than to
places, which needs no gazetteer and a bounded number of steps; the models add the
names of places that stand alone.
"""

from collections.abc import Iterator
from typing import Any, Final

import regex

from privacy.pii.entities import Span
from privacy.pii.rules import HAN_RANGES, LETTERS, Rule, time_limit

PROVINCES: Final = (
    "北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州"
    "|云南|陕西|甘肃|青海|台湾|内蒙古|广西|西藏|宁夏|新疆|香港|澳门"
    "|重慶|遼寧|黑龍江|江蘇|廣東|貴州|雲南|陝西|甘肅|臺灣|內蒙古|廣西|寧夏|澳門|臺北|台北|新北|桃園|臺中|台中|臺南|台南|高雄"
)
# They end a place's name on its left. Those that also occur in names are let through where one
# of the names' second characters follows.
_SENTENCE: Final = (
    "的了是我你他她它们們请請把给給住去您在这這那吗嗎呢吧跟或及被让讓没沒叫寄址与與往至按并並则且"
)
_PLACE: Final = rf"(?:[{HAN_RANGES}--[{_SENTENCE}和于從从到]]|和(?=[平田静硕林县政布顺龙谐睦])|[于於](?=洪区|都县|田县|田路)|[从從](?=[化江][市区县路])|到(?=[保]))"
# What may stand between a sentence's last verb or label and the place it speaks of.
_LEAD: Final = regex.compile(
    r"(?:.*(?:办理|麻烦|改[成为到]|换成|变更|更改|前往|抵达|到达|来到|送往|发往|租[住下用]|购买|买了|搬[到至去]|迁[到至]|位于|坐落|来自|路过|经过|住所|地点|籍贯|户籍|戶籍|家庭|通[讯訊]|安装|配送|派送|服务|注册|办公))?"
    r"(?:为(?!民)|為|成(?!都)|所地|新|旧|原|现|前|到|于(?!洪|都|田)|从(?!化|江)|[收发送邮][货件]?|[男女岁号日][族人]?)*",
    LETTERS,
)
_NUMBER: Final = r"(?:[0-9A-Za-z]{1,5}(?:[-/][0-9A-Za-z]{1,4}){0,3}|[一二三四五六七八九十百零〇两]{1,5}|[甲乙丙丁东西南北負负]|[0-9]{1,4}[甲乙丙丁])"
_UNIT: Final = (
    r"(?:(?:号|號)(?:楼|樓|院|座|门|館|馆|之[0-9]{1,2})?(?![线線码碼文令])|弄|支弄|(?<=[A-Za-z])塔|(?<=[A-Za-z甲乙丙丁])座(?![位谈談])|(?<=[0-9])座(?=[0-9一二三])|[栋棟幢]|[楼樓][层層]?|[层層]|单元|單元|室(?![内外])|[户戶](?![口籍])|房(?![子屋产东价])"
    r"|#楼?|[组組](?![织長长成合])|(?<=[0-9A-Za-z])[门排巷区]|(?<![东西南北])段|(?<=[0-9A-Za-z一二三四五六])期(?!间|末|待|望|中|限))"
)
_TOKEN: Final = rf"(?:第? ?{_NUMBER} ?{_UNIT})"
_SITE: Final = r"(?:大厦|大廈|大楼|大樓|广场|廣場|公寓|小区|小區|社区|社區|花园|花園|家园|新村|新城|园区|科技园|产业园|软件园|创业园|工业园|园|苑|中心|商城|商场|宿舍|公馆|别墅|府|庭|湾|郡|城|邸|居|轩|阁|院|学校|大学|学院|医院|酒店|宾馆|厂|馆|舍|里|国际|坊|湖|谷|港)"
_STREET: Final = r"(?:大道|大街|胡同|路|街|巷|弄|道|里|条|段|村|屯|庄|莊|镇|鎮|乡|鄉|区|區|县|縣|市|州|旗|街道|大队|组|桥|门|坊|堡|营|店|沟|坡|岭|坪|坝|桥头|浜|圩|埭|场|港|湾|河|口|垸|洼|寨|峪|营子|嘴|塘|洲|岛|滩)"
_ADMIN: Final = regex.compile(
    rf"[{HAN_RANGES}]{{1,8}}?(?:自治[区州县旗]|特别行政区|[省市县縣镇鎮乡鄉旗州]|[区區](?![域别分间])|街道|开发区|新区|(?<=[{HAN_RANGES}][{HAN_RANGES}])村)",
    LETTERS,
)
_ENDS_LIKE_PLACE: Final = regex.compile(rf"(?:{_STREET}|{_SITE})[ ,，]?$", LETTERS)
_STRONG: Final = regex.compile(r"(?:号|號)[楼樓院]|弄|[栋棟幢座]|单元|單元|室", LETTERS)
_HOUSE: Final = regex.compile("[号號]", LETTERS)
# "3-2-1801": building, entrance and room, where nothing else says so.
_ROOM: Final = r"(?:[0-9]{1,3}(?:#|-[0-9]{1,2})-[0-9]{3,4}(?![0-9-]))"
_NAMED_TOKEN: Final = rf"(?:(?:{_PLACE}{{1,10}}?{_SITE} ?)?{_TOKEN})"
_LAST_SITE: Final = rf"(?:[ ,，]?{_PLACE}{{2,10}}?{_SITE}(?![{HAN_RANGES}]))"
_LAST_ROOM: Final = r"(?:(?<=[号號楼樓層层座塔元栋棟幢期])[- ]?[0-9]{2,5}(?:-[0-9]{1,4})?(?![0-9年月日元块个人点])(?:号?房|室)?)"
_ANCHOR: Final = regex.compile(
    rf"(?<![0-9A-Za-z.])(?:{_TOKEN}(?:[ ,，]?{_NAMED_TOKEN})*{_LAST_SITE}?{_LAST_ROOM}?|{_ROOM})"
    r"(?:(?<=[号號楼樓])之[0-9]{1,2})?(?:[东西南北]侧|[东南西北中]门|底商|门面)?",
    LETTERS,
)
_BARE: Final = regex.compile(
    rf"(?:{PROVINCES})(?:省|市|自治区|壮族自治区|回族自治区|维吾尔自治区|特别行政区)?"
    rf"(?:{_PLACE}{{1,8}}?(?:自治[区州县旗]|[市区區县縣镇鎮乡鄉旗州盟]|街道|开发区|新区)){{1,4}}(?:{_PLACE}{{1,9}}?(?:大道|大街|路|街|巷|弄|胡同|村|屯|庄|小区|花园|苑|大厦|广场|公寓|家园|新村|大学|学院|医院)){{1,3}}",
    LETTERS,
)
_POSTCODE: Final = regex.compile(
    r"[ ,，、(（]*(?:邮编|郵編|邮政编码)?[:： ]*(?P<value>[0-9]{6})(?![0-9A-Za-z])"
)
_BACKWARD: Final = regex.compile(
    rf"(?r)(?:{_PLACE}|[0-9A-Za-z#·-]|(?<=[{HAN_RANGES}]) (?=[{HAN_RANGES}]))+\Z", LETTERS
)
_FIELD: Final = regex.compile(
    rf"(?:地址|住址|住所地?|户籍地?|戶籍|籍贯|居住地|住处|住處|送[货貨]?[到至]|寄[到至往]|住在|家住|现住)(?:改为|变更为|是|在|为|為|[:： ]){{0,3}}"
    rf"(?P<value>(?:{_PLACE}|[0-9A-Za-z#·() （）-]){{3,58}}(?:{_STREET}|{_SITE}|[号號楼樓层層室栋棟幢侧)）0-9A-Za-z]))",
    LETTERS,
)
_MOST_LEFT: Final = 45
_LEAST_HEAD: Final = 2


class _Numbered(Rule):
    """Addresses around a house number, a building or a room, and the postcode after them."""

    @property
    def entities(self) -> frozenset[str]:
        return frozenset({"ADDRESS", "POSTCODE"})

    def find(self, text: str) -> Iterator[Span]:
        done = 0
        for match in self.pattern.finditer(text, timeout=time_limit(text)):
            start, score = _opening(text, match, done)
            if score:
                done = match.end()
                yield Span(start, done, "ADDRESS", score, self.source)
                yield from _postcode(text, done, self.source)


class _Bare(Rule):
    """Addresses from the province to a street or a village, without a number."""

    @property
    def entities(self) -> frozenset[str]:
        return frozenset({"ADDRESS", "POSTCODE"})

    def find(self, text: str) -> Iterator[Span]:
        for match in self.pattern.finditer(text, timeout=time_limit(text)):
            yield Span(match.start(), match.end(), "ADDRESS", self.score, self.source)
            yield from _postcode(text, match.end(), self.source)


def _postcode(text: str, end: int, source: str) -> Iterator[Span]:
    match = _POSTCODE.match(text, end)
    if match is not None:
        yield Span(match.start("value"), match.end("value"), "POSTCODE", 0.9, source)


def _opening(text: str, match: Any, floor: int) -> tuple[int, float]:
    """Where the address around a house number begins, and how surely it is one."""
    before = text[max(floor, match.start() - _MOST_LEFT) : match.start()]
    taken = _BACKWARD.search(before)
    head = "" if taken is None else taken.group()
    lead = _LEAD.match(head).end()
    if len(head) - lead >= _LEAST_HEAD:
        head = head[lead:]
    start = match.start() - len(head)
    strong = len(_STRONG.findall(match.group()))
    if len(head) < _LEAST_HEAD:
        return start, 0.6 if strong >= 2 else 0
    place = _ENDS_LIKE_PLACE.search(head) is not None
    admin = _ADMIN.search(head) is not None
    house = _HOUSE.search(match.group()) is not None
    if place or (admin and (strong or house)):
        return start, 0.95 if admin or strong or house else 0.7
    return start, 0.65 if strong else 0


ADDRESS_RULES: Final[tuple[Rule, ...]] = (
    _Numbered("ADDRESS", _ANCHOR, 0.9, name="zh-address"),
    _Bare("ADDRESS", _BARE, 0.85, name="zh-address-bare"),
    Rule("ADDRESS", _FIELD, 0.7, name="zh-address-field"),
)
"""Whole addresses; what follows as a postcode is found as ``POSTCODE``."""
