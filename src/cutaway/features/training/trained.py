"""What came of a training: the dictionaries, beside their twins, measured on text that was not trained on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from safetensors.torch import save as to_bytes

from cutaway.errors import BadAddress, BadFormat, did_you_mean
from cutaway.features.dictionaries import Dictionary
from cutaway.features.formats import own
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.training.held_out import HeldOutFigures
from cutaway.features.training.loop import TrainingCurve
from cutaway.features.training.recipe import DictionaryRecipe
from cutaway.features.training.rows import HELD_OUT, ChunkSizes
from cutaway.features.training.saving import QUESTION
from cutaway.features.training.thresholds import Calibration
from cutaway.figures import Bar, bars, lines
from cutaway.reports import Facts, Figure, Page, Section, display_result, page_of, table_of
from cutaway.results import (
    MANIFEST,
    Provenance,
    atomic_write,
    described,
    finite,
    head,
    load_folder,
    pack,
    read,
    read_manifest,
    save_folder,
    unpack,
    write_manifest,
)  # fmt: skip

_TENSORS = "tensors.safetensors"
_CONTROL = {"frozen": "its twin with a frozen random decoder", "seed": "the same from another seed"}


@dataclass(frozen=True)
class EndToEnd:
    """What fine-tuning through the network did, on texts that were not trained on.

    Attributes:
        tokens: tokens that were tuned on.
        held: tokens that figures rest on; the first of each window is left out.
        kl_before, kl: Kullback-Leibler divergence of the logits with the reconstruction in place from the network's own, the
            mean over tokens [nats].
        kl_mean: the same with the mean of the site in place of every value: what there is to lose.
        fvu_before, fvu: fraction of the variance unexplained.
    """

    tokens: int
    held: int
    kl_before: float
    kl: float
    kl_mean: float
    fvu_before: float
    fvu: float


@dataclass(frozen=True)
class TrainedDictionary:
    """One dictionary of a training.

    Attributes:
        name: its name, and that of its folder.
        control: "" for one that was asked for, else "frozen" or "seed": which twin it is.
        of: the one that it is a twin of.
        recipe: how it was trained.
        curve: on the way.
        held: on rows that were not trained on.
        calibration: how thresholds were set; None where none were.
        end_to_end: fine-tuning through the network; None where there was none.
        steps, rows: how many it was trained on.
        seconds: that its steps took, reading rows not counted.
        dead: share of latents that had not fired for `recipe.dead_after` rows at the end; None where fewer were trained on.
    """

    name: str
    control: str
    of: str
    recipe: DictionaryRecipe
    curve: TrainingCurve
    held: HeldOutFigures
    calibration: Calibration | None
    end_to_end: EndToEnd | None
    steps: int
    rows: int
    seconds: float
    dead: float | None

    @property
    def rows_per_second(self) -> float:
        """Rows a second of its own steps."""
        return self.rows / self.seconds if self.seconds else float("nan")

    @property
    def where(self) -> str:
        """What it reads, and what it writes where that is another place."""
        reads, writes = ", ".join(self.recipe.reads), ", ".join(self.recipe.writes)
        return reads if reads == writes else f"{reads} to {writes}"


@dataclass(frozen=True, eq=False)
class DictionaryTraining:
    """Dictionaries that were trained on the same rows, twins beside them.

    Attributes:
        trained: each of them, those that were asked for first.
        rows: how many each was to be trained on.
        epochs: how often the texts were read, as far as that is known; NaN else.
        sizes: what was read together.
        scales: by place, what rows were multiplied with, their mean taken off; it is folded into the dictionaries.
        threads: of the processor.
        complete: was all of it done?
        notes: what a reader should know.
        provenance: what is needed to repeat it.
        dictionaries: by name.
    """

    kind: ClassVar[str] = "dictionary-training"

    trained: tuple[TrainedDictionary, ...]
    rows: int
    epochs: float
    sizes: ChunkSizes
    scales: dict[str, float]
    threads: int
    complete: bool
    notes: tuple[str, ...]
    provenance: Provenance
    dictionaries: dict[str, Dictionary] = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> Dictionary:
        """A dictionary by its name. Raises `BadAddress` for one that is not there."""
        if name not in self.dictionaries:
            raise BadAddress(f"There is no dictionary {name!r}.", did_you_mean(name, self.dictionaries, 3))
        return self.dictionaries[name]

    def __iter__(self) -> Iterator[TrainedDictionary]:
        return iter(self.trained)

    def __len__(self) -> int:
        return len(self.trained)

    @property
    def asked(self) -> tuple[TrainedDictionary, ...]:
        """Those that were asked for, without twins."""
        return tuple(one for one in self.trained if not one.control)

    def twin(self, name: str, control: str = "frozen") -> TrainedDictionary | None:
        """The twin of a dictionary; None where none was trained."""
        return next((one for one in self.trained if one.of == name and one.control == control), None)

    @property
    def headline(self) -> str:
        """What each leaves unexplained on text that it has not seen, beside its frozen twin."""
        said = "; ".join(self._said(one) for one in self.asked[:2])
        more = f"; and {len(self.asked) - 2} more" if len(self.asked) > 2 else ""
        return f"{said}{more}{'' if self.complete else ', stopped before the end'}"

    def _said(self, one: TrainedDictionary) -> str:
        held = one.held
        dead = (
            f"{100 * held.silent:.1f} % of them on none of {held.rows:,} unseen rows" if one.dead is None
            else f"{100 * one.dead:.1f} % dead"
        )  # fmt: skip
        said = (
            f"{one.recipe.latents:,} latents at {one.where} leave {held.fvu} of the variance unexplained, "
            f"{held.l0:.1f} fire on a row, {dead}"
        )
        frozen = self.twin(one.name)
        if frozen is None:
            return f"{said}; no frozen twin stands beside it"
        gain = held.better_than(frozen.held).above(0.0)
        than = {
            True: "",
            False: ", less, so training it was of no use",
            None: ", which is not told apart from that",
        }[gain]
        return f"{said}; a frozen random decoder leaves {frozen.held.fvu.value:.3f}{than}"

    def to_pandas(self) -> pd.DataFrame:
        """One row for each dictionary: figures on rows that were not trained on, and what training took."""
        rows = []
        for one in self.trained:
            low, high = one.held.fvu.ends(float("nan"))
            rows.append(
                {
                    "name": one.name, "control": one.control, "latents": one.recipe.latents, "fvu": one.held.fvu.value,
                    "low": low, "high": high, "l0": one.held.l0, "silent": one.held.silent,
                    "dead": float("nan") if one.dead is None else one.dead, "rows": one.rows, "steps": one.steps,
                    "seconds": one.seconds, "rows_per_second": one.rows_per_second,
                }
            )  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self) -> Any:
        """What each leaves unexplained, with its interval over texts."""
        return bars(
            [Bar.of(one.name, one.held.fvu) for one in self.trained], unit="fraction of variance unexplained"
        )

    def page(self) -> Page:
        """Figures beside the twins', the curves, and a card with every setting."""
        names = {"fvu": "unexplained", "l0": "latents that fire", "rows_per_second": "rows a second"}
        table = self.to_pandas().rename(columns=names)
        table["dead"] = [
            "too few rows to tell" if one.dead is None else f"{100 * one.dead:.1f} %" for one in self.trained
        ]
        table["silent"] = [f"{100 * one.held.silent:.1f} %" for one in self.trained]
        table["latents that fire"] = [f"{one.held.l0:.1f}" for one in self.trained]
        table["seconds"] = [f"{one.seconds:.1f}" for one in self.trained]
        for name in ("rows", "rows a second"):
            table[name] = [f"{value:,.0f}" for value in table[name]]
        if not any(one.control for one in self.trained):
            table = table.drop(columns="control")
        blocks: list[Any] = [
            Figure(
                self.plot(), "Unexplained on texts that were not trained on; at one nothing is explained."
            ),
            table_of(
                table,
                "Each dictionary and its twins. Silent: the share that fires on none of the rows measured.",
            ),
        ]
        shown = {"fvu": "unexplained", "l0": "latents that fire"}
        if any(one.dead is not None for one in self.trained):
            shown["dead"] = "dead latents"
        for of, title in shown.items():
            for rows, series in self._curves(of).items():
                values = {value for one in series.values() for value in one}
                if (
                    len(rows) > 1 and len(values) > 1
                ):  # latents that fire are as many at every step of batchtopk
                    caption = f"On the way: {title}, each step on its own batch, before it learnt from it."
                    blocks.append(Figure(lines(rows, series, "rows", title), caption))
        blocks += [
            Section(f"card-{i}", one.name, [Facts(self.card(one))]) for i, one in enumerate(self.trained)
        ]
        about = f"Dictionaries of {self.provenance.network}, trained on {self.rows:,} rows."
        return page_of(self, "Cutaway · features", about, blocks, lead=" ".join(self.notes))

    def _curves(self, of: str) -> dict[tuple[int, ...], dict[str, list[float]]]:
        found: dict[tuple[int, ...], dict[str, list[float]]] = {}
        for one in self.trained:
            found.setdefault(one.curve.rows, {})[one.name] = [float(v) for v in getattr(one.curve, of)]
        return found

    def card(self, one: TrainedDictionary) -> tuple[tuple[str, str], ...]:
        """Every setting of one dictionary, as names and values."""
        recipe = {f.name: getattr(one.recipe, f.name) for f in fields(one.recipe)} | {"lr": one.recipe.rate}
        facts = {"what": _CONTROL.get(one.control, "as asked for") + (f": {one.of}" if one.of else "")}
        facts |= {name: _words(value) for name, value in recipe.items()}
        facts["rows"] = f"{one.rows:,} in {one.steps:,} steps; {self.epochs:.3g} readings of the texts"
        facts["left out"] = (
            f"the first {self.sizes.skip} of each {self.sizes.length} tokens, special tokens, padding"
        )
        facts["held out"] = (
            f"the first and every {HELD_OUT}th text after it; {one.held.rows:,} rows of {one.held.texts} were measured"
        )
        facts["normalisation"] = "(row - mean) * scale, folded into the numbers; scales " + ", ".join(
            f"{p} {s:.6g}" for p, s in self.scales.items()
        )
        if (c := one.calibration) is not None:
            facts["thresholds"] = (
                f"{', '.join(f'{t:.6g}' for t in c.thresholds)}, set on {c.rows:,} rows: {c.l0:.2f} fire after "
                f"{c.l0_before:.2f}, {c.fvu:.4f} unexplained after {c.fvu_before:.4f}"
            )
        if (e := one.end_to_end) is not None:
            facts["end to end"] = (
                f"on {e.tokens:,} tokens; on {e.held:,} unseen ones the divergence went from {e.kl_before:.4f} to "
                f"{e.kl:.4f} nats a token ({e.kl_mean:.4f} with the mean in place), unexplained {e.fvu_before:.4f} to "
                f"{e.fvu:.4f}"
            )
        facts["chunks"] = (
            f"{self.sizes.chunk:,} rows; {self.sizes.batch} windows in a pass; {self.threads} threads"
        )
        facts["versions"] = ", ".join(f"{n} {v}" for n, v in self.provenance.versions.items())
        return tuple(facts.items())

    def to_dict(self) -> dict[str, Any]:
        """As plain data: figures and settings, not the dictionaries' numbers."""
        return described(self, "rows", "epochs", "scales", "threads", "complete", "notes", sizes=asdict(self.sizes),
                         trained=[_plain(one) for one in self.trained])  # fmt: skip

    # files -----------------------------------------------------------------------------------------------------------

    def _content(self) -> tuple[dict[str, Any], dict[str, Any]]:
        content, tensors = pack(replace(self, dictionaries={}))
        del content["provenance"], content["dictionaries"]
        return head(self.kind, self.provenance, content=content), tensors

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result, each dictionary in a folder of its own inside. Raises `SaveFailed`."""
        place = Path(path)
        said, tensors = self._content()
        if (place / QUESTION).is_file():
            if (place / MANIFEST).is_file() and read_manifest(place)[0]["provenance"] == finite(
                said["provenance"]
            ):
                return place
            return self.finish(place)
        parts = {name: _writer(dictionary) for name, dictionary in self.dictionaries.items()}
        return save_folder(place, said, tensors, parts=parts)

    def finish(self, folder: Path) -> Path:
        """Write the result into the folder of its training, file by file, its manifest last."""
        said, tensors = self._content()
        for name, dictionary in self.dictionaries.items():
            _writer(dictionary)(folder / name)
        held = to_bytes({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})
        atomic_write(folder / _TENSORS, held)
        listing = {_TENSORS: hashlib.sha256(held).hexdigest()}
        pages = read_manifest(folder)[0].get("pages", []) if (folder / MANIFEST).is_file() else []
        write_manifest(folder, {**said, "parts": sorted(self.dictionaries), "pages": pages}, listing)
        return folder

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DictionaryTraining:
        """Read what `save` wrote; the dictionaries' numbers are read when they are used, once their files are checked.

        Raises `BadFormat` or `CorruptFile`.
        """
        saved, _ = read(path, cls.kind)
        content = {**saved.manifest["content"], "provenance": saved.manifest["provenance"]}
        made = unpack(cls, content, saved.tensors)
        dictionaries = {}
        for one in made.trained:
            if Path(one.name).name != one.name:
                raise BadFormat(f"{path} names a dictionary {one.name!r}.", "Train it again.")
            load_folder(Path(path) / one.name)
            dictionaries[one.name] = own.read(DictionaryFiles.of(Path(path) / one.name))
        return replace(made, dictionaries=dictionaries)

    def __repr__(self) -> str:
        return f"DictionaryTraining({self.headline})"

    def _repr_html_(self) -> str:
        return display_result(self, [one.name for one in self.asked], self.to_pandas())


def _writer(dictionary: Dictionary) -> Any:
    def write_part(place: Path) -> None:
        own.write(dictionary, place)
        listing = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in own.files_of(place)}
        write_manifest(place, {"kind": "dictionary"}, listing)

    return write_part


def _plain(one: TrainedDictionary) -> dict[str, Any]:
    said = asdict(replace(one, held=replace(one.held, errors=None, spreads=None)))  # type: ignore[arg-type]
    del said["held"]["errors"], said["held"]["spreads"]
    return said | {"rows_per_second": one.rows_per_second}


def _words(value: Any) -> str:
    return (
        ", ".join(map(str, value)) or "none"
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
