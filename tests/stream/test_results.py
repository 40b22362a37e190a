"""Every result of the stream is a result: it saves, loads, draws, shows itself and refuses what it does not know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
import torch

import cutaway
from cutaway.errors import BadFormat, BadInput, Stopped, UnknownOption
from cutaway.network import Network
from cutaway.reports import Page, render
from cutaway.results import KINDS, Result, Work, load, pack, to_json
from cutaway.stream import attribute_features, logit_attribution, read_stream
from cutaway.stream.attention_scores import head_scores, moving_scores
from cutaway.stream.biography import biography
from cutaway.stream.composition import composition
from cutaway.stream.copying import copying, singular_directions
from cutaway.stream.flow import flow, reads_of_writes
from cutaway.stream.lenses import (
    AffineLens,
    ConstantLens,
    LensTraining,
    LogitLens,
    Sampling,
    compare_lenses,
    future_lens,
    jacobian_lens,
    load_lens,
    read_lens,
    train_tuned_lens,
)
from cutaway.stream.paths import expand_paths
from cutaway.stream.patterns import read_patterns
from cutaway.stream.why_attend import why_attend

TEXT = "Mary was sad because"
STORY = "Mary was sad because Tom went to the park. " * 60
SOME = LensTraining(steps=2, rows=2, length=16)


def features(net: Network) -> Result:
    stream = read_stream(net, TEXT, pos=-1)
    target = torch.tensor([net.to_single_token(" she")])
    return attribute_features(stream, "mlp_write.1", torch.rand(1, 1, 4), torch.randn(4, 128), target)


def future_reading(net: Network) -> Result:
    lens = train_tuned_lens(net, STORY, training=LensTraining(steps=1, rows=2, length=16, ahead=1))
    return read_lens(net, lens, TEXT)


def report(net: Network) -> Result:
    lenses = [LogitLens.of(net), ConstantLens.of(net, STORY, length=16)]
    return compare_lenses(net, lenses, STORY, length=16)


#: Everything that the verbs of the stream return.
RESULTS: dict[str, Callable[[Network], Any]] = {
    "attribution": lambda net: logit_attribution(net, [TEXT, TEXT], target=" she", foil=" he"),
    "attribution by source": lambda net: logit_attribution(net, TEXT, target=" she", by="source"),
    "attribution of features": features,
    "head scores": lambda net: head_scores(net, n=4, length=6),
    "moving scores": lambda net: moving_scores(net, "ioi", most=4),
    "composition": lambda net: composition(net, n_random=20),
    "copying": lambda net: copying(net, n_null=2),
    "singular directions": lambda net: singular_directions(net, "a2.h0", n=2),
    "flow": lambda net: flow(net, STORY, length=16),
    "reads of writes": lambda net: reads_of_writes(net),
    "biography": lambda net: biography(net, TEXT, torch.arange(128.0)),
    "patterns": lambda net: read_patterns(net, TEXT, layer=2),
    "score parts": lambda net: why_attend(net, TEXT, "head 2.0"),
    "paths": lambda net: expand_paths(net, TEXT, target=" she", foil=" he", depth=1),
    "lens reading": lambda net: read_lens(net, LogitLens.of(net), TEXT, target=" she"),
    "reading of a future lens": future_reading,
    "lens report": report,
    "constant lens": lambda net: ConstantLens.of(net, STORY, length=16),
    "tuned lens": lambda net: train_tuned_lens(net, STORY, training=SOME),
    "jacobian lens": lambda net: jacobian_lens(net, STORY, sampling=Sampling(rows=2, length=8), layers=[2]),
    "future lens": lambda net: future_lens(net, STORY, ahead=2, layers=[1]),
}


def same(a: Any, b: Any) -> bool:
    """Whether two results hold the same."""
    (one, tensors), (other, others) = pack(a), pack(b)
    return (
        one == other
        and tensors.keys() == others.keys()
        and all(torch.equal(torch.nan_to_num(tensors[k]), torch.nan_to_num(others[k])) for k in tensors)
    )


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_saves_loads_draws_and_shows_itself(name: str, tales: Network, tmp_path: Path) -> None:
    result = RESULTS[name](tales)
    assert isinstance(result, Result)
    assert KINDS[result.kind].find() is type(result)
    assert result.provenance.network_hash == tales.hash
    assert result.provenance.network == "zoo:tales"
    folder = result.save(tmp_path / "kept")
    again = load(folder)
    assert type(again) is type(result)
    if isinstance(again, AffineLens):
        with pytest.raises(BadInput, match="on no network"):
            again.logits(torch.zeros(1, 128), again.layers[0])
        again, x = again.on(tales), torch.randn(2, 128)
        for layer in result.layers:
            assert torch.equal(again.logits(x, layer), result.logits(x, layer))
        assert again.provenance == result.provenance
        assert again.layers == result.layers
    else:
        assert same(again, result)
    json.loads(to_json(result.to_dict()))
    json.dumps(result.to_dict(), allow_nan=False)
    assert result.to_dict() == again.to_dict()
    assert isinstance(result.to_pandas(), pd.DataFrame)
    assert isinstance(result.plot(), go.Figure)
    page = result.page()
    assert isinstance(page, Page)
    assert "How this was made" in render(page)
    shown = result._repr_html_()
    assert len(shown) < 12_000
    assert "http" not in shown.replace("http://www.w3.org/2000/svg", "")
    assert "zoo:tales" in shown


def test_head_scores_of_a_larger_network_stay_small_in_a_notebook() -> None:
    net = cutaway.open("zoo:induction-gpt2")
    assert len(head_scores(net, length=10)._repr_html_()) < 5_000


def test_a_result_of_another_kind_is_refused(tales: Network, tmp_path: Path) -> None:
    kept = logit_attribution(tales, TEXT, target=" she").save(tmp_path / "kept")
    with pytest.raises(BadFormat, match="what each part adds"):
        AffineLens.load(kept)


@pytest.mark.parametrize(
    "manifest",
    [
        {
            "kind": "cutaway lens", "name": "future+1", "ahead": 1, "network": "tiny", "network_hash": "0",
            "origin": {"ahead": 1, "positions": 9, "ridge": 0.1, "network": "0"},
        },
        {
            "kind": "cutaway tuned lens, under training", "training": {"steps": 6, "ahead": 0, "seed": 3}, "layers": [1],
            "network": "0", "rows": 4, "done": 3, "losses": [1.0],
        },
    ],
    ids=["lens", "training"],
)  # fmt: skip
def test_lenses_of_the_version_before_load(manifest: dict[str, Any], tmp_path: Path) -> None:
    from cutaway.results import save_folder

    training = "training" in manifest
    matrix, shift = torch.eye(4) * 2, torch.arange(4.0)
    names = ("map/matrix.0", "map/shift.0") if training else ("1/matrix", "1/shift")
    kept = torch.eye(4) if training else matrix
    save_folder(tmp_path / "old", manifest, {names[0]: kept, names[1]: shift})
    lens = load(tmp_path / "old")
    assert isinstance(lens, AffineLens)
    assert torch.equal(lens.translators[1].matrix, matrix)
    assert torch.equal(lens.translators[1].shift, shift)
    assert lens.name == ("tuned" if training else "future+1")
    assert lens.provenance.seed == (3 if training else 0)
    assert lens.origin.get("complete") is (False if training else None)
    again = load(lens.save(tmp_path / "new"))
    assert torch.equal(again.translators[1].matrix, matrix)
    assert again.origin == lens.origin
    with pytest.raises(BadInput, match="made for"):
        load_lens(cutaway.open("zoo:induction-gpt2"), tmp_path / "old")


def test_misspelt_options_are_refused_with_the_nearest(tales: Network) -> None:
    def refused(call: Callable[[], Any], offer: str) -> None:
        with pytest.raises(UnknownOption, match=offer):
            call()

    refused(lambda: logit_attribution(tales, TEXT, target=" she", by="heads"), "head")
    refused(lambda: read_stream(tales, TEXT, by="nueron"), "neuron")
    refused(lambda: biography(tales, TEXT, torch.ones(128), by="haed"), "head")
    refused(lambda: head_scores(tales, scores=["inductoin"]), "induction")
    refused(lambda: head_scores(tales, n=4, length=6).above_chance("previuos"), "previous")
    refused(lambda: composition(tales, n_random=10).to_pandas("w"), "q")
    refused(lambda: LensTraining(optimizer="adam"), "adamw")
    reading = read_lens(tales, LogitLens.of(tales), TEXT)
    refused(lambda: reading.plot("probabilty"), "probability")
    compared = compare_lenses(tales, [LogitLens.of(tales)], STORY, length=16)
    refused(lambda: compared.plot("cross-entropy"), "cross_entropy")
    refused(lambda: compared.claim("logits", "logit"), "logit")
    with pytest.raises(BadInput, match="is no lens"):
        read_lens(tales, "logit", TEXT)  # type: ignore[arg-type]
    refused(lambda: logit_attribution(tales, TEXT, target=" she", foils=" he"), "foil")  # type: ignore[call-arg]
    refused(lambda: composition(tales, n_randon=3), "n_random")  # type: ignore[call-arg]
    refused(lambda: train_tuned_lens(tales, STORY, trainign=SOME), "training")  # type: ignore[call-arg]


def test_work_that_was_stopped_ends(tales: Network) -> None:
    work = Work()
    work.stop()
    for call in (
        lambda: logit_attribution(tales, TEXT, target=" she", work=work),
        lambda: head_scores(tales, n=4, length=6, work=work),
        lambda: composition(tales, n_random=10, work=work),
        lambda: flow(tales, STORY, length=16, work=work),
        lambda: compare_lenses(tales, [LogitLens.of(tales)], STORY, length=16, work=work),
        lambda: future_lens(tales, STORY, work=work),
    ):
        with pytest.raises(Stopped):
            call()
    lens = train_tuned_lens(tales, STORY, training=SOME, work=work)
    assert lens.origin["complete"] is False
    assert lens.origin["steps_done"] == 1
    assert jacobian_lens(tales, STORY, sampling=Sampling(rows=9, length=8), work=work).origin["rows"] == 8


def test_paths_take_the_first_token_as_their_siblings_do(tales: Network) -> None:
    with pytest.raises(BadInput, match="tokens here"):
        expand_paths(tales, TEXT, target=" she he", depth=0)
    first = expand_paths(tales, TEXT, target=" she he", foil=" he she", depth=0, first_token=True)
    assert first.wanted == expand_paths(tales, TEXT, target=" she", foil=" he", depth=0).wanted
    assert first.what == "logit of ' she' minus ' he'"
