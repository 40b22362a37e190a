"""What directions say, against brute force: logits, cosines, neurons, heads, other seeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from featuresets import topk  # type: ignore[import-not-found]

import cutaway
from cutaway.errors import BadInput
from cutaway.features.dashboards.directions import (
    alignment,
    alike,
    direct_logits,
    final_scale,
    normed,
    seed_stability,
    stream_directions,
)
from cutaway.features.index import FeatureIndex
from cutaway.features.sets import FeatureSet, neurons
from cutaway.network import Network
from cutaway.network.sites import Site


def test_logits_are_those_of_a_small_step_with_the_norm_frozen(
    tales: Network, index: FeatureIndex, features: FeatureSet
) -> None:
    found = direct_logits(tales, index, features, bins=7)
    head = tales.anatomy.head
    assert head is not None
    assert head.norm is not None
    norm, unembed = tales.modules[head.norm], tales.modules[head.unembed or ""]
    scale = final_scale(tales, index, head.norm)
    assert found.scale == scale
    with torch.no_grad():
        for i in (0, 13, 30):
            step = features.writes[0][1][i].double()
            gain = (
                norm.weight.double() if getattr(norm, "weight", None) is not None else torch.ones_like(step)
            )
            centred = step - step.mean() if isinstance(norm, torch.nn.LayerNorm) else step
            logits = (centred * gain) @ unembed.weight.double().T
            logits = logits - logits.mean()
            order = logits.argsort(descending=True)
            assert [t for t, _ in found.raised.of(i)] == order[:10].tolist()
            assert [t for t, _ in found.lowered.of(i)] == order.flip(0)[:10].tolist()
            ratio = torch.tensor([v for _, v in found.raised.of(i)]) / logits[order[:10]]
            np.testing.assert_allclose(ratio, ratio[0].item(), rtol=1e-4)
            assert found.bars[i].sum() == len(logits)
            counts, _ = np.histogram(logits.numpy(), 7)
            assert np.abs(found.bars[i] - counts).max() <= 1


def test_the_scale_of_the_norm_is_that_of_the_texts(
    tales: Network, index: FeatureIndex, features: FeatureSet
) -> None:
    """What a small step at the last stream does to a real logit at a token whose scale is the median's."""
    last = replace(features, writes=((Site("resid_post", tales.n_layers - 1), features.writes[0][1]),))
    found = direct_logits(tales, index, last)
    table = index.rows
    ids = table.ids[table.starts[0] : table.starts[1]].tolist()
    site, step = last.writes[0][0], 1e-3
    plain = tales.run([ids], keep=["resid_post", "final_norm"])
    moved = tales.run([ids], edits=cutaway.Add(site, step * last.writes[0][1][2]))
    assert moved.logits is not None
    assert plain.logits is not None
    change = (moved.logits.double() - plain.logits.double())[0] / step
    change = change - change.mean(-1, keepdim=True)
    token, value = found.raised.of(2)[0]
    per_token = change[torch.as_tensor(table.column[table.window == 0]), token]
    assert 0.5 < float(per_token.median()) / value < 2.0


def test_cosines_of_directions_are_exact(features: FeatureSet) -> None:
    found = alike(features)
    assert found is not None
    rows = features.writes[0][1].double()
    rows = rows / rows.norm(dim=1, keepdim=True)
    full = (rows @ rows.T).numpy()
    for i in range(0, len(rows), 5):
        others = np.delete(np.arange(len(rows)), i)
        order = others[np.argsort(-np.abs(full[i, others]))][:8]
        assert [j for j, _ in found.of(i)] == order.tolist()
        np.testing.assert_allclose([v for _, v in found.of(i)], full[i, order], atol=1e-5)


def test_a_feature_without_a_direction_is_like_nothing(features: FeatureSet) -> None:
    site, rows = features.writes[0]
    rows = rows.clone()
    rows[4] = 0
    found = alike(replace(features, writes=((site, rows),)))
    assert found is not None
    assert found.of(4) == []
    assert all(j != 4 for i in range(len(rows)) for j, _ in found.of(i))
    assert alike(replace(features, writes=(), reads=None)) is None


def test_neurons_and_heads_that_write_a_direction_are_found(tales: Network, features: FeatureSet) -> None:
    site, rows = features.writes[0]
    layer = site.layer
    assert layer is not None
    out, by_head = (torch.as_tensor(tales.weights(n, layer=layer).value).detach() for n in ("W_out", "W_O"))
    planted = rows.clone()
    planted[0], planted[1] = 3 * out[17], by_head[2].sum(0)
    found = alignment(tales, replace(features, writes=((site, planted),)))
    assert found is not None
    assert found.layer == layer
    assert found.neurons is not None
    assert found.heads is not None
    assert found.neurons.of(0)[0] == (17, pytest.approx(1.0, abs=1e-5))
    assert found.heads.of(1)[0] == (2, pytest.approx(1.0, abs=1e-5))
    full = normed(planted.double()) @ normed(out.double()).T
    assert found.neurons.of(7)[0][1] == pytest.approx(float(full[7][full[7].abs().argmax()]), abs=1e-5)
    share = []
    for w in by_head.double():
        best = torch.linalg.lstsq(w.T, normed(planted.double())[7][:, None]).solution
        share.append(float((w.T @ best).square().sum()))
    assert found.heads.of(7)[0][1] == pytest.approx(max(share), abs=1e-5)
    for ranked in (found.neurons, found.heads):
        assert 0 < ranked.chance[0] < ranked.chance[1] < 1
    width = by_head.shape[1] / by_head.shape[2]
    assert found.heads.chance[0] > width  # the best of several heads


def test_neurons_are_not_held_against_themselves(tales: Network) -> None:
    found = alignment(tales, neurons(tales, 1))
    assert found is not None
    assert found.neurons is None
    assert found.heads is not None


def test_where_the_path_to_the_logits_is_not_known_it_is_said(
    tales: Network, index: FeatureIndex, features: FeatureSet
) -> None:
    rows = features.writes[0][1]
    for writes, said in (
        ((), "not known in which directions"),
        (((Site("mlp_in", 1), rows),), "no part of the stream"),
    ):
        with pytest.raises(BadInput, match=said):
            direct_logits(tales, index, replace(features, writes=writes))


def test_writes_of_sublayers_are_added_and_of_the_stream_the_last_counts(
    tales: Network, features: FeatureSet
) -> None:
    rows = features.writes[0][1]
    both = replace(features, writes=((Site("mlp_write", 1), rows), (Site("mlp_write", 2), 2 * rows)))
    found, layer, _ = stream_directions(tales, both)
    torch.testing.assert_close(found, 3 * rows)
    assert layer == 2
    stream = replace(features, writes=((Site("resid_post", 0), rows), (Site("resid_post", 2), 2 * rows)))
    found, layer, _ = stream_directions(tales, stream)
    torch.testing.assert_close(found, 2 * rows)
    assert layer == 2


def test_stability_is_one_for_the_same_directions_and_chance_for_others(tales: Network) -> None:
    one, other = topk(tales, 40), topk(tales, 40, seed=9)
    same, _ = seed_stability(one, [one])
    np.testing.assert_allclose(same, 1.0, atol=1e-5)
    apart, chance = seed_stability(one, [other])
    assert abs(apart.mean() - chance) < 0.05
    both, _ = seed_stability(one, [one, other])
    np.testing.assert_allclose(both, (same + apart) / 2, atol=1e-6)
