"""Every method of attribution against its definition, computed by brute force or finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cutaway.circuits import score, wiring
from cutaway.circuits.passes.outputs import INPUT, At, record
from cutaway.circuits.passes.running import Mask, run_edges
from cutaway.errors import BadBehaviour
from cutaway.results import Budget, Work

_EPS = 1e-5


def slope(net, pairs, row: int, edge: tuple[int, int], edits=(), eps: float = _EPS) -> float:
    """d metric / d(share of an edge that is corrupted) at 0, by central differences: minus the definition of EAP."""
    found = wiring(net)
    part = pairs.take([row])
    clean, at = part.clean_tokens(net), torch.tensor([-1])
    ablated, _ = record(found, part.corrupted_tokens(net))
    values = []
    for sign in (1, -1):
        mask = torch.ones(found.graph.shape, dtype=torch.double)
        mask[edge] = 1 - sign * eps
        logits = run_edges(found, clean, at, ablated, Mask(mask), edits)
        values.append(float(part.metric(logits, part.answers)[0]))
    return (values[0] - values[1]) / (2 * eps)


def some_edges(net, n: int = 12) -> list[tuple[int, int]]:
    graph = wiring(net).graph
    rng = np.random.default_rng(1)
    places = np.argwhere(graph.allowed)
    return [tuple(int(i) for i in p) for p in places[rng.choice(len(places), n, replace=False)]]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_eap_is_difference_times_gradient(name: str, pairs, request: pytest.FixtureRequest):
    """score = -(corrupted - clean) . gradient, per example, against finite differences of the masked run."""
    net = request.getfixturevalue(name)
    scores = score(net, pairs, method="eap")
    assert scores.examples is not None
    scale = np.abs(scores.values).max()
    tolerance = 1e-6 if name == "gpt2" else 3e-2  # llama's norms compute in float32 whatever the type
    for edge in some_edges(net):
        for row in (0, 3):
            wanted = -slope(net, pairs, row, edge)
            assert scores.examples[row][edge] == pytest.approx(wanted, abs=tolerance * max(scale, 1))
    assert np.allclose(scores.values, scores.examples.mean(0), atol=1e-6)
    assert not scores.values[~scores.graph.allowed].any()


def test_eap_ig_is_the_mean_over_inputs(gpt2, pairs):
    """(z' - z) times the mean gradient at z' + k/m (z - z'), each gradient by autograd on a bare forward with one edge."""
    steps = 3
    scores = score(gpt2, pairs, method="eap-ig", steps=steps)
    found = wiring(gpt2)
    row = 2
    part = pairs.take([row])
    clean, corrupted = (record(found, t)[0] for t in (part.clean_tokens(gpt2), part.corrupted_tokens(gpt2)))
    for edge in some_edges(gpt2, 8):
        w, r = edge
        # the difference of the writer between the two prompts is fixed; the gradient is taken at each input
        total = 0.0
        for k in range(1, steps + 1):
            mixed = corrupted.values[INPUT] + k / steps * (clean.values[INPUT] - corrupted.values[INPUT])
            total += fixed_difference_slope(gpt2, part, w, r, clean, corrupted, mixed)
        assert scores.examples is not None
        assert scores.examples[row][edge] == pytest.approx(-total / steps, abs=1e-6)


def fixed_difference_slope(net, part, w: int, r: int, clean, corrupted, mixed) -> float:
    """Gradient of the metric at an input, along the difference (corrupted - clean) of a writer added at one reader."""
    from cutaway.circuits.passes.outputs import differences

    found = wiring(net)
    real = part.clean_tokens(net).mask
    delta = differences(found, clean, corrupted, real)[w]
    share = torch.zeros((), dtype=torch.double, requires_grad=True)
    at = torch.tensor([-1])
    here, _ = record(found, part.clean_tokens(net), None, [At(INPUT, lambda v, h=None: mixed)])
    target = here.map(lambda v: v)
    # move the writer's ablated value so that ablated - current = delta, whatever it is now
    if w == 0:
        target.values[INPUT] = here.values[INPUT] + delta
    else:
        writer = next(s for s in found.stages if s.kind != "logits" and s.writers.start <= w < s.writers.stop)
        if writer.kind == "unit":
            target.values[writer.write] = here.values[writer.write] + delta
        else:
            step = corrupted.values[writer.write] - clean.values[writer.write]
            target.values[writer.write] = here.values[writer.write] + step
    keep = torch.ones(found.graph.shape, dtype=torch.double)
    cut = torch.zeros_like(keep)
    cut[w, r] = 1.0
    mask = keep - share * cut
    edit = At(INPUT, lambda v, h=None: mixed)
    logits = run_edges(found, part.clean_tokens(net), at, target, Mask(mask), [edit], grad=True)
    value = part.metric(logits, part.answers).sum()
    return float(torch.autograd.grad(value, share)[0])


def test_bootstrap_needs_no_second_run(gpt2, pairs):
    scores = score(gpt2, pairs, method="eap")
    intervals = scores.intervals()
    inside = (intervals.low <= intervals.value) & (intervals.value <= intervals.high)
    assert inside[scores.graph.allowed].all()
    again = scores.resampled(3)
    assert not np.array_equal(again.values, scores.values)


def test_positions_add_up(gpt2, pairs):
    scores = score(gpt2, pairs, method="eap", positions="position")
    assert scores.positions is not None
    assert scores.positions.shape[0] == max(pairs.lengths)
    assert np.allclose(scores.positions.sum(0), scores.values, atol=1e-6)
    by_span = score(gpt2, pairs, method="eap", positions="span")
    assert by_span.groups == ("changed", "elsewhere")
    assert np.allclose(by_span.positions.sum(0), scores.values, atol=1e-6)


def test_batches_do_not_matter(gpt2, pairs):
    whole = score(gpt2, pairs, method="eap")
    small = score(gpt2, pairs, method="eap", work=Work(budget=Budget(memory=1)))
    assert np.allclose(whole.examples, small.examples, atol=1e-6)


def test_node_scores_are_gradients_over_all_paths(gpt2, pairs):
    """atp of a node = the slope when all its outgoing edges are corrupted a little at once."""
    scores = score(gpt2, pairs, method="atp")
    graph = scores.graph
    for w in (0, 2, 5, len(graph.writers) - 1):
        found = wiring(gpt2)
        part = pairs.take([1])
        ablated, _ = record(found, part.corrupted_tokens(gpt2))
        values = []
        for sign in (1, -1):
            mask = torch.ones(graph.shape, dtype=torch.double)
            mask[w] = 1 - sign * _EPS
            logits = run_edges(found, part.clean_tokens(gpt2), torch.tensor([-1]), ablated, Mask(mask))
            values.append(float(part.metric(logits, part.answers)[0]))
        wanted = -(values[0] - values[1]) / (2 * _EPS)
        # ablated is fixed while the writer itself moves with the others: to first order the same
        assert scores.node_examples[1][w] == pytest.approx(wanted, abs=1e-5)


def test_a_metric_without_slope_is_refused(gpt2, pairs):
    with pytest.raises(BadBehaviour, match="does not depend on the network"):
        score(gpt2, pairs.with_metric("accuracy"), method="eap")
    with pytest.raises(BadBehaviour, match="does not depend on the network"):
        score(gpt2, pairs.with_metric(lambda logits, answers: logits[:, 0] * 0 + 1), method="eap")
