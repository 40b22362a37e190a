"""Matrix products in bfloat16: what is rounded and what is not, who is told, and what may be claimed."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

import cutaway
from cutaway.behaviours import Behaviour, performance
from cutaway.behaviours import rounding as measuring
from cutaway.errors import BadInput
from cutaway.network import Network, products
from cutaway.network.products import ANYWAY, MIXED, exactly
from cutaway.results import Provenance, Rounding
from cutaway.sweeps import Experiment
from cutaway.sweeps.validity import valid_rules
from cutaway.trials.trial import performs
from cutaway.zoo.tiny import tiny

IDS = torch.randint(5, 90, (3, 11), generator=torch.Generator().manual_seed(4))


@pytest.fixture(params=["llama", "gpt2"])
def folder(request, tmp_path):
    tiny(request.param).save_pretrained(tmp_path / request.param)
    return tmp_path / request.param


@pytest.fixture(scope="module")
def mixed() -> Network:
    return cutaway.open("zoo:tales", dtype=ANYWAY)


@pytest.fixture(scope="module")
def pairs(mixed: Network) -> Behaviour:
    return cutaway.behaviour("pronoun", mixed, n=40, force=True)


def by_hand(folder, seen: list[int]) -> torch.Tensor:
    """The logits of the bare model with every map but the unembedding done on rounded numbers in double precision."""
    model = cutaway.open(folder).model.eval()
    head = model.get_output_embeddings()

    def rounded(x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.bfloat16).double()

    def hook(module, args, _output):
        seen.append(1)
        matrix = module.weight if isinstance(module, torch.nn.Linear) else module.weight.T
        product = rounded(args[0]) @ rounded(matrix.detach()).T
        out = product.to(torch.bfloat16).float()
        return out if module.bias is None else out + module.bias

    for module in model.modules():
        if module is not head and type(module).__name__ in ("Linear", "Conv1D"):
            module.register_forward_hook(hook)
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_products_are_those_of_rounded_numbers_and_nothing_else_is_rounded(folder):
    net, seen = cutaway.open(folder, dtype=ANYWAY), []
    plain = cutaway.open(folder)
    got, exact, wanted = net.run(IDS).logits, plain.run(IDS).logits, by_hand(folder, seen)
    assert seen
    assert got.dtype == net.dtype == torch.float32
    assert net.products == torch.bfloat16
    error = (got - exact).abs().max()
    assert error > 1e-4
    assert (got - wanted).abs().max() < error / 3
    with exactly(net.model):
        assert torch.equal(net.run(IDS).logits, exact)
    assert torch.equal(net.run(IDS).logits, got)


def test_weights_and_anatomy_are_those_of_float32_and_the_network_is_another(folder):
    net, plain = cutaway.open(folder, dtype=ANYWAY), cutaway.open(folder)
    assert net.sites() == plain.sites()
    assert net.certificate.to_dict() == plain.certificate.to_dict()
    assert net.hash != plain.hash
    for (name, ours), (other, theirs) in zip(
        net.model.state_dict().items(), plain.model.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(ours, theirs)
    assert cutaway.open(**net.opened).hash == net.hash
    assert net.randomized(seed=3).products == torch.bfloat16


def test_a_changed_weight_is_multiplied_by_as_it_is_now(folder):
    net = cutaway.open(folder, dtype=ANYWAY)
    before = net.run(IDS).logits
    path = next(
        n
        for n, m in net.model.named_modules()
        if isinstance(m, products.CoarseLinear | products.CoarseConv1D)
    )
    weight = net.modules[path].weight
    with torch.no_grad():
        weight.mul_(1.5)
    after = net.run(IDS).logits
    assert not torch.equal(after, before)
    net.model.get_submodule(path).weight = torch.nn.Parameter(weight.detach() / 1.5)
    assert (net.run(IDS).logits - before).abs().max() < (after - before).abs().max() / 10


def test_a_gradient_comes_through(folder):
    net, plain = cutaway.open(folder, dtype=ANYWAY), cutaway.open(folder)

    def slope(model: torch.nn.Module) -> torch.Tensor:
        x = model.get_input_embeddings()(IDS).detach().requires_grad_()
        model(inputs_embeds=x).logits[:, -1, 7].sum().backward()
        assert x.grad is not None
        return x.grad

    wanted = slope(plain.model)
    assert (slope(net.model) - wanted).norm() < 0.05 * wanted.norm()


def test_it_is_refused_where_it_would_not_help(folder, monkeypatch):
    monkeypatch.setattr(products, "multiplies_bfloat16", lambda device: False)
    with pytest.raises(BadInput, match="no instructions") as caught:
        cutaway.open(folder, dtype=MIXED)
    assert ANYWAY in caught.value.remedy
    with pytest.raises(BadInput, match="no instructions"):
        cutaway.open("zoo:tales", dtype=MIXED)
    monkeypatch.setattr(products, "multiplies_bfloat16", lambda device: True)
    assert cutaway.open(folder, dtype=MIXED).products == torch.bfloat16
    with pytest.raises(BadInput, match="in hand"):
        cutaway.open(tiny("llama"), dtype=MIXED)
    monkeypatch.setattr(products, "_KINDS", {})
    with pytest.raises(BadInput, match="linear maps with float32 weights"):
        cutaway.open(folder, dtype=MIXED)


def test_it_can_be_tried_where_the_processor_has_the_instructions(folder):
    if not products.multiplies_bfloat16(torch.device("cpu")):
        pytest.skip("this processor has no instructions for bfloat16")
    assert cutaway.open(folder, dtype=MIXED, device="cpu").products == torch.bfloat16


def test_the_error_is_measured_on_the_prompts_and_goes_with_every_result(mixed, pairs, tmp_path):
    done = performance(mixed, pairs)
    told = done.provenance.rounding
    assert told is not None
    assert told.n == measuring.MOST_PAIRS
    assert told.sentence in done.sentence
    assert done.provenance.dtype == "float32, products in bfloat16"
    rows = torch.linspace(0, pairs.n - 1, told.n).round().long().unique().tolist()
    plain, some = cutaway.open("zoo:tales"), pairs.take(rows)
    at = torch.tensor(some.answer_pos)[:, None]
    sides = {}
    for net in (mixed, plain):
        logits = [
            net.run(t, logits=at).logits[:, 0] for t in (some.clean_tokens(net), some.corrupted_tokens(net))
        ]
        sides[net.name, net.products] = (
            [some.metric(v, some.answers).double().numpy() for v in logits],
            logits,
        )
    (coarse, a), (exact, b) = sides.values()
    gap = abs((exact[0] - exact[1]).mean())
    off = np.abs(np.concatenate(coarse) - np.concatenate(exact)) / gap
    assert told.largest == pytest.approx(off.max(), rel=0.05)
    assert told.flips == 0
    kl = sum(
        (y.double().softmax(-1) * (y.double().log_softmax(-1) - x.double().log_softmax(-1))).sum(-1).mean()
        for x, y in zip(a, b, strict=True)
    )
    assert told.kl == pytest.approx(float(kl) / 2, rel=0.05)
    effects = cutaway.patch(mixed, pairs, by=("layer",))
    assert effects.provenance.rounding == told
    again = cutaway.load(effects.save(tmp_path / "effects"))
    assert again.provenance == effects.provenance
    from cutaway.reports import render

    assert "against float32, on 32 pairs" in " ".join(render(again.page()).split())
    assert performance(plain, pairs).provenance.rounding is None


def test_it_is_measured_once_and_announced(mixed, monkeypatch):
    fresh = cutaway.behaviour("pronoun", mixed, n=12, seed=5, force=True)
    assert mixed.roundings[fresh.hash].n == 12
    assert measuring.pairs_to_run(mixed, fresh) == 0
    monkeypatch.setattr(measuring, "_logits", None)
    assert performance(mixed, fresh).provenance.rounding == mixed.roundings[fresh.hash]
    mixed.roundings.pop(fresh.hash)
    assert measuring.pairs_to_run(mixed, fresh) == 12


@pytest.mark.parametrize("off", [{"largest": 0.2}, {"flips": 2}])
def test_beyond_the_bound_nothing_is_supported(mixed, pairs, off):
    done = performance(mixed, pairs)
    assert done.passed
    mixed.roundings[pairs.hash] = dataclasses.replace(mixed.roundings[pairs.hash], **off)
    try:
        bad = performance(mixed, pairs)
    finally:
        mixed.roundings.pop(pairs.hash)
    assert bad.does_it
    assert bad.passed is None
    assert any("bfloat16" in doubt for doubt in bad.doubts)
    assert performs(bad).passed is None
    assert "too much (at most 5 %, and none): nothing is supported." in bad.sentence
    assert "too much" not in done.sentence


def test_rules_of_sweeps_hold_within_the_rounding(mixed, pairs):
    rules = valid_rules(_experiment(mixed, pairs))
    assert {"restart", "stages", "suffix"} <= set(rules.names)
    cells = cutaway.patch(mixed, pairs.discovery, at="z", by=("layer", "head"))
    exact = cutaway.patch(cutaway.open("zoo:tales"), pairs.discovery, at="z", by=("layer", "head"))
    off = np.nanmax(np.abs(cells.data["effect"].values - exact.data["effect"].values))
    assert 0 < off < 0.1


def _experiment(net: Network, pairs: Behaviour) -> Experiment:
    tokens = pairs.clean_tokens(net)
    sources = {s: v + 1 for s, v in net.run(tokens, keep="resid_pre", logits=False).kept.items()}
    answers = torch.tensor(pairs.answer_pos)
    return Experiment(net, tokens, answers, lambda logits, _: logits[:, 3], sources)


def test_what_is_remembered_of_float32_is_not_taken_for_it(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CUTAWAY_CACHE", str(tmp_path / "cache"))
    from cutaway.network.remembered import key_of

    plain, coarse = cutaway.open(folder), cutaway.open(folder, dtype=ANYWAY)
    assert coarse.remembered
    assert None is not key_of(plain.model) != key_of(coarse.model) is not None


def test_provenance_is_read_back():
    told = Provenance("a", "b", rounding=Rounding("bfloat16", 4, 0.3, 0.1, 1, 0.01))
    assert Provenance.from_dict(json.loads(json.dumps(told.to_dict()))) == told
    old = {k: v for k, v in told.to_dict().items() if k != "rounding"}
    assert Provenance.from_dict(old).rounding is None
