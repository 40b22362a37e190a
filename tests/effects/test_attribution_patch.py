"""Attribution patching: against gradients taken by hand on the bare model, and against patching itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from loops import id_behaviour, score, site_module
from scipy.stats import spearmanr
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.errors import BadBehaviour, BadInput, SiteUnavailable
from cutaway.network import Network


def by_hand(
    model: nn.Module, ids: tuple[int, ...], site: str, layer: int, mixed: Tensor | None = None
) -> list[Tensor]:
    """A site's value [1 p .] and the logits [v] at the end, in the graph, by bare hooks; `mixed` in place of embeddings."""
    kept: list[Tensor] = []
    module, on_input = site_module(model, site, layer)

    def keep(value: Tensor) -> Tensor:
        kept.append(value if value.requires_grad else value.detach().requires_grad_())
        return kept[0]

    def change(_m: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (mixed if mixed is not None else args[0], *args[1:])

    first = model.transformer.h[0].register_forward_pre_hook(change)  # type: ignore[union-attr, index]
    if on_input:
        handle = module.register_forward_pre_hook(lambda _m, args: (keep(args[0]), *args[1:]))
    else:
        handle = module.register_forward_hook(lambda _m, _a, out: keep(out))
    logits = model(torch.tensor([ids])).logits[0, -1]
    handle.remove()
    first.remove()
    return [kept[0], logits]


def estimated(
    model: nn.Module, pairs: Behaviour, row: int, site: str, layer: int, direction: str, steps: int
) -> Tensor:
    """(source - base) times the mean gradient, entry by entry: [p .]."""
    base, source = (pairs.corrupted_ids[row], pairs.clean_ids[row])
    if direction == "corrupt":
        base, source = source, base
    ends = [by_hand(model, ids, "resid_pre", 0)[0].detach() for ids in (base, source)]
    slopes = []
    for k in range(1, steps + 1):
        mixed = ends[1] + k / steps * (ends[0] - ends[1])
        value, logits = by_hand(model, base, site, layer, mixed)
        metric = logits[pairs.right[row][0]] - logits[pairs.wrong[row][0]]
        slopes.append(torch.autograd.grad(metric, value)[0])
    values = [by_hand(model, ids, site, layer)[0] for ids in (base, source)]
    return ((values[1] - values[0]) * sum(slopes) / steps)[0].detach()


@pytest.mark.parametrize("direction", ["restore", "corrupt"])
@pytest.mark.parametrize(
    ("at", "by", "steps"),
    [("resid_pre", ("layer", "position"), 1), ("z", ("layer", "head"), 1), ("z", ("layer", "head", "position"), 3),
     ("mlp_write", ("layer",), 1), ("mlp_write", ("layer",), 4)],
)  # fmt: skip
def test_every_cell_equals_gradients_by_hand(
    net: Network, pairs: Behaviour, at: str, by: tuple[str, ...], steps: int, direction: str
) -> None:
    found = cutaway.attribution_patch(net, pairs, at=at, by=by, direction=direction, steps=steps)
    gap, base = found.data.attrs["gap"], found.data["corrupted" if direction == "restore" else "clean"].values
    for row in range(pairs.n):
        for layer in range(net.n_layers):
            product = estimated(net.model, pairs, row, at, layer, direction, steps)
            heads = product.unflatten(-1, (4, 8)).sum(-1) if "head" in by else product.sum(-1, keepdim=True)
            wanted = heads.T if "position" in by else heads.sum(0)[:, None]
            got = found.values.sel(layer=layer, example=row).values.reshape(wanted.shape[0], -1)
            there = got[:, : wanted.shape[1]]
            assert there == pytest.approx(wanted.numpy() / gap, abs=1e-5)
            assert np.isnan(got[:, wanted.shape[1] :]).all()
            told = found.data["metric"].sel(layer=layer, example=row).values.reshape(wanted.shape[0], -1)
            assert told[:, : wanted.shape[1]] == pytest.approx(base[row] + wanted.numpy(), abs=1e-5)


@pytest.fixture
def linear() -> Network:
    """A GPT-2 of one layer without norms and without a nonlinearity: behind its pattern everything is linear."""
    from transformers import GPT2Config

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=1, n_embd=32, n_head=4, vocab_size=97, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config).eval()
    block = model.transformer.h[0]
    block.ln_1 = block.ln_2 = model.transformer.ln_f = nn.Identity()  # type: ignore[assignment]
    block.mlp.act = nn.Identity()  # type: ignore[assignment]
    return cutaway.open(model.double())


