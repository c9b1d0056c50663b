"""Rules for postal addresses in the American, British and several other European manners, and postcodes.

Whole addresses are found where their form gives them away: a kind of street beside a name and a
house number. A postcode that stands alone is a kind of its own.
"""

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
    "|Ways|Well|Wells|Boulevard|Blvd|Rise|Quay|Gate|Chase|Promenade|Esplanade|Parade|Pde|Circuit|Cct|Cres|Wharf|Arcade"
    "|Link|Strand|Wynd|Broadway|Yard|Reach|Pkwy|Ter|Trl|Cir|Ct|Pl|Sq|Plz|Aly|Fwy|Expy|Tpke|Av|Marg|Nagar|Chowk|Colony"
    "|Vihar|Enclave|Ganj|Layout|Bagh|Peth"
)
_PLAIN_SUFFIXES: Final = (
    "street|st|road|rd|avenue|ave|lane|ln|drive|boulevard|blvd|court|crescent|terrace|close"
)
_STATES: Final = (
    "A[AEKLPRSZ]|C[AOT]|D[CE]|F[LM]|G[AU]|HI|I[ADLN]|K[SY]|LA|M[ADEHINOPST]|N[CDEHJMVY]|O[HKR]|P[ARW]|RI|S[CD]"
    "|T[NX]|UT|V[AIT]|W[AIVY]"
)
_WORD: Final = r"\p{Lu}[\p{Latin}\p{Mn}]*(?:['-]\p{Latin}+)*\.?"
_UNIT: Final = (
    r"(?:(?i:apt|apartment|suite|ste|unit|flat|studio|room|floor|fl|level|bldg|building|no|house no|h\. ?no|flat no|plot no"
    r"|door no|appartement|appt|etage|stock|piso|puerta|esc|escalera|planta|appartamento|interno|int|piano|scala|top)\.?"
    r" ?#?\d{1,5}(?:[-/]?[A-Za-z](?![A-Za-z])|[/-]\d{1,4})?|#\d{1,5}[A-Za-z]?)"
)
_BREAK: Final = r"(?:,? ?\n ?|, ?| )"
_ORDINAL: Final = r"\d{1,3}(?i:st|nd|rd|th)"
_CITY: Final = rf"{_WORD}(?:[ -](?:(?:an der|am|im|ob der|bei|sur|sous|en|de la|de|del|di|upon|on|of|the) )?{_WORD}){{0,3}}"
_POSTCODE: Final = r"[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}"
_ZIP: Final = rf"(?:{_STATES}) \d{{5}}(?:-\d{{4}})?"
_STREET: Final = rf"(?:{_WORD}|{_ORDINAL})(?: {_WORD}){{0,3}}? (?i:{_SUFFIXES})\.?(?![A-Za-z])(?: [NSEW]{{1,2}}(?![A-Za-z]))?"
_HOUSE: Final = r"\d{1,6}[A-Za-z]?(?:[-/]\d{1,4}[A-Za-z]?)?"
_CANADIAN: Final = r"[A-CEGHJ-NPR-TVXY]\d[A-CEGHJ-NPR-TV-Z] ?\d[A-CEGHJ-NPR-TV-Z]\d"
_AUSTRALIAN: Final = r"(?:NSW|VIC|QLD|WA|SA|TAS|ACT|NT),? \d{4}"
_CODED: Final = rf"(?:{_POSTCODE}|{_ZIP}|{_AUSTRALIAN}|(?:[A-Z]{{2}} )?{_CANADIAN})"
_TAIL: Final = rf"(?:{_BREAK}{_UNIT})?(?:{_BREAK}{_CITY}(?:{_BREAK}{_CODED}|[ ,-]{{1,3}}\d{{6}}(?!\d))|{_BREAK}{_CODED})?"

