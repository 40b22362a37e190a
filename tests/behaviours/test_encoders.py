"""Encoders: the word in the place of a mask, and sentences held against texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

import cutaway
from cutaway.errors import BadBehaviour, BadInput
from cutaway.network import Network

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the dog cat bus car old was so good bad today very animal vehicle a . an"
)
ROWS = [
    {
        "clean": f"the {a} was {very}[MASK] .",
        "corrupted": f"the {b} was {very}[MASK] .",
        "right": r,
        "wrong": w,
    }
    for very in ("", "very ")
    for a, b, r, w in (("dog", "bus", "good", "bad"), ("car", "cat", "bad", "good"))
]


def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS.split())}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    named: dict[str, Any] = {"unk_token": "[UNK]", "mask_token": "[MASK]", "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, cls_token="[CLS]", sep_token="[SEP]", **named)


def config() -> BertConfig:
    shape: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BertConfig(vocab_size=22, intermediate_size=64, max_position_embeddings=32, **shape)


@pytest.fixture(scope="module")
def masked() -> Network:
    torch.manual_seed(0)
    return cutaway.open(BertForMaskedLM(config()).eval(), tokenizer())


def test_the_answer_stands_in_the_place_of_the_mask(masked: Network) -> None:
    b = cutaway.behaviour(ROWS, masked, force=True)
    for row in range(b.n):
        assert masked.token_strings(list(b.clean_ids[row]))[b.answer_pos[row]] == "[MASK]"
        assert masked.token_strings(list(b.right[row])) == list(b.right_text[row])
    logits = masked.run(ROWS[0]["clean"]).logits
    assert logits is not None
    place = b.answer_pos[0]
    by_hand = float(logits[0, place, b.right[0][0]] - logits[0, place, b.wrong[0][0]])
    measured = cutaway.performance(masked, b[:1]).metric_clean.value
    assert measured == pytest.approx(by_hand, abs=1e-5)


def test_two_prompts_with_masks_and_sweeps_of_them(masked: Network) -> None:
    asked: dict[str, Any] = {
        "clean": ROWS[0]["clean"],
        "corrupted": ROWS[0]["corrupted"],
        "answers": ("good", "bad"),
    }
    effects = cutaway.patch(masked, **asked)
    assert float(effects.data["effect"].sel(layer=0, position=2).mean()) == pytest.approx(1.0, abs=1e-4)
    assert float(effects.data["effect"].sel(layer=0, position=0).mean()) == pytest.approx(0.0, abs=1e-4)
    explained = cutaway.explain(masked, cutaway.behaviour(ROWS * 4, masked, force=True), force=True)
    assert explained.verdict != "supported"


def test_masks_at_different_ends_of_their_rows(masked: Network) -> None:
    moved = {
        "clean": "the old dog was [MASK] .",
        "corrupted": "the bus was [MASK] .",
        "right": "good",
        "wrong": "bad",
    }
    assert cutaway.behaviour([moved], masked, force=True).answer_pos == (-3,)
    lost = moved | {"corrupted": "the bus was [MASK] today so ."}
    with pytest.raises(BadBehaviour, match="same place"):
        cutaway.behaviour([lost], masked)
    with pytest.raises(BadBehaviour, match="2 masks"):
        cutaway.behaviour([moved | {"clean": "the [MASK] was [MASK] ."}], masked)
    said = moved | {"clean": "the [MASK] was [MASK] .", "answer_pos": 4}
    assert cutaway.behaviour([said], masked, force=True).answer_pos == (4,)
    with pytest.raises(BadBehaviour, match="does not know"):
        cutaway.behaviour([moved | {"right": "splendid"}], masked)


def test_an_encoder_without_answers_says_so(tmp_path: Path) -> None:
    net = cutaway.open(BertModel(config()).eval(), tokenizer())
    for ask in (
        lambda: cutaway.behaviour(ROWS, net),
        lambda: cutaway.patch(net, clean="the dog", corrupted="the bus", answers=(" good", " bad")),
    ):
        with pytest.raises(BadInput, match="no logits") as caught:
            ask()
        assert "sentences:" in caught.value.remedy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    BertModel(config()).save_pretrained(tmp_path / "encoder")
    tokenizer().save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def embedded(model: BertModel, text: str, pooling: str) -> Tensor:
    ids = torch.tensor([tokenizer()(text)["input_ids"]])
    stream = model(input_ids=ids).last_hidden_state[0]
    value = stream.mean(0) if pooling == "mean" else stream[0]
    return value / value.norm()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_sentences_are_held_against_texts(folder: Path, pooling: str) -> None:
    (folder / "1_Pooling").mkdir()
    told = {"pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean"}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(told))
    net = cutaway.open(f"sentences:{folder}|an animal|a vehicle")
    bare = BertModel.from_pretrained(folder).eval()
    texts = ["the dog was very old .", "the bus"]
    logits = net.run(texts).logits
    assert logits is not None
    for row, text in enumerate(texts):
        mine = embedded(bare, text, pooling)
        for column, other in enumerate(("an animal", "a vehicle")):
            cosine = (mine @ embedded(bare, other, pooling)).item()
            assert float(logits[row, column]) == pytest.approx(cosine, abs=1e-5)
    assert all(check.holds for check in net.certificate.checks)
    assert cutaway.open(**net.opened).hash == net.hash


def test_what_can_be_asked_of_sentences(folder: Path) -> None:
    net = cutaway.open(f"sentences:{folder}|an animal|a vehicle")
    rows = [
        {
            "clean": "the dog was old .",
            "corrupted": "the bus was old .",
            "right": "an animal",
            "wrong": "a vehicle",
        },
        {
            "clean": "the car was so .",
            "corrupted": "the cat was so .",
            "right": "a vehicle",
            "wrong": "an animal",
        },
    ]
    b = cutaway.behaviour(rows, net, force=True)
    assert b.right == ((0,), (1,))
    effects = cutaway.patch(net, b, by=["layer", "position"])
    assert effects.data["effect"].sel(layer=0).sum() != 0
    with pytest.raises(BadBehaviour, match="no class"):
        cutaway.behaviour([rows[0] | {"right": "a plant"}], net)


@pytest.mark.parametrize("texts", ["", "|one", "|one|one", "|one|"])
def test_sentences_need_two_texts(folder: Path, texts: str) -> None:
    with pytest.raises(BadInput, match="two or more texts"):
        cutaway.open(f"sentences:{folder}{texts}")
