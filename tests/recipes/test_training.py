"""The one training loop: killed or stopped, it gives the weights that it would have given."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from cutaway.errors import BadInput, Stopped
from cutaway.recipes.natural.gpt2 import build
from cutaway.recipes.training import Rhythm, Schedule, TrainingRun, begun, train
from cutaway.recipes.workshop import Workshop
from cutaway.results import Work


class Killed(BaseException):
    """Stands for a kill at a moment of the training."""


def _model() -> torch.nn.Module:
    return build(7, 6, 1, 8, 2, 8, seed=0)


def _loss(model: torch.nn.Module, step: int) -> torch.Tensor:
    ids = torch.randint(7, (4, 6), generator=torch.Generator().manual_seed(step))
    return model(input_ids=ids, labels=ids).loss


def test_a_killed_training_gives_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    schedule = Schedule(12, warmup=2)
    whole = _model()
    kept = train(begun(whole, schedule, Workshop(tmp_path / "a"), "x"), _loss, keep={3: "early"})

    def dies(model: torch.nn.Module, step: int) -> torch.Tensor:
        if step == 7:
            raise Killed
        return _loss(model, step)

    dying = begun(_model(), schedule, Workshop(tmp_path / "b"), "x")
    with pytest.raises(Killed):
        train(dying, dies, keep={3: "early"}, rhythm=Rhythm(save_seconds=0.0))
    again = _model()
    steps: list[int] = []
    kept_again = train(
        begun(again, schedule, Workshop(tmp_path / "b"), "x"),
        lambda m, s: (steps.append(s), _loss(m, s))[1],
        keep={3: "early"},
    )
    assert steps[0] == 7
    for a, b in ((whole, again), (kept.copy("early"), kept_again.copy("early"))):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize(
    "schedule", [Schedule(10), Schedule(10, clip=1.0, all_decay=True, fused=False, lowest=0.1)]
)
def test_a_step_is_one_of_plain_adamw(tmp_path: Path, schedule: Schedule) -> None:
    """The first steps, written out by hand."""
    one, other = _model(), _model()
    train(begun(one, schedule, Workshop(tmp_path), "x"), _loss, stop_at=3)
    matrices, vectors = ([p for p in other.parameters() if (p.ndim > 1) == big] for big in (True, False))
    groups = [
        {"params": matrices, "weight_decay": 0.01},
        {"params": vectors, "weight_decay": 0.01 if schedule.all_decay else 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=schedule.fused or None)
    for step in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (step + 1) / 50
        optimizer.zero_grad()
        _loss(other, step).backward()
        if schedule.clip:
            torch.nn.utils.clip_grad_norm_(other.parameters(), schedule.clip)
        optimizer.step()
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-8, rtol=1e-6)


def test_rates_rise_stay_and_fall() -> None:
    schedule = Schedule(100, rate=2.0, warmup=10, fall=0.5, lowest=0.1)
    rates = [schedule.at(step) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert set(rates[10:51]) == {2.0}
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[-1] == pytest.approx(0.2)


def test_stopped_it_keeps_a_checkpoint_and_goes_on(tmp_path: Path) -> None:
    work = Work()
    shop = Workshop(tmp_path, work)

    def tell(run: TrainingRun, loss: float) -> str:
        run.log.append({"step": run.step})
        if run.step == 4:
            work.stop()
        return "learning"

    schedule, rhythm = Schedule(8), Rhythm(tell=2, save_seconds=None)
    with pytest.raises(Stopped):
        train(begun(_model(), schedule, shop, "x", notes={"n": 1}), _loss, rhythm=rhythm, tell=tell)
    run = begun(_model(), schedule, Workshop(tmp_path), "x", notes={"n": 0})
    assert (run.step, run.notes, [line["step"] for line in run.log]) == (4, {"n": 1}, [2, 4])
    whole = train(begun(_model(), schedule, Workshop(tmp_path / "whole"), "x"), _loss)
    for p, q in zip(train(run, _loss).model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    schedule = Schedule(2)
    train(begun(_model(), schedule, Workshop(tmp_path), "x", settings=json.dumps(asdict(schedule))), _loss)
    other = replace(schedule, rate=0.5)
    with pytest.raises(BadInput, match="another run"):
        begun(_model(), other, Workshop(tmp_path), "x", settings=json.dumps(asdict(other)))
