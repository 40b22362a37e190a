"""Mean ablation over a named set of texts: against means taken by hand from the bare model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import GPT2LMHeadModel
from typer.testing import CliRunner

import cutaway
from cutaway.cli.main import app
from cutaway.errors import BadFormat, BadInput, NotFound, TooLong
from cutaway.interventions import Ablate, load, save
from cutaway.network import Network
from cutaway.network.textsets import texts_in

TEXTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16, 17], [20, 21, 22]]
PROMPTS = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 10, 11, 12]])


@pytest.fixture
def net(tiny_gpt2: GPT2LMHeadModel) -> Network:
    return cutaway.open(tiny_gpt2)


def ids() -> cutaway.Behaviour:
    clean, corrupted = ((3, 4, 5, 6), (8, 9, 10, 11)), ((3, 4, 5, 7), (8, 9, 10, 12))
    return cutaway.Behaviour("ids", ("a", "b"), ("c", "d"), clean, corrupted, ((1,), (2,)), ((30,), (31,)))


def z_by_hand(model: Any, rows: list[list[int]], layer: int) -> torch.Tensor:
    """What attention's output projection is given, one token a row: [tokens d]."""
    seen: list[torch.Tensor] = []
    handle = model.transformer.h[layer].attn.c_proj.register_forward_pre_hook(
        lambda _m, args: seen.append(args[0][0])
    )
    with torch.no_grad():
        for row in rows:
            model(torch.tensor([row]))
    handle.remove()
    return torch.cat(seen)


