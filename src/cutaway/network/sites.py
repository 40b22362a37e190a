"""Sites: the names of the places in a network whose value can be read and written.

A site is a name from one table, a layer where the name has one, and a stack where the network has several
(an encoder beside a decoder, a vision tower beside a text tower). Any module can be named by its dotted path as well.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from cutaway.errors import BadAddress, BadInput, NotFound, nearest

Axis = Literal[
    "batch", "pos", "width", "head", "kv_head", "head_width", "dest", "src", "hidden", "expert", "vocab"
]

_STREAM: tuple[Axis, ...] = ("batch", "pos", "width")
_HEADS: tuple[Axis, ...] = ("batch", "pos", "head", "head_width")
_KV: tuple[Axis, ...] = ("batch", "pos", "kv_head", "head_width")
_PATTERN: tuple[Axis, ...] = ("batch", "head", "dest", "src")


@dataclass(frozen=True)
class SiteKind:
    """One row of the table of sites."""

    axes: tuple[Axis, ...]
    layered: bool
    meaning: str


#: Every site, in the order in which one layer computes them: edits at several sites happen in this order.
SITES: dict[str, SiteKind] = {
    "embed": SiteKind(_STREAM, False, "token embedding as it enters the stream"),
    "pos_embed": SiteKind(_STREAM, False, "position embedding as it enters the stream"),
    "resid_pre": SiteKind(_STREAM, True, "residual stream as the layer receives it"),
    "attn_in": SiteKind(_STREAM, True, "what the attention reads, after its norm"),
    "q": SiteKind(_HEADS, True, "queries, after rotary embedding and norms"),
    "k": SiteKind(_KV, True, "keys, after rotary embedding and norms"),
    "v": SiteKind(_KV, True, "values as attention uses them"),
    "scores": SiteKind(_PATTERN, True, "attention scores with the mask, before the softmax"),
    "pattern": SiteKind(_PATTERN, True, "attention probabilities"),
    "z": SiteKind(_HEADS, True, "attention-weighted values, per head"),
    "head_out": SiteKind(
        ("batch", "pos", "head", "width"), True, "z through each head's slice of the output projection"
    ),
    "attn_out": SiteKind(_STREAM, True, "raw output of the attention"),
    "attn_write": SiteKind(_STREAM, True, "what the attention adds to the stream"),
    "cross_in": SiteKind(_STREAM, True, "what the cross-attention reads from its own stream"),
    "cross_q": SiteKind(_HEADS, True, "queries of the cross-attention"),
    "cross_k": SiteKind(
        ("batch", "src", "kv_head", "head_width"), True, "keys, over the other stack's positions"
    ),
    "cross_v": SiteKind(
        ("batch", "src", "kv_head", "head_width"), True, "values, over the other stack's positions"
    ),
    "cross_scores": SiteKind(_PATTERN, True, "cross-attention scores before the softmax"),
    "cross_pattern": SiteKind(_PATTERN, True, "cross-attention probabilities"),
    "cross_z": SiteKind(_HEADS, True, "cross-attention-weighted values, per head"),
    "cross_head_out": SiteKind(
        ("batch", "pos", "head", "width"), True, "cross_z through each head's output slice"
    ),
    "cross_out": SiteKind(_STREAM, True, "raw output of the cross-attention"),
    "cross_write": SiteKind(_STREAM, True, "what the cross-attention adds to the stream"),
    "mixer_in": SiteKind(_STREAM, True, "what a token mixer that is not attention reads"),
    "mixer_out": SiteKind(_STREAM, True, "raw output of a token mixer that is not attention"),
    "mixer_write": SiteKind(_STREAM, True, "what such a mixer adds to the stream"),
    "resid_mid": SiteKind(_STREAM, True, "residual stream between attention and MLP"),
    "mlp_in": SiteKind(_STREAM, True, "what the MLP reads, after its norm"),
    "router": SiteKind(("batch", "pos", "expert"), True, "weights with which the experts are mixed"),
    "mlp_pre": SiteKind(("batch", "pos", "hidden"), True, "input of the MLP's nonlinearity"),
    "mlp_act": SiteKind(("batch", "pos", "hidden"), True, "input of the MLP's down projection: the neurons"),
    "mlp_out": SiteKind(_STREAM, True, "raw output of the MLP"),
    "mlp_write": SiteKind(_STREAM, True, "what the MLP adds to the stream"),
    "resid_post": SiteKind(_STREAM, True, "residual stream as the layer leaves it"),
    "final_norm": SiteKind(_STREAM, False, "output of the norm before the unembedding"),
    "logits": SiteKind(("batch", "pos", "vocab"), False, "the output scores"),
}

ORDER: dict[str, int] = {name: i for i, name in enumerate(SITES)}

#: TransformerLens hook names and the site that is the same tensor. `attn_out` and `mlp_out` there are taken after a
#: post-norm, which is what is written; `hook_q`/`hook_k` there are taken before the rotary embedding.
TRANSFORMER_LENS: dict[str, str] = {
    "hook_embed": "embed",
    "hook_pos_embed": "pos_embed",
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_write",
    "hook_mlp_out": "mlp_write",
    "attn.hook_q": "q",
    "attn.hook_k": "k",
    "attn.hook_rot_q": "q",
    "attn.hook_rot_k": "k",
    "attn.hook_v": "v",
    "attn.hook_z": "z",
    "attn.hook_attn_scores": "scores",
    "attn.hook_pattern": "pattern",
    "attn.hook_result": "head_out",
    "mlp.hook_pre": "mlp_pre",
    "mlp.hook_post": "mlp_act",
}

_TL_BLOCK = re.compile(r"^blocks\.(\d+)\.(.+)$")
_SHORT = re.compile(r"^(?:(?P<stack>[A-Za-z_][\w]*)\.)?(?P<name>[a-z_]+)(?:\.(?P<layer>-?\d+))?$")


@dataclass(frozen=True, order=True)
class Site:
    """A named place: `Site("resid_pre", 5)`, `Site("logits")`, or a module path with `module=True`.

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
            return (1 + (self.layer or 0), ORDER[self.name])
        return (0 if self.name in ("embed", "pos_embed") else 10**8, ORDER[self.name])

    def transformer_lens(self) -> str:
        """The TransformerLens hook name of the same tensor (the site's own name where there is none)."""
        preferred = {site: hook for hook, site in reversed(TRANSFORMER_LENS.items())}
        preferred.update({"q": "attn.hook_rot_q", "k": "attn.hook_rot_k"})
        hook = preferred.get(self.name)
        if hook is None or self.module or self.stack:
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
        if len(spec) != 2 or not isinstance(spec[0], str) or not isinstance(spec[1], int):
            raise BadInput(f"{spec!r} is not a site.", 'Write ("resid_post", 5) or "resid_post.5".')
        base = parse(spec[0], module_paths, stacks)
        return Site(base.name, spec[1], base.stack, base.module)
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
