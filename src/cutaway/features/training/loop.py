"""The loop of training: from chunks of rows to steps of every dictionary, with checkpoints from which it goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from cutaway.errors import BadInput, NotFinite, Stopped
from cutaway.features.dictionaries import Dictionary, Place
from cutaway.features.training.normal import Normal, short_enough
from cutaway.features.training.recipe import DictionaryRecipe
from cutaway.features.training.rows import Chunk, RowSource, order
from cutaway.features.training.saving import TrainingFolder
from cutaway.features.training.trainee import Trainee
from cutaway.results import Work

#: Points of a curve, about.
POINTS = 200
#: Rows of the last chunk on which thresholds are set.
CALIBRATED_ON = 4096
LABEL = "training dictionaries"


@dataclass(frozen=True)
class Assignment:
    """One dictionary that is trained beside the others.

    Attributes:
        name: of the dictionary, and of its folder.
        recipe: how.
        control: "" for one that was asked for, "frozen" for its twin whose decoder stays at random, "seed" for the same from
            another seed.
        of: the one that it is a twin of; "" for one that was asked for.
    """

    name: str
    recipe: DictionaryRecipe
    control: str = ""
    of: str = ""


@dataclass(frozen=True)
class TrainingCurve:
    """What steps on the way found, each on its own batch before it learnt from it.

    Attributes:
        rows: rows that had been trained on.
        fvu: fraction of the variance unexplained.
        l0: latents that fired on a row.
        dead: latents that had not fired for as many rows as the recipe says.
        loss: each of its terms.
    """

    rows: tuple[int, ...] = ()
    fvu: tuple[float, ...] = ()
    l0: tuple[float, ...] = ()
    dead: tuple[int, ...] = ()
    loss: dict[str, tuple[float, ...]] = field(default_factory=dict)


class Student:
    """An assignment while it is worked on: the trainee, its curve, how long it took."""

    def __init__(self, task: Assignment, widths: Mapping[str, int], total: int) -> None:
        self.task, recipe = task, task.recipe
        self.ins, self.outs = [widths[p] for p in recipe.reads], [widths[p] for p in recipe.writes]
        self.trainee = Trainee(recipe, tuple(self.ins), tuple(self.outs))
        self.every = max(1, round(total / recipe.batch) // POINTS)
        self.points: list[dict[str, Any]] = []
        self.steps, self.rows, self.seconds = 0, 0, 0.0

    def step(self, values: Mapping[str, Tensor], at: Tensor, progress: float) -> None:
        """One step on some rows of a chunk."""
        began = time.perf_counter()
        recipe = self.task.recipe
        taken = {place: values[place][at] for place in dict.fromkeys((*recipe.reads, *recipe.writes))}
        report = self.trainee.step(
            [taken[p] for p in recipe.reads], [taken[p] for p in recipe.writes], progress
        )
        self.seconds += time.perf_counter() - began
        self.rows += len(at)
        if report.fvu != report.fvu or any(v != v for v in report.loss.values()):
            raise NotFinite(
                f"The loss of {self.task.name} became NaN after {self.rows} rows.",
                "Give a smaller learning rate: lr=1e-4.",
            )
        if self.steps % self.every == 0:
            self.points.append({"rows": self.rows, "fvu": report.fvu, "l0": report.l0, "dead": int(report.dead),
                                "loss": {k: float(v) for k, v in report.loss.items()}})  # fmt: skip
        self.last = {"rows": self.rows, "fvu": report.fvu, "l0": report.l0, "dead": int(report.dead),
                     "loss": {k: float(v) for k, v in report.loss.items()}}  # fmt: skip
        self.steps += 1

    @property
    def curve(self) -> TrainingCurve:
        """Its points, the last step among them."""
        points = [*self.points, *([self.last] if self.steps and self.points[-1] != self.last else [])]
        names = list(dict.fromkeys(name for point in points for name in point["loss"]))
        return TrainingCurve(
            tuple(p["rows"] for p in points), tuple(p["fvu"] for p in points), tuple(p["l0"] for p in points),
            tuple(p["dead"] for p in points),
            {name: tuple(p["loss"].get(name, float("nan")) for p in points) for name in names},
        )  # fmt: skip

    def said(self) -> dict[str, Any]:
        """What is kept of it beside tensors."""
        last = self.last if self.steps else None
        return {
            "points": self.points,
            "last": last,
            "steps": self.steps,
            "rows": self.rows,
            "seconds": self.seconds,
        }

    def load(self, said: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        """Go on from what was kept."""
        self.points, self.last, self.steps = list(said["points"]), said["last"], int(said["steps"])
        self.rows, self.seconds = int(said["rows"]), float(said["seconds"])
        self.trainee.load(state)

    def dictionary(self, normals: Mapping[str, Normal]) -> Dictionary:
        """As it stands, on raw values, its places named."""
        recipe = self.task.recipe
        reads, writes = [normals[p] for p in recipe.reads], [normals[p] for p in recipe.writes]
        made = self.trainee.dictionary(
            [n.mean for n in reads],
            [n.scale for n in reads],
            [n.mean for n in writes],
            [n.scale for n in writes],
        )
        sites = [Place("", site, width) for site, width in zip(recipe.reads, self.ins, strict=True)]
        grouped = (tuple(sites),) if recipe.kind == "crosscoder" else tuple((site,) for site in sites)
        targets = tuple(Place("", site, width) for site, width in zip(recipe.writes, self.outs, strict=True))
        return replace(made, reads=grouped, writes=targets)


class Training:
    """Several dictionaries trained on the same rows."""

    def __init__(
        self, tasks: Sequence[Assignment], rows: RowSource, total: int, work: Work, folder: TrainingFolder | None = None,
        keep_every: float = 120.0, longest: float | None = None,
    ) -> None:  # fmt: skip
        """total: rows that each is trained on. keep_every: seconds between checkpoints. longest: see `Normal.of`."""
        self.rows, self.total, self.work, self.folder = rows, total, work, folder
        self.keep_every, self.longest = keep_every, longest
        self.students = [Student(task, rows.widths, total) for task in tasks]
        self.places = list(dict.fromkeys(p for t in tasks for p in (*t.recipe.reads, *t.recipe.writes)))
        self.normals: dict[str, Normal] = {}
        self.epoch = self.chunk = self.turn = self.step = 0
        self.before = self.after = 0  # rows before the chunk that is trained on, and those with it
        self.last: Chunk | None = None
        self.fruitful = 0  # the last epoch that had a row to train on

    def run(self) -> bool:
        """Train to the end; False where it was stopped before. Goes on where the folder says that it was."""
        self.work.check()
        self._load()
        self.kept_at = time.monotonic()
        try:
            for chunk in self.rows.chunks(self.epoch, self.chunk):
                self._enter(chunk)
                self._train(chunk)
                if self.after >= self.total - 1:  # a single row is no batch
                    break
        except Stopped:
            self._keep()
            if self.last is None or not self.begun:
                raise
            return False
        if not self.after:
            raise BadInput("No row was left to train on.", "Give more texts, or skip fewer tokens.")
        return True

    @property
    def begun(self) -> list[Student]:
        """Those that have made a step."""
        return [student for student in self.students if student.steps]

    def _enter(self, chunk: Chunk) -> None:
        """Begin a chunk, or go on in it where it was kept."""
        if (chunk.epoch, chunk.number) != (self.epoch, self.chunk):
            self.epoch, self.chunk, self.turn, self.step = chunk.epoch, chunk.number, 0, 0
            self.before = self.after
        if not self.normals:
            self.normals = {p: Normal.of(chunk.values[p], p, self.longest) for p in self.places}

    def _train(self, chunk: Chunk) -> None:
        chunk = short_enough(chunk, self.normals).first(self.total - self.before)
        if len(chunk) < 2:
            self.after = self.before
            if chunk.epoch > self.fruitful + 1:
                raise BadInput("No row is left to train on.", "Give more texts, or a larger longest=.")
            return
        self.fruitful = chunk.epoch
        self.last = chunk.first(CALIBRATED_ON)
        self.last = replace(self.last, values={p: v.clone() for p, v in self.last.values.items()})
        values = {p: self.normals[p](chunk.values[p]) for p in self.places}
        for turn, student in enumerate(self.students):
            if turn < self.turn:
                continue
            recipe = student.task.recipe
            mixed = order(len(chunk), recipe.seed, chunk.epoch, chunk.number)
            parts = mixed.tensor_split(max(1, round(len(chunk) / recipe.batch)))
            at = sum(len(part) for part in parts[: self.step]) if turn == self.turn else 0
            for number, part in enumerate(parts):
                if turn == self.turn and number < self.step:
                    continue
                student.step(values, part, min(1.0, (self.before + at) / self.total))
                at += len(part)
                self.turn, self.step = turn, number + 1
                if self.folder is not None and time.monotonic() - self.kept_at >= self.keep_every:
                    self._keep()
                share = (turn + at / len(chunk)) / len(self.students)
                self.work.step(LABEL, round(self.before + share * len(chunk)), self.total)
        self.after = self.before + len(chunk)

    # checkpoints -----------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        if self.folder is None or not self.normals:
            return
        said = {
            "epoch": self.epoch, "chunk": self.chunk, "turn": self.turn, "step": self.step,
            "before": self.before,
            "students": [student.said() for student in self.students],
            "normals": {p: n.kept() for p, n in self.normals.items()},
        }  # fmt: skip
        tensors = {f"normal.{p}": n.mean for p, n in self.normals.items()}
        for number, student in enumerate(self.students):
            tensors |= {f"{number}.{name}": value for name, value in student.trainee.state().items()}
        self.folder.keep(said, tensors)
        self.kept_at = time.monotonic()

    def _load(self) -> None:
        kept = None if self.folder is None else self.folder.kept()
        if kept is None:
            return
        said, tensors = kept
        self.epoch, self.chunk, self.turn, self.step = (
            int(said[n]) for n in ("epoch", "chunk", "turn", "step")
        )
        self.before, self.fruitful = int(said["before"]), self.epoch
        for place, numbers in said["normals"].items():
            self.normals[place] = Normal.again(tensors[f"normal.{place}"], numbers)
        for number, student in enumerate(self.students):
            begins = f"{number}."
            state = {n.removeprefix(begins): t for n, t in tensors.items() if n.startswith(begins)}
            student.load(said["students"][number], state)
