"""The loss on texts: against the bare model's own loss, with and without edits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, GPT2LMHeadModel
from typer.testing import CliRunner

import cutaway
from cutaway.cli.main import app
from cutaway.errors import BadInput, SiteUnavailable, TooLong
from cutaway.interventions import Ablate
from cutaway.network import Network
from cutaway.network import loss as module
from cutaway.results import Budget, Work

ROWS = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16, 17], [20, 21, 22], [3, 3, 3, 3]]


@pytest.fixture
def net(tiny_gpt2: GPT2LMHeadModel) -> Network:
    return cutaway.open(tiny_gpt2)


def by_hand(model: Any, row: list[int]) -> np.ndarray:
    with torch.no_grad():
        logits = model(torch.tensor([row])).logits[0]
    return (
        torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(row[1:]), reduction="none")
        .double()
        .numpy()
    )


def zeroed(model: Any) -> Any:
    """A bare hook that takes head 1 of layer 1 away."""

    def hook(_m: Any, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        value = args[0].clone()
        value[..., 8:16] = 0
        return (value,)

    return model.transformer.h[1].attn.c_proj.register_forward_pre_hook(hook)


@pytest.mark.parametrize("most", [1, 2, 256])
def test_it_is_the_models_own_cross_entropy(net: Network, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "rows_at_once", lambda *_a, **_k: most)
    edit = Ablate("z", layer=1, head=1)
    plain, edited = net.loss(ROWS), net.loss(ROWS, edits=[edit])
    handle = zeroed(net.model)
    wanted = [by_hand(net.model, row) for row in ROWS]
    handle.remove()
    bare = [by_hand(net.model, row) for row in ROWS]
    assert plain.unedited is None
    assert edited.unedited is not None
    for i, row in enumerate(ROWS):
        for got, expected in ((plain.values, bare), (edited.values, wanted), (edited.unedited, bare)):
            assert np.isnan(got[i, 0])
            assert got[i, 1 : len(row)] == pytest.approx(expected[i], abs=1e-5)
            assert np.isnan(got[i, len(row) :]).all()
    every, n = np.concatenate(bare), sum(len(row) - 1 for row in ROWS)
    assert plain.mean.value == pytest.approx(every.mean(), abs=1e-6)
    assert (plain.n_tokens, plain.perplexity) == (n, pytest.approx(np.exp(every.mean()), rel=1e-5))
    assert plain.per_text == pytest.approx([b.mean() for b in bare], abs=1e-5)
    assert edited.change is not None
    assert edited.change.value == pytest.approx(np.concatenate(wanted).mean() - every.mean(), abs=1e-6)
    assert edited.change.interval is not None


def test_transformers_own_loss_is_the_same(net: Network) -> None:
    row = torch.tensor([ROWS[2]])
    with torch.no_grad():
        own = float(net.model(row, labels=row).loss)
    assert net.loss(row).mean.value == pytest.approx(own, abs=1e-5)
    assert net.loss(ROWS[2]).mean.value == pytest.approx(own, abs=1e-5)
    assert net.loss(row).mean.interval is None


def test_edits_that_stand_are_set_beside_the_network_without_them(net: Network) -> None:
    edit = Ablate("z", layer=1, head=1)
    with net.edit(edit):
        standing = cutaway.loss(net, ROWS)
    given = cutaway.loss(net, ROWS, edits=edit)
    assert standing.values == pytest.approx(given.values, nan_ok=True)
    assert standing.unedited == pytest.approx(given.unedited, nan_ok=True)
    assert standing.edits == given.edits


def test_edits_that_speak_of_rows_need_one_batch(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    edits = [Ablate("z", layer=1, how="mean"), Ablate("z", row=0), Ablate("z", pos=[[0]] * 5)]
    for edit in edits:
        net.loss([row[:2] for row in ROWS], edits=edit)
    monkeypatch.setattr(module, "rows_at_once", lambda *_a, **_k: 2)
    for edit in edits:
        with pytest.raises(BadInput, match="rows of one batch"):
            net.loss(ROWS, edits=edit)
    net.loss(ROWS, edits=Ablate("z", layer=1, how="mean", over=ROWS))


def test_bad_input(net: Network) -> None:
    for wrong, said in (
        ([], "no text"),
        ("", "empty"),
        ([[5, 6], [7]], "Text 2 has one token"),
        (3, "no set"),
        ([[5], []], "empty"),
    ):
        with pytest.raises(BadInput, match=said):
            net.loss(wrong)
    with pytest.raises(TooLong):
        net.loss([[1] * 65])
    with pytest.raises(BadInput, match="no text 7"):
        net.loss(ROWS).plot(7)


def test_networks_without_a_next_token_are_refused() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=50
    )
    with pytest.raises(SiteUnavailable, match="no head"):
        cutaway.open(BertModel(config).eval()).loss([[5, 6, 7]])
    with pytest.raises(SiteUnavailable, match="masked"):
        cutaway.open(BertForMaskedLM(config).eval()).loss([[5, 6, 7]])


def test_it_shows_saves_and_stops(net: Network, tmp_path: Path) -> None:
    found = net.loss(ROWS, edits=[Ablate("z", layer=1)])
    found.save(tmp_path / "loss")
    again = cutaway.load(tmp_path / "loss")
    assert again.values == pytest.approx(found.values, nan_ok=True)
    assert again.headline == found.headline
    assert again.tokens == found.tokens
    frame = found.to_pandas()
    assert len(frame) == found.n_tokens
    assert frame["change"].sum() == pytest.approx(np.nansum(found.values - found.unedited))  # type: ignore[operator]
    assert abs(found.top(1)["change"].iloc[0]) == frame["change"].abs().max()
    assert len(found.plot(2).data) == 2
    assert [section.name for section in found.page().sections][:2] == ["texts", "means"]
    assert "The edits" in found._repr_html_()
    with pytest.raises(cutaway.errors.Stopped):
        cutaway.loss(net, ROWS, work=Work(budget=Budget(seconds=1e-9)))


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("Mary was sad because she was late.\nTom ran to the park.\n")
    for words in (["Mary was sad because she was late."], ["--file", "texts.txt"]):
        done = CliRunner().invoke(app, ["loss", "zoo:tales", *words, "-o", "out", "--overwrite"])
        assert done.exit_code == 0, done.output
        assert "perplexity" in done.stdout
    assert len(cutaway.load("out").tokens) == 2
    for words in ([], ["text", "--file", "texts.txt"], ["--file", "nowhere.txt"]):
        assert CliRunner().invoke(app, ["loss", "zoo:tales", *words]).exit_code == 2
