"""What `measure` says of a network is what running it by hand gives."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.features.measures.training import trained
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

import cutaway
from cutaway.errors import BadInput, NotFinite
from cutaway.features import with_dictionary
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, Place, TopK
from cutaway.features.lengths import Lengths
from cutaway.features.measures import DictionaryMeasures, measure
from cutaway.features.measures.comparing import halves
from cutaway.network import Network
from cutaway.recipes.tales.scenes import stories
from cutaway.reports import render

WIDTH = 128


@cache
def net() -> Network:
    return cutaway.open("zoo:tales")


@cache
def texts(seed: int = 0, n: int = 24) -> tuple[str, ...]:
    return tuple(story.text for story in islice(stories(f"measuring {seed}"), n))


@cache
def axes(site: str, k: int = 24, width: int = WIDTH) -> Dictionary:
    """A latent for each direction of random axes: it explains something, and is nobody's features."""
    turn = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(1)))[0]
    both, place = torch.cat([turn, -turn]), Place("", site, width)
    return Dictionary(
        "autoencoder",
        (Encoder(both.T, None, TopK(k)),),
        (Decoder(0, 0, both),),
        (None,),
        ((place,),),
        (place,),
    )


@cache
def measured(site: str) -> DictionaryMeasures:
    return measure(net(), axes(site), list(texts()), longest=None)


def kept_back(n: int = 24) -> list[int]:
    """Which texts are not those that controls are made of."""
    owner = np.concatenate([[i] * 5 for i in range(n)])
    return sorted(set(owner[~halves(owner, 0)].tolist()))


def inside(run: Any) -> torch.Tensor:
    """Tokens that count: no padding, nothing special, not the first."""
    special = torch.tensor(net().tokenizer.all_special_ids)
    mask = run.tokens.mask & ~torch.isin(run.tokens.ids, special)
    mask[:, 0] = False
    return mask


def test_the_figures_of_reconstruction_are_those_of_a_run() -> None:
    found, site = measured("resid_post.2"), "resid_post.2"
    run = net().run([texts()[i] for i in kept_back()], keep=[site], logits=False)
    rows = run[site][inside(run)].double()
    codes = axes(site).encode(rows)
    made = axes(site).decode(codes)
    fvu = float((made - rows).square().sum() / (rows - rows.mean(0)).square().sum())
    itself = found.itself
    assert (found.tokens, found.texts) == (len(rows), 12)
    assert itself.fvu.value == pytest.approx(fvu, rel=1e-5)
    assert itself.cosine.value == pytest.approx(float(torch.cosine_similarity(made, rows).mean()), rel=1e-5)
    assert itself.l0 == pytest.approx(float((codes != 0).sum(1).double().mean()))
    fires = (codes != 0).double().mean(0).numpy()
    np.testing.assert_allclose(found.firing, fires)
    assert itself.dense == pytest.approx(float((fires > 0.1).mean()))
    first = run[site][:, 0].double()
    error = (axes(site).reconstruct(first) - first).square().sum(1).mean()
    assert found.first == pytest.approx(float(error / (rows - rows.mean(0)).square().sum(1).mean()), rel=1e-4)


