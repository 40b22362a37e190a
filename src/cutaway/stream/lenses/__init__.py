"""Lenses: streams between the layers read as predictions."""

from cutaway.stream.lenses.affine import AffineLens, Translator, load_lens
from cutaway.stream.lenses.constant import ConstantLens
from cutaway.stream.lenses.future import future_lens
from cutaway.stream.lenses.jacobian import Sampling, jacobian_lens
from cutaway.stream.lenses.protocol import Lens, LogitLens, OutputHead
from cutaway.stream.lenses.reading import Reading, read_lens
from cutaway.stream.lenses.report import LensReport, compare_lenses
from cutaway.stream.lenses.rows import Rows, rows_of
from cutaway.stream.lenses.tuned import LensTraining, train_tuned_lens

__all__ = [
    "AffineLens", "ConstantLens", "Lens", "LensReport", "LensTraining", "LogitLens", "OutputHead", "Reading", "Rows",
    "Sampling", "Translator", "compare_lenses", "future_lens", "jacobian_lens", "load_lens", "read_lens", "rows_of",
    "train_tuned_lens",
]  # fmt: skip
