"""The recipe: the same seed gives the same weights, also when the run is killed on the way."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from cutaway import zoo
from cutaway.recipes import making
from cutaway.recipes.tales.corpus import Corpus
from cutaway.recipes.tales.exam import Score
from cutaway.recipes.tales.recipe import TalesRecipe, train
from cutaway.recipes.workshop import Workshop
from cutaway.results import Progress, Work
from cutaway.zoo import loaders

TINY = replace(TalesRecipe(), layers=1, width=16, heads=2, mlp=32, context=32, rows=2, steps=8, warmup=2)


@pytest.fixture(scope="module")
def tokenizer():
    return zoo.load("tales")[1]


def _train(work: Path, tokenizer, **options):
    return train(TINY, Workshop(work), tokenizer, **options)


def test_resumed_equals_uninterrupted(tmp_path: Path, tokenizer) -> None:
    whole = _train(tmp_path / "whole", tokenizer)
    _train(tmp_path / "parts", tokenizer, stop_at=3)
    parts = _train(tmp_path / "parts", tokenizer)
    assert whole.step == parts.step == TINY.steps
    for (name, one), (_, two) in zip(
        whole.model.state_dict().items(), parts.model.state_dict().items(), strict=True
    ):
        assert torch.equal(one, two), name


def test_a_kill_loses_only_what_came_after_the_checkpoint(tmp_path: Path, tokenizer) -> None:
    class Killed(BaseException):
        """Stands for a kill: nothing has time to keep anything."""

    def killed(progress: Progress) -> None:
        raise Killed

    recipe = replace(TINY, steps=120)
    with pytest.raises(Killed):  # the first progress line comes at step 100
        train(recipe, Workshop(tmp_path, Work(killed)), tokenizer, save_every=30)
    checkpoint = Workshop(tmp_path).load("tales")
    assert checkpoint is not None
    assert checkpoint["step"] == 90
    resumed = train(recipe, Workshop(tmp_path), tokenizer, save_every=30)
    assert resumed.step == 120
    assert not list(tmp_path.glob("*.part"))


def test_export_opens_and_carries_its_hash(tmp_path: Path, tokenizer) -> None:
    trained = _train(tmp_path / "run", tokenizer)
    product = TINY.product(trained, tokenizer, {"ioi": Score(10, 0.5, 0.2, 0.8, 0.6)})
    folder = making.write(replace(zoo.specimen("tales"), recipe=TINY), product, tmp_path / "out")
    loaders.check(folder)
    again = AutoModelForCausalLM.from_pretrained(folder)
    for one, two in zip(trained.model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_rows_are_the_same_each_time_and_stories_do_not_see_each_other(tokenizer) -> None:
    corpus = Corpus(tokenizer, rows=4, context=64, seed=1, emphasis=3.0, echo=0.2)
    one, two = corpus.batch(7), corpus.batch(7)
    assert torch.equal(one.ids, two.ids)
    assert not torch.equal(one.ids, corpus.batch(8).ids)
    assert one.ids.shape == one.target.shape == one.weight.shape == one.position.shape == (4, 64)
    assert one.mask.shape == (4, 1, 64, 64)
    starts = one.position == 0
    assert torch.equal(starts, one.ids == tokenizer.bos_token_id)
    story = starts.cumsum(1)
    same = story[:, :, None] == story[:, None, :]
    assert torch.equal(one.mask[:, 0], same & torch.ones(64, 64, dtype=torch.bool).tril())
    assert (one.weight[one.target == tokenizer.bos_token_id] == 0).all()


def test_rate_rises_stays_and_falls() -> None:
    recipe = TalesRecipe()
    rate = recipe.schedule().at
    assert rate(0) < rate(100) < rate(recipe.warmup) == recipe.learning_rate
    assert rate(recipe.steps // 2) == recipe.learning_rate
    assert rate(recipe.steps - 1) < 1e-3 * recipe.learning_rate
