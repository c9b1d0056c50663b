"""Labelled Chinese records of invented people, for measuring redaction.

    .venv/bin/python -m benchmarks.redaction_zh --split held-out --count 1000 > held_out.jsonl
    .venv/bin/intramural data evaluate-pii held_out.jsonl --language zh

Each line is ``{"id", "text", "spans": [[start, end, type], ...], "split", "register"}``; offsets
count characters. The two splits share neither a sentence nor a list of places, streets, given
names or employers: rules are tuned on ``tune`` and judged on ``held-out``.
"""

import argparse
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from faker import Faker

from privacy.pii.rules_numbers import luhn
from privacy.pii.rules_zh import credit_code_checks, resident_id_checks

Split = Literal["tune", "held-out"]

_SLOT: Final = re.compile(r"\{(\w+)\}")
_SURNAMES: Final = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许邓冯韩曹曾彭萧蔡潘田董袁于余叶蒋杜苏魏程吕丁沈任姚卢傅钟姜崔谭廖范汪陆金石戴贾韦夏邱方侯邹熊孟秦白江阎薛尹段雷黎史龙陶贺顾毛郝龚邵万钱严覃武莫孔汤向常温康施文牛樊葛邢安齐易乔伍庞颜倪庄聂章鲁岳翟殷詹申欧耿关兰焦俞左柳甘祝包宁尚符舒阮柯纪梅童凌毕单季裴霍涂成苗谷盛曲翁冉骆蓝路游辛靳管柴蒙鲍华喻祁蒲房滕屈饶解牟艾尤阳时穆农司卓古吉缪简车项连芦麦褚娄窦戚岑景党宫费卜冷晏席卫米柏宗瞿桂全佟应臧闵苟邬边卞姬师和仇栾隋商刁沙荣巫寇桑郎甄丛仲虞敖巩明佘池查麻苑迟邝"

_COURTESY: Final = ("先生", "女士", "老师", "经理", "医生", "主任")


@dataclass(frozen=True)
class Lists:
    """What one split draws from."""

    given: str
    provinces: tuple[tuple[str, str, str], ...]
    roads: tuple[str, ...]
    sites: tuple[str, ...]
    villages: tuple[str, ...]
    employers: tuple[str, ...]
    foreign: tuple[str, ...]
    templates: dict[str, tuple[str, ...]]


