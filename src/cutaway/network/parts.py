"""Parts: what a network is made of, seen from its stream; their inputs, and the edges between them.

One noun for every room. A part *writes* at a site (`a3.h1` at `z.3`, head 1) and *reads* at its inputs (`a3.h1<q>`); an
edge is what one part writes, read at an input of a later one (`a0.h1->a3.h1<q>`). Names are for data and files, `words`
(`head 3.1`, `MLP 0`) for people; both are understood wherever a part is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from cutaway.errors import BadFormat, did_you_mean
from cutaway.network.face import Face
from cutaway.network.items import channels_of, maps_of
from cutaway.network.sites import Site

Axis = Literal["head", "neuron", "expert", "feature", "channel", "term", ""]


@dataclass(frozen=True)
class PartKind:
    """One row of the table of kinds.

    Attributes:
        letter: how a name begins (`a` in `a3.h1`); the whole name where there is no layer.
        mark: what stands before the index (`h` in `a3.h1`).
        axis: what the index counts; "" where there is none.
        site: the site at which the part is read and replaced; "" where it has none of its own.
        write: the site by which it reaches the stream, for parts of a sublayer the sublayer's.
        reads: the site that it reads; "" where it reads nothing.
        ports: its inputs: q, k, v for a head, "in" for a whole.
        words: for people; "{n}" is the number.
        plural: the words for several; "" where there is only one.
        layered: has it a layer?
    """

    letter: str
    words: str
    plural: str = ""
    mark: str = ""
    axis: Axis = ""
    site: str = ""
    write: str = ""
    reads: str = ""
    ports: tuple[str, ...] = ()
    layered: bool = True

    @property
    def one(self) -> str:
        """For one part of the kind, without its number."""
        return self.words.replace("{n}", "").strip()


_QKV, _IN = ("q", "k", "v"), ("in",)
_PORTS = {"q": "queries", "k": "keys", "v": "values"}

#: Every kind of part, in the order in which one layer computes them.
KINDS: dict[str, PartKind] = {
    "input": PartKind("input", "input", site="resid_pre", layered=False),
    "embed": PartKind("embed", "embedding", site="embed", write="embed", layered=False),
    "pos_embed": PartKind("pos_embed", "position embedding", site="pos_embed", write="pos_embed", layered=False),
    "edit": PartKind("edit", "edit {n}", "edits", "", "term"),
    "head": PartKind("a", "head {n}", "heads", "h", "head", "z", "attn_write", "attn_in", _QKV),
    "kv_head": PartKind("a", "key/value head {n}", "key/value heads", "kv", "head", "v", "", "attn_in", ("k", "v")),
    "attention": PartKind("a", "attention {n}", "attentions", "", "", "attn_write", "attn_write", "attn_in", _IN),
    "attention_bias": PartKind("ab", "attention bias {n}", "attention biases", write="attn_write"),
    "cross_head": PartKind(
        "c", "cross-attention head {n}", "cross-attention heads", "h", "head", "cross_z", "cross_write", "cross_in", _QKV
    ),
    "cross_attention": PartKind(
        "c", "cross-attention {n}", "cross-attentions", "", "", "cross_write", "cross_write", "cross_in", _IN
    ),
    "cross_attention_bias": PartKind("cb", "cross-attention bias {n}", "cross-attention biases", write="cross_write"),
    "mixer": PartKind("x", "mixer {n}", "mixers", "", "", "mixer_write", "mixer_write", "mixer_in", _IN),
    "mlp": PartKind("m", "MLP {n}", "MLPs", "", "", "mlp_write", "mlp_write", "mlp_in", _IN),
    "expert": PartKind("e", "expert {n}", "experts", "", "expert", "", "mlp_write", "mlp_in", _IN),
    "neuron": PartKind("n", "neuron {n}", "neurons", "", "neuron", "mlp_act", "mlp_write", "mlp_in", _IN),
    "mlp_bias": PartKind("mb", "MLP bias {n}", "MLP biases", write="mlp_write"),
    "feature": PartKind("f", "feature {n}", "features", "", "feature", "features", ports=_IN),
    "feature_error": PartKind("fe", "feature error {n}", "feature errors", "", "", "feature_error"),
    "map": PartKind("", "map {n}", "maps", ports=_IN),
    "channel": PartKind("", "channel {n}", "channels", "c", "channel", ports=_IN),
    "constant": PartKind("const", "constant {n}", "constants", "", "term"),
    "norm_bias": PartKind("nb", "norm bias {n}", "norm biases", "", "term"),
    "layer": PartKind("l", "layer {n}", "layers", site="resid_post"),
    "rest": PartKind("rest", "rest {n}", "rests", "", "term"),
    "unembed_bias": PartKind("ub", "unembedding bias", "unembedding biases", layered=False),
    "logits": PartKind("logits", "logits", site="logits", reads="final_norm", ports=_IN, layered=False),
}  # fmt: skip

_RANK = {kind: i for i, kind in enumerate(KINDS)}
_NAME = re.compile(r"(?P<letter>[a-z_]+?)(?P<layer>\d+)?(?:\.(?P<mark>[a-z]*)(?P<index>\d+))?")
_STACK = re.compile(r"(?P<stack>[A-Za-z_]\w*)\.(?P<rest>[a-z]+\d.*)")
_MAP = re.compile(r"\[(?P<path>[\w.]+)\](?:\.c(?P<index>\d+))?")
_MAP_WORDS = re.compile(r"(?:map|channel (?P<index>\d+) of) (?P<path>[\w.]+)")
_BETWEEN = re.compile(r"(->| → | from )")
_WORDS = re.compile(r"(?P<words>[a-z/ -]+?)(?: (?P<layer>\d+)(?:\.(?P<index>\d+))?)?", re.IGNORECASE)
#: Words that people also use, and the kind that is meant.
_ALSO = {
    "mlp": "mlp", "attn": "attention", "embed": "embed", "pos_embed": "pos_embed", "cross": "cross_attention"
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A part of a network: an attention head, an MLP, a neuron, an expert, a feature, a channel of a map, the embedding.

    You meet parts wherever something is said to carry a behaviour: in effects, circuits, attributions, explanations.

    Attributes:
        kind: a row of `KINDS`.
        layer: from 0; None where the kind has no layers.
        index: which head, neuron, expert, feature or channel; None for a whole.
        place: name of the stack that it belongs to ("" for the main one), or, of maps, the path of the module.

    Raises BadFormat for a kind that is not in the table.

    >>> str(Part("head", 3, 1)), Part("head", 3, 1).words, str(Part("mlp", 0)), Part("mlp", 0).words
    ('a3.h1', 'head 3.1', 'm0', 'MLP 0')
    >>> Part.parse("MLP 0") == Part.parse("m0")
    True
    """

    kind: str
    layer: int | None = None
    index: int | None = None
    place: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadFormat(f"There is no kind of part {self.kind!r}.", did_you_mean(self.kind, KINDS))

    @property
    def row(self) -> PartKind:
        """Its row in the table of kinds."""
        return KINDS[self.kind]

    def __str__(self) -> str:
        if self.kind in ("map", "channel"):
            return f"[{self.place}]" + ("" if self.index is None else f".c{self.index}")
        stack = f"{self.place}." if self.place else ""
        layer = "" if self.layer is None else self.layer
        index = "" if self.index is None else f".{self.row.mark}{self.index}"
        return f"{stack}{self.row.letter}{layer}{index}"

    @property
    def words(self) -> str:
        """For people: `head 3.1`, `MLP 0`, `channel 5 of layer1.0.conv2`."""
        if self.kind == "map":
            return f"map {self.place}"
        if self.kind == "channel":
            return f"channel {self.index} of {self.place}"
        number = "" if self.layer is None else str(self.layer)
        number += "" if self.index is None else f".{self.index}"
        said = self.row.words.replace("{n}", number).strip()
        return f"{self.place} {said}" if self.place else said

    @classmethod
    def parse(cls, text: str) -> Part:
        """The part of a name (`a3.h1`) or of words (`head 3.1`); `BadFormat` where it is neither."""
        part = _parse_map(text) or _parse_name(text) or _parse_words(text) if isinstance(text, str) else None
        if part is None:
            raise BadFormat(
                f"{text!r} names no part.",
                "Write a3.h1 (head 1 of layer 3), m0, n3.120, input, logits, [layer1.0.conv2].c5.",
            )
        return part

    @classmethod
    def of(cls, part: Part | str) -> Part:
        """The part that is given, or that a name or words mean."""
        return part if isinstance(part, Part) else cls.parse(part)

    @property
    def site(self) -> Site | None:
        """The site at which it is read and replaced (entry `index` of its axis); None where it has none of its own."""
        if self.kind in ("map", "channel"):
            return Site(self.place, None, "", True)
        if not self.row.site:
            return None
        if self.kind == "input":
            return Site("resid_pre", 0, self.place)
        return Site(self.row.site, self.layer, self.place)

    @property
    def writes(self) -> Site | None:
        """The site by which it reaches the stream."""
        return Site(self.row.write, self.layer, self.place) if self.row.write else self.site

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Its inputs: queries, keys and values of a head, one for a whole."""
        return tuple(Input(self, port) for port in self.row.ports)

    @property
    def order(self) -> tuple[Any, ...]:
        """Sort key: as the forward pass meets them."""
        first = self.kind in ("input", "embed", "pos_embed")
        layer = -1 if first else 10**6 if self.layer is None else self.layer
        mapped = self.kind in ("map", "channel")
        index = -1 if self.index is None else self.index
        return ("" if mapped else self.place, layer, _RANK[self.kind], self.place if mapped else "", index)

    def __lt__(self, other: Part) -> bool:
        return self.order < other.order


@dataclass(frozen=True, order=True)
class Input:
    """An input of a part: the queries, keys or values of a head (`a5.h3<q>`), or a whole part's only one (`m4`).

    Where it is not known which of a head's inputs is meant, the port is "any"; such an input is written as its head.

    Attributes:
        part: whose input.
        port: which one: "q", "k", "v", "in", or "any".

    >>> str(Input(Part("head", 5, 3), "q")), str(Input.parse("head 5.3 <q>")), str(Input(Part("logits")))
    ('a5.h3<q>', 'a5.h3<q>', 'logits')
    """

    part: Part
    port: str = "in"

    def __post_init__(self) -> None:
        if self.port == "any" and len(self.part.row.ports) > 1:
            return
        if self.port not in self.part.row.ports:
            ports = ", ".join(self.part.row.ports) or "none"
            raise BadFormat(f"{self.part} has no input {self.port!r}.", f"Its inputs are: {ports}.")

    def __str__(self) -> str:
        return str(self.part) if self.port in ("in", "any") else f"{self.part}<{self.port}>"

    @property
    def words(self) -> str:
        """For people: `head 5.3's queries`, `MLP 4`."""
        if self.port in ("in", "any"):
            return self.part.words
        return f"{self.part.words}'s {_PORTS[self.port]}"

    @classmethod
    def parse(cls, text: str) -> Input:
        """The input of a name; `BadFormat` where it is none, or where a head's port is not said."""
        match = re.fullmatch(r"(.*?)\s*(?:<([a-z]+)>)?", text.strip()) if isinstance(text, str) else None
        if match is None:
            raise BadFormat(f"{text!r} names no input.", "Write a5.h3<q>, m4 or logits.")
        part = Part.parse(match[1])
        if match[2] is None and "in" not in part.row.ports:
            ports = ", ".join(f"{part}<{port}>" for port in part.row.ports)
            raise BadFormat(
                f"{part} does not say which input.", f"Write {ports}." if ports else "It reads nothing."
            )
        return cls(part, match[2] or "in")

    @classmethod
    def of(cls, given: Input | Part | str) -> Input:
        """The input that is given, that a name means, or the only one of a part."""
        return given if isinstance(given, Input) else cls.parse(str(given))


