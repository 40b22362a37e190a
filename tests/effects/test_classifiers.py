"""Text classifiers, which give one answer for a whole row, through the same verbs as language models."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

import cutaway
from cutaway.behaviours.rows import Header, from_rows
from cutaway.errors import BadBehaviour

Rows = list[dict[str, object]]
NAMES = {0: "calm", 1: "angry", 2: "merry"}


@pytest.fixture(scope="module")
def model() -> BertForSequenceClassification:
    """A tiny classifier of token rows, trained to tell which of three tokens stands third."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=16, id2label=NAMES,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    optimizer, generator = torch.optim.AdamW(model.parameters(), 3e-3), torch.Generator().manual_seed(0)
    for _ in range(120):
        ids, classes = drawn(64, generator)
        loss = torch.nn.functional.cross_entropy(model(input_ids=ids).logits, classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def drawn(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Token rows [n 6] and their classes [n]: the third token is 5, 6 or 7."""
    ids = torch.randint(10, 40, (n, 6), generator=generator)
    classes = torch.randint(3, (n,), generator=generator)
    ids[:, 2] = 5 + classes
    return ids, classes


def rows(named: bool) -> Rows:
    ids, classes = drawn(24, torch.Generator().manual_seed(1))
    other = (classes + 1) % 3
    twins = ids.clone()
    twins[:, 2] = 5 + other
    said = [[NAMES[int(c)] if named else int(c) for c in side] for side in (classes, other)]
    columns = zip(ids.tolist(), twins.tolist(), *said, strict=True)
    return [{"clean": a, "corrupted": b, "right": [r], "wrong": [w]} for a, b, r, w in columns]


@pytest.fixture(scope="module")
def asked(model: BertForSequenceClassification) -> tuple[cutaway.Network, cutaway.Behaviour]:
    net = cutaway.open(model)
    pairs = from_rows(net, rows(named=True), Header("mood"))
    return net, cutaway.behaviour(pairs, net)


def test_classes_are_answers_by_name_or_number(asked: tuple[cutaway.Network, cutaway.Behaviour]) -> None:
    net, pairs = asked
    by_number = from_rows(net, rows(named=False), Header("mood"))
    assert by_number.hash == pairs.hash
    assert by_number.right_text == pairs.right_text
    assert {name for row in pairs.right_text for name in row} <= set(NAMES.values())
    assert cutaway.behaviour(pd.DataFrame(rows(named=True)), net, n=24).right == pairs.right


def test_what_is_no_class_is_refused(asked: tuple[cutaway.Network, cutaway.Behaviour]) -> None:
    net, _ = asked
    for right, said in ((["sad"], "'sad' is no class"), ([3], "answer 3, and the logits of .* end at 2")):
        wrong = [{**row, "right": right} for row in rows(named=True)]
        with pytest.raises(BadBehaviour, match=said):
            cutaway.behaviour(from_rows(net, wrong, Header("mood")), net)


def test_heads_of_a_classifier_are_patched_as_by_hand(
    asked: tuple[cutaway.Network, cutaway.Behaviour], model: BertForSequenceClassification
) -> None:
    net, pairs = asked
    heads = cutaway.patch(net, pairs, at="z", by=["layer", "head"], direction="corrupt")
    clean, corrupted = (torch.tensor(side) for side in (pairs.clean_ids, pairs.corrupted_ids))
    high, low = (metric(model, ids, pairs) for ids in (clean, corrupted))
    for layer, head in ((0, 1), (1, 3)):
        place = model.bert.encoder.layer[layer].attention.output.dense
        columns, kept = slice(8 * head, 8 * head + 8), {}

        def keep(_: object, given: tuple[Tensor, ...], kept: dict[str, Tensor] = kept) -> None:
            kept["value"] = given[0].clone()

        def write(
            _: object, given: tuple[Tensor], kept: dict[str, Tensor] = kept, columns: slice = columns
        ) -> tuple[Tensor]:
            value = given[0].clone()
            value[..., columns] = kept["value"][..., columns]
            return (value,)

        handle = place.register_forward_pre_hook(keep)
        metric(model, corrupted, pairs)
        handle.remove()
        handle = place.register_forward_pre_hook(write)
        edited = metric(model, clean, pairs)
        handle.remove()
        hand = float((edited - high).mean() / (high - low).mean())
        assert float(heads.sel(layer=layer, head=head).mean) == pytest.approx(hand, abs=1e-5)


def metric(model: BertForSequenceClassification, ids: Tensor, pairs: cutaway.Behaviour) -> Tensor:
    """Logit difference [n] of the bare model."""
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    at = torch.arange(len(ids))
    return logits[at, [r[0] for r in pairs.right]] - logits[at, [w[0] for w in pairs.wrong]]


def test_a_classifier_is_explained_in_the_names_of_its_classes(
    asked: tuple[cutaway.Network, cutaway.Behaviour],
) -> None:
    net, pairs = asked
    stream = cutaway.patch(net, pairs)
    assert float(stream.sel(layer=0, position=2).mean) == pytest.approx(1.0, abs=1e-5)
    explanation = cutaway.explain(net, pairs)
    assert explanation.complete
    assert explanation.trial is not None
    assert explanation.trial.kept.value > 0.7
    for pair in explanation.pairs:
        assert pair.right in NAMES.values()
        assert any(f"says '{name}'" in pair.clean_says for name in NAMES.values())
