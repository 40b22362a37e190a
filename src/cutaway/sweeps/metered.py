"""What a sweep that is ready will take by the meter: rows times the share of the layers and columns that its waves run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cutaway.network.pricing import announce

if TYPE_CHECKING:
    from cutaway.results import Work
    from cutaway.sweeps.engine import Job
    from cutaway.sweeps.plan import Plan
    from cutaway.sweeps.waves import Wave


def announce_sweep(plan: Plan, work: Work, label: str) -> None:
    """Say what a planned sweep is about to take. There is something to keep after its first wave."""
    if not work.priced:
        return
    forwards, cost, experiment = forwards_of(plan.job), plan.cost, plan.job.experiment
    waves = len(plan.job.waves) + (len(plan.job.plain) > 0)
    timed = None if cost.seconds is None or cost.processor is None else (cost.seconds, cost.processor)
    announce(
        experiment.net, experiment.tokens, work, label, forwards, memory=cost.memory, timed=timed, passes=_passes(plan.job),
        least=forwards / max(1, waves),
    )  # fmt: skip


def _passes(job: Job) -> float:
    """Passes through all layers: of a wave, its layers from the first on that any of its rows changes."""
    depth, tokens = max(1, job.experiment.net.n_layers), job.experiment.tokens
    run = sum(depth - int(wave.layers.min()) for wave in job.waves if len(wave.layers)) / depth
    return run + len(job.plain) / max(1, tokens.n)


def forwards_of(job: Job) -> float:
    """Forward-equivalents of a job that is not yet run (`results.meter`); base runs are made already."""
    experiment = job.experiment
    depth, width = max(1, experiment.net.n_layers), max(1, experiment.tokens.width)
    return sum(_wave(wave, depth, width, job.rules.last) for wave in job.waves) + len(job.plain)


def _wave(wave: Wave, depth: int, width: int, last: bool) -> float:
    """Every layer for the rows that have joined; of one that they join in the middle, the half that is left."""
    total = 0.0
    for i in range(depth):
        rows = float(wave.upto(i - 1))
        for stage, first, stop in wave.joining(i):
            rows += (stop - first) * (1.0 - (stage.attention + stage.mlp) / 2)
        total += rows * (1 if last and i == depth - 1 else wave.columns)
    return total / depth / width