def test_tokens_that_are_too_long_are_apart_and_keep_their_values() -> None:
    """Half of the tokens are longer than the median: with longest=1 these stay as they are, in figures and in runs."""
    site = "resid_post.2"
    found, whole = (measure(net(), axes(site), list(texts()), longest=longest) for longest in (1.0, None))
    assert 0.3 * whole.tokens < found.tokens < 0.7 * whole.tokens
    assert any("more than 1 times as long" in note for note in found.notes)
    assert not any("times as long" in note for note in whole.notes)
    with pytest.raises(BadInput, match="longest"):
        measure(net(), axes(site), list(texts()), longest=0.1)
    run = net().run([texts()[i] for i in range(24)], keep=[site], logits=False)
    makers = torch.tensor([i not in kept_back() for i in range(24)])
    lengths = Lengths.of(run[site][inside(run) & makers[:, None]], 1.0)
    run = net().run([texts()[i] for i in kept_back()], keep=[site], logits=False)
    rows = run[site][inside(run)]
    rows = rows[lengths(rows)].double()
    assert found.tokens == len(rows)
    made = axes(site).reconstruct(rows)
    fvu = float((made - rows).square().sum() / (rows - rows.mean(0)).square().sum())
    assert found.itself.fvu.value == pytest.approx(fvu, rel=1e-5)

    def put(value: Any) -> Any:
        mask = lengths(value)
        mask[:, 0] = False
        return torch.where(mask[..., None], axes(site).reconstruct(value.flatten(0, 1)).view_as(value), value)

    loss = count = 0.0
    for i in kept_back():
        plain = net().run(texts()[i], keep=[site])
        changed = net().run(texts()[i], edits=[cutaway.Apply(site, put)])
        counts = (inside(plain) & lengths(plain[site]))[0]
        special, ids = set(net().tokenizer.all_special_ids), plain.tokens.ids[0].tolist()
        q = changed.logits[0].double().log_softmax(-1)
        for at in range(len(ids) - 1):
            if counts[at] and ids[at + 1] not in special:
                loss, count = loss - float(q[at, ids[at + 1]]), count + 1
    assert found.itself.loss is not None
    assert found.itself.loss.value == pytest.approx(loss / count, rel=1e-5)


def _by_hand(edits: list[Any], of: Network) -> tuple[float, float]:
    """Loss and divergence over all predictions that count, text by text."""
    loss, divergence, count = 0.0, 0.0, 0
    for i in kept_back():
        plain = of.run(texts()[i])
        changed = of.run(texts()[i], edits=edits)
        counts = inside(plain)[0]
        special = set(net().tokenizer.all_special_ids)
        ids = plain.tokens.ids[0].tolist()
        p, q = plain.logits[0].double().log_softmax(-1), changed.logits[0].double().log_softmax(-1)
        for at in range(len(ids) - 1):
            if counts[at] and ids[at + 1] not in special:
                loss -= float(q[at, ids[at + 1]])
                divergence += float((p[at].exp() * (p[at] - q[at])).sum())
                count += 1
    return loss / count, divergence / count


def test_predictions_are_those_of_a_run_with_the_dictionarys_error_taken_away() -> None:
    found = measured("resid_post.2")
    seen = with_dictionary(net(), axes("resid_post.2"))
    longest = max(len(ids) for ids in net().tokens_of(list(texts())))
    behind = list(range(1, longest))

    def without(pos: Any) -> list[Any]:
        return [cutaway.Ablate("feature_error.2", pos=pos)]

    def at(i: int) -> list[int]:
        return behind[: len(net().tokens_of([texts()[i]])[0]) - 1]

    by_text = []
    for i in kept_back():
        plain, changed = seen.run(texts()[i]), seen.run(texts()[i], edits=without(at(i)))
        counts, ids = inside(plain)[0], plain.tokens.ids[0].tolist()
        p, q = (r.logits[0].double().log_softmax(-1) for r in (plain, changed))
        places = [
            j
            for j in range(len(ids) - 1)
            if counts[j] and ids[j + 1] not in set(net().tokenizer.all_special_ids)
        ]
        loss = -sum(float(q[j, ids[j + 1]]) for j in places)
        divergence = sum(float((p[j].exp() * (p[j] - q[j])).sum()) for j in places)
        by_text.append((loss, divergence, len(places)))
    total = np.array(by_text).sum(0)
    assert found.itself.loss is not None
    assert found.itself.divergence is not None
    assert found.itself.loss.value == pytest.approx(total[0] / total[2], abs=1e-4)
    assert found.itself.divergence.value == pytest.approx(total[1] / total[2], abs=1e-4)


