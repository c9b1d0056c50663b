"""Words that surrogates are made of: names and places that belong to no one in particular.

Given names that are ordinary words (Grace, Mark, Will) are left out, as a surrogate must be found
again in an answer.
"""

from typing import Final


def words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


GIVEN: Final = words(
    """
    Adela Adrian Agnes Alan Albert Alexandra Alfred Alice Amanda Amelia Andrea Andrew Angela Anita
    Anna Anthony Antonia Arthur Astrid Audrey Barbara Beatrice Benjamin Bernard Bettina Bianca
    Brenda Brian Bridget Camilla Carla Caroline Catherine Cecilia Celia Charles Charlotte Christine
    Claire Clara Claudia Conrad Cordelia Cynthia Damian Daniel Daphne David Deborah Denise Diana
    Dominic Donald Dorothy Douglas Edgar Edith Edmund Edward Eleanor Elena Elisabeth Ellen Elsa Emil
    Emma Erica Ernest Esther Eugene Evelyn Fabian Felicia Felix Fiona Florian Frances Frederick
    Gabriel Geoffrey George Gerald Gertrude Gilbert Greta Gustav Hannah Harold Harriet Heather
    Helena Henrietta Henry Herbert Hilda Howard Hubert Ida Ines Ingrid Irene Isabel Jacob Janet
    Jasmine Jennifer Jerome Joanna Johanna Jonathan Josephine Judith Julia Julian Karen Katrina
    Kenneth Laura Laurence Leonard Leonora Lillian Linda Louisa Lucia Lydia Madeleine Magdalena
    Malcolm Manuel Marcus Margaret Marianne Marion Marlene Martha Martin Matilda Matthew Maurice
    Maximilian Melanie Michael Miriam Monica Muriel Nadia Natalie Nicholas Nina Norbert Olivia
    Oscar Oswald Pamela Patricia Paula Pauline Philippa Rachel Raymond Rebecca Reginald Roderick
    Roland Rosalind Rosamund Rudolf Sabine Samuel Sandra Sebastian Selina Sibyl Sidney Simon Sophia
    Stella Stephen Susanna Sylvia Tamara Teresa Theodore Thomas Timothy Tobias Ursula Valerie Vera
    Verena Vincent Viola Virginia Vivian Walter Wanda Wilhelm Winifred Yvonne
    """
)

SURNAMES: Final = words(
    """
    Abbott Ackermann Adams Alderton Allinson Anderson Armitage Ashdown Atherton Atwood Bancroft
    Barlow Barnett Bartlett Bauer Beaumont Beckford Bellamy Bennett Bergmann Berkeley Bingham
    Blackwood Blakeley Bolton Bradshaw Braithwaite Brandt Brewster Bridgeman Brinkman Brockway
    Buchanan Burgess Burnham Calloway Cameron Cardwell Carlisle Carmichael Cartwright Cavendish
    Chadwick Chandler Chilton Clayborne Clifton Colbert Collinson Conway Corbett Cotterill Crawford
    Crichton Crosby Cunningham Dalton Davenport Dawson Delacroix Denham Devereux Dickinson Donovan
    Drummond Dubois Duncan Eastwood Eckert Edgerton Ellison Emerson Endicott Everett Fairbanks
    Falkner Farnham Faulkner Fielding Fischer Fitzgerald Fletcher Forsyth Franklin Gallagher
    Gardiner Garrison Gillespie Goddard Goodwin Grantham Greenwood Griffith Grimshaw Haberman
    Hadley Hagen Halliday Hamilton Hammond Hargreaves Harrington Hartmann Hathaway Hawthorne
    Henderson Herrmann Hoffmann Holloway Holbrook Huntington Hutchinson Ingham Jamieson Janssen
    Jefferson Jennings Jorgensen Kaufmann Kavanagh Keller Kendall Kensington Kimball Kirkland
    Klein Krueger Lambert Lancaster Langford Larsson Lattimer Lawson Leclair Lehmann Lindqvist
    Livingston Lockhart Lombardi Lorimer Lowell Mackenzie Maddox Mansfield Marchand Marlowe Martell
    Mathieson Maxwell Meredith Merriman Middleton Milford Monroe Montague Moreland Mortimer
    Neumann Newcomb Nicholson Norwood Oakley Osborne Osterman Overton Paxton Pembroke Pendleton
    Perrault Pickering Prescott Pritchard Radcliffe Ramsey Redmond Renwick Richter Robertson
    Rockwell Romano Rosenthal Rothwell Rutherford Sanderson Sandoval Schaefer Schneider Sheffield
    Sheridan Sinclair Somerset Stafford Stanton Steinberg Sutherland Swanson Templeton Thackeray
    Thornton Tremblay Underwood Vandermeer Vaughan Voss Wadsworth Wainwright Wakefield Warrington
    Weatherby Wellington Westbrook Whitaker Whitfield Wilkinson Winslow Woodward Wycliffe Yardley
    Zimmermann
    """
)

