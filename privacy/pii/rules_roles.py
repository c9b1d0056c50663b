"""Rules for organisations, titles, occupations and nationalities: kinds that are found on request."""

from typing import Any, Final

import regex

from privacy.pii.rules import LETTERS, Rule

_NAME: Final = r"\p{Lu}[\p{L}\p{Mn}\d&.]{0,30}+(?:['’-]\p{L}{1,30}+){0,3}+"
_LEGAL: Final = (
    r"Inc(?:orporated)?\.?|LLC|L\.L\.C\.|LLP|Ltd\.?|Limited|PLC|plc|Corp(?:oration)?\.?|Co\.|Company|GmbH(?: & Co\.? KG)?|AG|KGaA"
    r"|KG|OHG|UG|e\.V\.|S\.?A\.?S?\.|SARL|SASU|EURL|S\.?L\.?U?\.|S\.?p\.?A\.|S\.?r\.?l\.|B\.?V\.|N\.?V\.|A/S|ApS|Oyj?|AB|ASA"
    r"|Pty\.? Ltd\.?|Pvt\.? Ltd\.?|Private Limited|Kft\.?|Sp\. z o\.o\.|s\.r\.o\."
)
_KIND: Final = (
    r"Group|Holdings?|Partners|Associates|Bank|University|College|Institute|Foundation|Hospital|Clinic|Solutions|Technologies"
    r"|Systems|Industries|Enterprises|Consulting|Insurance|Laboratories|Labs|Pharmaceuticals|Airlines|Motors|Studios|Society"
    r"|Association|Agency|Ministry|Council|Church|School|Academy|Logistics|Capital|Ventures|Software|Networks|Energy|Media"
)
_COMPANY: Final = rf"{_NAME}(?:(?: and | & | de | ){_NAME}){{0,4}}?"

_COURTESY: Final = (
    r"Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Dame|Madam|Mme|Mlle|Herr|Frau|Rev|Reverend|Hon|Capt|Captain|Lt|Sgt|Col|Gen"
    r"|Señora?|Sra?|Srta|Dott(?:\.ssa)?|Sig(?:\.ra|\.na)?|Shri|Smt|Mag|Ing|Dipl\.-?Ing|Univ\.Prof"
)
# Heads of names of occupations; what stands before them says of what.
_OCCUPATION: Final = (
    r"(?:accountant|actor|actuary|administrator|adviser|advisor|agent|analyst|animator|apprentice|archaeologist|architect|archivist"
    r"|artist|assessor|assistant|attendant|attorney|auditor|author|baker|banker|barista|barrister|biologist|bookkeeper|broker|builder"
    r"|buyer|captain|carer|caretaker|carpenter|cashier|chef|chemist|cleaner|clerk|coach|collector|consultant|comptroller|contractor|controller"
    r"|cook|coordinator|copywriter|counsellor|counselor|courier|curator|dancer|dealer|dentist|designer|developer|dietitian|director"
    r"|doctor|driver|economist|editor|educator|electrician|engineer|executive|farmer|firefighter|fisherman|foreman|forwarder|fundraiser"
    r"|gardener|geologist|guard|guide|hairdresser|herbalist|hydrologist|illustrator|inspector|instructor|interpreter|investigator"
    r"|janitor|jeweller|journalist|judge|labou?rer|landscaper|lawyer|lecturer|librarian|machinist|maker|manager|mechanic|mediator"
    r"|merchandiser|meteorologist|midwife|miner|musician|negotiator|nurse|nutritionist|officer|operator|organi[sz]er|optician|optometrist|packager"
    r"|painter|paralegal|paramedic|pathologist|pharmacist|photographer|physician|physicist|physiotherapist|pilot|planner|plumber"
    r"|podiatrist|porter|president|producer|professor|programmer|psychiatrist|psychologist|psychotherapist|radiographer|receptionist"
    r"|recruiter|registrar|repairer|reporter|representative|researcher|roofer|sailor|scientist|secretary|seller|setter|singer|social"
    r" worker|soldier|solicitor|specialist|statistician|stylist|supervisor|surgeon|surveyor|tailor|teacher|technician|technologist"
    r"|telemarketer|teller|tester|therapist|trader|trainer|translator|treasurer|tutor|typist|underwriter|vet|veterinarian|waiter"
    r"|waitress|warden|welder|worker|writer|\p{L}{4,}(?:ographer|ologist|iatrist|icist|ienist|turist|tioner))"
)
_JOB: Final = rf"(?:[\p{{L}}'’/-]{{2,20}},? (?:(?:and|of|or|&) )?){{0,5}}?{_OCCUPATION}s?"