def test_a_head_is_replaced_by_its_mean_over_the_texts_tokens(net: Network) -> None:
    mean = z_by_hand(net.model, TEXTS, 1).mean(0)

    def hook(_m: Any, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        value = args[0].clone()
        value[..., 8:16] = mean[8:16]
        return (value,)

    handle = net.model.transformer.h[1].attn.c_proj.register_forward_pre_hook(hook)  # type: ignore[union-attr, index]
    with torch.no_grad():
        wanted = net.model(PROMPTS).logits
    handle.remove()
    edit = Ablate("z", layer=1, head=1, how="mean", over=TEXTS)
    got = net.run(PROMPTS, edits=[edit]).logits
    assert torch.allclose(got, wanted, atol=1e-5)  # type: ignore[arg-type]
    assert not torch.allclose(
        got, net.run(PROMPTS, edits=[Ablate("z", layer=1, head=1, how="mean")]).logits, atol=1e-4
    )  # type: ignore[arg-type]
    with net.edit(edit, Ablate("mlp_out", layer=0)):  # the mean is that of the network without any edit
        standing = net.run(PROMPTS).logits
    assert torch.allclose(standing, net.run(PROMPTS, edits=[edit, Ablate("mlp_out", layer=0)]).logits)  # type: ignore[arg-type]


def test_by_position_needs_texts_of_one_length(net: Network) -> None:
    even = [[5, 6, 7, 8, 9], [9, 10, 11, 12, 13], [1, 2, 3, 4, 5]]
    run = net.run(torch.tensor(even), keep="resid_pre.2")
    edit = Ablate("resid_pre.2", how="mean", by_position=True, over=even)
    kept = net.run(PROMPTS, keep="resid_pre.2", edits=[edit])["resid_pre.2"]
    assert torch.allclose(kept, run["resid_pre.2"].mean(0, keepdim=True).expand_as(kept), atol=1e-5)
    with pytest.raises(BadInput, match="2 to 7 tokens"):
        net.run(PROMPTS, edits=[Ablate("z", how="mean", by_position=True, over=TEXTS)])


def test_a_sweep_ablates_by_that_mean_and_records_it(net: Network) -> None:
    pairs = ids()
    found = cutaway.ablate(net, pairs, over=TEXTS)
    mean = z_by_hand(net.model, TEXTS, 2).mean(0)
    row = torch.tensor([pairs.clean_ids[0]])

    def hook(_m: Any, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (torch.cat([args[0][..., :24], mean[24:].expand_as(args[0][..., 24:])], -1),)

    handle = net.model.transformer.h[2].attn.c_proj.register_forward_pre_hook(hook)  # type: ignore[union-attr, index]
    with torch.no_grad():
        logits = net.model(row).logits[0, -1]
    handle.remove()
    assert float(found.data["metric"].sel(layer=2, head=3, example=0)) == pytest.approx(
        float(logits[1] - logits[30]), abs=1e-5
    )
    assert "mean over 4 texts (SHA-256 " in str(found.data.attrs["where"])
    other = cutaway.ablate(net, pairs, over=TEXTS[:3])
    assert other.data.attrs["where"] != found.data.attrs["where"]
    assert "mean over 4 texts" in repr(cutaway.plan(net, pairs, how="mean", over=TEXTS).question.where)


def test_it_is_saved_with_its_texts(net: Network, tmp_path: Path) -> None:
    edit = Ablate("z", layer=1, how="mean", over=TEXTS)
    save(edit, tmp_path / "edit")
    again = load(tmp_path / "edit")
    assert torch.equal(net.run(PROMPTS, edits=again).logits, net.run(PROMPTS, edits=edit).logits)  # type: ignore[arg-type]
    assert repr(edit) == "Ablate(layer=1, z, how=mean, by_position=False, seed=0, over=4 texts)"


def test_sets_of_one_text_and_of_none(net: Network) -> None:
    with pytest.raises(BadInput, match="one text of 4 tokens"):
        net.run(PROMPTS, edits=[Ablate("z", how="mean", over=[[5, 6, 7, 8]])])
    long = [list(range(1, 41))]
    with pytest.warns(UserWarning, match="single text \\(40 tokens\\)"):
        net.run(PROMPTS, edits=[Ablate("z", how="mean", over=long)])
    for nothing in ([], (), "one text"):
        with pytest.raises(BadInput, match="no set of texts|no text"):
            Ablate("z", how="mean", over=nothing)
    for odd in ([[5, 6], []], [[5], None]):
        with pytest.raises(BadInput, match="Text 2"):
            net.run(PROMPTS, edits=[Ablate("z", how="mean", over=odd)])
    with pytest.raises(TooLong):
        net.run(PROMPTS, edits=[Ablate("z", how="mean", over=[[1] * 65, [2]])])


def test_what_makes_no_sense_is_refused(net: Network) -> None:
    with pytest.raises(BadInput, match="beside how='zero'"):
        net.run(PROMPTS, edits=[Ablate("z", how="zero", over=TEXTS)])
    with pytest.raises(BadInput, match="beside a source"):
        net.run(PROMPTS, edits=[Ablate("z", how="mean", over=TEXTS, source=net.run(PROMPTS, keep="z"))])
    with pytest.raises(BadInput, match="no mean over texts"):
        net.run(PROMPTS, edits=[Ablate("pattern", how="mean", over=TEXTS)])
    with pytest.raises(BadInput, match="beside how='resample'"):
        cutaway.ablate(net, ids(), how="resample", over=TEXTS)
    with pytest.raises(BadInput, match="beside a patch"):
        cutaway.plan(net, ids(), over=TEXTS)


def test_files_frames_and_datasets_of_texts(tmp_path: Path) -> None:
    texts = ["Mary was sad.", "Tom ran, fast."]
    (tmp_path / "a.txt").write_text("\n\n".join(texts) + "\n")
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    (tmp_path / "a.json").write_text(json.dumps(texts))
    pd.DataFrame({"text": texts}).to_csv(tmp_path / "a.csv")
    for ending in ("txt", "jsonl", "json", "csv"):
        assert texts_in(tmp_path / f"a.{ending}") == texts
    assert texts_in(pd.DataFrame({"story": texts}), "story") == texts
    assert texts_in({"text": t} for t in texts) == texts
    assert texts_in(torch.tensor([[1, 2], [3, 4]])) == [[1, 2], [3, 4]]
    with pytest.raises(NotFound, match="no column 'text'.*story"):
        texts_in([{"story": "y"}])
    for wrong, kind in ((tmp_path / "b.txt", NotFound), (tmp_path / "a.parquet", BadFormat)):
        with pytest.raises(kind):
            texts_in(wrong)
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(BadFormat, match="cannot be read"):
        texts_in(tmp_path / "c.json")
    with pytest.raises(BadInput, match="Choose a split"):
        texts_in({"train": texts})


def test_the_command_line_takes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("Mary was sad because she was late.\nTom ran to the park.\n")
    words = ["ablate", "zoo:tales", "-b", "pronoun", "--n", "8", "--over", "texts.txt", "-o", "out"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "mean over 2 texts" in cutaway.load("out").data.attrs["where"]