# Continental streets: a compound with the kind at its end, or the kind before or after a name.
_COMPOUND: Final = (
    r"(?:straße|strasse|straat|gatan|gata|gade|vej|veien|vegen|vägen|väg|katu|kuja|polku|ranta|tie|allee|allé|platz|gasse"
    r"|weg|(?<=\p{L}{2}[dfklnst])ring|damm|ufer|steig|stieg|chaussee|laan|plein|gracht|kade|dijk|singel|hof|steeg|dreef|vænget"
    r"|torget|plads|stræde|bakken|gränd|backe|stigen|utca|markt|graben|wall|berg|str\.?)"
)
_KIND_AFTER: Final = r"(?:Straße|Strasse|Str\.|Allee|Platz|Weg|Ring|Damm|Gasse|Ufer|Markt|utca|út|u\.|tér|körút|köz|sor|caddesi|cad\.|sokak|sok\.)"
_KIND_BEFORE: Final = (
    r"(?i:calle|callejón|c/\.?|avda\.?|avenida|av\.?|plaza|pza\.?|paseo|p\.º|camino|carretera|ctra\.?|ronda|travesía|glorieta"
    r"|pasaje|pasadizo|rambla|urbanización|cuesta|alameda|cañada|vial|acceso|via|viale|v\.le|piazza|p\.zza|piazzale|corso|largo|vicolo|strada"
    r"|contrada|borgo|canale|rotonda|incrocio|stretto|rua|travessa|praça|estrada|alameda|ulica|ul\.|aleja|al\.|pl\.|plac|os\.)"
)
_KIND_FRENCH: Final = (
    r"(?i:rue|avenue|av\.?|boulevard|bd\.?|blvd|place|chemin|allée|allee|impasse|quai|route|rte|cours|passage|faubourg|square"
    r"|sentier|villa|esplanade|promenade|ruelle|cité|résidence|lotissement|hameau|voie|venelle|rond-point|montée)"
)
_PARTICLE: Final = r"(?i:de la|de las|de los|de l['’]|del|dell['’]|della|delle|dei|degli|de|du|des|d['’]|da|do|dos|das|di|la|le|les|l['’]|los|las|y|e|et|von|van|der|den|dem|zum|zur|am|an)"
_PART: Final = r"\p{L}[\p{L}\p{Mn}'’.-]*"
_LAX_NAME: Final = rf"(?:{_PARTICLE} ?){{0,3}}{_PART}(?:[ -](?:{_PARTICLE} ){{0,2}}\p{{Lu}}[\p{{L}}\p{{Mn}}'’.-]*){{0,4}}"
_PLAIN_NAME: Final = rf"{_PART}(?: (?!and ){_PART}){{0,3}}?"
_NUMBER: Final = r"\d{1,5}(?: ?[A-Za-z](?![A-Za-z]))?(?: ?[-/] ?\d{1,4}[A-Za-z]?)?"
_FLOOR: Final = r"(?:,? \d{1,2} ?[ºª°](?: ?[A-Z](?![A-Za-z])| ?(?:izq|dcha|der)\w*\.?)?)?"
_CODE_CITY: Final = rf"(?:[A-Z]{{1,2}}-)?\d{{4,6}}(?:-\d{{3,4}})?(?: ?[A-Z]{{2}}(?![A-Za-z]))?,? {_CITY}(?: \([A-Z]{{2}}\))?"
_ABROAD: Final = (
    rf"(?:(?:{_BREAK}|\. ){_UNIT}){{0,3}}(?:{_BREAK}(?:{_CODE_CITY}|{_CITY},? \d{{4,6}}(?!\d)))?"
)
_PLACED: Final = (
    r"(?i:address(?: is| to|:)?|addresse:?|anschrift:?|adresse:?|dirección:?|indirizzo:?|lives? (?:at|on|in)|living at|resid(?:es|ing) at"
    r"|located at|moved to|deliver(?:ed)? to|ship(?:ped)? (?:it )?to|send (?:it )?to|wohnhaft(?: in)?|wohnt in|vive en|habite(?: au)?)"
)
_NO_CODE: Final = (
    r"(?!\d{4} ?(?:AM|PM|AD|BC|CE|MB|GB|KB|TB|US|UK|EU|IT|HR|OK|ID|VS|CD|TV|PC|AI|FY|EUR|USD|GBP))"
)