TUNE: Final = Lists(
    "伟芳娜敏静秀丽强磊军洋勇艳杰娟涛明超霞平刚桂英华建国志文玉兰红梅雪婷鑫宇浩然子涵梓萱欣怡俊晨博思雨佳琪海燕春",
    (
        ("北京市", "", "海淀区"),
        ("上海市", "", "浦东新区"),
        ("广东省", "深圳市", "南山区"),
        ("浙江省", "杭州市", "西湖区"),
        ("四川省", "成都市", "武侯区"),
        ("江苏省", "苏州市", "昆山市"),
        ("湖北省", "武汉市", "洪山区"),
        ("河南省", "郑州市", "金水区"),
        ("内蒙古自治区", "呼和浩特市", "新城区"),
        ("陕西省", "西安市", "雁塔区"),
        ("山东省", "济南市", "历下区"),
        ("福建省", "厦门市", "思明区"),
    ),
    (
        "中关村大街",
        "人民路",
        "文三路",
        "天府大道",
        "珞喻路",
        "碧波路",
        "解放西路",
        "建设二路",
        "小寨东路",
        "世纪大道",
        "和平里东街",
        "湖滨南路",
    ),
    (
        "阳光花园",
        "华星时代广场",
        "科技园",
        "天府软件园",
        "万科城",
        "金色家园",
        "紫荆公寓",
        "腾讯大厦",
    ),
    ("大王庄镇刘家村", "青龙乡石桥村", "沙河镇北街村", "双桥乡七里屯"),
    ("华辰科技有限公司", "远大物流有限公司", "蓝天教育集团", "仁济医院", "城南支行", "明德小学"),
    ("约翰·史密斯", "玛丽亚·加西亚", "买买提·艾力", "阿卜杜拉·热合曼", "伊万诺娃", "迈克尔·乔丹"),
    {
        "hr": (
            "员工{name}，工号{staff}，身份证号{id}，入职日期2021年3月，现住{address}。",
            "请更新{name}的资料：手机{mobile}，邮箱{email}，紧急联系人{name2}（{landline}）。",
            "姓名：{name}\n性别：女\n出生日期：{birth}\n身份证：{id}\n银行卡号：{card}\n住址：{address}",
            "{name}，男，{age}，{birth}出生，毕业于某大学，联系电话{mobile}",
            "候选人{name}（{pinyin}）现任{org}高级经理，期望薪资面议，微信：{wechat}",
            "关于{name}同志的考核意见：该同志工作认真，建议转正。考核人：{name2}",
        ),
        "service": (
            "您好，我是{name}，订单收货地址改为{address}，电话{mobile}，谢谢。",
            "客户{name}来电投诉，回拨{landline}，请{title}跟进。",
            "我的快递怎么还没到？收件人{name} {mobile} {address}",
            "麻烦退款到{name}的卡上，卡号{card}，开户行城南支行",
            "你好我叫{name}，加我微信{wechat}或者QQ{qq}都行",
            "车主{name}，车牌{plate}，驾驶证档案编号{driver}，需要办理理赔",
        ),
        "medical": (
            "患者{name}，女，{age}，因头痛三天入院，家属{name2}电话{mobile}。",
            "{name}的复查结果出来了，请通知{nick}来取，联系方式：{mobile}",
            "主诉：咳嗽一周。患者姓名：{name}，住址：{address}，主治医生{title}。",
        ),
        "contract": (
            "甲方：{org}（统一社会信用代码{credit}）\n乙方：{name}，身份证号码{id}，住所地{address}",
            "出租人{name}与承租人{name2}就位于{address}的房屋签订本合同，租金转入账号{card}。",
            "借款人{name}，护照号{passport}，于2020年5月1日向出借人{name2}借款人民币十万元整。",
        ),
        "chat": (
            "{nick}昨天说要请{title}吃饭，你去吗",
            "请联系{english}或者{name}, {mobile}",
            "{foreign}下周来上海，让{name}去机场接一下，车牌是{plate}",
            "老地方见，{address_short}，到了打我电话{mobile}",
            "@所有人 明天例会改到三点，{name}和{name2}记得带上报表",
            "他生日是{birth}，今年{age}了，{name}你还记得吗？",
            "我手机号{spelled}，别打错了",
            "回乡证{permit}过期了，{name}问怎么续签；香港身份证{hkid}",
            "听{name}讲{name2}要调去{city}，是真的吗",
        ),
    },
)