def test_the_ends_that_shares_of_loss_are_shares_of() -> None:
    found = measured("resid_post.2")
    assert found.ends is not None
    clean, none = _by_hand([], net())
    assert found.ends.clean.value == pytest.approx(clean, abs=1e-5)
    assert none == pytest.approx(0.0, abs=1e-9)
    itself = found.itself
    assert itself.loss is not None
    for end, share in ((found.ends.zero, itself.recovered_zero), (found.ends.mean, itself.recovered_mean)):
        assert share is not None
        wanted = (end.value - itself.loss.value) / (end.value - clean)
        assert share.value == pytest.approx(wanted, abs=1e-4)
    run = net().run(
        [texts()[i] for i in range(24) if i not in kept_back()], keep=["resid_post.2"], logits=False
    )
    mean = run["resid_post.2"][inside(run)].mean(0)

    def replaced(by: torch.Tensor) -> list[Any]:
        def put(value: torch.Tensor) -> torch.Tensor:
            value[:, 1:] = by
            return value

        return [cutaway.Apply("resid_post.2", put)]

    assert found.ends.zero.value == pytest.approx(_by_hand(replaced(torch.zeros(WIDTH)), net())[0], abs=1e-4)
    assert found.ends.divergence_mean.value == pytest.approx(_by_hand(replaced(mean), net())[1], abs=1e-4)


def test_neurons_stand_beside_it_where_they_write_the_site() -> None:
    found = measured("mlp_write.2")
    assert [m.name for m in found.measured] == [
        "the dictionary",
        "principal components",
        "random directions",
        "neurons",
    ]
    fit = net().run(
        [texts()[i] for i in range(24) if i not in kept_back()],
        keep=["mlp_act.2", "mlp_write.2"],
        logits=False,
    )
    run = net().run([texts()[i] for i in kept_back()], keep=["mlp_act.2", "mlp_write.2"], logits=False)
    out = net().weights("W_out", layer=2).value.detach()
    centre, mean = (fit[s][inside(fit)].mean(0) for s in ("mlp_act.2", "mlp_write.2"))
    acts, wanted = (run[s][inside(run)].double() for s in ("mlp_act.2", "mlp_write.2"))
    k, away = round(found.itself.l0), acts - centre
    at = (away.abs() * out.norm(dim=1)).topk(k, dim=1).indices
    kept = torch.zeros_like(away).scatter(1, at, away.gather(1, at))
    made = kept @ out.double() + mean
    fvu = float((made - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())
    assert found["neurons"].fvu.value == pytest.approx(fvu, rel=1e-3)
    assert found["neurons"].l0 <= k
    assert "neurons" not in [m.name for m in measured("resid_post.2").measured]


def test_it_is_ahead_of_the_best_by_what_that_one_leaves_more() -> None:
    found = measured("resid_post.2")
    others = found.measured[1:]
    assert found.ahead.value == pytest.approx(min(m.fvu.value for m in others) - found.itself.fvu.value)
    for m in others:
        assert m.excess is not None
        assert m.excess.value == pytest.approx(m.fvu.value - found.itself.fvu.value)
    assert found.ahead_divergence is not None
    assert not found.claim.supported  # axes drawn at random are not features
    assert found.recovering.verdict == "inconclusive"


@cache
def made(seed: int, frozen: bool = False, random: bool = False) -> Dictionary:
    site = "resid_post.1"
    of = net().randomized(examine=False) if random else net()
    run = of.run(list(texts(1, 150)), keep=[site], logits=False)
    return trained(run[site][inside(run)], 256, 8, seed, 250, frozen, site, lr=3e-3)


def test_a_trained_dictionary_beside_all_of_its_controls() -> None:
    found = measure(
        net(), made(0), list(texts()), frozen={"frozen decoder": made(7, True)}, siblings={"seed 1": made(1)},
        twin=(net().randomized(examine=False), made(0, random=True)), beside={"itself again": made(0)},
    )  # fmt: skip
    names = [m.name for m in found.measured]
    assert names[3:] == ["itself again", "frozen decoder", "random weights"]
    again = found["itself again"]
    assert again.excess is not None
    assert again.excess.value == 0.0
    assert found["random weights"].loss is None
    assert found["random weights"].fvu.value != found.itself.fvu.value
    assert found.ahead.value == 0.0  # the best of what stands beside it is itself
    assert found.ahead.above(0.0) is None
    assert len(found.stability) == 1
    assert found.notes == (
        "This site is written by no neurons of one layer alone, so none stand beside the dictionary.",
    )


def test_it_comes_back_from_its_folder_and_has_a_page(tmp_path: Path) -> None:
    found = measure(net(), axes("mlp_write.2"), list(texts()), siblings={"another": axes("mlp_write.2", 12)})
    again = DictionaryMeasures.load(found.save(tmp_path / "measured"))
    assert again.to_pandas().equals(found.to_pandas())
    assert (again.claim, again.recovering, again.stability) == (
        found.claim,
        found.recovering,
        found.stability,
    )
    assert cutaway.load(tmp_path / "measured").headline == found.headline
    page = render(found.page())
    for words in ("principal components", "neurons", "by chance", "nats a token", "first token of each text"):
        assert words in page
    assert ">nan<" not in page
    assert int(found.densities()["latents"].sum()) == 256


def test_a_network_without_predictions_is_measured_without_them() -> None:
    torch.manual_seed(0)
    bare = cutaway.open(
        GPT2Model(GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=40, n_positions=32)).eval()
    )
    rows = [[(i * j) % 40 for j in range(1, 12)] for i in range(1, 9)]
    found = measure(bare, axes("resid_post.0", 4, 16), rows)
    assert found.ends is None
    assert found.itself.loss is None
    assert any("Predictions are not measured" in note for note in found.notes)
    assert "unexplained" in render(found.page())


