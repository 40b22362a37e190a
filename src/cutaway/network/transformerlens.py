"""TransformerLens's verbs on a network: same names, shapes and meaning, for notebooks that look for a home."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cutaway.network.edits import Edit, EditFunction, Here
from cutaway.network.face import Face
from cutaway.network.sites import TRANSFORMER_LENS, Site, SiteLike, parse


@dataclass(frozen=True)
class HookPoint:
    """What a hook function is handed as `hook`: the name of the place and its layer.

    Attributes:
        name: of the place, in TransformerLens's words.
        layer_index: from 0; None where there is none.
    """

    name: str
    layer_index: int | None

    def layer(self) -> int:
        """The layer of the place."""
        return int(self.layer_index or 0)


@dataclass(frozen=True)
class _Hook:
    """A `(name, fn)` pair as an edit: fn(value, hook=...) gives a new value, or None where it changed its copy in place."""

    at: SiteLike
    fn: Callable[..., Tensor | None]

    def bind(self, network: Any) -> Sequence[tuple[Site, EditFunction]]:
        def edit(value: Tensor, here: Here) -> Tensor:
            copy = value.clone()
            new = self.fn(copy, hook=HookPoint(here.site.transformer_lens(), here.site.layer))
            new = copy if new is None else new
            return value if new is copy and torch.equal(copy, value) else new

        return [(site, edit) for site in network.resolve(self.at)]


#: TransformerLens's short names that differ from ours.
_SHORT_NAMES = {hook.rpartition("hook_")[2]: name for hook, name in TRANSFORMER_LENS.items()}


class Cache(dict[str, Tensor]):
    """Activations by TransformerLens name; `cache["z", 3]`, `cache["resid_post", -1]` and site names work as well."""

    def __init__(self, values: dict[Site, Tensor], depth: int) -> None:
        super().__init__({site.transformer_lens(): value for site, value in values.items()})
        self._sites = values
        self._depth = depth

    def __getitem__(self, key: Any) -> Tensor:
        if isinstance(key, str) and key in self:
            return super().__getitem__(key)
        wanted: Any = key
        if isinstance(key, tuple) and len(key) >= 2 and isinstance(key[1], int):
            name = str(key[0])
            site = Site(_SHORT_NAMES.get(name, name), key[1] % max(self._depth, 1))
        else:
            site = parse(wanted)
        if site in self._sites:
            return self._sites[site]
        raise KeyError(f"{key!r} was not cached; cached: {', '.join(list(self)[:8])} ...")

    def stack_activation(self, name: str) -> Tensor:
        """One activation over all layers: [layers b ...]."""
        return torch.stack([self[(name, i)] for i in range(self._depth)])


def run_with_cache(
    net: Face,
    inputs: Any,
    names_filter: str | Sequence[str] | Callable[[str], bool] | None = None,
    stop_at_layer: int | None = None,
) -> tuple[Tensor | None, Cache]:
    """Logits and a cache of activations.

    names_filter: a name, names, or a test of names; without one everything is cached, patterns included.
    stop_at_layer: end before this layer; logits are then None.
    """
    every = [s for s in net.sites() if s.name not in ("logits", "head_out")]
    if names_filter is None:
        keep: list[SiteLike] = list(every)
    elif callable(names_filter):
        keep = [s for s in net.sites() if s.name != "logits" and names_filter(s.transformer_lens())]
    else:
        keep = [names_filter] if isinstance(names_filter, str) else list(names_filter)
    stop = None
    if stop_at_layer is not None:
        last = stop_at_layer % max(net.n_layers, 1)
        stop = Site("resid_pre", last)
        keep = [s for s in keep if not isinstance(s, Site) or (s.layer or 0) < last or s == stop]
    run = net.run(inputs, keep=keep, stop_at=stop)
    return run.logits, Cache(run.kept, net.n_layers)


def run_with_hooks(
    net: Face, inputs: Any, fwd_hooks: Sequence[tuple[Any, Callable[..., Any]]] = ()
) -> Tensor | None:
    """Logits [b p v] of a run with hook functions: each `(name, fn)` with fn(value, hook) -> new value or None."""
    return net.run(inputs, edits=hook_edits(net, fwd_hooks)).logits


def hook_edits(net: Face, pairs: Sequence[tuple[Any, Callable[..., Any]]]) -> list[Edit]:
    """Hook functions as edits; a name may be a test of names."""
    edits: list[Edit] = []
    for name, fn in pairs:
        names = [s for s in net.sites() if name(s.transformer_lens())] if callable(name) else [name]
        edits.extend(_Hook(n, fn) for n in names)
    return edits


def to_tokens(net: Face, text: str | Sequence[str], prepend_bos: bool | None = None) -> Tensor:
    """Token ids LongTensor [b p], padded on the right; `prepend_bos` adds or leaves out the beginning-of-text token."""
    if prepend_bos is None:
        return net.encode(text).ids
    texts = [text] if isinstance(text, str) else text
    rows = [list(net.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts]
    bos = getattr(net.tokenizer, "bos_token_id", None)
    return net.encode([[bos, *r] if prepend_bos and bos is not None else r for r in rows]).ids


def to_str_tokens(net: Face, text: Any, prepend_bos: bool | None = None) -> list[str]:
    """The tokens of one prompt as strings."""
    ids = to_tokens(net, text, prepend_bos) if isinstance(text, str) and prepend_bos is not None else text
    return net.encode(ids).strings(0)