_UNIT_WORDS: Final = (
    *(
        "apt",
        "apart",
        "suite",
        "ste",
        "unit",
        "flat",
        "h. no",
        "h.no",
        "house no",
        "plot",
        "door",
        "app",
        "etage",
        "stock",
    ),
    *("piso", "puerta", "esc", "planta", "int", "top "),
)
_MORE_UNIT_WORDS: Final = (
    *_UNIT_WORDS,
    *(
        "room",
        "studio",
        "floor",
        "fl ",
        "fl.",
        "level",
        "bldg",
        "building",
        "no ",
        "no.",
        "piano",
        "scala",
        "#",
    ),
)
_POSTCODE_WORDS: Final = ("zip", "postal", "post", "plz", "c.p.", "cap", "pin", "eircode")
_BEFORE_WORDS: Final = (
    *(
        "calle",
        "c/",
        "av",
        "plaza",
        "pza",
        "paseo",
        "p.º",
        "camino",
        "carretera",
        "ctra",
        "ronda",
        "travesía",
        "glorieta",
        "pasa",
    ),
    *(
        "rambla",
        "urbaniz",
        "cuesta",
        "alameda",
        "cañada",
        "vial",
        "acceso",
        "via",
        "v.le",
        "piazza",
        "p.zza",
        "corso",
        "largo",
    ),
    *(
        "vicolo",
        "strada",
        "contrada",
        "borgo",
        "canale",
        "rotonda",
        "incrocio",
        "stretto",
        "rua",
        "travessa",
        "praça",
        "estrada",
    ),
    *("ul", "al", "pl", "os.", "callejón"),
)
_COMPOUND_WORDS: Final = (
    *(
        "straße",
        "strasse",
        "straat",
        "gata",
        "gade",
        "vej",
        "vei",
        "vegen",
        "väg",
        "katu",
        "kuja",
        "polku",
        "ranta",
        "tie",
    ),
    *(
        "allee",
        "allé",
        "platz",
        "gasse",
        "weg",
        "ring",
        "damm",
        "ufer",
        "steig",
        "stieg",
        "chaussee",
        "laan",
        "plein",
        "gracht",
    ),
    *(
        "kade",
        "dijk",
        "singel",
        "hof",
        "steeg",
        "dreef",
        "vænget",
        "torget",
        "plads",
        "stræde",
        "bakken",
        "gränd",
        "backe",
    ),
    *("stigen", "utca", "markt", "graben", "wall", "berg", "str"),
)


def _abroad(pattern: str, score: float, name: str, needs: tuple[str, ...] = ()) -> Rule:
    compiled = regex.compile(rf"(?<![\p{{L}}\d])(?:{pattern})(?![\p{{L}}\d])", LETTERS)
    return Rule("ADDRESS", compiled, score, name=name, needs=needs, latin=True)