def test_where_a_site_makes_no_difference_there_is_no_share_of_it_and_the_result_is_saved_all_the_same(
    tmp_path: Path,
) -> None:
    found = measure(net(), axes("mlp_write.2"), [list(range(5, 9))] * 4)
    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=40, n_positions=32)
    idle = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        idle.transformer.h[0].mlp.c_proj.weight.zero_()
        idle.transformer.h[0].mlp.c_proj.bias.zero_()
    rows = [[(i * j) % 40 for j in range(1, 12)] for i in range(1, 9)]
    still = measure(cutaway.open(idle), axes("mlp_write.0", 4, 16), rows)
    assert still.itself.recovered_zero is None
    for number, one in enumerate((found, still)):
        again = DictionaryMeasures.load(one.save(tmp_path / str(number)))
        assert again.claim == one.claim
        assert not one.claim.supported


def test_a_transcoder_is_held_against_linear_maps_of_what_it_reads() -> None:
    draw = torch.Generator().manual_seed(0)
    reads, writes = Place("", "mlp_in.2", WIDTH), Place("", "mlp_write.2", WIDTH)
    encoder = Encoder(torch.randn(WIDTH, 200, generator=draw), None, TopK(16))
    random = Dictionary(
        "transcoder",
        (encoder,),
        (Decoder(0, 0, 0.01 * torch.randn(200, WIDTH, generator=draw)),),
        (None,),
        ((reads,),),
        (writes,),
    )
    found = measure(net(), random, list(texts()), longest=None)
    assert (found.reads, found.writes) == ("mlp_in.2", "mlp_write.2")
    assert found.claim.verdict == "refuted"
    assert found["principal components"].fvu.value < 1.0 < found.itself.fvu.value


def test_what_cannot_be_measured_is_refused() -> None:
    site = "resid_post.2"
    with pytest.raises(BadInput, match="There are 2 texts"):
        measure(net(), axes(site), list(texts())[:2])
    with pytest.raises(BadInput, match="numbers at mlp_act"):
        measure(net(), axes(site), list(texts()), reads="mlp_act.1")
    broken = replace(axes(site), biases=(torch.full((WIDTH,), float("nan")),))
    with pytest.raises(NotFinite, match="biases"):
        measure(net(), broken, list(texts()))
    with pytest.raises(NotFinite, match="biases"):
        measure(net(), axes(site), list(texts()), beside={"broken": broken})
    with pytest.raises(BadInput, match="numbers at resid_post"):
        measure(net(), axes(site), list(texts()), twin=(net(), axes(site, 4, 16)))
    silent = replace(axes(site), encoders=(replace(axes(site).encoders[0], bias=torch.full((256,), -1e9)),))
    found = measure(net(), silent, list(texts()))
    assert (found.itself.dead, found.itself.l0, found.stability) == (1.0, 0.0, ())
    assert not found.claim.supported
