"""Sites: the names of the places in a network whose value can be read and written.

A site is a name from one table, a layer where the name has one, and a stack where the network has several
(an encoder beside a decoder, a vision tower beside a text tower). Any module can be named by its dotted path as well.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from cutaway.errors import BadAddress, BadInput, NotFound, nearest
from cutaway.network.indices import integer

Axis = Literal[
    "batch",
    "pos",
    "width",
    "head",
    "kv_head",
    "head_width",
    "dest",
    "src",
    "hidden",
    "expert",
    "feature",
    "vocab",
]

SublayerKind = Literal["attention", "cross_attention", "mixer", "mlp"]

#: How the names of the sites of each kind of sublayer begin: `attn_in`, `cross_write`.
SHORT: dict[SublayerKind, str] = {
    "attention": "attn",
    "cross_attention": "cross",
    "mixer": "mixer",
    "mlp": "mlp",
}

_STREAM: tuple[Axis, ...] = ("batch", "pos", "width")
_HEADS: tuple[Axis, ...] = ("batch", "pos", "head", "head_width")
_KV: tuple[Axis, ...] = ("batch", "pos", "kv_head", "head_width")
_OTHER_KV: tuple[Axis, ...] = ("batch", "src", "kv_head", "head_width")
_PATTERN: tuple[Axis, ...] = ("batch", "head", "dest", "src")
_BY_HEAD: tuple[Axis, ...] = ("batch", "pos", "head", "width")
_HIDDEN: tuple[Axis, ...] = ("batch", "pos", "hidden")
_AVERAGE, _SOFTMAX, _SUMS = "pattern @ v = z", "softmax(scores) = pattern", "resid_post"
_PROJECTED = "z @ W_O = attn_out"
_UNIT = "unit(resid) = normed"
_SHOWN = f"{_AVERAGE} or {_PROJECTED}"
_BOTH, _EITHER = ("attention mlp", "attention mlp"), ("attention mlp", "attention")


@dataclass(frozen=True)
class SiteKind:
    """One row of the table of sites: all that Cutaway knows of a kind of site beforehand.

    Attributes:
        axes: names of the dimensions of its tensor.
        layered: whether each layer has one.
        meaning: what it is, in words.
        sublayer: the kind of sublayer that it belongs to; empty for the stream and its ends.
        inside: how an attention function shows it: as it is ("any"), or only the eager one ("eager"), which computes
            a softmax that can be seen; empty where a module hands it over.
        vouched: the identities of the certificate that stand for it; "writing" where only an effect can be shown. Of several
            joined by "or" one is enough.
        by_sums: whether it is found by reading the layer's output as a sum, and is missing where that fails.
        anew: of a layer's sublayers, which an edit there has computed anew, in a sequential and in a parallel layer;
            None where a sweep knows no stage for it.
        spreads: whether its value at one position acts on others within the layer.
        carrier: the site that a change there may be added to instead, because a linear map lies between.
        watched: whether one looks there, layer by layer, for where values stopped being finite.
        hooks: TransformerLens's names for the same tensor, the one to print first. Its `attn_out` and `mlp_out` are
            taken after a post-norm, which is what is written; its `hook_q` and `hook_k` before a rotary embedding.
    """

    axes: tuple[Axis, ...]
    layered: bool
    meaning: str
    _: KW_ONLY
    sublayer: SublayerKind | Literal[""] = ""
    inside: Literal["", "any", "eager"] = ""
    vouched: tuple[str, ...] = ()
    by_sums: bool = False
    anew: tuple[str, str] | None = None
    spreads: bool = False
    carrier: str = ""
    watched: bool = False
    hooks: tuple[str, ...] = ()

    @property
    def identities(self) -> frozenset[str]:
        """All identities that may stand for it."""
        return frozenset(name for vouched in self.vouched for name in vouched.split(" or "))

    @property
    def cross(self) -> bool:
        """Whether it belongs to a cross-attention."""
        return self.sublayer == "cross_attention"


#: Every site, in the order in which one layer computes them: edits at several sites happen in this order.
# fmt: off
SITES: dict[str, SiteKind] = {
    "embed": SiteKind(_STREAM, False, "token embedding as it enters the stream",
        vouched=("writing",), hooks=("hook_embed",)),
    "pos_embed": SiteKind(_STREAM, False, "position embedding as it enters the stream",
        vouched=("writing",), hooks=("hook_pos_embed",)),
    "resid_pre": SiteKind(_STREAM, True, "residual stream as the layer receives it",
        anew=_BOTH, spreads=True, watched=True, hooks=("hook_resid_pre",)),
    "attn_normed": SiteKind(_STREAM, True, "output of the norm before the attention, before its gain and bias",
        sublayer="attention", vouched=(_UNIT, "writing"), spreads=True, hooks=("ln1.hook_normalized",)),
    "attn_in": SiteKind(_STREAM, True, "what the attention reads, after its norm",
        sublayer="attention", vouched=("writing",), by_sums=True, anew=_BOTH, spreads=True),
    "q": SiteKind(_HEADS, True, "queries, after rotary embedding and norms",
        sublayer="attention", inside="any", vouched=("q.k -> scores",), anew=_EITHER, hooks=("attn.hook_rot_q",
        "attn.hook_q")),
    "k": SiteKind(_KV, True, "keys, after rotary embedding and norms",
        sublayer="attention", inside="any", vouched=("q.k -> scores",), anew=_EITHER, spreads=True,
        hooks=("attn.hook_rot_k", "attn.hook_k")),
    "v": SiteKind(_KV, True, "values as attention uses them",
        sublayer="attention", inside="any", vouched=(_AVERAGE,), anew=_EITHER, spreads=True,
        hooks=("attn.hook_v",)),
    "scores": SiteKind(_PATTERN, True, "attention scores with the mask, before the softmax",
        sublayer="attention", inside="eager", vouched=(_AVERAGE, _SOFTMAX), anew=_EITHER,
        hooks=("attn.hook_attn_scores",)),
    "pattern": SiteKind(_PATTERN, True, "attention probabilities",
        sublayer="attention", inside="eager", vouched=(_AVERAGE,), anew=_EITHER, hooks=("attn.hook_pattern",)),
    "z": SiteKind(_HEADS, True, "attention-weighted values, per head",
        sublayer="attention", inside="any", vouched=(_SHOWN,), anew=("mlp", ""), carrier="attn_out",
        hooks=("attn.hook_z",)),
    "head_out": SiteKind(_BY_HEAD, True, "z through each head's slice of the output projection",
        sublayer="attention", vouched=(_PROJECTED,), anew=("mlp", ""), carrier="attn_out",
        hooks=("attn.hook_result",)),
    "attn_out": SiteKind(_STREAM, True, "raw output of the attention",
        sublayer="attention", by_sums=True, anew=("mlp", "")),
    "attn_write": SiteKind(_STREAM, True, "what the attention adds to the stream",
        sublayer="attention", vouched=(_SUMS,), by_sums=True, anew=("mlp", ""), watched=True,
        hooks=("hook_attn_out",)),
    "cross_in": SiteKind(_STREAM, True, "what the cross-attention reads from its own stream",
        sublayer="cross_attention", vouched=("writing",)),
    "cross_q": SiteKind(_HEADS, True, "queries of the cross-attention",
        sublayer="cross_attention", inside="any", vouched=("q.k -> scores",)),
    "cross_k": SiteKind(_OTHER_KV, True, "keys, over the other stack's positions",
        sublayer="cross_attention", inside="any", vouched=("q.k -> scores",)),
    "cross_v": SiteKind(_OTHER_KV, True, "values, over the other stack's positions",
        sublayer="cross_attention", inside="any", vouched=(_AVERAGE,)),
    "cross_scores": SiteKind(_PATTERN, True, "cross-attention scores before the softmax",
        sublayer="cross_attention", inside="eager", vouched=(_AVERAGE, _SOFTMAX)),
    "cross_pattern": SiteKind(_PATTERN, True, "cross-attention probabilities",
        sublayer="cross_attention", inside="eager", vouched=(_AVERAGE,)),
    "cross_z": SiteKind(_HEADS, True, "cross-attention-weighted values, per head",
        sublayer="cross_attention", inside="any", vouched=(_SHOWN,)),
    "cross_head_out": SiteKind(_BY_HEAD, True, "cross_z through each head's output slice",
        sublayer="cross_attention", vouched=(_PROJECTED,)),
    "cross_out": SiteKind(_STREAM, True, "raw output of the cross-attention", sublayer="cross_attention"),
    "cross_write": SiteKind(_STREAM, True, "what the cross-attention adds to the stream",
        sublayer="cross_attention", vouched=(_SUMS,)),
    "mixer_in": SiteKind(_STREAM, True, "what a token mixer that is not attention reads",
        sublayer="mixer", vouched=("writing",)),
    "mixer_out": SiteKind(_STREAM, True, "raw output of a token mixer that is not attention", sublayer="mixer"),
    "mixer_write": SiteKind(_STREAM, True, "what such a mixer adds to the stream",
        sublayer="mixer", vouched=(_SUMS,), watched=True),
    "resid_mid": SiteKind(_STREAM, True, "residual stream between attention and MLP",
        vouched=("resid_mid", _SUMS), by_sums=True, anew=("mlp", "mlp"), hooks=("hook_resid_mid",)),
    "mlp_normed": SiteKind(_STREAM, True, "output of the norm before the MLP, before its gain and bias",
        sublayer="mlp", vouched=(_UNIT, "writing"), hooks=("ln2.hook_normalized",)),
    "mlp_in": SiteKind(_STREAM, True, "what the MLP reads, after its norm",
        sublayer="mlp", vouched=("writing",), by_sums=True, anew=("mlp", "attention mlp")),
    "router": SiteKind(("batch", "pos", "expert"), True, "weights with which the experts are mixed",
        sublayer="mlp", vouched=("writing",), anew=("mlp", "mlp")),
    "mlp_pre": SiteKind(_HIDDEN, True, "input of the MLP's nonlinearity",
        sublayer="mlp", vouched=("writing",), by_sums=True, anew=("mlp", "mlp"), hooks=("mlp.hook_pre",)),
    "mlp_act": SiteKind(_HIDDEN, True, "input of the MLP's down projection: the neurons",
        sublayer="mlp", vouched=("down(mlp_act) = mlp_out",), by_sums=True, anew=("", ""), carrier="mlp_out",
        hooks=("mlp.hook_post",)),
    "mlp_out": SiteKind(_STREAM, True, "raw output of the MLP", sublayer="mlp", by_sums=True, anew=("", "")),
    "mlp_write": SiteKind(_STREAM, True, "what the MLP adds to the stream",
        sublayer="mlp", vouched=(_SUMS,), by_sums=True, anew=("", ""), watched=True, hooks=("hook_mlp_out",)),
    "resid_post": SiteKind(_STREAM, True, "residual stream as the layer leaves it",
        anew=("", ""), watched=True, hooks=("hook_resid_post",)),
    "features": SiteKind(("batch", "pos", "feature"), True, "latents of a dictionary that reads here"),
    "feature_error": SiteKind(_STREAM, True, "what a dictionary that writes here does not reconstruct"),
    "final_norm": SiteKind(_STREAM, False, "output of the norm before the unembedding",
        vouched=("norm(resid) = final_norm",)),
    "logits": SiteKind(("batch", "pos", "vocab"), False, "the output scores"),
}
# fmt: on


def having(test: Callable[[SiteKind], object]) -> tuple[str, ...]:
    """Names of the sites whose row passes a test, in the order of computation.

    >>> having(lambda kind: kind.inside == "eager" and not kind.cross)
    ('scores', 'pattern')
    """
    return tuple(name for name, kind in SITES.items() if test(kind))


#: TransformerLens hook names and the site that is the same tensor.
TRANSFORMER_LENS: dict[str, str] = {hook: name for name, kind in SITES.items() for hook in kind.hooks}

#: Place of each site in the table.
_order: dict[str, int] = {}


def _place(name: str) -> int:
    if name not in _order:
        _order.update((row, i) for i, row in enumerate(SITES))
    return _order[name]


_TL_BLOCK = re.compile(r"^blocks\.(\d+)\.(.+)$")
_SHORT = re.compile(r"^(?:(?P<stack>[A-Za-z_][\w]*)\.)?(?P<name>[a-z_]+)(?:\.(?P<layer>-?\d+))?$")


@dataclass(frozen=True, order=True)
class Site:
    """A named place: `Site("resid_pre", 5)`, `Site("logits")`, or a module path with `module=True`.

    Attributes:
        name: a row of `SITES`, or the path of a module.
        layer: from 0; None where there is none.
        stack: "" for the main one.
        module: is the name a module's path?

    >>> str(Site("z", 9)), str(Site("resid_post", 0, stack="encoder"))
    ('z.9', 'encoder.resid_post.0')
    """

    name: str
    layer: int | None = None
    stack: str = ""
    module: bool = False

    def __str__(self) -> str:
        prefix = f"{self.stack}." if self.stack else ""
        suffix = "" if self.layer is None else f".{self.layer}"
        return f"{prefix}{self.name}{suffix}"

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the dimensions of this site's tensor; empty for a module path, whose shape is its own."""
        return () if self.module else SITES[self.name].axes

    @property
    def rank(self) -> tuple[int, int]:
        """Sort key: the order in which a forward pass computes the sites."""
        if self.module:
            return (10**9, 0)
        kind = SITES[self.name]
        if kind.layered:
            return (1 + (self.layer or 0), _place(self.name))
        return (0 if self.name in ("embed", "pos_embed") else 10**8, _place(self.name))

    def transformer_lens(self) -> str:
        """The TransformerLens hook name of the same tensor (the site's own name where there is none)."""
        hook = None if self.module else next(iter(SITES[self.name].hooks), None)
        if hook is None or self.stack:
            return str(self)
        return hook if self.layer is None else f"blocks.{self.layer}.{hook}"


