"""Rules for names in Chinese text, and the words beside a name that are no part of it.

They find names that a title, a field or an introduction gives away, names written
with a middle dot and names in pinyin; names in running text take a model.
"""

from typing import Any, Final

import regex

from privacy.pii.rules import HAN_RANGES, LEFT, LETTERS, RIGHT, Rule
from privacy.pii.surnames_zh import COMPOUND, FREQUENT, PINYIN, RARE, TRADITIONAL, TRANSLITERATION

_COMPOUND: Final = "|".join(COMPOUND)
_SURNAME: Final = rf"(?:{_COMPOUND}|[{FREQUENT}{TRADITIONAL}])"
_ANY_SURNAME: Final = rf"(?:{_COMPOUND}|[{FREQUENT}{TRADITIONAL}{RARE}])"
SENTENCE_WORDS: Final = frozenset(
    "的了是在我你他她它们們这這那哪请請把给給和与與跟或及被让讓不没沒有要会會能就也都很还還再又从從对對将將说說讲講问問叫做去来來到吗嗎呢吧么着由因向所以拉代听聽记記收诉訴约約交持陪拿"
)
"""Characters of sentences that hardly occur in given names."""
_GIVEN: Final = rf"[{HAN_RANGES}--[{''.join(sorted(SENTENCE_WORDS))}于於]]"
_NAME: Final = rf"{_SURNAME}{_GIVEN}{{1,2}}"
_CUED_NAME: Final = rf"{_ANY_SURNAME}{_GIVEN}{{1,2}}"
_TITLE: Final = (
    "先生|女士|小姐|太太|夫人|老师|老師|经理|經理|总经理|總經理|总监|總監|总裁|總裁|董事长|董事長|主任|同学|同學|教授|医生|醫生|大夫|护士|護士|工程师"
    "|工程師|局长|处长|科长|部长|厅长|书记员|书记|审判长|班主任|主持人|律师|律師|法官|检察官|警官|师傅|師傅|阿姨|叔叔|大哥|大姐|博士|院长|院長|校长|校長|班长|店长|主管|助理"
    "|秘书|祕書|会计|顾问|顧問|同志|老板|老闆|爷爷|奶奶|医师|醫師"
)
_SHORT_TITLE: Final = (
    "总(?![理经监裁共是数额之部体结督统])|總(?![理經監裁共是數額之部督統])|工(?![作资程厂会商地业具人艺头队序种时期龄])|哥(?!哥)|姐(?!姐)|叔(?!叔)|姨|嫂|(?<!向)导(?![致入游师航])"
    "|律(?!师)|处(?![理长在于])|局(?![长面部])|董(?!事)"
)
_ROLE: Final = (
    "承租|出租|借款|出借|贷款|收款|付款|委托|受托|当事|负责|联系|聯絡|代表|保险|投保|受益|申请|经办|收件|收货|寄件|监护|担保|保证|持卡|开户|代理|介绍|接收|交接|考核"
    "|报案|见证|签署|继承|张贴|主持|记录|推荐|发件|报告|犯罪嫌疑|审批|审核|制表"
)
_KIN: Final = "女儿|儿子|爸爸|妈妈|父亲|母亲|外公|外婆|奶奶|老公|老婆|丈夫|妻子|哥哥|姐姐|弟弟|妹妹|女兒|兒子|父親|母親"
FAMILIAR: Final = regex.compile(
    rf"[小老阿][{FREQUENT}{TRADITIONAL}](?![{HAN_RANGES}](?:先生|女士|小姐))|[{FREQUENT}{TRADITIONAL}](?:{_SHORT_TITLE})",
    LETTERS,
)
"""A surname with a familiar prefix or a short title: two characters that are one name."""
NOT_NAMES: Final = regex.compile(
    rf"(?:{_ROLE})人|(?:{_TITLE})|{_KIN}|被告|原告|家长|兹证明?|元整|姓名|性别|年龄", LETTERS
)
"""Titles and roles: beside a name, never within it."""

