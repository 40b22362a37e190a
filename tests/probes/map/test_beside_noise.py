"""What is no better than nothing gives no credit: rivals below chance, tokens as near as to shuffled labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from xor_networks import Specimen

import cutaway
from cutaway.errors import BadInput
from cutaway.network import Network
from cutaway.probes import ProbeData, ProbeOptions, probe
from cutaway.probes.map.near_tokens import near_tokens, shuffled_directions
from cutaway.probes.map.setting import Setting
from cutaway.probes.map.verdict import Figures, Rival, judge_encoded
from cutaway.reports import render
from cutaway.statistics import Estimate, Interval


def _setting(made: Specimen) -> Setting:
    return Setting.of(
        ProbeData(made.prompts, made.labels["used"], name="used"), ProbeOptions(permutations=30, n_boot=100)
    )


def test_a_rival_below_chance_gives_no_more_lead_than_a_constant_guess(made: Specimen) -> None:
    setting = _setting(made)
    rng = np.random.default_rng(0)
    noise = torch.as_tensor(rng.normal(size=(setting.data.n, 1)))
    right = torch.as_tensor(setting.data.labels).double()[:, None] + 0.3 * noise
    score = setting.score(right)
    against_wrong = setting.lead(right, -right)
    assert setting.score(-right) < 0.2
    assert against_wrong.value == pytest.approx(score - 0.5)
    constant = setting.lead(right, torch.zeros_like(right))
    assert against_wrong.value == pytest.approx(constant.value)
    assert against_wrong.ends() == pytest.approx(constant.ends(), abs=0.02)
    weak = right + 2 * torch.as_tensor(rng.normal(size=right.shape))
    assert 0.5 < setting.score(weak) < score
    assert setting.lead(right, weak).value == pytest.approx(score - setting.score(weak))


def test_the_claim_says_over_what_the_probe_leads() -> None:
    lead = Estimate(0.47, Interval(0.4, 0.5), 60)
    below, above = (
        Rival(
            "the tokens alone", Estimate(value, Interval(value - 0.1, value + 0.1), 60), lead, 0.5
        ).control()
        for value in (0.31, 0.6)
    )
    assert "0.310" in below.sentence
    assert "worse than a constant guess (0.5); the probe leads that guess by 0.470" in below.sentence
    assert "constant guess" not in above.sentence
    figures = Figures(
        "x", "here", "AUROC", Estimate(0.55, Interval(0.51, 0.6), 60), 0.5, 0.01, 1, 100, control_task=0.31
    )
    finding = judge_encoded(figures)
    assert finding.encoded is not None
    assert "lead by +0.050 (selectivity)" in finding.encoded.controls[0].sentence


@pytest.fixture(scope="module")
def read() -> tuple[Network, dict[str, np.ndarray], list[str]]:
    """Prompts of names with their gender, and a coin for each name."""
    from cutaway.recipes.tales.prompts import FEMALE, MALE

    names = [*FEMALE, *MALE]
    coin = np.random.default_rng(3).permutation(np.arange(len(names)) % 2)
    labels = {"gender": np.array([0] * len(FEMALE) + [1] * len(MALE)), "coin": coin}
    return cutaway.open("zoo:tales"), labels, [f"{name} was sad because" for name in names]


def test_tokens_are_shown_only_where_they_lie_nearer_than_to_shuffled_labels(read) -> None:
    net, labels, prompts = read
    options = ProbeOptions(permutations=60, untrained=False, n_boot=50)
    coin = probe(net, ProbeData(prompts, labels["coin"], name="coin"), options=options)
    assert not coin.tokens
    page = render(coin.page())
    assert "so none is shown" in page
    assert "against the token embeddings" not in page

    setting = Setting.of(ProbeData(prompts, labels["coin"]), options)
    features = net.run(prompts, keep=["resid_post.1"], logits=False)["resid_post.1"][:, -1].double()
    embedding = net.model.get_input_embeddings().weight.detach().double()  # type: ignore[operator]
    she, he = (embedding[net.encode(word).ids[0, -1]] for word in (" she", " he"))
    real = replace(coin.probe(), weights=(she - he)[None])
    near = near_tokens(net, real, shuffled_directions(features, setting))
    assert (near.tokens[0][0].strip(), near.tokens[-1][0].strip()) == ("he", "she")
    assert "shorter bars are noise" in near.said
    attrs = coin.data.attrs | {"near_tokens": near.said}
    shown = render(replace(coin, tokens=near.tokens, data=coin.data.assign_attrs(attrs)).page())
    assert "shorter bars are noise" in shown


def test_the_nearest_tokens_of_directions_that_mean_nothing_are_noise(read) -> None:
    """Of probes of shuffled labels about one in twenty may show tokens, as of any test at that level."""
    net, labels, prompts = read
    setting = Setting.of(ProbeData(prompts, labels["gender"]), ProbeOptions(permutations=99, untrained=False))
    features = net.run(prompts, keep=["resid_post.1"], logits=False)["resid_post.1"][:, -1].double()
    shuffled = shuffled_directions(features, setting)
    assert torch.allclose(shuffled.norm(dim=1), torch.ones(len(shuffled), dtype=torch.float64))
    like = probe(
        net, ProbeData(prompts, labels["gender"]), at="resid_post.1", options=ProbeOptions(permutations=0)
    ).probe()
    shown = [
        bool(
            near_tokens(
                net, replace(like, weights=shuffled[i : i + 1]), shuffled[torch.arange(len(shuffled)) != i]
            ).tokens
        )
        for i in range(0, len(shuffled), 2)
    ]
    assert np.mean(shown) <= 0.12
    few = near_tokens(net, like, shuffled[:5])
    assert not few.tokens
    assert "too few shuffled labels" in few.said


def test_options_that_a_kind_of_probe_does_not_read_are_refused() -> None:
    for kind, given in (
        ("means", {"penalties": (1.0,)}),
        ("logistic", {"precise": True}),
        ("lda", {"precise": True}),
    ):
        with pytest.raises(BadInput, match=f"A {kind} probe does not read"):
            ProbeOptions(kind=kind, **given)  # type: ignore[arg-type]
    assert ProbeOptions(kind="logistic", penalties=(1.0,)).fitting.penalties == (1.0,)
