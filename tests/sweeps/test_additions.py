"""Vectors added at single tokens of prompts that were run once: the numbers of whole runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cutaway
from cutaway.network.inputs import Tokens
from cutaway.results.meter import Meter, metered
from cutaway.sweeps.additions import AdditionRunner, Additions

SITES = [
    ["resid_pre.0"],
    ["resid_post.1"],
    ["mlp_out.1"],
    ["attn_out.2"],
    ["resid_post.3"],
    ["resid_post.0", "mlp_out.2"],
]


def asked(net: cutaway.Network, sites: list[str], n: int = 40) -> tuple[Tokens, Additions]:
    draw = torch.Generator().manual_seed(0)
    tokens = Tokens.of_ids(torch.randint(0, net.d_vocab or 2, (3, 12), generator=draw))
    rows, columns = (torch.randint(0, most, (n,), generator=draw).numpy() for most in (3, 12))
    found = [net.resolve(site)[0] for site in sites]
    return tokens, Additions(
        rows, columns, {s: torch.randn(n, net.d_model or 1, generator=draw) for s in found}
    )


@pytest.mark.parametrize("sites", SITES)
@pytest.mark.parametrize("name", ["tales", "indirect-object-gpt2", "docstring-gpt2"])
def test_logits_are_those_of_whole_runs(name: str, sites: list[str]) -> None:
    net = cutaway.open(f"zoo:{name}")
    if not all(net.has(site) for site in sites):
        pytest.skip("no such layer")
    tokens, additions = asked(net, sites)
    runner = AdditionRunner.of(net, tokens, list(additions.vectors))
    assert runner is not None
    seen: list[int] = []
    with metered(Meter()) as meter:
        got = list(runner.run(tokens, additions))
    for which, logits in got:
        for i, row in zip(which.tolist(), logits, strict=True):
            ids = tokens.ids[additions.rows[i], : additions.columns[i] + 1].tolist()
            edits = [cutaway.Add(site, vector=v[i], pos=-1) for site, v in additions.vectors.items()]
            wanted = net.run([ids], edits=edits).logits
            assert wanted is not None
            torch.testing.assert_close(row, wanted[0, -1], atol=2e-4, rtol=1e-4)
            seen.append(i)
    assert sorted(seen) == list(range(len(additions)))
    assert meter.forwards == pytest.approx(tokens.n + additions.forwards(net, tokens.width))


def test_where_whole_runs_are_needed_there_is_no_runner() -> None:
    net = cutaway.open("zoo:tales")
    tokens, additions = asked(net, ["resid_post.1"])
    with net.edit(cutaway.Scale("mlp_out", 0.5, layer=0)):
        assert AdditionRunner.of(net, tokens, list(additions.vectors)) is None
    assert AdditionRunner.of(net, tokens, net.resolve("embed")) is None


def test_those_at_one_column_travel_together() -> None:
    net = cutaway.open("zoo:tales")
    _, additions = asked(net, ["resid_post.1"], 200)
    waves = additions.waves()
    assert all(len(set(additions.columns[w].tolist())) == 1 for w in waves)
    assert len(waves) == 12
    assert np.sort(np.concatenate(waves)).tolist() == list(range(200))