#: What a user may write where a site is meant.
SiteLike = str | Site | tuple[str, int]


def parse(spec: SiteLike, module_paths: Iterable[str] = (), stacks: Sequence[str] = ("",)) -> Site:
    """Read one site from a short name, a TransformerLens name, a `(name, layer)` pair or a module path.

    A layered name without a layer gives `layer=None`, which callers read as 'every layer'.

    Raises `NotFound` with the nearest names when nothing is called that.

    >>> parse("blocks.3.attn.hook_z") == parse("z.3") == parse(("z", 3))
    True
    """
    if isinstance(spec, Site):
        return spec
    if isinstance(spec, tuple):
        if len(spec) != 2 or not isinstance(spec[0], str):
            raise BadInput(f"{spec!r} is not a site.", 'Write ("resid_post", 5) or "resid_post.5".')
        base = parse(spec[0], module_paths, stacks)
        if base.module or not SITES[base.name].layered:
            raise BadAddress(f"{base} has no layers.", f'Write "{base}" without a number.')
        return Site(base.name, integer(spec[1], "layer"), base.stack)
    if not isinstance(spec, str):
        raise BadInput(
            f"{spec!r} is not a site.", 'Write "resid_post.5", ("resid_post", 5) or a module path.'
        )
    if spec in TRANSFORMER_LENS:
        return Site(TRANSFORMER_LENS[spec])
    if block := _TL_BLOCK.match(spec):
        hook = TRANSFORMER_LENS.get(block.group(2))
        if hook is not None:
            return Site(hook, int(block.group(1)))
    if short := _SHORT.match(spec):
        name, stack, layer = short.group("name"), short.group("stack") or "", short.group("layer")
        if name in SITES and (stack in stacks or not stack):
            if layer is not None and not SITES[name].layered:
                raise BadAddress(f"The site {name} has no layers.", f"Write {name} without a number.")
            return Site(name, None if layer is None else int(layer), stack)
    path = spec.removesuffix(":in")
    paths = module_paths if isinstance(module_paths, set | frozenset | dict) else set(module_paths)
    if path in paths:
        return Site(spec, module=True)
    offers = nearest(spec, [*SITES, *TRANSFORMER_LENS, *paths])
    hint = f"Did you mean {', '.join(offers)}?" if offers else f"Sites are {', '.join(SITES)}."
    raise NotFound(f"There is no site or module called {spec!r}.", hint)


def is_glob(spec: object) -> bool:
    """Whether a spec is a pattern over site names, such as `pattern.*` or `resid_*`."""
    return isinstance(spec, str) and any(c in spec for c in "*?[")


def expand_glob(pattern: str, available: Iterable[Site]) -> list[Site]:
    """All available sites whose name or TransformerLens name matches a shell-style pattern.

    >>> [str(s) for s in expand_glob("z.*", [Site("z", 0), Site("q", 0), Site("z", 1)])]
    ['z.0', 'z.1']
    """
    layered = f"{pattern}.*"
    return [
        s
        for s in available
        if fnmatch.fnmatchcase(str(s), pattern)
        or fnmatch.fnmatchcase(s.transformer_lens(), pattern)
        or (s.layer is not None and fnmatch.fnmatchcase(str(s), layered) and "." not in pattern)
    ]
