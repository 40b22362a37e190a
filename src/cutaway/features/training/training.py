"""Training dictionaries on the activations of a network, twins beside them, and on rows that are given."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cutaway.errors import BadInput, CorruptFile
from cutaway.features.activations import Activations
from cutaway.features.dictionaries import Dictionary
from cutaway.features.lengths import LONGEST, check_longest
from cutaway.features.texts import TextsLike, batch_size, window_length
from cutaway.features.training import planning
from cutaway.features.training.asking import (
    assignments,
    only_sites,
    places_of,
    question_of,
    recipes_at,
    resolved,
    sized,
    told,
)
from cutaway.features.training.end_to_end import tuned
from cutaway.features.training.held_out import measured
from cutaway.features.training.loop import Assignment, Student, Training
from cutaway.features.training.normal import short_enough
from cutaway.features.training.planning import TrainingPlan
from cutaway.features.training.recipe import DictionaryRecipe
from cutaway.features.training.rows import (
    HELD_ROWS,
    SKIP,
    Chunk,
    ChunkSizes,
    PlainRows,
    RowSource,
    StoredRows,
    TextRows,
    widths_at,
)
from cutaway.features.training.saving import TrainingFolder
from cutaway.features.training.thresholds import calibrated
from cutaway.features.training.trained import DictionaryTraining, EndToEnd, TrainedDictionary
from cutaway.network.memory import available_bytes, budget_bytes
from cutaway.network.sites import SiteLike
from cutaway.results import MANIFEST, Provenance, Work, read_manifest, strict, versions, working

if TYPE_CHECKING:
    from cutaway.network import Network

#: Rows that are measured of a training that was stopped.
_FEW = 2048
#: Texts are not read more often.
EPOCHS = 1000


@dataclass(frozen=True, eq=False)
class TrainingQuestion:
    """A training, about to begin.

    Attributes:
        net: the network; None where rows are given.
        tasks: what is trained.
        rows: where rows come from.
        sizes: what is together.
        total: rows that each dictionary is trained on.
        data: a hash of the texts or rows.
        longest: rows that are so many times longer than the median are left out; None for none.
        convert: do dictionaries that were trained with topk get thresholds, too?
        tune: tokens of fine-tuning through the network.
        seed: of intervals.
    """

    net: Network | None
    tasks: tuple[Assignment, ...]
    rows: RowSource
    sizes: ChunkSizes
    total: int
    data: str
    longest: float | None
    convert: bool
    tune: int
    seed: int

    def __post_init__(self) -> None:
        each = self.rows.per_epoch
        if each is not None and self.total > EPOCHS * each:
            raise BadInput(
                f"{self.total:,} rows are more than {EPOCHS:,} readings of the {each:,} that there are.",
                "Give more texts, or train on fewer tokens.",
            )

    @property
    def question(self) -> Mapping[str, Any]:
        """All that numbers depend on."""
        net = "" if self.net is None else self.net.hash
        return question_of(
            self.tasks, network=net, data=self.data, rows=self.total, length=self.sizes.length, skip=self.sizes.skip,
            longest=self.longest, convert=self.convert, end_to_end=self.tune, version=versions()["cutaway"],
        )  # fmt: skip


@strict
def train_dictionaries(
    net: Network,
    texts: TextsLike | Activations,
    *,
    at: Sequence[SiteLike] | SiteLike | None = None,
    writes: Sequence[SiteLike] | SiteLike | None = None,
    kind: str | None = None,
    activation: str = "batchtopk",
    latents: int | None = None,
    k: int = 32,
    tokens: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    prefixes: Sequence[int] = (),
    linear: bool = False,
    recipes: Sequence[DictionaryRecipe] | None = None,
    controls: Sequence[str] = ("frozen", "seed"),
    end_to_end: int = 0,
    convert: bool = False,
    length: int | None = None,
    skip: int = SKIP,
    longest: float | None = LONGEST,
    folder: str | os.PathLike[str] | None = None,
    keep_every: float = 120.0,
    seed: int = 0,
    work: Work | None = None,
) -> DictionaryTraining:
    """Train dictionaries on the values of sites, several sites from one forward, and measure them on texts held out.

    Beside each dictionary that is asked for, a twin whose decoder stays at random and one from another seed are trained on
    the same rows, so that what training gained can be seen. Every twentieth text is never trained on. Called again with the
    same question and folder, it goes on where it was stopped or killed, bit for bit with as many threads.

    Args:
        net: the network.
        texts: a list or iterator of texts, rows of a data set, a path, or activations on disk (`cutaway.activations`).
        at: the sites that are read, e.g. resid_post.5; without a layer, all layers.
        writes: the sites that a transcoder reconstructs, one for each that is read.
        kind: autoencoder, transcoder, cross-layer transcoder or crosscoder; default by whether writes is given.
        activation: batchtopk, topk, relu, jumprelu, gated or groupmax; batchtopk gets thresholds afterwards.
        latents: how many each source has; default 16 times the width, at most 32,768.
        k: how many are to fire on a token.
        tokens: rows that each dictionary is trained on; texts are read again where they hold fewer. Default all, once.
        batch: rows of one step; default 4096, fewer where that would be less than a thousand steps.
        lr: the largest learning rate of Adam; default 8e-4 over the root of latents / 2^14, more where steps are few.
        prefixes: widths of a Matryoshka dictionary, the last of them latents.
        linear: also a linear map from each source to its target; transcoders only.
        recipes: every setting of each dictionary, in place of the keywords from at to linear.
        controls: which twins are trained, of frozen and seed.
        end_to_end: tokens on which autoencoders are then fine-tuned through the network, by the divergence of its logits.
        convert: give dictionaries that were trained with topk thresholds, too.
        length: tokens that are run at once; longer texts are cut.
        skip: first tokens of each window that are left out.
        longest: rows so many times longer than the median are left out, and said to be; None to keep all. In many networks
            a few tokens of a thousand are a hundred times as long, and would be all that is learnt.
        folder: where checkpoints and the result are kept, so that it can go on.
        keep_every: seconds between checkpoints.
        seed: of first values and of the order of rows.
        work: may stop it; what is trained comes back, marked as not complete.

    Raises:
        BadInput: for sites that do not go with the kind, too few texts, a site whose rows are all the same.
        SiteUnavailable: for a site without a value for each token.
        NotFinite: for NaN or infinity in the network's values, with the number of the text.
        OutOfMemory: where it does not fit the budget of memory; nothing was run then.
        SaveFailed: where the disk refuses, or the folder holds anything else; what was kept stays as it is.
    """
    with working(work).interruptible() as busy:
        given = {"kind": kind, "activation": activation, "latents": latents, "k": k, "batch": batch, "lr": lr,
                 "prefixes": tuple(prefixes), "skip": linear}  # fmt: skip
        settings = {"longest": longest, "convert": convert, "tune": end_to_end, "seed": seed}
        _check(keep_every, skip, longest, end_to_end, tokens, batch)
        asked = _asked(net, texts, at, writes, given, tokens, recipes, controls, length, skip, settings, busy)
        return _trained(asked, None if folder is None else TrainingFolder(Path(folder)), keep_every, busy)


@strict
def plan_training(
    net: Network,
    texts: TextsLike | Activations,
    *,
    at: Sequence[SiteLike] | SiteLike | None = None,
    writes: Sequence[SiteLike] | SiteLike | None = None,
    kind: str | None = None,
    activation: str = "batchtopk",
    latents: int | None = None,
    k: int = 32,
    tokens: int | None = None,
    batch: int | None = None,
    prefixes: Sequence[int] = (),
    linear: bool = False,
    recipes: Sequence[DictionaryRecipe] | None = None,
    controls: Sequence[str] = ("frozen", "seed"),
    length: int | None = None,
    skip: int = SKIP,
    work: Work | None = None,
) -> TrainingPlan:
    """What `train_dictionaries` with the same keywords will take: seconds, bytes on disk, memory. A few steps are timed.

    Args:
        net: the network.
        texts: as there.
        at, writes, kind, activation, latents, k, tokens, batch, prefixes, linear, recipes, controls, length, skip: as there.
        work: its budget of memory is what must not be exceeded.

    Raises what `train_dictionaries` raises before it begins.
    """
    busy = working(work)
    given = {"kind": kind, "activation": activation, "latents": latents, "k": k, "batch": batch, "lr": None,
             "prefixes": tuple(prefixes), "skip": linear}  # fmt: skip
    settings = {"longest": None, "convert": False, "tune": 0, "seed": 0}
    _check(0.0, skip, None, 0, tokens, batch)
    asked = _asked(net, texts, at, writes, given, tokens, recipes, controls, length, skip, settings, busy)
    widths, rows = asked.rows.widths, asked.rows if isinstance(asked.rows, TextRows) else None
    memory = planning.bytes_at_peak(asked.tasks, widths, asked.sizes, net, rows)
    planning.check_memory(memory, budget_bytes(net, busy))
    forwards = 0.0 if rows is None else planning.forwards_of(net, rows, asked.total)
    parts = planning.seconds_of(net, rows, asked.tasks, widths, asked.total, forwards, busy)
    return TrainingPlan(
        tuple(t.name for t in asked.tasks), asked.total, planning.steps_of(asked.tasks, asked.total),
        _epochs(asked, asked.total), forwards, sum(p[1] for p in parts), memory, planning.bytes_on_disk(asked.tasks, widths),
        tuple((name, seconds) for name, seconds, _ in parts),
    )  # fmt: skip


@strict
def train_on_rows(
    rows: Any,
    recipes: Sequence[DictionaryRecipe] | DictionaryRecipe,
    *,
    tokens: int | None = None,
    texts: Any = None,
    controls: Sequence[str] = (),
    convert: bool = False,
    longest: float | None = None,
    folder: str | os.PathLike[str] | None = None,
    keep_every: float = 120.0,
    seed: int = 0,
    work: Work | None = None,
) -> DictionaryTraining:
    """Train dictionaries on rows that are given, without a network: what `train_dictionaries` does with those of its sites.

    Args:
        rows: an array or tensor [n d], or several by the names that recipes read and write.
        recipes: one or several; of a single array, reads and writes may name it as they like.
        tokens: rows that each is trained on; default all, once.
        texts: [n], what belongs together and is held out together; default every twentieth row is held out.
        controls: which twins are trained, of frozen and seed; default none.
        convert, folder, keep_every: as in `train_dictionaries`.
        longest: as there, but by default all rows are kept: they are those that were chosen.
        seed: of intervals.
        work: may stop it.

    Raises `BadInput`, `NotFinite`, `SaveFailed` as `train_dictionaries`.
    """
    with working(work).interruptible() as busy:
        _check(keep_every, 0, longest, 0, tokens, None)
        several = [recipes] if isinstance(recipes, DictionaryRecipe) else list(recipes)
        if not several or not all(isinstance(r, DictionaryRecipe) for r in several):
            raise BadInput("No recipe is given.", "Give cutaway.features.training.DictionaryRecipe(...).")
        tasks = assignments(several, controls)
        places = places_of(tasks)
        held = dict(rows) if isinstance(rows, Mapping) else {places[0]: rows}
        if missing := [place for place in places if place not in held]:
            raise BadInput(
                f"There are no rows of {missing[0]}.", f"Rows are given of {', '.join(map(str, held))}."
            )
        source = PlainRows({place: held[place] for place in places}, ChunkSizes(1, 1, 1, 0), texts)
        total = tokens or source.per_epoch or 0
        memory = busy.budget.memory or available_bytes(torch.device("cpu")) // 2
        source.sizes = ChunkSizes(planning.chunk_rows(source.widths, memory, total), 1, 1, 0)
        asked = TrainingQuestion(
            None, tasks, source, source.sizes, total, source.digest, longest, convert, 0, seed
        )
        return _trained(asked, None if folder is None else TrainingFolder(Path(folder)), keep_every, busy)


def _check(
    keep_every: float, skip: int, longest: float | None, tune: int, tokens: int | None, batch: int | None
) -> None:
    check_longest(longest)
    for name, value, least in (("keep_every", keep_every, 0), ("skip", skip, 0), ("end_to_end", tune, 0),
                               ("tokens", tokens, 2), ("batch", batch, 2)):  # fmt: skip
        if value is not None and not least <= value < float("inf"):
            raise BadInput(f"{name}={value} is out of range.", f"Give {least} or more.")


def _asked(
    net: Network, texts: Any, at: Any, writes: Any, given: dict[str, Any], tokens: int | None,
    recipes: Sequence[DictionaryRecipe] | None, controls: Sequence[str], length: int | None, skip: int,
    settings: dict[str, Any], work: Work,
) -> TrainingQuestion:  # fmt: skip
    """The question, with everything that was left open decided."""
    size = window_length(net, length)
    if isinstance(texts, Activations):
        if texts.provenance.network_hash != net.hash:
            raise BadInput(
                f"{texts.folder} holds activations of another network.", "Store them anew with this one."
            )
        size = texts.length
    if skip >= size:
        raise BadInput(f"skip={skip} leaves no token of windows of {size}.", "Skip fewer.")
    if recipes is not None:
        if at is not None or writes is not None:
            raise BadInput("Sites are named by at= and by recipes.", "Name them in the recipes alone.")
        made = resolved(net, recipes)
    else:
        first: dict[str, Any] = given | {"batch": given["batch"] or 2}
        made = recipes_at(net, at, writes, first.pop("kind"), lambda s: widths_at(net, s), first.pop("activation"),
                          first.pop("latents"), settings["seed"], **first)  # fmt: skip
    tasks = assignments(made, controls)
    places = places_of(tasks)
    sites = only_sites(net, places)
    sizes = ChunkSizes(1, 1, size, skip)
    rows: RowSource
    if isinstance(texts, Activations):
        special = frozenset(getattr(net.tokenizer, "all_special_ids", None) or ())
        rows = StoredRows(texts, places, sizes, special)
    else:
        rows = TextRows(net, texts, sites, widths_at(net, sites), sizes, work, tokens)
        sizes = replace(sizes, batch=batch_size(net, sites, size, work))
    total = tokens or rows.per_epoch or 0
    if recipes is None:
        tasks = tuple(replace(t, recipe=sized(t.recipe, total, given["batch"], given["lr"])) for t in tasks)
    sizes = replace(sizes, chunk=planning.chunk_rows(rows.widths, budget_bytes(net, work), total))
    rows.sizes = sizes
    return TrainingQuestion(net, tasks, rows, sizes, total, told(texts), **settings)


def _trained(
    asked: TrainingQuestion, folder: TrainingFolder | None, keep_every: float, work: Work
) -> DictionaryTraining:
    """Train, or go on, or read what is finished."""
    began, notes = time.monotonic(), []
    threads = torch.get_num_threads()
    if folder is not None:
        begun = folder.begin(asked.question, asdict(asked.sizes) | {"threads": threads})
        if (found := _finished(folder)) is not None:
            return found
        if begun.pop("threads") != threads:
            notes.append(
                "It went on with another number of threads than it began with, so its last bits may differ."
            )
        asked = replace(asked, sizes=ChunkSizes(**begun))
        asked.rows.sizes = asked.sizes
    rows = asked.rows if isinstance(asked.rows, TextRows) else None
    planning.announce_training(asked.net, rows, asked.tasks, asked.rows.widths, asked.sizes, asked.total, work,
                              asked.tune)  # fmt: skip
    training = Training(asked.tasks, asked.rows, asked.total, work, folder, keep_every, asked.longest)
    complete = training.run()
    if complete and training.after < asked.total - 1:
        notes.append(
            f"The texts ended after {training.after:,} of {asked.total:,} rows, and could not be read again."
        )
    if len({student.rows for student in training.begun}) > 1:
        notes.append(
            "It was stopped inside a chunk: dictionaries and twins have been trained on unequal numbers of rows."
        )
    notes += [said for place, normal in training.normals.items() if (said := normal.lengths.said(place))]
    held = short_enough(asked.rows.held(HELD_ROWS if complete else _FEW), training.normals)
    made = [_finish(asked, student, training, held, complete, work) for student in training.begun]
    epochs = _epochs(asked, training.after)
    scales = {place: normal.scale for place, normal in training.normals.items()}
    took = time.monotonic() - began
    origin = (
        Provenance("rows that were given", "", asked.data, seed=asked.seed, seconds=took) if asked.net is None
        else Provenance.of(asked.net, asked.data, asked.tasks[0].recipe.seed, took)
    )  # fmt: skip
    found = DictionaryTraining(
        tuple(one for one, _ in made), asked.total, epochs, asked.sizes, scales, threads, complete, tuple(notes), origin,
        {one.name: dictionary for one, dictionary in made},
    )  # fmt: skip
    if folder is not None:
        found.finish(folder.path)
        if complete:
            folder.done()
    return found


def _epochs(asked: TrainingQuestion, rows: int) -> float:
    return rows / asked.rows.per_epoch if asked.rows.per_epoch else float("nan")


def _finished(folder: TrainingFolder) -> DictionaryTraining | None:
    """What is finished already; None where it is not."""
    if not (folder.path / MANIFEST).is_file():
        return None
    try:
        if not read_manifest(folder.path)[0]["content"]["complete"]:
            return None
        return DictionaryTraining.load(folder.path)
    except CorruptFile:
        return None  # what a kill left of a manifest that was being written is made again


def _finish(
    asked: TrainingQuestion, student: Student, training: Training, held: Chunk, complete: bool, work: Work
) -> tuple[TrainedDictionary, Dictionary]:
    """Thresholds, figures, and what is said in the file."""
    task, recipe, last = student.task, student.task.recipe, training.last
    made, calibration = student.dictionary(training.normals), None
    assert last is not None
    if recipe.activation == "batchtopk" or (asked.convert and recipe.activation == "topk"):
        alone = recipe.activation == "topk"
        reads, writes = [last.values[p] for p in recipe.reads], [last.values[p] for p in recipe.writes]
        made, calibration = calibrated(made, reads, writes, recipe.k, 1 if alone else recipe.batch)
    wanted = [held.values[p] for p in recipe.reads], [held.values[p] for p in recipe.writes], held.texts
    figures, tuning = measured(made, *wanted, asked.seed), None
    if asked.tune and complete and asked.net is not None and isinstance(asked.rows, TextRows):
        short = training.normals[recipe.reads[0]].lengths
        made, told_of = tuned(asked.net, made, asked.rows, asked.tune, recipe, short, work)
        before, figures = figures, measured(made, *wanted, asked.seed)
        tuning = EndToEnd(*told_of, before.fvu.value, figures.fvu.value)
    sources = len(made.encoders)
    dead = student.last["dead"] / (recipe.latents * sources) if student.rows >= recipe.dead_after else None
    one = TrainedDictionary(
        task.name, task.control, task.of, recipe, student.curve, figures, calibration, tuning, student.steps, student.rows,
        student.seconds, dead,
    )  # fmt: skip
    said = {
        "name": task.name, "made by": f"cutaway {versions()['cutaway']}", "control": task.control,
        "network": "" if asked.net is None else asked.net.name, "network_hash": "" if asked.net is None else asked.net.hash,
        "recipe": vars(recipe), "rows": student.rows, "complete": complete, "data": asked.data,
        "left out": {"first tokens of each window": asked.sizes.skip, "window": asked.sizes.length,
                     "longest": asked.longest},
        "l0": figures.l0, "fvu": figures.fvu.value, "silent": figures.silent, "measured on rows": figures.rows,
        "scales, folded in": {p: training.normals[p].scale for p in {*recipe.reads, *recipe.writes}},
        "thresholds": None if calibration is None else asdict(calibration),
        "end_to_end": None if tuning is None else asdict(tuning),
    }  # fmt: skip
    return one, replace(made, said={name: value for name, value in said.items() if value not in (None, "")})