@dataclass(frozen=True, order=True)
class Edge:
    """What one part writes, read at an input of a later one: `a3.h1->m5`, `a0.h1->a5.h3<q>`.

    Attributes:
        source: what writes.
        target: where it is read.

    >>> edge = Edge.parse("a0.h1->a5.h3<q>")
    >>> str(edge.source), edge.target.port, str(edge)
    ('a0.h1', 'q', 'a0.h1->a5.h3<q>')
    """

    source: Part
    target: Input

    def __str__(self) -> str:
        return f"{self.source}->{self.target}"

    @property
    def words(self) -> str:
        """For people: `head 0.1 to head 5.3's queries`."""
        return f"{self.source.words} to {self.target.words}"

    @classmethod
    def parse(cls, text: str, some: bool = False) -> Edge:
        """The edge of a name; `BadFormat` where it is none.

        some: take a head without its input, as `a0.h1->a1.h0`, for an edge into one of its inputs, which is not said.
        """
        source, arrow, target = text.partition("->") if isinstance(text, str) else ("", "", "")
        if not arrow:
            raise BadFormat(f"{text!r} is not the name of an edge.", "Write a0.h1->a5.h3<q> or m2->logits.")
        part = Part.parse(target) if some and "<" not in target else None
        read = (
            Input(part, "any")
            if part is not None and len(part.row.ports) > 1
            else Input.parse(target.strip())
        )
        return cls(Part.parse(source.strip()), read)


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def _parse_map(text: str) -> Part | None:
    match = _MAP.fullmatch(text.strip()) or _MAP_WORDS.fullmatch(text.strip())
    if match is None:
        return None
    index = _number(match["index"])
    return Part("map" if index is None else "channel", None, index, match["path"])


