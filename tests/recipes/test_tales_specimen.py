"""`tales` as a specimen: its recipe in the zoo's workshop, what it is asked, its labels and its twins."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from cutaway import zoo
from cutaway.errors import NotFound
from cutaway.recipes import making
from cutaway.recipes.tales import exam, recipe
from cutaway.recipes.tales.recipe import EIGHT, TalesRecipe
from cutaway.recipes.tales.specimen import Stories
from cutaway.recipes.workshop import Workshop
from cutaway.results import Work
from cutaway.zoo import loaders


def test_the_recipe_makes_a_folder_with_its_log_and_leaves_its_checkpoint(
    tmp_path: Path, monkeypatch
) -> None:
    tokenizer = zoo.load("tales")[1]
    monkeypatch.setattr(recipe, "train_tokenizer", lambda: tokenizer)
    monkeypatch.setattr(recipe, "examine", lambda model, tokenizer, n: exam.examine(model, tokenizer, 8))
    tiny = TalesRecipe(layers=1, width=16, heads=2, mlp=32, context=32, rows=2, steps=200, warmup=2)
    heard: list[int] = []
    shop = Workshop(tmp_path / "work", Work(lambda p: heard.append(p.done)))
    made = tiny.make(shop)
    assert heard == [100, 200]
    what = replace(zoo.specimen("tales"), recipe=tiny)
    folder = making.write(what, made, tmp_path / "out")
    loaders.check(folder)
    card = json.loads((folder / "card.json").read_text())
    assert card["recipe"]["steps"] == card["truth"]["facts"]["steps"] == 200
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [100, 200]
    shop.discard()
    kept = torch.load(tmp_path / "work" / "tales" / "tales.checkpoint", weights_only=True)
    assert kept["step"] == 200
    assert {"model", "optimizer"} <= set(kept)


def test_pairs_are_of_the_eight_behaviours_in_turn() -> None:
    pairs = Stories().pairs(32, 4)
    assert [pair.template for pair in pairs[:8]] == list(EIGHT)
    assert all(len(pair.clean) == len(pair.corrupted) and pair.clean != pair.corrupted for pair in pairs)
    assert pairs == Stories().pairs(32, 4) != Stories().pairs(32, 5)
    tokenizer = zoo.load("tales")[1]
    for pair in pairs:
        if pair.template == "ioi":
            assert tokenizer.decode(pair.right).strip() in tokenizer.decode(pair.clean)


def test_labels_are_values_of_the_variable_that_decides_the_next_token() -> None:
    tokenizer = zoo.load("tales")[1]
    for label in Stories().labels("number", 20, 1):
        assert label.pos == len(label.ids) - 1
        assert label.value in (0, 1)
    genders = Stories().labels("gender", 40, 1)
    assert {label.value for label in genders} == {0, 1}
    assert tokenizer.decode(genders[0].ids).startswith("<bos>")
    assert Stories().labels("nonsense", 3) == []


def test_passages_have_a_label_for_every_token() -> None:
    for passage in islice(Stories().passages(2), 30):
        assert all(len(values) == len(passage.tokens) for values in passage.labels.values())
        decided = [
            by
            for by, yes in zip(passage.labels["by"], passage.labels["determined"], strict=True)
            if yes == "yes"
        ]
        assert all(decided)


def test_built_twins_have_the_shape_and_not_the_skill() -> None:
    model, tokenizer = zoo.load("tales")
    asked = list(islice(exam.questions("ioi", 9), 60))
    for kind in ("shuffled", "blind"):
        twin, _ = zoo.load(f"tales~{kind}")
        assert twin.config.to_dict() == model.config.to_dict()
        assert exam.ask(twin, tokenizer, asked).top1 < 0.3
    with pytest.raises(NotFound):
        TalesRecipe().twin("sly")
    assert exam.ask(zoo.load("tales")[0], tokenizer, asked).top1 > 0.9  # the shipped weights were not touched