PLACE_RULES: Final[tuple[Rule, ...]] = (
    rule(
        "ADDRESS",
        rf"(?:{_UNIT}{_BREAK})?{_HOUSE}(?: ?[,/] ?\d{{1,4}})?,? (?:[NSEW]\.? |[NS][EW] )?{_STREET}{_TAIL}",
        0.85,
        name="street",
        latin=True,
        digits=1,
    ),
    rule(
        "ADDRESS",
        rf"{_UNIT}{_BREAK}{_STREET}{_TAIL}",
        0.85,
        name="unit_and_street",
        needs=_MORE_UNIT_WORDS,
        latin=True,
        digits=1,
    ),
    # Any name will do for a street where house number, city and a country's postcode surround it.
    rule(
        "ADDRESS",
        rf"(?:{_UNIT}{_BREAK})?{_HOUSE}(?: ?[,/] ?\d{{1,4}})?,? {_WORD}(?: {_WORD}){{0,3}}(?:,? ?\n ?|, )"
        rf"(?:{_UNIT}{_BREAK})?{_CITY}{_BREAK}{_CODED}",
        0.8,
        name="street_city_code",
        latin=True,
        digits=1,
    ),
    rule(
        "ADDRESS",
        rf"\d{{1,5}} (?!(?:of|the|in|on|at|to|for|and|or|a|an|more|days?|years?|hours?|minutes?|people)(?![a-z]))[a-z][a-z'-]+(?: [a-z][a-z'-]+)? (?:{_PLAIN_SUFFIXES})\.?(?:,? [a-z]+(?: [a-z]+)?,? [a-z]{{2}} \d{{5}})?",
        0.6,
        name="street_lower",
        latin=True,
        digits=1,
    ),
    rule("ADDRESS", rf"(?:{_CITY},? )?{_ZIP}", 0.85, name="state_zip", latin=True, digits=1),
    rule(
        "ADDRESS",
        rf"{_CITY}{_BREAK}(?:{_POSTCODE}|{_AUSTRALIAN})",
        0.8,
        name="city_postcode",
        latin=True,
        digits=1,
    ),
    rule("POSTCODE", rf"{_POSTCODE}|{_CANADIAN}", 0.8, name="postcode", latin=True, digits=1),
    rule("POSTCODE", r"\d{5}-\d{4}", 0.6, name="zip_plus_4", latin=True, digits=1),
    rule(
        "POSTCODE",
        rf"{_NO_CODE}(?P<value>\d{{4}} ?[A-Z]{{2}})(?=,? {_WORD})",
        0.6,
        name="postcode_nl",
        latin=True,
        digits=1,
    ),
    rule(
        "POSTCODE",
        r"[A-Za-z]{1,2}\d[A-Za-z\d]? \d[A-Za-z]{2}|[A-Za-z]\d[A-Za-z] ?\d[A-Za-z]\d|\d{3} ?\d{3}|\d{5}(?:-\d{4})?|\d{4}(?: [A-Z]{2}|-\d{3})?",
        cue=r"zip(?: ?code)?|postal ?code|post ?code|plz|postleitzahl|code postal|código postal|c\.p\.|cap|pin ?code|eircode",
        cued=0.85,
        name="postcode_cued",
        needs=_POSTCODE_WORDS,
        latin=True,
        digits=1,
    ),
    rule(
        "ADDRESS",
        r"[a-z]{1,2}\d[a-z\d]? \d[a-z]{2}",
        cue=r"address|live|lives",
        cued=0.8,
        name="postcode_lower",
        latin=True,
        digits=1,
    ),
    rule(
        "ADDRESS",
        r"(?:(?:USNV|USNS|USCGC|USS) [A-Z][a-z]+|PSC \d{1,5},? Box \d{1,5}|Unit \d{1,5},? Box \d{1,5})"
        r"(?:,? ?\n? ?[AFD]PO,? A[AEP] \d{5})?",
        0.9,
        name="military",
        latin=True,
        digits=1,
    ),
    rule(
        "ADDRESS",
        rf"(?i:P\.? ?O\.? ?Box|Post Office Box|GPO Box|Locked Bag|Postfach|Apartado(?: de Correos)?|Casella Postale|B\.?P\.?|Postbus|Boîte Postale) \d{{1,6}}(?:{_BREAK}{_CITY}{_BREAK}{_CODED})?",
        0.85,
        name="po_box",
        latin=True,
        digits=1,
    ),
    rule(
        "ADDRESS",
        rf"(?!#|(?i:no|building|bldg|level|room|studio|int|interno|top|piano|scala|planta|esc|stock|floor|fl)\W)(?:{_UNIT})",
        0.6,
        name="unit",
        needs=_UNIT_WORDS,
        latin=True,
        digits=1,
    ),
    _abroad(
        rf"(?:\p{{Lu}}\p{{L}}{{1,20}} )?\p{{Lu}}[\p{{L}}\p{{Mn}}.'’-]{{0,40}}{_COMPOUND},? {_NUMBER}\.?{_FLOOR}{_ABROAD}",
        0.8,
        "street_compound",
        _COMPOUND_WORDS,
    ),
    _abroad(
        rf"\p{{Lu}}{_PART[5:]}(?:[ -]\p{{Lu}}{_PART[5:]}){{0,3}}[ -]{_KIND_AFTER},? {_NUMBER}\.?{_ABROAD}",
        0.8,
        "street_kind_after",
    ),
    _abroad(
        rf"{_KIND_BEFORE} (?:{_PARTICLE} ?){{0,3}}(?=\p{{Lu}}){_LAX_NAME},? (?:(?i:n[.º°o]{{1,2}}|núm\.?|nr\.?) ?)?{_NUMBER}\.?{_FLOOR}{_ABROAD}",
        0.8,
        "street_kind_before",
        _BEFORE_WORDS,
    ),
    _abroad(
        rf"\d{{1,5}}(?: ?(?i:bis|ter|quater)| ?[A-D](?![A-Za-z]))?,? {_KIND_FRENCH} {_LAX_NAME}{_ABROAD}",
        0.85,
        "street_french",
    ),
    _abroad(
        rf"(?:\d{{1,5}} )?(?:{_WORD} ){{1,4}}{_NUMBER}[.,]?\s{{1,2}}{_UNIT}{_ABROAD}",
        0.75,
        "street_and_unit",
    ),
    _abroad(
        rf"{_PLACED}\s{{1,2}}(?P<value>(?:{_PARTICLE} )?\p{{Lu}}{_PART[5:]}(?:[ -]{_PART}){{0,4}},? (?!(?:19|20)\d\d(?!\d)){_NUMBER}{_ABROAD})",
        0.7,
        "street_after_word",
    ),
    _abroad(
        rf"(?:the )?(?i:corner of) (?:\d{{1,5}} )?{_PLAIN_NAME}(?: {_NUMBER}\.?)? and (?:\d{{1,5}} )?{_WORD}(?: {_WORD}){{0,3}}(?: {_NUMBER})?",
        0.75,
        "corner",
        ("corner of",),
    ),
    _abroad(
        rf"(?:{_UNIT}|\d{{1,4}}[\d/-]{{0,8}}),?\s{_WORD}(?: {_WORD}){{0,2}}{_BREAK}(?:{_CITY},? )?{_WORD}[ ,-]{{1,3}}\d{{6}}",
        0.8,
        "address_indian",
    ),
    _abroad(
        rf"(?:(?:(?<=\n ?)|(?<=, ))\d{{5}}|(?:D|F|A|CH|I|E|B|NL|L)-\d{{4,5}}) {_CITY}",
        0.65,
        "postcode_city",
    ),
)
