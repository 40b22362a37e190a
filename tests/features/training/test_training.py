"""Training as a user does it: dictionaries of every kind beside their twins, on sites of small networks, saved and read."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.features.training.beds import network, planted, recipe, texts
from torch import Tensor

import cutaway
from cutaway import features
from cutaway.errors import (
    BadAddress,
    BadFormat,
    BadInput,
    CorruptFile,
    NotFinite,
    OutOfMemory,
    SiteUnavailable,
    Stopped,
    UnknownOption,
)
from cutaway.features.dictionaries import GroupMax, JumpReLU, TopK
from cutaway.features.formats import own
from cutaway.features.training import DictionaryRecipe, DictionaryTraining, train_dictionaries, train_on_rows
from cutaway.network import Network
from cutaway.reports import render
from cutaway.results import Budget, Progress, Work


@pytest.fixture(scope="module")
def net() -> Network:
    return network()


def train(net: Network, **given: Any) -> DictionaryTraining:
    settings: dict[str, Any] = {
        "at": "resid_post.0",
        "latents": 48,
        "k": 4,
        "tokens": 1200,
        "batch": 64,
        "lr": 3e-3,
    }
    return train_dictionaries(net, given.pop("texts", texts(100)), **(settings | given))


@pytest.fixture(scope="module")
def trained(net: Network) -> DictionaryTraining:
    return train(net, at=["resid_post.0", "mlp_out.1"], tokens=3000)


def values(net: Network, site: str, rows: list[list[int]]) -> Tensor:
    return net.run(rows, keep=[site], logits=False)[site][:, 1:].flatten(0, 1).flatten(1)


def fvu(made: features.Dictionary, reads: Any, wanted: Tensor) -> float:
    error = (made.decode(made.encode(reads), reads) - wanted).square().sum()
    return float(error / (wanted - wanted.mean(0)).square().sum())


def test_what_was_trained_explains_unseen_text_better_than_its_frozen_twin(
    net: Network, trained: DictionaryTraining
) -> None:
    assert [one.name for one in trained] == [
        "resid_post.0", "mlp_out.1", "resid_post.0-frozen", "resid_post.0-seed-1", "mlp_out.1-frozen", "mlp_out.1-seed-1"
    ]  # fmt: skip
    unseen = texts(40, seed=9)
    for one in trained.asked:
        rows = values(net, one.name, unseen)
        frozen = trained.twin(one.name)
        assert frozen is not None
        assert fvu(trained[one.name], rows, rows) < 0.9 * fvu(trained[frozen.name], rows, rows)
        assert one.held.fvu.value == pytest.approx(fvu(trained[one.name], rows, rows), abs=0.08)
        assert one.held.better_than(frozen.held).above(0.0) is True


def test_a_frozen_twin_keeps_its_directions(net: Network, trained: DictionaryTraining) -> None:
    again = train(net, tokens=64, controls=("frozen",))
    long, short = (t["resid_post.0-frozen"].decoders[0].weight for t in (trained, again))
    torch.testing.assert_close(
        torch.nn.functional.normalize(long), torch.nn.functional.normalize(short), atol=1e-5, rtol=1e-4
    )
    one, other = (t["resid_post.0"].decoders[0].weight for t in (trained, again))
    assert (
        float((torch.nn.functional.normalize(one) - torch.nn.functional.normalize(other)).abs().max()) > 0.1
    )


def test_figures_are_of_texts_that_were_not_trained_on(net: Network, trained: DictionaryTraining) -> None:
    held = [t for i, t in enumerate(texts(100)) if i % 20 == 0]
    rows = values(net, "resid_post.0", held)
    one = trained.asked[0]
    assert (one.held.rows, one.held.texts) == (len(rows), 5)
    assert one.held.fvu.value == pytest.approx(fvu(trained["resid_post.0"], rows, rows), rel=1e-3)
    fires = trained["resid_post.0"].encode(rows) != 0
    assert one.held.l0 == pytest.approx(float(fires.sum(1).float().mean()), rel=1e-3)
    assert one.held.silent == pytest.approx(float((~fires.any(0)).float().mean()), abs=0.03)


def test_batchtopk_becomes_thresholds_and_topk_stays(net: Network, trained: DictionaryTraining) -> None:
    for one in trained:
        assert one.calibration is not None
        assert one.calibration.l0 == pytest.approx(4, rel=0.01)
        assert one.calibration.fvu <= 1.01 * one.calibration.fvu_before
        assert isinstance(trained[one.name].encoders[0].activation, JumpReLU)
    kept = train(net, activation="topk", controls=())
    assert isinstance(kept["resid_post.0"].encoders[0].activation, TopK)
    assert kept.trained[0].calibration is None
    turned = train(net, activation="topk", controls=(), convert=True)
    assert isinstance(turned["resid_post.0"].encoders[0].activation, JumpReLU)
    assert turned.trained[0].calibration is not None
    assert turned.trained[0].calibration.l0 == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "gated", "groupmax"])
def test_every_activation_is_trained(net: Network, activation: str, tmp_path: Path) -> None:
    found = train(net, activation=activation, controls=(), tokens=600)
    made = found["resid_post.0"]
    assert made.encoders[0].activation.kind == activation
    assert activation != "groupmax" or isinstance(made.encoders[0].activation, GroupMax)
    found.save(tmp_path / "a")
    assert features.read(tmp_path / "a" / "resid_post.0").hash == made.hash


def test_transcoders_write_elsewhere(net: Network) -> None:
    found = train(
        net, at=["mlp_in.0", "mlp_in.1"], writes=["mlp_out.0", "mlp_out.1"], controls=(), linear=True
    )
    assert [one.name for one in found] == ["mlp_in.0-to-mlp_out.0", "mlp_in.1-to-mlp_out.1"]
    for layer, made in enumerate(found.dictionaries.values()):
        assert (made.reads[0][0].site, made.writes[0].site) == (f"mlp_in.{layer}", f"mlp_out.{layer}")
        assert made.skips[0] is not None
        rows = [values(net, site, texts(40, seed=9)) for site in (f"mlp_in.{layer}", f"mlp_out.{layer}")]
        assert fvu(made, *rows) < 0.9
        seen = features.with_dictionary(net, made)
        assert torch.equal(seen.run([[1, 2, 3]]).logits, net.run([[1, 2, 3]]).logits)  # type: ignore[arg-type]


def test_a_cross_layer_transcoder_writes_to_later_layers(net: Network) -> None:
    found = train(net, at="mlp_in", writes="mlp_out", kind="cross-layer transcoder", controls=("frozen",))
    assert found.asked[0].name == "cross-layer-transcoder-mlp_in.0-to-mlp_in.2"
    made = found[found.asked[0].name]
    assert [(d.source, d.target) for d in made.decoders] == [
        (0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)
    ]  # fmt: skip
    assert len(found.asked[0].held.by_target) == 3
    assert found.asked[0].calibration is not None
    assert len(found.asked[0].calibration.thresholds) == 3


def test_a_crosscoder_reads_layers_side_by_side(net: Network) -> None:
    found = train(net, at=["resid_post.0", "resid_post.1"], kind="crosscoder", controls=())
    made = found[found.asked[0].name]
    assert (
        [p.site for p in made.reads[0]] == [p.site for p in made.writes] == ["resid_post.0", "resid_post.1"]
    )
    rows = [values(net, site, texts(40, seed=9)) for site in ("resid_post.0", "resid_post.1")]
    assert all(fvu(replace(made), rows, made_of) < 1 for made_of in rows[:1])


def test_matryoshka_and_recipes_for_several_sites_at_once(net: Network) -> None:
    one = DictionaryRecipe(
        ("resid_post.0",), ("resid_post.0",), latents=48, k=4, batch=64, prefixes=(12, 48), lr=3e-3
    )
    other = DictionaryRecipe(("z.1",), ("z.1",), latents=32, k=3, batch=50, activation="topk")
    found = train_dictionaries(
        net, texts(60), recipes=[one, replace(one, k=5), other], tokens=600, controls=()
    )
    assert [t.name for t in found] == ["resid_post.0", "resid_post.0-2", "z.1"]
    assert found["z.1"].reads[0][0].width == 32
    assert [t.recipe.k for t in found] == [4, 5, 3]


def test_one_forward_serves_all_sites(net: Network) -> None:
    one, several = (
        train(net, at=at, controls=(), tokens=500)
        for at in ("resid_post.1", ["resid_post.0", "resid_post.1", "z.1"])
    )
    assert one.provenance.forwards == several.provenance.forwards > 0


def test_a_store_on_disk_and_several_epochs(net: Network, tmp_path: Path) -> None:
    store = cutaway.activations(
        net, texts(60), at=["resid_post.0"], folder=tmp_path / "store", dtype="float16"
    )
    before = train(net, texts=store, controls=(), tokens=3 * 627)
    assert before.epochs == pytest.approx(3.0)
    assert before.provenance.forwards <= 1
    with pytest.raises(BadAddress, match="no activations at"):
        train(net, texts=store, at="resid_post.1")
    with pytest.raises(BadInput, match="another network"):
        train(network("llama"), texts=store)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(net: Network, tmp_path: Path) -> None:
    runs = [
        train(net, seed=seed, controls=(), tokens=500).save(tmp_path / str(i))
        for i, seed in enumerate((0, 0, 1))
    ]
    files = [own.files_of(run / "resid_post.0")[0].read_bytes() for run in runs]
    assert files[0] == files[1] != files[2]


def test_it_is_saved_and_loaded_with_its_dictionaries(trained: DictionaryTraining, tmp_path: Path) -> None:
    trained.save(tmp_path / "a")
    again = cutaway.load(tmp_path / "a")
    assert again.headline == trained.headline
    assert again.to_dict() == json.loads(json.dumps(again.to_dict()))
    assert repr(again.trained[0].curve) == repr(
        trained.trained[0].curve
    )  # a term that was not there yet is NaN
    assert again.trained[2].recipe == trained.trained[2].recipe
    for name, made in trained.dictionaries.items():
        read = features.read(tmp_path / "a" / name)
        assert read.hash == made.hash == again[name].hash
        assert read.said["recipe"]["latents"] == 48
        assert read.said["l0"] == pytest.approx(dict(made.said)["l0"])
    assert trained.save(tmp_path / "a") == tmp_path / "a"  # again over itself
    with pytest.raises(BadAddress, match="resid_post.0"):
        again["resid_post.00"]
    file = own.files_of(tmp_path / "a" / "mlp_out.1")[0]
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptFile, match="not as it was saved"):
        cutaway.load(tmp_path / "a")
    file.unlink()
    with pytest.raises((CorruptFile, BadFormat)):
        cutaway.load(tmp_path / "a")


def test_the_page_tells_every_setting_and_the_twin(trained: DictionaryTraining) -> None:
    page = render(trained.page())
    card = dict(trained.card(trained.trained[0]))
    for name in (
        "latents",
        "k",
        "lr",
        "revive",
        "seed",
        "normalisation",
        "left out",
        "held out",
        "versions",
        "thresholds",
    ):
        assert card[name]
        assert name in page
    assert "a frozen random decoder leaves" in trained.headline
    assert re.search(r"fire on a row, \d+\.\d % dead", trained.headline)
    assert len(trained.to_pandas()) == 6
    assert trained.plot() is not None
    assert "resid_post.0" in trained._repr_html_()


def test_without_controls_the_headline_says_that_nothing_stands_beside_it(net: Network) -> None:
    assert "no frozen twin stands beside it" in train(net, controls=(), tokens=200).headline


def test_dead_latents_are_told_once_enough_rows_were_trained_on() -> None:
    rows, _ = planted(3000)
    found = train_on_rows(rows, recipe(dead_after=500), tokens=6000)
    assert found.trained[0].dead is not None
    assert "dead" in found.headline
    assert train_on_rows(rows, recipe(dead_after=10**6), tokens=500).trained[0].dead is None


def test_planted_directions_are_found() -> None:
    rows, directions = planted(6000)
    settings = recipe(lr=1e-2, encoder_rate=1.0)
    found = train_on_rows(rows.numpy(), settings, tokens=30_000, controls=("frozen",))
    learnt = torch.nn.functional.normalize(found["rows"].decoders[0].weight)
    drawn = torch.nn.functional.normalize(found["rows-frozen"].decoders[0].weight)
    best, chance = ((w @ directions.T).max(0).values.mean() for w in (learnt, drawn))
    assert float(best) > 0.9 > float(chance)
    assert found.trained[0].held.fvu.value < 0.3 * found.trained[1].held.fvu.value
    assert found.provenance.network == "rows that were given"


def test_texts_that_end_too_soon_are_said(net: Network) -> None:
    found = train(net, texts=iter(texts(40)), tokens=5000, controls=())
    assert found.complete
    assert "could not be read again" in found.notes[0]
    assert found.trained[0].rows < 500


def test_what_it_takes_is_said_beforehand(net: Network) -> None:
    heard: list[Progress] = []
    found = train(net, work=Work(heard.append), tokens=2000, end_to_end=300)
    prices = [p for p in heard if p.price is not None]
    assert len(prices) == 1
    price = prices[0].price
    assert price is not None
    assert price.seconds is not None
    assert price.memory is not None
    assert 0 < price.least <= price.forwards
    assert prices[0].forwards + price.forwards == pytest.approx(found.provenance.forwards, rel=0.3)
    said = cutaway.plan_training(net, texts(100), at="resid_post.0", latents=48, k=4, tokens=2000, batch=64)
    assert said.dictionaries == ("resid_post.0", "resid_post.0-frozen", "resid_post.0-seed-1")
    assert said.steps == 3 * round(2000 / 64)
    assert said.seconds == pytest.approx(sum(s for _, s in said.parts))
    assert "3 dictionaries on 2,000 rows" in str(said)
    assert said.epochs == pytest.approx(2000 / 1045)
    done = [p for p in heard if p.price is None and p.label == "training dictionaries"]
    assert done[-1].done == done[-1].total == 2000
    assert [p.done for p in done] == sorted(p.done for p in done)


def test_what_does_not_fit_the_budget_is_refused_before_anything_runs(net: Network) -> None:
    work = Work(budget=Budget(memory=1 << 20))
    with pytest.raises((OutOfMemory, Stopped)) as refused:
        train(net, latents=1 << 15, work=work)
    assert "memory" in str(refused.value)
    with pytest.raises(OutOfMemory, match="Give fewer latents"):
        cutaway.plan_training(net, texts(50), at="resid_post.0", latents=1 << 15, work=work)


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"at": None}, BadInput, "No site is named"),
    ({"at": "resid_pots.0"}, Exception, "resid_post"),
    ({"at": "pattern.0"}, SiteUnavailable, "no value for each token"),
    ({"kind": "sea"}, BadInput, "not known"),
    ({"activation": "topkk"}, BadInput, "topk"),
    ({"latnets": 3}, UnknownOption, "latents"),
    ({"kind": "transcoder"}, BadInput, "writes elsewhere"),
    ({"kind": "crosscoder"}, BadInput, "several sites"),
    ({"writes": "mlp_out"}, BadInput, "1 sites are read and 3 written"),
    ({"kind": "autoencoder", "writes": "mlp_out.0"}, BadInput, "writes where it reads"),
    (
        {"at": "mlp_in", "writes": "mlp_out.1", "kind": "cross-layer transcoder"},
        BadInput,
        "3 sites are read and 1",
    ),
    ({"k": 100}, BadInput, "cannot fire"),
    ({"k": 0}, BadInput, "cannot fire"),
    ({"prefixes": (12, 24)}, BadInput, "do not ascend"),
    ({"linear": True}, BadInput, "skip connection"),
    ({"controls": ("frozn",)}, BadInput, "frozen"),
    ({"tokens": 1}, BadInput, "out of range"),
    ({"tokens": 10**12}, BadInput, "more than 1,000 readings"),
    ({"longest": 1.0, "texts": [[1, 2]] * 9 + [[1, 3]] * 9, "tokens": 100}, BadInput, "No row is left"),
    ({"skip": 400}, BadInput, "leaves no token"),
    ({"recipes": []}, BadInput, "named by at="),
    ({"at": None, "recipes": ["topk"]}, BadInput, "no recipe"),
    ({"at": None, "recipes": [recipe()]}, Exception, "rows"),
    (
        {"at": None, "recipes": [recipe(reads=("resid_post",), writes=("resid_post",))]},
        BadInput,
        "one site each",
    ),
    ({"texts": [[1, 2, 3]]}, BadInput, "too few to train on"),
    ({"texts": [[1]] * 50}, BadInput, "too few to train on"),
    ({"texts": iter(texts(50)), "tokens": None}, BadInput, "How many tokens"),
    ({"at": "mlp_in.0", "writes": "mlp_out.0", "end_to_end": 100, "tokens": 200}, BadInput, "not fine-tuned"),
]


@pytest.mark.parametrize(("given", "error", "said"), WRONG, ids=[w[2] for w in WRONG])
def test_what_is_asked_wrongly_is_told(
    net: Network, given: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as refused:
        train(net, **given)
    assert isinstance(refused.value, cutaway.errors.CutawayError)


@pytest.mark.parametrize(
    ("rows", "recipes", "said"),
    [
        (torch.zeros(200, 4), recipe(), "all rows of rows are the same"),
        (torch.randn(200), recipe(), r"\[n d\]"),
        ({"a": torch.randn(200, 4)}, recipe(), "no rows of rows"),
        (
            {"rows": torch.randn(200, 4), "b": torch.randn(9, 4)},
            recipe(reads=("rows",), writes=("b",), kind="transcoder"),
            "rows",
        ),
        (torch.randn(10, 4), [], "No recipe"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_told(rows: Any, recipes: Any, said: str) -> None:
    with pytest.raises(BadInput, match=f"(?i){said}"):
        train_on_rows(rows, recipes)


def test_nan_in_the_network_is_told_with_its_text() -> None:
    bad = network()
    with torch.no_grad():
        bad.model.transformer.wte.weight[7] = float("nan")
    with pytest.raises(NotFinite, match=r"resid_post.0 holds NaN or infinity in text \d+"):
        train(bad)


def test_a_site_that_is_always_the_same_is_told(net: Network) -> None:
    with pytest.raises(BadInput, match="are the same"):
        train(net, texts=[[3, 3]] * 60, at="embed", tokens=50)


def test_other_architectures_are_trained_at_the_same_sites() -> None:
    for kind in ("llama", "gpt_neox"):
        found = train(network(kind), controls=(), tokens=300)
        assert found.complete
