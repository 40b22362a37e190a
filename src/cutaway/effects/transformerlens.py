"""Activation patching under TransformerLens's names and signatures: `get_act_patch_resid_pre` and its kin.

The tensors that come back are laid out as there, so that code written for that library's `patching` module runs on a
network opened here. `patching_metric` takes all logits [b p v] and gives one number; it is called once for each cell.
Queries and keys here are those that attention uses, after the rotary embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cutaway.errors import BadInput, did_you_mean
from cutaway.network.sites import Site
from cutaway.results import Work, working
from cutaway.sweeps import Cell, Experiment, Write
from cutaway.sweeps.logits import cell_logits

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.texts import InputLike

Metric = Callable[[Tensor], Any]


class _SweepKind(NamedTuple):
    """One of the sweeps: its site, and the axes of its result after the layer."""

    site: str
    axes: tuple[str, ...]


_HEADS = (("out", "z"), ("q", "q"), ("k", "k"), ("v", "v"))
_KINDS: dict[str, _SweepKind] = {
    "resid_pre": _SweepKind("resid_pre", ("pos",)),
    "resid_mid": _SweepKind("resid_mid", ("pos",)),
    "attn_out": _SweepKind("attn_write", ("pos",)),
    "mlp_out": _SweepKind("mlp_write", ("pos",)),
    **{f"attn_head_{name}_by_pos": _SweepKind(site, ("pos", "head")) for name, site in _HEADS},
    "attn_head_pattern_by_pos": _SweepKind("pattern", ("head", "dest")),
    "attn_head_pattern_dest_src_pos": _SweepKind("pattern", ("head", "dest", "src")),
    **{f"attn_head_{name}_all_pos": _SweepKind(site, ("head",)) for name, site in _HEADS},
    "attn_head_pattern_all_pos": _SweepKind("pattern", ("head",)),
}
#: What the sweeps over every kind of head stack.
_STACKED = ("out", "q", "k", "v", "pattern")
_PLACE = {"pos": "position", "dest": "position", "head": "head", "src": "neuron"}


def act_patch(
    which: str,
    model: Network,
    corrupted_tokens: InputLike,
    clean_cache: Any,
    patching_metric: Metric,
    *,
    work: Work | None = None,
) -> Tensor:
    """One of TransformerLens's patching sweeps: [layer, ...], the metric with the clean value put into the corrupted run.

    Args:
        which: the name after `get_act_patch_`.
        model: a network opened here.
        corrupted_tokens: the prompts that are patched.
        clean_cache: a `Run` of the clean prompts that kept the site, or anything that gives `cache["z", layer]`.
        patching_metric: all logits [b p v] -> one number.
        work: hears of progress, and may end the sweep; then `Stopped` is raised.

    Raises:
        BadInput: an unknown sweep.
        NotFound: the cache lacks the site.
    """
    if which not in _KINDS:
        raise BadInput(f"There is no patching sweep {which!r}.", did_you_mean(which, _KINDS))
    kind = _KINDS[which]
    tokens = model.prepare(corrupted_tokens).tokens
    if tokens is None:
        raise BadInput("The corrupted prompts hold no tokens.", "Give text or token ids.")
    layers = [s.layer for s in model.resolve(kind.site) if s.layer is not None]
    sources = {Site(kind.site, layer): clean_cache[kind.site, layer] for layer in layers}
    heads = sources[Site(kind.site, layers[0])].shape[1 if kind.site == "pattern" else 2]
    shape = (len(layers), *(heads if axis == "head" else tokens.width for axis in kind.axes))
    cells: list[Cell] = []
    for index in torch.cartesian_prod(*(torch.arange(s) for s in shape)).reshape(-1, len(shape)).tolist():
        place = {_PLACE[a]: i for a, i in zip(kind.axes, index[1:], strict=True)}
        cells.append((Write(kind.site, layers[index[0]], **place),))
    at_end = torch.full((tokens.n,), -1)
    experiment = Experiment(model, tokens, at_end, lambda logits, _: logits[:, 0], sources)
    out = torch.zeros(len(cells))
    with working(work).interruptible() as work:
        for done, (cell, logits) in enumerate(cell_logits(experiment, cells), 1):
            out[cell] = float(patching_metric(logits))
            work.step(f"patching {kind.site}", done, len(cells))
    return out.reshape(shape)


def _named(*names: str) -> Callable[..., Tensor]:
    """The function for a sweep; for several of them, one that stacks their results."""

    def sweep(
        model: Any,
        corrupted_tokens: Any,
        clean_cache: Any,
        patching_metric: Metric,
        *,
        work: Work | None = None,
    ) -> Tensor:
        given = (model, corrupted_tokens, clean_cache, patching_metric)
        results = [act_patch(name, *given, work=work) for name in names]
        if len(names) == 1:
            return results[0]
        turned = [name.endswith("pattern_by_pos") for name in names]
        pairs = zip(results, turned, strict=True)
        return torch.stack([r.transpose(1, 2) if turn else r for r, turn in pairs])

    if len(names) == 1:
        kind = _KINDS[names[0]]
        sweep.__name__ = sweep.__qualname__ = f"get_act_patch_{names[0]}"
        axes = " ".join(("layer", *kind.axes))
        sweep.__doc__ = f"Patch `{kind.site}` from the clean run, cell by cell: [{axes}]; see `act_patch`."
    return sweep


get_act_patch_resid_pre = _named("resid_pre")
get_act_patch_resid_mid = _named("resid_mid")
get_act_patch_attn_out = _named("attn_out")
get_act_patch_mlp_out = _named("mlp_out")
get_act_patch_attn_head_out_by_pos = _named("attn_head_out_by_pos")
get_act_patch_attn_head_q_by_pos = _named("attn_head_q_by_pos")
get_act_patch_attn_head_k_by_pos = _named("attn_head_k_by_pos")
get_act_patch_attn_head_v_by_pos = _named("attn_head_v_by_pos")
get_act_patch_attn_head_pattern_by_pos = _named("attn_head_pattern_by_pos")
get_act_patch_attn_head_pattern_dest_src_pos = _named("attn_head_pattern_dest_src_pos")
get_act_patch_attn_head_out_all_pos = _named("attn_head_out_all_pos")
get_act_patch_attn_head_q_all_pos = _named("attn_head_q_all_pos")
get_act_patch_attn_head_k_all_pos = _named("attn_head_k_all_pos")
get_act_patch_attn_head_v_all_pos = _named("attn_head_v_all_pos")
get_act_patch_attn_head_pattern_all_pos = _named("attn_head_pattern_all_pos")
get_act_patch_attn_head_all_pos_every = _named(*(f"attn_head_{n}_all_pos" for n in _STACKED))
get_act_patch_attn_head_by_pos_every = _named(*(f"attn_head_{n}_by_pos" for n in _STACKED))
get_act_patch_block_every = _named("resid_pre", "attn_out", "mlp_out")
