"""The words that generators fill their frames with: plain English ones, filtered by the tokenizer at hand."""

from __future__ import annotations

from typing import Final


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs `one:other`, with blanks between them; a word that stands alone goes with itself and an s."""
    return tuple(
        (one, other or f"{one}s") for one, _, other in (pair.partition(":") for pair in text.split())
    )


FEMALE: Final = tuple(
    "Mary Anna Lucy Emma Rose Jane Alice Clara Nora Ruth Ella Grace Helen Sara Julia Kate Laura Lily Maria "
    "Nina Paula Rita Susan Tina Vera Amy Betty Diana Eva Ivy Sarah Jessica Rachel Amanda Michelle Lisa "
    "Jennifer Elizabeth Mia Sue Hannah Emily Claire Anne Mandy".split()
)
MALE: Final = tuple(
    "John Tom James Peter Paul Mark David Henry Jack Luke Adam Simon Frank George Oscar Sam Leo Max Otto "
    "Robert Steven Victor Walter Arthur Ben Carl Dan Eric Fred Hugo Ivan Michael Andrew Kevin Brian Richard "
    "Thomas William Joseph Charles Daniel Tim Timmy Bob Jim Bill".split()
)
NAMES: Final = FEMALE + MALE
#: Names of small texts, for tokenizers that know few names whole.
PLAIN_FEMALE: Final = tuple("Lily Mia Sue Sara Lisa Amy Anna Lucy Emma Mary".split())
PLAIN_MALE: Final = tuple("Tim Timmy Tom Ben Max Bob Sam Jim Jack Leo".split())
PLACES: Final = tuple(
    "park shop school garden house market station church library river forest beach farm bridge hotel museum "
    "office store hospital restaurant".split()
)
THINGS: Final = tuple(
    "ball book cup key ring letter hat lamp coin flower cake map bell rope basket drum pen mirror box shoe "
    "drink computer".split()
)
FEELINGS: Final = tuple("happy sad tired cold quiet late lost hungry angry".split())
NEAR: Final = ("near", "behind", "beside")
NUMBER_PAIRS: Final = _pairs(  # singular:plural
    "boy girl dog cat horse bird tree door chair ship doctor teacher window king queen cow star table key author "
    "farmer picture car man:men woman:women friend student letter manager pilot"
)
EVENTS: Final = tuple(
    "war fair storm reign journey drought feast voyage siege strike conflict campaign expedition "
    "dispute".split()
)
CENTURIES: Final = tuple("11 12 13 14 15 16 17 18".split())
YEARS: Final = tuple(f"{year:02d}" for year in range(100))
ARGUMENTS: Final = tuple(
    "load size files last shared unit page point path text color shape name index line node role sum item "
    "base code date image limit state user value width view key list table letter book map box ball "
    "ring".split()
)
DESCRIPTIONS: Final = (
    "the first part", "the new form", "a small piece", "the whole thing", "a good start", "the other side",
    "an old one", "the next step",
)  # fmt: skip
LIST_WORDS: Final = tuple(
    "ball book cup key ring letter hat lamp coin flower cake map bell rope basket drum pen mirror box shoe "
    "dog cat horse bird tree door chair ship star table red blue green yellow white black brown happy big "
    "little day time friend mom play park garden house river forest bridge".split()
)
CAPITALS: Final = _pairs(
    "France:Paris Italy:Rome England:London Germany:Berlin Egypt:Cairo Japan:Tokyo Peru:Lima Norway:Oslo "
    "Spain:Madrid Austria:Vienna Greece:Athens Ireland:Dublin Russia:Moscow China:Beijing Cuba:Havana Poland:Warsaw "
    "Iran:Tehran Iraq:Baghdad Syria:Damascus Canada:Ottawa Portugal:Lisbon Sweden:Stockholm Finland:Helsinki "
    "Hungary:Budapest Turkey:Ankara Thailand:Bangkok Kenya:Nairobi Lebanon:Beirut Belgium:Brussels "
    "Denmark:Copenhagen Ukraine:Kiev Afghanistan:Kabul Libya:Tripoli"
)
#: A city, its country, the capital there, and what is spoken.
CITIES: Final = tuple(
    tuple(row.replace("_", " ") for row in line.split(":"))
    for line in (
        "Lyon:France:Paris:French Marseille:France:Paris:French Bordeaux:France:Paris:French Munich:Germany:Berlin:German "
        "Hamburg:Germany:Berlin:German Frankfurt:Germany:Berlin:German Milan:Italy:Rome:Italian Naples:Italy:Rome:Italian "
        "Florence:Italy:Rome:Italian Barcelona:Spain:Madrid:Spanish Seville:Spain:Madrid:Spanish "
        "Valencia:Spain:Madrid:Spanish Osaka:Japan:Tokyo:Japanese Kyoto:Japan:Tokyo:Japanese "
        "Shanghai:China:Beijing:Chinese Krakow:Poland:Warsaw:Polish Istanbul:Turkey:Ankara:Turkish "
        "Leningrad:Russia:Moscow:Russian Novosibirsk:Russia:Moscow:Russian Gothenburg:Sweden:Stockholm:Swedish"
    ).split()
)