# Everyday words that begin like a name and stand before a title.
_NO_PERSON: Final = (
    "高级|高級|高中|马上|方面|任何|任课|史上|万一|石油|金牌|白人|黄金|常务|常任|程序|部门|江西|江苏|温州|常州|徐州|郑州|田间|陆军|文学"
    "|唐代|宋代|汉代|段落|向导|平安|成都|余下|任务|程度|万能|马路|金融|白天|贺州|钱包|毛坯|孔雀|侯车|车间|张贴|谢谢|谢过|顾问|付款|谢啦|周末|周一|周二|周三|周四|周五|周六|周日"
)
# After a copula an everyday word is likelier than a name that only looks like one.
_FIELD: Final = (
    rf"姓名|名字|联系人|聯絡人|聯繫人|签名|签字|签署|本人|员工|同事|患者|病人|家属|机主|车主|业主|户主|法人|甲方|乙方|丙方|户名|戶名|收[件货]人|收貨人|经办|担当|乘客|旅客|学生|家长"
    rf"|(?:{_ROLE})人"
)
_SYLLABLE: Final = (
    r"(?:(?:zh|ch|sh|[bpmfdtnlgkhjqxrzcsyw])?(?:iang|iong|uang|ang|eng|ong|ing|ian|iao|uan|uai|ai|an|ao|ei|en|er|ia"
    r"|ie|in|iu|ou|ua|ue|ui|un|uo|a|e|i|o|u|v))"
)
_TITLE_CASE: Final = rf"[A-Z][a-z]*(?:[-' ][A-Za-z][a-z]*)?{RIGHT}"
_JOINED: Final = rf"(?:[-']| (?=[A-Z]))?(?i:{_SYLLABLE})"
_TWO_SYLLABLES: Final = rf"(?P<given>(?={_TITLE_CASE})(?i:{_SYLLABLE}){_JOINED})"
# Spelt like English words: they need a given name of two syllables beside them.
_ENGLISH_WORDS: Final = frozenset(
    {
        "An",
        "Bi",
        "Cai",
        "Dong",
        "Du",
        "Fan",
        "Fang",
        "Fu",
        "Ge",
        "Gong",
        "Guan",
        "Hao",
        "He",
        "Hong",
        "Hu",
    }
    | {
        "Ji",
        "Jin",
        "Kong",
        "Lan",
        "Lei",
        "Lin",
        "Long",
        "Ma",
        "Mao",
        "Mei",
        "Mo",
        "Pan",
        "Ren",
        "Shi",
        "Shu",
    }
    | {
        "Song",
        "Sun",
        "Tan",
        "Tang",
        "Tong",
        "Wan",
        "Wu",
        "Ye",
        "Yin",
        "Yu",
        "Han",
        "Bao",
        "Chang",
        "Sheng",
    }
)
_PLAIN_PINYIN: Final = "|".join(sorted(set(PINYIN) - _ENGLISH_WORDS, key=len, reverse=True))
_WORD_PINYIN: Final = "|".join(sorted(_ENGLISH_WORDS & set(PINYIN)))
_ENGLISH_GIVEN: Final = frozenset(
    [
        "Can",
        "Come",
        "Sane",
        "Same",
        "Made",
        "Bade",
        "Wade",
        "Lane",
        "Mane",
        "Pane",
        "Sale",
        "Male",
        "Tale",
        "Gate",
    ]
)
_LATIN_NAME: Final = r"[A-Z][a-z]{1,15}(?: [A-Z]\.)?(?:[ ·-][A-Z][a-z']{1,15}){1,2}"


def _pinyin(match: Any) -> float | None:
    return None if match.group("given") in _ENGLISH_GIVEN else 0.65


def _rule(pattern: str, score: float, name: str, check: Any = None) -> Rule:
    return Rule("PERSON", regex.compile(pattern, LETTERS), score, check, name=f"zh-name-{name}")