SURNAMES_ZH: Final = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文"
GIVEN_ZH: Final = "伟芳娜敏静秀丽强磊军洋勇艳杰娟涛明超霞平刚桂兰玉萍红鹏华飞玲辉英梅莉波云建国志文海燕雪梦琪子涵欣怡浩宇轩博思远佳慧晓东立新春生永健家豪俊凯雅婷诗雨嘉睿泽晨宏达振瑞祥德庆昊然书瑶倩颖"
FOREIGN_ZH: Final = words(
    "安娜 玛丽亚 托马斯 彼得 丹尼尔 索菲亚 马丁 露西亚 菲利克斯 伊莎贝尔 塞缪尔 克拉拉 奥斯卡 海伦娜 维克多 艾玛"
)
FOREIGN_SURNAMES_ZH: Final = words(
    "费舍尔 克莱因 汉密尔顿 劳森 诺伍德 温斯洛 桑德森 梅里曼 哈蒙德 贝内特 霍夫曼 兰伯特 坎宁安 罗伯逊 韦克菲尔德 施耐德"
)

STREETS: Final = words(
    "Alder Ashgrove Birchwood Brookfield Cedar Chestnut Elmhurst Fernhill Glenview Hawthorn Hazel "
    "Heathfield Juniper Larchmont Linden Maplewood Meadow Millbrook Oakridge Orchard Parkside "
    "Poplar Primrose Redwood Riverside Rosewood Spruce Sycamore Thornhill Willow"
)
STREET_KINDS: Final = ("Street", "Road", "Avenue", "Lane", "Drive", "Close")
CITIES: Final = words(
    "Ashbourne Brampton Carrington Dunmore Eastleigh Fairview Glenwood Harborough Kingsbridge "
    "Lakewood Milton Northfield Oakdale Penrith Quincy Ravenswood Springfield Thornbury Upton "
    "Westport Winchester Woodstock Yarmouth Bellevue Clifton Danbury Easton Greenville Hudson "
    "Newbury"
)
CITIES_ZH: Final = words(
    "昌平 青岛 无锡 泉州 绍兴 洛阳 柳州 烟台 芜湖 湘潭 襄阳 汕头 嘉兴 大同 锦州 宜宾 遵义 咸阳 珠海 桂林"
)
STREETS_ZH: Final = words(
    "和平 建设 人民 解放 中山 文化 朝阳 新华 光明 育才 长江 黄河 学府 东风 友谊 胜利 滨河 翠湖 金桥 银杏"
)
ORGANISATIONS: Final = words(
    "Alderbrook Bellwether Brightwater Castlegate Clearview Crestline Evergreen Fairhaven "
    "Goldfinch Greystone Harbourside Ironbridge Kestrel Lakeshore Meridian Northgate Oakfield "
    "Pinnacle Quayside Ridgeway Silverline Stonebridge Summerfield Tidewater Westgate"
)
ORGANISATIONS_ZH: Final = words(
    "恒远 瑞丰 启明 华信 金源 博雅 天和 盛达 安泰 宏图 新锐 中汇 卓越 永诚 佳和 鼎盛 东辰 嘉禾 联创 佰川"
)
NATIONALITIES: Final = words(
    "Austrian Belgian Canadian Danish Estonian Finnish Greek Hungarian Icelandic Irish Latvian "
    "Maltese Norwegian Portuguese Romanian Slovak Spanish Swedish Uruguayan Zambian"
)
NATIONALITIES_ZH: Final = words("奥地利 比利时 加拿大 丹麦 芬兰 希腊 匈牙利 冰岛 爱尔兰 挪威")
COMPOUND_ZH: Final = words(
    "欧阳 司马 上官 诸葛 夏侯 皇甫 尉迟 公孙 慕容 令狐 宇文 长孙 司徒 东方 南宫"
)
ADDRESSED_ZH: Final = words("先生 女士 小姐 老师 太太 同志 医生 教授 经理 主任 总")
TITLES: Final = ("Mr.", "Ms.", "Dr.", "Prof.")
DAYS: Final = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MAIL_HOSTS: Final = ("example.com", "example.org", "example.net")
"""Reserved for documentation (RFC 2606), as are the addresses of :mod:`privacy.pii.surrogates`."""

REGIONS_ZH: Final = words(
    "110101 120103 130102 210102 310104 320102 330106 340103 "
    "350203 370102 410105 420106 430102 440106 510104 610103"
)
"""Administrative codes (GB/T 2260) of districts of large cities."""
PLATES_ZH: Final = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