HELD_OUT: Final = Lists(
    "祥瑞凯悦诗岚晓楠振邦德胜立新学兵永康少华长青彦斌锦程沛霖皓轩亦菲若曦语嫣清妍书瑶煜城景行望舒嘉懿翊弘绍钧炳坤惠珍月娥淑芬翠莲凤仙根宝水生",
    (
        ("天津市", "", "河西区"),
        ("重庆市", "", "渝中区"),
        ("湖南省", "长沙市", "岳麓区"),
        ("云南省", "昆明市", "五华区"),
        ("辽宁省", "大连市", "沙河口区"),
        ("河北省", "石家庄市", "桥西区"),
        ("贵州省", "遵义市", "仁怀市"),
        ("广西壮族自治区", "柳州市", "鱼峰区"),
        ("黑龙江省", "齐齐哈尔市", "龙沙区"),
        ("安徽省", "合肥市", "肥西县"),
        ("新疆维吾尔自治区", "喀什地区", "疏附县"),
        ("海南省", "三亚市", "吉阳区"),
    ),
    (
        "黑石礁街",
        "五一大道",
        "麓山南路",
        "翠湖北路",
        "解放碑步行街",
        "槐安东路",
        "茅台大道",
        "龙潭巷",
        "永安胡同",
        "滨河东道",
        "环城西路三段",
        "凤凰岭路",
    ),
    (
        "碧桂园凤凰城",
        "恒大绿洲",
        "星海国际",
        "时代天街",
        "清水湾",
        "绿地中央广场",
        "玉兰香苑",
        "创新创业大厦",
    ),
    ("茅台镇坛厂村", "三河镇木兰村", "乌帕尔乡依提村", "上派镇四合社区"),
    (
        "鼎盛新能源股份有限公司",
        "同心律师事务所",
        "湘雅附属医院",
        "北岸设计工作室",
        "农业银行河西支行",
        "第七中学",
    ),
    (
        "弗拉基米尔·彼得罗夫",
        "安娜·卡列尼娜",
        "迪丽热巴·迪力木拉提",
        "古丽娜尔·阿不都",
        "詹姆斯·威廉姆斯",
        "费尔南多·托雷斯",
    ),
    {
        "hr": (
            "兹证明{name}（身份证号码：{id}）系我单位正式职工，特此证明。{org}",
            "离职交接单 交接人 {name} 接收人 {name2} 工号 {staff}",
            "新同事介绍：{name}，{birth}生，籍贯{city}，请大家多多关照，邮箱{email}",
            "工资卡信息变更：{name}，原卡号作废，新卡号{card}，{mobile}",
            "应急通讯录\n{name}\t{mobile}\n{name2}\t{landline}",
        ),
        "service": (
            "工单备注：机主{name}反映宽带掉线，上门地址{address}，预约电话{mobile}，找{title}。",
            "亲，地址写错了，麻烦改成{address}，{name}收，{mobile}",
            "师傅你好，我住{address_short}，门口堵车，打{mobile}找{nick}",
            "为什么{name}的会员还没到账？绑定手机{mobile}，QQ号{qq}",
            "开票信息：{org}，税号{credit}，经办{name}，座机{landline}",
            "保险理赔：被保险人{name}，出险车辆{plate}，驾驶员{name2}，档案编号{driver}",
        ),
        "medical": (
            "门诊记录：{name}，{age}，诉胃部不适，既往体健。随访电话{mobile}。",
            "会诊申请：请{title}看一下3床{name}，其女{name2}陪护，手机{mobile}",
            "出院小结 姓名{name} 年龄{age} 家庭住址{address}",
        ),
        "contract": (
            "委托人：{name}，公民身份号码{id}，现委托{name2}全权办理{address}房产过户手续。",
            "收条：今收到{name}交来押金贰仟元整。收款人：{name2}，{mobile}",
            "保证人{name}持护照{passport}，通讯地址为{address}，法定代表人{name2}签章。",
        ),
        "chat": (
            "{title}说这事找{name}就行，他微信{wechat}",
            "帮我订两张票，乘客{name}和{foreign}，护照{passport}",
            "{nick}你电话多少？我的是{spelled}",
            "下午三点在{address_short}碰头，{english}也来，cc {email}",
            "昨晚碰到{name}，都{age}了还在跑马拉松，{name2}也佩服",
            "我把{plate}停你楼下了，{nick}要用车找{name}拿钥匙",
            "通行证号{permit}，香港身份證號碼{hkid}，{name}填表要用",
            "生日快乐！{name}，{birth}出生的你又长一岁啦",
            "外公{name}以前在{city}工作，后来跟外婆{name2}搬走了",
            "Hi {pinyin}, 麻烦把合同发给{name}，他的号码是{mobile}",
        ),
    },
)

_LISTS: Final = {"tune": TUNE, "held-out": HELD_OUT}
KINDS: Final = {
    **dict.fromkeys(("name", "name2", "title", "nick", "foreign", "english", "pinyin"), "PERSON"),
    **dict.fromkeys(("mobile", "landline", "spelled"), "PHONE_NUMBER"),
    **dict.fromkeys(("address", "address_short"), "ADDRESS"),
    **dict.fromkeys(("id", "permit", "hkid"), "NATIONAL_ID"),
    **dict.fromkeys(("staff", "credit"), "ID_NUMBER"),
    **dict.fromkeys(("wechat", "qq"), "USER_HANDLE"),
    "email": "EMAIL_ADDRESS",
    "birth": "DATE_OF_BIRTH",
    "age": "AGE",
    "card": "CREDIT_CARD",
    "passport": "PASSPORT",
    "driver": "DRIVER_LICENSE",
    "plate": "LICENSE_PLATE",
    "org": "ORGANIZATION",
    "city": "LOCATION",
}
"""Slot of a template -> kind of personal data."""