def _parse_name(text: str, stack: str = "") -> Part | None:
    text = text.strip()
    if match := _NAME.fullmatch(text):
        layer, index = _number(match["layer"]), _number(match["index"])
        begins = (match["letter"], match["mark"] or "")
        for name, kind in KINDS.items():
            if kind.letter and (kind.letter, kind.mark) == begins and _fits(kind, layer, index):
                return Part(name, layer, index, stack)
    other = None if stack else _STACK.fullmatch(text)
    return None if other is None else _parse_name(other["rest"], other["stack"])


def _parse_words(text: str) -> Part | None:
    match = _WORDS.fullmatch(text.strip())
    if match is None:
        return None
    said, layer, index = match["words"].lower(), _number(match["layer"]), _number(match["index"])
    for name, kind in KINDS.items():
        meant = kind.one.lower() == said or _ALSO.get(said) == name
        if meant and _fits(kind, layer, index):
            return Part(name, layer, index)
    return None


def _fits(kind: PartKind, layer: int | None, index: int | None) -> bool:
    """Do a layer and an index go with this kind? Terms may lack either: the final norm has no layer."""
    if kind.axis == "term":
        return True
    return (layer is not None) == kind.layered and (index is not None) == bool(kind.axis)


def in_words(name: str) -> str:
    """What a name says to people: of a part, an input, an edge, or of several in a row; anything else as it is.

    >>> in_words("a3.h1"), in_words("a0.h1->a5.h3<q>"), in_words("m0 from 4"), in_words("gender")
    ('head 3.1', "head 0.1 to head 5.3's queries", 'MLP 0 from 4', 'gender')
    """
    return "".join(map(_said, _BETWEEN.split(name))).replace("->", " to ")