@pytest.mark.parametrize(
    ("at", "by"),
    [("z", ("layer", "head")), ("mlp_act", ("layer", "neuron")), ("v", ("layer", "head", "position"))],
)
def test_where_the_network_is_linear_it_equals_patching(
    linear: Network, at: str, by: tuple[str, ...]
) -> None:
    pairs = id_behaviour()
    for direction in ("restore", "corrupt"):
        exact = cutaway.patch(linear, pairs, at=at, by=by, direction=direction)
        estimate = cutaway.attribution_patch(linear, pairs, at=at, by=by, direction=direction)
        assert estimate.mean.values == pytest.approx(exact.mean.values, abs=1e-5, nan_ok=True)
        assert (np.abs(exact.mean.values) > 1e-3).any()


def test_it_has_the_axes_states_and_scale_of_patching_and_ranks_cells_alike() -> None:
    tales = cutaway.open("zoo:tales")
    pronoun = cutaway.behaviour("pronoun", tales, n=12)
    for at, by in (
        ("resid_pre", ("layer", "position")),
        ("z", ("layer", "head")),
        ("mlp_write", ("layer", "span")),
    ):
        exact = cutaway.patch(tales, pronoun, at=at, by=by)
        estimate = cutaway.attribution_patch(tales, pronoun, at=at, by=by)
        assert estimate.dims == exact.dims
        assert (estimate.data["state"].values == exact.data["state"].values).all()
        assert estimate.data.attrs["gap"] == pytest.approx(exact.data.attrs["gap"])
        one, other = (e.values.values.ravel() for e in (estimate, exact))
        both = np.isfinite(one) & np.isfinite(other)
        assert spearmanr(one[both], other[both])[0] > 0.7
        assert set(exact.data.coords) == set(estimate.data.coords)


def test_the_result_says_that_it_is_an_estimate(net: Network, pairs: Behaviour) -> None:
    found = cutaway.attribution_patch(net, pairs, at="z", by=["layer", "head"])
    assert "estimated by attribution patching" in found.headline()
    assert "estimate" in str(found.data.attrs["where"])
    assert "estimated" not in cutaway.patch(net, pairs, at="z", by=["layer", "head"]).headline()
    # two forwards, and one backward that counts two; the source side is remembered from the patch
    fresh = cutaway.attribution_patch(cutaway.open(net.model), pairs, at="z", by=["layer", "head"])
    assert fresh.provenance.forwards == pytest.approx(4 * pairs.n, rel=0.05)


def test_pairs_of_unequal_length_at_the_answer_only(net: Network) -> None:
    pairs = id_behaviour(shorter=1)
    exact = cutaway.patch(net, pairs, at="mlp_write", by=["layer"], layers=[2])
    found = cutaway.attribution_patch(net, pairs, at="mlp_write", by=["layer"], layers=[2])
    assert "Answer position only" in str(found.data.attrs["where"])
    assert np.sign(found.mean.values) == np.sign(exact.mean.values)
    with pytest.raises(BadBehaviour, match="equal length"):
        cutaway.attribution_patch(net, pairs)
    with pytest.raises(BadBehaviour, match="equal length"):
        cutaway.attribution_patch(net, pairs, by=["layer"], steps=3)
    with pytest.raises(BadInput, match="pattern"):
        cutaway.attribution_patch(net, pairs, at="pattern", by=["layer"])


def test_what_has_no_gradient_is_refused(net: Network, pairs: Behaviour) -> None:
    with pytest.raises(BadBehaviour, match="slope"):
        cutaway.attribution_patch(net, pairs.with_metric("accuracy"))
    with pytest.raises(BadBehaviour, match="gradient is zero there"):
        cutaway.attribution_patch(net, pairs.with_metric("kl"), direction="corrupt")
    assert np.isfinite(
        cutaway.attribution_patch(net, pairs.with_metric("kl"), at="z", by="layer").mean.values
    ).all()


def test_bad_input(net: Network, pairs: Behaviour) -> None:
    for wrong in ({"steps": 0}, {"direction": "restor"}, {"by": "lair"}, {"at": "z*"}):
        with pytest.raises(BadInput):
            cutaway.attribution_patch(net, pairs, **wrong)
    with pytest.raises(SiteUnavailable):
        cutaway.attribution_patch(net, pairs, at="router", by="layer")


def test_it_leaves_no_gradient_behind(net: Network, pairs: Behaviour) -> None:
    cutaway.attribution_patch(net, pairs)
    assert all(p.requires_grad and p.grad is None for p in net.model.parameters())
    assert score(pairs, 0, torch.arange(97.0)) == pairs.right[0][0] - pairs.wrong[0][0]


def test_a_plan_offers_it_first_where_it_is_cheaper(net: Network, pairs: Behaviour) -> None:
    dear = cutaway.plan(net, pairs, at="mlp_act", by=["layer", "neuron"])
    assert "attribution_patch" in repr(dear)
    assert "attribution_patch" not in repr(cutaway.plan(net, pairs, at="resid_pre", by=["layer"]))
    assert "attribution_patch" not in repr(
        cutaway.plan(net, pairs, how="zero", at="mlp_act", by=["layer", "neuron"])
    )
