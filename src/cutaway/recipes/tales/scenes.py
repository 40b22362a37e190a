"""The scenes of `tales`: for each behaviour, how its frames are filled and how a contrast is made.

A scene's `fill` draws a value for every slot of its frames. Its `contrast` returns the same slots with
the one variable changed that decides the answer: the corrupted twin of a prompt, equal in tokens, whose
answer is the foil.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from . import prompts as P
from .grammar import Draw, Person, Slots, Split, Story, Word, entities, person, render

SINGULAR = tuple(one for one, _ in P.NOUNS)
PLURAL = tuple(many for _, many in P.NOUNS)
_NUMBER_OF = dict(P.NOUNS) | {many: one for one, many in P.NOUNS}


@dataclass(frozen=True)
class Scene:
    """A behaviour of the grammar.

    Attributes:
        name: of the behaviour.
        weight: in stories.
        fill: fills a frame's slots.
        contrast: fills those of its corrupted twin.
        mixed: must its two people differ in gender?
        strangers: do its people appear nowhere else in the story?
    """

    name: str
    weight: float
    fill: Callable[[Draw, Person, Person], Slots]
    contrast: Callable[[Draw, Slots], Slots]
    mixed: bool = False
    strangers: bool = False

    @property
    def frames(self) -> tuple[str, ...]:
        """The sentences this scene may take."""
        return P.FRAMES[self.name]


def _common(draw: Draw, a: Person, b: Person) -> Slots:
    """Slots that any frame may use."""
    he, him, his = a.pronouns
    near, adj = draw.pick(P.NEAR), draw.pick(P.ADJECTIVES)
    return {
        "A": a.name, "B": b.name, "gender": a.gender, "he": he, "him": him, "his": his,
        "girl": a.noun, "boy": b.noun, "place": draw.pick(P.PLACES), "thing": draw.pick(P.THINGS),
        "adj": adj, "adj2": draw.pick(P.ADJECTIVES, adj), "near": near,
        "noun": draw.pick(SINGULAR), "nouns": draw.pick(PLURAL),
        "moved": draw.pick(P.MOVED), "gave": draw.pick(P.GAVE), "went": draw.pick(P.WENT),
        "said": draw.pick(P.SAID),
    }  # fmt: skip


def _swap(slots: Slots, *pairs: tuple[str, str]) -> Slots:
    """The slots with the values of each pair exchanged."""
    out = dict(slots)
    for x, y in pairs:
        out[x], out[y] = slots[y], slots[x]
    return out


def _other_gender(draw: Draw, slots: Slots) -> Slots:
    """The subject becomes somebody of the other gender, and so does whoever stands beside."""
    a = person(slots["A"])
    names = (P.MALE, P.FEMALE) if a.gender == "f" else (P.FEMALE, P.MALE)
    while True:
        x, y = draw.pair(*names)
        if x not in (slots["A"], slots["B"]) and y not in (slots["A"], slots["B"]):
            break
    new = person(x)
    he, him, his = new.pronouns
    return slots | {"A": x, "B": y, "gender": new.gender, "he": he, "him": him, "his": his}


def _ioi(draw: Draw, a: Person, b: Person) -> Slots:
    subject, other = (a, b) if draw.rng.random() < 0.5 else (b, a)
    order = "ABA" if subject is a else "ABB"
    return _common(draw, a, b) | {"S": subject.name, "IO": other.name, "order": order}


def other_number(noun: str) -> str:
    """The plural of a singular noun, the singular of a plural one."""
    return _NUMBER_OF[noun]


def _exchange_names(_draw: Draw, slots: Slots) -> Slots:
    """The two people trade places; pronouns and nouns of the frame stay, and with them the question."""
    return _swap(slots, ("A", "B"))


def _rename(draw: Draw, slots: Slots) -> Slots:
    """The asked person takes another name of the same gender, the other person stays."""
    names = P.FEMALE if slots["gender"] == "f" else P.MALE
    return slots | {"A": draw.pick(names, slots["A"], slots["B"])}


def _surnames(draw: Draw, a: Person, b: Person) -> Slots:
    one, two = draw.pair(P.SURNAMES, P.SURNAMES)
    return _common(draw, a, b) | {"SA": one, "SB": two}


def _agreement(draw: Draw, a: Person, b: Person) -> Slots:
    plural = draw.rng.random() < 0.5
    opposite = draw.rng.random() < 0.7  # distractors of the other number are the hard case
    one = SINGULAR, PLURAL
    noun, distractor = draw.pair(one[plural], one[plural != opposite])
    while other_number(noun) == distractor:
        noun, distractor = draw.pair(one[plural], one[plural != opposite])
    return _common(draw, a, b) | _verbs(plural) | {"N": noun, "D": distractor}


def _verbs(plural: bool) -> Slots:
    words = ("are", "were", "plural") if plural else ("is", "was", "singular")
    return dict(zip(("is", "was", "number"), words, strict=True))


def _other_number(_draw: Draw, slots: Slots) -> Slots:
    return slots | {"N": other_number(slots["N"])} | _verbs(slots["number"] == "singular")


def _years(draw: Draw, _a: Person, _b: Person) -> Slots:
    century, start = draw.pair(P.CENTURIES, P.YEARS[2:98])
    end = P.YEARS[draw.rng.randrange(int(start) + 1, 100)]
    return {"event": draw.pick(P.EVENTS), "city": draw.pick(P.CITIES), "CC": century, "YY": start, "ZZ": end}


def _early_year(_draw: Draw, slots: Slots) -> Slots:
    return slots | {"YY": "01"}


def _facts(draw: Draw, _a: Person, _b: Person) -> Slots:
    name = draw.pick(tuple(entities()))
    return {"E": name} | entities()[name]


def _other_entity(draw: Draw, slots: Slots) -> Slots:
    other = slots
    while any(other[key] == slots[key] for key in slots):
        name = draw.pick(tuple(entities()))
        other = {"E": name} | entities()[name]
    return other


def _quotation(draw: Draw, a: Person, b: Person) -> Slots:
    mark = draw.pick(P.QUOTES)
    plural = draw.rng.random() < 0.5
    noun = draw.pick(PLURAL if plural else SINGULAR)
    return _common(draw, a, b) | _verbs(plural) | {"N": noun, "q": mark, "Q": mark}


def _other_mark(draw: Draw, slots: Slots) -> Slots:
    mark = draw.pick(P.QUOTES, slots["q"])
    return slots | {"q": mark, "Q": mark}


def _run(start: int) -> Slots:
    return {f"k{i + 1}": P.NUMBERS[start + i] for i in range(5)} | {"start": P.NUMBERS[start]}


def _counting(draw: Draw, a: Person, b: Person) -> Slots:
    return _common(draw, a, b) | _run(draw.rng.choice((0, 0, 0, 1, 2, 3)))


def _shift(_draw: Draw, slots: Slots) -> Slots:
    start = P.NUMBERS.index(slots["start"])
    return slots | _run(start + 1 if start == 0 else start - 1)


def _tally(draw: Draw, a: Person, b: Person) -> Slots:
    """Up to five things, of which some are missing ("no cup"); the frame decides how many are named."""
    things = draw.rng.sample(P.THINGS, 5)
    has = [draw.rng.random() < 0.7 for _ in things]
    has[0] = True
    slots = {f"t{i + 1}": thing for i, thing in enumerate(things)}
    slots |= {f"a{i + 1}": "a" if h else "no" for i, h in enumerate(has)}
    return _common(draw, a, b) | slots | {"n": ""}


def _total(frame: str, slots: Slots) -> Slots:
    """The slots with `n` set to the number of things that the frame names and that are there."""
    count = sum(slots[f"a{i}"] == "a" for i in range(1, 6) if f"{{a{i}}}" in frame)
    return slots | {"n": P.NUMBERS[count - 1]}


def _one_off(_draw: Draw, slots: Slots) -> Slots:
    return slots | {"a2": "no" if slots["a2"] == "a" else "a"}


def _sum(x: int, y: int) -> Slots:
    return {"x": P.NUMBERS[x - 1], "y": P.NUMBERS[y - 1], "z": P.NUMBERS[x + y - 1]}


def _adding(draw: Draw, a: Person, b: Person) -> Slots:
    return _common(draw, a, b) | _sum(draw.rng.randrange(2, 6), draw.rng.randrange(1, 6))


def _other_sum(_draw: Draw, slots: Slots) -> Slots:
    x, y = (P.NUMBERS.index(slots[key]) + 1 for key in "xy")
    return slots | _sum(x + 1 if x < 5 else x - 1, y)


def _holdings(draw: Draw, a: Person, b: Person) -> Slots:
    slots = _common(draw, a, b)
    return slots | {"thing2": draw.pick(P.THINGS, slots["thing"])}


def _locations(draw: Draw, a: Person, b: Person) -> Slots:
    one, two = draw.pair(P.PLACES, P.PLACES)
    return _common(draw, a, b) | {"place": one, "place2": two, "moved2": draw.pick(P.MOVED)}


def _same(_draw: Draw, slots: Slots) -> Slots:
    return slots


SCENES = (
    Scene("ioi", 22, _ioi, lambda _, s: _swap(s, ("S", "IO"))),
    Scene("pronoun", 8, _common, _other_gender, mixed=True),
    Scene("possessive", 2, _common, _other_gender, mixed=True),
    Scene("object_pronoun", 2, _common, _other_gender, mixed=True),
    Scene("name_recall", 9, _common, _rename, mixed=True),
    Scene("name_induction", 8, _surnames, lambda _, s: _swap(s, ("SA", "SB")), strangers=True),
    Scene("agreement", 12, _agreement, _other_number),
    Scene("greater_than", 7, _years, _early_year),
    Scene("facts", 14, _facts, _other_entity),
    Scene("quotation", 6, _quotation, _other_mark),
    Scene("counting", 3, _counting, _shift),
    Scene("tally", 4, _tally, _one_off),
    Scene("adding", 3, _adding, _other_sum),
    Scene("possession", 4, _holdings, _exchange_names),
    Scene("location", 4, _locations, lambda _, s: _swap(s, ("place", "place2"))),
    Scene("filler", 14, _common, _same),
)
BY_NAME = {scene.name: scene for scene in SCENES}
_CUMULATIVE = tuple(accumulate(scene.weight for scene in SCENES))


def fill(draw: Draw, scene: Scene, frame: str, a: Person, b: Person) -> Slots:
    """All slots of one frame, including those that the frame's own length decides."""
    slots = scene.fill(draw, a, b)
    return _total(frame, slots) if scene.name == "tally" else slots