class Writer:
    """Invents values and writes records; the same seed gives the same records."""

    def __init__(self, split: Split, seed: int) -> None:
        self._lists = _LISTS[split]
        self._split = split
        self._dice = random.Random(f"{split}/{seed}")
        self._fake = Faker("zh_CN")
        self._fake.seed_instance(self._dice.randrange(2**31))
        self._english = Faker("en_US")
        self._english.seed_instance(self._dice.randrange(2**31))

    def records(self, count: int) -> Iterator[dict[str, Any]]:
        """Labelled records; templates take turns, so that each register is there."""
        templates = [(r, t) for r, group in self._lists.templates.items() for t in group]
        for i in range(count):
            register, template = templates[i % len(templates)]
            text, spans, done = "", [], 0
            for slot in _SLOT.finditer(template):
                text += template[done : slot.start()]
                value = self._value(slot.group(1))
                # A courtesy title says nothing about who it is.
                end = len(text) + (len(value) - 2 if value.endswith(_COURTESY) else len(value))
                spans.append([len(text), end, KINDS[slot.group(1)]])
                text += value
                done = slot.end()
            yield {
                "id": f"zh-{self._split}-{i}",
                "text": text + template[done:],
                "spans": spans,
                "split": self._split,
                "register": register,
            }

    def _value(self, slot: str) -> str:
        makers: dict[str, Callable[[], str]] = {
            "name2": self._name,
            "email": self._english.email,
            "english": lambda: f"{self._english.first_name()} {self._english.last_name()}",
            "org": lambda: self._city()[:2] + self._dice.choice(self._lists.employers),
            "city": self._city,
            "foreign": lambda: self._dice.choice(self._lists.foreign),
        }
        return makers[slot]() if slot in makers else str(getattr(self, f"_{slot}")())

    def _digits(self, count: int) -> str:
        return "".join(self._dice.choices("0123456789", k=count))

    def _name(self) -> str:
        if self._dice.random() < 0.3:
            return str(self._fake.name())
        if self._dice.random() < 0.05:
            surname = self._dice.choice(("欧阳", "司马", "上官", "诸葛", "慕容", "皇甫"))
        else:
            surname = self._dice.choice(_SURNAMES[: self._dice.choice((30, 120, 400))])
        return surname + "".join(
            self._dice.choices(self._lists.given, k=self._dice.choice((1, 2, 2)))
        )

    def _title(self) -> str:
        title = self._dice.choice(
            ("先生", "女士", "老师", "总", "经理", "医生", "主任", "工", "姐")
        )
        # What counts as personal is the name; the title stays readable.
        return self._dice.choice(_SURNAMES[:100]) + title

    def _nick(self) -> str:
        if self._dice.random() < 0.25:
            return "阿" + self._dice.choice(self._lists.given)
        return self._dice.choice("小老") + self._dice.choice(_SURNAMES[:80])

    def _pinyin(self) -> str:
        surname = self._dice.choice(("Zhang", "Li", "Wang", "Chen", "Zhou", "Xu", "Guo", "Huang"))
        given = self._dice.choice(
            ("Wei", "Xiaoming", "Jing", "Yuting", "Haoran", "Meiling", "Jianguo")
        )
        return self._dice.choice((f"{surname} {given}", f"{given} {surname}"))

    def _mobile(self) -> str:
        head = self._dice.choice(("13", "15", "17", "18", "19")) + self._digits(1)
        a, b = self._digits(4), self._digits(4)
        forms = (
            f"{head}{a}{b}",
            f"{head}{a}{b}",
            f"{head} {a} {b}",
            f"{head}-{a}-{b}",
            f"+86 {head}{a}{b}",
        )
        wide = str.maketrans("0123456789", "０１２３４５６７８９")
        return self._dice.choice((*forms, f"{head}{a}{b}".translate(wide)))

    def _spelled(self) -> str:
        number = "1" + self._dice.choice("3578") + self._digits(9)
        return number.translate(
            str.maketrans(
                "0123456789", self._dice.choice(("零一二三四五六七八九", "零幺二三四五六七八九"))
            )
        )

    def _landline(self) -> str:
        area = self._dice.choice(("010", "021", "0755", "0571", "028", "0991"))
        number = self._dice.choice("23568") + self._digits(7)
        return self._dice.choice(
            (
                f"{area}-{number}",
                f"({area}){number}",
                f"{area}{number}",
                f"{area}-{number}转{self._digits(3)}",
            )
        )

    def _id(self) -> str:
        head = self._dice.choice(
            ("110108", "310115", "440305", "510107", "430104", "530102", "653121")
        )
        birth = f"{self._dice.randint(1950, 2005)}{self._dice.randint(1, 12):02}{self._dice.randint(1, 28):02}"
        body = head + birth + self._digits(3)
        if self._dice.random() < 0.1:
            return head + birth[2:] + self._digits(3)
        if self._dice.random() < 0.5:
            return next(body + c for c in "0123456789X" if resident_id_checks(body + c))
        return body + self._digits(1)

    def _card(self) -> str:
        body = "62" + self._digits(self._dice.choice((13, 16)))
        number = next(body + c for c in "0123456789" if luhn(body + c))
        if self._dice.random() < 0.3:
            return " ".join(number[i : i + 4] for i in range(0, len(number), 4))
        return number

    def _credit(self) -> str:
        body = "91" + self._dice.choice(("110108", "440300", "330100")) + "MA" + self._digits(7)
        return next(
            body + c for c in "0123456789ABCDEFGHJKLMNPQRTUWXY" if credit_code_checks(body + c)
        )

    def _passport(self) -> str:
        return (
            self._dice.choice(("E", "G", "EA", "EJ")) + self._digits(8)[: self._dice.choice((8, 8))]
            if self._dice.random() < 0.7
            else "E" + self._dice.choice("ABCDEFGH") + self._digits(7)
        )

    def _permit(self) -> str:
        return self._dice.choice("HM") + self._digits(self._dice.choice((8, 10)))

    def _hkid(self) -> str:
        return self._dice.choice("ABCGHKRZ") + self._digits(6) + f"({self._digits(1)})"

    def _driver(self) -> str:
        return self._digits(12)

    def _staff(self) -> str:
        return self._dice.choice(("", "A", "HR", "EMP")) + self._digits(6)

    def _plate(self) -> str:
        region = self._dice.choice("京沪粤浙苏川湘渝津云辽冀贵桂黑皖新琼") + self._dice.choice(
            "ABCDEFG"
        )
        letters = "".join(self._dice.choices("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789", k=4))
        return region + self._dice.choice(
            (
                f"{letters}{self._digits(1)}",
                f"D{self._digits(5)}",
                f"·{letters}{self._digits(1)}",
                f"{letters}学",
            )
        )

    def _wechat(self) -> str:
        word = self._english.user_name()
        return self._dice.choice(
            (f"{word}_{self._digits(2)}", f"wx{self._digits(6)}", f"wxid_{self._digits(10)}")
        )

    def _qq(self) -> str:
        return self._dice.choice("123456789") + self._digits(self._dice.choice((7, 8, 9)))

    def _birth(self) -> str:
        year, month, day = (
            self._dice.randint(1950, 2004),
            self._dice.randint(1, 12),
            self._dice.randint(1, 28),
        )
        return self._dice.choice(
            (
                f"{year}年{month}月{day}日",
                f"{year}-{month:02}-{day:02}",
                f"{year}.{month}.{day}",
                f"{year}年{month}月",
            )
        )

    def _age(self) -> str:
        return f"{self._dice.randint(18, 88)}岁"

    def _city(self) -> str:
        province, city, _ = self._dice.choice(self._lists.provinces)
        return city or province

    def _address_short(self) -> str:
        site, dice = self._dice.choice(self._lists.sites), self._dice
        return dice.choice(
            (
                f"{site}{dice.randint(1, 30)}号楼{dice.randint(101, 2904)}室",
                f"{site}{dice.randint(1, 5)}期{dice.choice('ABCD')}座{dice.randint(101, 2904)}",
                f"{dice.choice(self._lists.roads)}{dice.randint(1, 999)}号",
                f"{site}{dice.randint(1, 30)}栋{dice.randint(1, 5)}单元{dice.randint(101, 2904)}",
            )
        )

    def _address(self) -> str:
        dice = self._dice
        if dice.random() < 0.15:
            return str(self._fake.address()).rpartition(" ")[0]
        province, city, district = dice.choice(self._lists.provinces)
        area = dice.choice(
            (f"{province}{city}{district}", f"{city or province}{district}", district)
        )
        if dice.random() < 0.15:
            return f"{area}{dice.choice(self._lists.villages)}{dice.randint(1, 12)}组{dice.randint(1, 99)}号"
        road = f"{dice.choice(self._lists.roads)}{dice.randint(1, 999)}号"
        room = f"{dice.randint(1, 30)}{dice.choice('栋幢')}{dice.randint(1, 6)}单元{dice.randint(101, 2904)}室"
        site = f"{dice.choice(self._lists.sites)}{dice.choice('ABC')}座{dice.randint(2, 30)}层{dice.randint(201, 3010)}"
        return area + dice.choice(
            (
                road,
                road + room,
                road + site,
                f"{road}院{dice.randint(1, 20)}号楼{dice.randint(101, 2904)}",
            )
        )


def main(arguments: list[str] | None = None) -> int:
    """Write records as JSON Lines to standard output."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--split", choices=sorted(_LISTS), default="tune")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for record in Writer(options.split, options.seed).records(options.count):
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