_DEMONYMS: Final = frozenset(
    (
        r"Afghan|Albanian|Algerian|American|Angolan|Argentine|Argentinian|Armenian|Australian|Austrian|Azerbaijani|Bahamian|Bahraini"
        r"|Bangladeshi|Barbadian|Belarusian|Belgian|Belizean|Beninese|Bhutanese|Bolivian|Bosnian|Botswanan|Brazilian|British|Bruneian"
        r"|Bulgarian|Burmese|Burundian|Cambodian|Cameroonian|Canadian|Chadian|Chechen|Chilean|Chinese|Colombian|Congolese|Croatian|Cuban"
        r"|Cypriot|Czech|Danish|Dominican|Dutch|Ecuadorean|Ecuadorian|Egyptian|Emirati|English|Eritrean|Estonian|Ethiopian|Fijian"
        r"|Filipino|Finnish|French|Gabonese|Gambian|Georgian|German|Ghanaian|Greek|Grenadian|Guatemalan|Guinean|Guyanese|Haitian"
        r"|Honduran|Hungarian|Icelandic|Indian|Indonesian|Iranian|Iraqi|Irish|Israeli|Italian|Ivorian|Jamaican|Japanese|Jordanian|Kazakh"
        r"|Kenyan|Korean|Kurdish|Kuwaiti|Kyrgyz|Laotian|Latvian|Lebanese|Liberian|Libyan|Lithuanian|Luxembourgish|Macedonian|Malagasy"
        r"|Malawian|Malaysian|Maldivian|Malian|Maltese|Mauritanian|Mauritian|Mexican|Moldovan|Mongolian|Montenegrin|Moroccan|Mozambican"
        r"|Namibian|Nepali|Nepalese|Nicaraguan|Nigerian|Norwegian|Omani|Pakistani|Palestinian|Panamanian|Paraguayan|Peruvian"
        r"|Polish|Portuguese|Qatari|Romanian|Russian|Rwandan|Salvadoran|Samoan|Saudi|Scottish|Senegalese|Serbian|Singaporean|Slovak|Slovene"
        r"|Slovenian|Somali|Spanish|Sudanese|Surinamese|Swedish|Swiss|Syrian|Taiwanese|Tajik|Tanzanian|Thai"
        r"|Tibetan|Togolese|Tongan|Trinidadian|Tunisian|Turkish|Turkmen|Ugandan|Ukrainian|Uruguayan|Uzbek|Venezuelan|Vietnamese|Welsh"
        r"|Yemeni|Zambian|Zimbabwean|Muslim|Christian|Jewish|Hindu|Buddhist|Sikh|Catholic|Protestant|Sunni|Shiite"
    )
    .casefold()
    .split("|")
)


def _demonym(match: Any) -> float | None:
    word = match.group().casefold()
    known = word in _DEMONYMS or word.removesuffix("s") in _DEMONYMS
    return 0.7 if known else None


def _rule(entity: str, pattern: str, score: float, name: str, flags: int = 0) -> Rule:
    compiled: Any = regex.compile(
        rf"(?<![\p{{L}}\d](?![,.]))(?:{pattern})(?![\p{{L}}\d])", LETTERS | flags
    )
    return Rule(entity, compiled, score, name=name, latin=True)


_SURNAME: Final = r"\p{Lu}\p{L}+(?:['’-]\p{L}+)?"
_FIRM: Final = (
    rf"{_SURNAME}(?:, {_SURNAME}){{0,3}} (?:and|&|und|et|y|e) (?:Sons|Partners|Associates|Söhne|Partner|[Ff]ils|[Aa]sociados|[Ff]igli|[Hh]ijos"
    rf"|Brothers|Co\.?|Daughters)|{_SURNAME}(?:, {_SURNAME}){{1,3}} (?:and|&|und|et|y|e) {_SURNAME}(?:,? (?:{_LEGAL}|{_KIND}|SPA))?"
)