HAN_NAME_RULES: Final[tuple[Rule, ...]] = (
    _rule(
        rf"(?:{_FIELD})(?:是|为|為|叫|[:：\t ]|[(（][^()（）\n]{{0,6}}[)）][:： ]?){{0,2}}(?!{_NO_PERSON})(?P<value>{_CUED_NAME})(?![{HAN_RANGES}])",
        0.85,
        "field",
    ),
    _rule(
        rf"(?:姓名|联系人|聯絡人|聯繫人|收件人|收货人|收貨人|申请人|经办人|持卡人|户名|患者|法定代表人|签名|签字)[:：] ?"
        rf"(?P<value>[{HAN_RANGES}]{{2,4}})(?=[\s,;.()，；。、（）/|]|$)",
        0.8,
        "form",
    ),
    _rule(
        rf"(?:我叫|我是|名叫|叫做|名字是|名字叫|我的名字是|名為|姓名为|姓名為)[:： ]?(?P<value>{_NAME}?)(?=[\s,;.()，；。、（）！!]|的|来自|$)",
        0.8,
        "introduced",
    ),
    _rule(
        rf"(?<![{HAN_RANGES}])(?P<value>{_CUED_NAME})(?=[,，(（/|:：;；\s]{{1,2}}(?:[男女](?![{HAN_RANGES}])|[0-9]{{2}}[岁歲]|\+?(?:86)?[- ]?1[3-9][0-9]))",
        0.75,
        "listed",
    ),
    _rule(
        rf"(?!{_NO_PERSON})(?<![关对對])(?!任|[于向](?={_ANY_SURNAME}))(?P<value>{_SURNAME}{_GIVEN}{{0,2}}?)(?:{_TITLE})",
        0.65,
        "titled",
    ),
    _rule(
        rf"(?<![{HAN_RANGES}])(?P<value>{_SURNAME}(?:{_SHORT_TITLE}))",
        0.65,
        "short-title",
    ),
    _rule(
        rf"(?<![{HAN_RANGES}])(?P<value>[小老阿](?:[王李张刘陈杨赵吴周徐孙朱胡郭何林罗郑梁谢宋唐许韩冯邓曹彭曾董袁蒋蔡余杜苏魏丁沈姚卢姜谭陆汪廖韦邹孟秦邱尹薛侯武張劉陳楊趙吳鄭]))"
        r"(?=[\s,，。.!！?？:：、]|$|[你您我他她]|[说說在的和今明昨])",
        0.7,
        "nickname",
    ),
    _rule(
        rf"(?P<value>[{TRANSLITERATION}]{{1,8}}(?:[·•‧・∙⋅･][{TRANSLITERATION}A-Z.]{{1,8}}){{1,4}})",
        0.85,
        "dotted",
    ),
    _rule(
        rf"(?:联系|聯絡|找|叫|给|和|或者|或|请|由|我是|同事|客户|通知|转告|,|，|、|^)[ ]?(?P<value>(?!(?:Hi|Hello|Dear|Hey|The|Re) ){_LATIN_NAME})(?=[{HAN_RANGES}，。、,])",
        0.6,
        "latin",
    ),
)
"""Names that are found by a Chinese word or character."""

PINYIN_RULES: Final[tuple[Rule, ...]] = (
    _rule(
        rf"{LEFT}(?P<value>(?:{_PLAIN_PINYIN}) (?P<given>(?={_TITLE_CASE})(?i:{_SYLLABLE})(?:{_JOINED})?)){RIGHT}",
        0,
        "pinyin",
        _pinyin,
    ),
    _rule(
        rf"{LEFT}(?P<value>(?:{_WORD_PINYIN}),? {_TWO_SYLLABLES}){RIGHT}", 0, "pinyin-long", _pinyin
    ),
    _rule(
        rf"{LEFT}(?!Hi |Hai |Dear )(?P<value>{_TWO_SYLLABLES} (?:{_PLAIN_PINYIN})){RIGHT}",
        0,
        "pinyin-western",
        _pinyin,
    ),
    _rule(
        rf"{LEFT}(?P<value>(?:{_PLAIN_PINYIN.upper()}|{_WORD_PINYIN.upper()}),? (?P<given>(?i:{_SYLLABLE}){_JOINED})){RIGHT}",
        0,
        "pinyin-capital",
        _pinyin,
    ),
)
"""Names in pinyin, surname first or last. Not for texts without Latin letters."""