def _said(name: str) -> str:
    try:
        return Input.parse(name).words if "<" in name else Part.parse(name).words
    except BadFormat:
        return name


def in_order(parts: Iterable[Part]) -> tuple[Part, ...]:
    """The parts as the forward pass meets them."""
    return tuple(sorted(parts, key=lambda part: part.order))


def parts_of(
    net: Face, *, heads: bool = True, experts: bool = False, channels: bool = False
) -> tuple[Part, ...]:
    """Every part of a network's main stack that can be replaced by itself, in forward order.

    Heads where `z` is certified, else the whole attention; mixers; MLPs. Layers without a certified site contribute none.
    Of a network without a stream, the maps that its convolutions give.

    experts: name the experts of mixtures, too. They are shares of their MLP without a site: circuits have them as nodes,
        and a sweep that is given one raises `SiteUnavailable`.
    channels: take the maps apart into their channels.
    """
    stack = net.anatomy.stack()
    if stack is None:
        sizes = {path: channels_of(net, path) if channels else None for path in maps_of(net)}
        return in_order(
            Part("map" if n is None else "channel", None, index, path)
            for path, n in sizes.items()
            for index in ([None] if n is None else range(n))
        )
    with_heads = set(net.layers_with("z")) if heads else set()
    parts = [Part("head", layer, head) for layer in with_heads for head in range(net.heads(layer) or 0)]
    for kind in ("attention", "mixer", "mlp"):  # a whole layer's share of one sublayer
        layers = net.layers_with(KINDS[kind].site)
        parts += [Part(kind, i) for i in layers if kind != "attention" or i not in with_heads]
    for layer in stack.layers if experts else ():
        counts = [s.mlp.experts or 0 for s in layer.sublayers if s.mlp is not None]
        parts += [Part("expert", layer.index, expert) for expert in range(sum(counts))]
    return in_order(parts)


def uncovered(net: Face) -> tuple[str, ...]:
    """What writes to a stream of this network and yet is no part of `parts_of`, in words; empty where all is covered.

    That is: other stacks (an encoder), sublayers of a kind that has no part (cross-attention), sublayers whose site was
    refused, and layers in which nothing was told apart.
    """
    if net.anatomy.stack() is None:
        return ()
    covered = {(part.layer, "attention" if part.kind == "head" else part.kind) for part in parts_of(net)}
    left: dict[str, list[int]] = {}
    others = []
    for stack in net.anatomy.stacks:
        if stack.name:
            others.append(f"the {stack.name} ({len(stack.layers)} layers)")
            continue
        for layer in stack.layers:
            for kind in dict.fromkeys(sublayer.kind for sublayer in layer.sublayers):
                if (layer.index, kind) not in covered:
                    left.setdefault(KINDS[kind].one, []).append(layer.index)
            if not layer.sublayers and not any(index == layer.index for index, _ in covered):
                left.setdefault("everything", []).append(layer.index)
    named = [
        f"{name} in layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"
        for name, layers in left.items()
    ]
    return (*named, *others)