ROLE_RULES: Final[tuple[Rule, ...]] = (
    _rule(
        "ORGANIZATION",
        rf"{_COMPANY},? (?:{_LEGAL})|{_NAME}(?: (?:of |and |& )?{_NAME}){{0,4}}? (?:{_KIND})",
        0.8,
        "company_form",
    ),
    _rule(
        "ORGANIZATION",
        r"(?i:works? (?:for|at)|working (?:for|at)|worked (?:for|at)|employed (?:by|at)|employer:?|company(?: name)?:|organi[sz]ation:"
        rf"|works? with|joined|join) {{1,2}}(?P<value>{_COMPANY})(?=[ ,.;!?]? ?(?:\p{{Ll}}|$|\n|[.,;!?]))",
        0.6,
        "employer",
    ),
    # Three surnames in a row may be three people; a firm stands where a firm would, or fills its line.
    Rule(
        "ORGANIZATION",
        regex.compile(
            rf"(?:(?<=(?i:(?<!\p{{L}})(?:for|at|by|of|from|that|with|support|join|joined|and|the|is)) )|(?<=^[ \t]*))(?P<value>{_FIRM})(?!\p{{L}})"
            r"(?=[ \t]*$|'s|’s| (?:\p{Ll}|website|Ltd|Inc)|[.,;:])",
            LETTERS | regex.MULTILINE,
        ),
        0.6,
        name="firm",
        latin=True,
    ),
    _rule(
        "TITLE",
        r"(?<=\p{Lu}\p{L}+,? )(?P<value>(?:B\.?Sc|M\.?Sc|B\.A|M\.A|B\.?Eng|M\.?Eng|MBA|Ph\.?D|M\.?D|D\.?D\.?S|D\.?V\.?M|LL\.?[BM]|Esq|Jr|Sr|CPA|RN|QC|KC)\.?)",
        0.6,
        "post_nominal",
    ),
    _rule("TITLE", rf"(?P<value>(?:{_COURTESY})\.?)(?=[ ]\p{{Lu}})", 0.8, "courtesy_title"),
    _rule(
        "TITLE",
        r"(?:job title|title|position|occupation|profession|role)(?: is|:)\s{1,3}(?P<value>[^\n.,;:]{3,50})",
        0.7,
        "job_after_word",
        regex.IGNORECASE,
    ),
    _rule(
        "TITLE",
        rf"(?:(?:works?|worked|working|employed|hired|job|career|joined|(?:I am|I'm|he is|she is|he's|she's|is|was|became))(?: as)?"
        rf" (?:an? |the |our )|as (?:an? |the |our )|, (?:an? |the |our ))(?P<value>{_JOB})",
        0.6,
        "job_in_sentence",
        regex.IGNORECASE,
    ),
    _rule(
        "TITLE",
        rf"^(?=[^\n]{{3,70}}$)(?![^\n]*(?<!\p{{L}})(?:the|an?|is|was|are|my|our|your|his|her|said|to|with|from|by|please)(?!\p{{L}}))[ \t]{{0,4}}(?P<value>{_JOB}(?:, [\p{{L}} ()/-]{{3,40}})?)(?=[ \t]*$)",
        0.65,
        "job_on_line",
        regex.IGNORECASE | regex.MULTILINE,
    ),
    Rule(
        "NATIONALITY",
        regex.compile(r"(?<![\p{L}\d])\p{L}{4,14}+(?![\p{L}\d])", LETTERS),
        check=_demonym,
        name="demonym",
        latin=True,
    ),
    _rule(
        "NATIONALITY",
        r"(?:nationality|citizenship|ethnicity|religion)(?: is|:)\s{1,3}(?P<value>\p{L}{3,20})",
        0.7,
        "nationality_after_word",
        regex.IGNORECASE,
    ),
    _rule(
        "NATIONALITY",
        r"(?:I am|I'm|he is|she is)(?: an?)? (?P<value>\p{L}{2,12}(?:[ae]an|ian|ese|ish))(?=[.,]| (?:but|and|by|citizen|national))",
        0.55,
        "nationality_stated",
        regex.IGNORECASE,
    ),
)