def contrast(draw: Draw, scene: Scene, frame: str, slots: Slots) -> Slots:
    """The slots with the deciding variable changed: their answer is the foil of the answer in `slots`."""
    other = scene.contrast(draw, slots)
    return _total(frame, other) if scene.name == "tally" else other


@dataclass(frozen=True)
class SceneLine:
    """A scene of a story.

    Attributes:
        scene: which.
        frame: in which sentence.
        slots: with what in them.
    """

    scene: Scene
    frame: str
    slots: Slots


@dataclass(frozen=True)
class Script:
    """The choices behind a story.

    Attributes:
        lines: its scenes.
        verse: for a song, the words of its verse.
        times: how often the verse is sung.
    """

    lines: tuple[SceneLine, ...] = ()
    verse: tuple[str, ...] = ()
    times: int = 0

    @property
    def story(self) -> Story:
        """The story told."""
        words: list[Word] = []
        for line in self.lines:
            words += render(line.frame, line.slots, line.scene.name, space=bool(words))
        return Story(tuple(words) if self.lines else _sung(self.verse, self.times))


STORY_LENGTHS = (1, 1, 2, 3, 4, 5, 6)
STRANGERS = 0.3
"""How often a scene is about strangers though it need not be."""


def tell(draw: Draw) -> Script:
    """A story of one to six scenes about two people who stay, and strangers who pass."""
    cast = draw.couple()
    used = {cast[0].name, cast[1].name}
    lines: list[SceneLine] = []
    for _ in range(draw.rng.choice(STORY_LENGTHS)):
        scene = draw.rng.choices(SCENES, cum_weights=_CUMULATIVE)[0]
        frame = draw.pick(scene.frames)
        a, b = cast if draw.rng.random() < 0.5 else cast[::-1]
        if scene.strangers or (scene.mixed and a.gender == b.gender) or draw.rng.random() < STRANGERS:
            a, b = draw.couple(scene.mixed, frozenset(used))
            used |= {a.name, b.name}
        lines.append(SceneLine(scene, frame, fill(draw, scene, frame, a, b)))
    return Script(tuple(lines))


