"""Chinese surnames, public knowledge: the frequent ones, rarer ones, and those of two characters."""

from typing import Final

FREQUENT: Final = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林罗高郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金"
    "石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤聂兰凌晏岳桑包左梅丛庄辛管祝俞祁柳柏骆巫"
    "蒲甄温季柴宁翟游盛"
)
RARE: Final = (
    "安位平曲欧关修闻华衣司呼匡尚易牛鲁葛樊殷施阮邢齐康洪文伍倪常符路章米耿鲍童党车纪焦翁裴阎娄霍古单鞠尤解卜褚席简苗项卓滕冉"
    "连仇宫屈涂舒甘牟隋冼蓝麦冀商时应边谷池成苑敖楼储燕湛占蔺牧农靳岑房闵费苟艾迟仲佘初沙栾桂宗满胥阳荣代吉皮门佟计冷宿"
)
"""Many of these are everyday words too: a surname only where a model half believes it."""

COMPOUND: Final = (
    *("欧阳", "司马", "上官", "诸葛", "夏侯", "东方", "皇甫", "尉迟"),
    *("公孙", "慕容", "司徒", "令狐", "宇文", "长孙"),
)