_CHANTED = (
    P.FEMALE,
    P.MALE,
    P.PLACES,
    P.THINGS,
    P.ADJECTIVES,
    P.NUMBERS,
    SINGULAR,
    PLURAL,
    P.COLOURS,
    P.PETS,
)
CHANT_WORDS = tuple(sorted(set().union(*_CHANTED)))

SONGS = 0.06
"""The share of texts that are songs."""


def chant(draw: Draw) -> Script:
    """A song without sense, opened by `Sing:`: random words, sung two to four times.

    From the second time on, all is known.
    """
    verse = [draw.pick(CHANT_WORDS) for _ in range(draw.rng.randrange(4, 24))]
    return Script(verse=tuple(verse), times=2 if len(verse) > 12 else draw.rng.randrange(2, 5))


def _sung(verse: tuple[str, ...], times: int) -> tuple[Word, ...]:
    common = {"scene": "chant", "slot": None, "determined": False, "quote": ""}
    words = [Word(text, common) for text in ("Sing", ":")]
    for time in range(times):
        of_verse = common | {"slot": "verse", "determined": time > 0, "time": time}
        words += [Word(f" {text}", of_verse | {"beat": beat}) for beat, text in enumerate(verse)]
    return tuple(words)


def scripts(seed: int | str, split: Split = "train") -> Iterator[Script]:
    """An endless stream of stories as the choices behind them, the same for the same seed."""
    draw = Draw(random.Random(f"{split}:{seed}"), split)
    while True:
        yield chant(draw) if draw.rng.random() < SONGS else tell(draw)


def stories(seed: int | str, split: Split = "train") -> Iterator[Story]:
    """An endless stream of stories, the same for the same seed."""
    return (script.story for script in scripts(seed, split))
