"""Labelled examples, and everything that can be wrong with them."""

from __future__ import annotations

import numpy as np
import pytest
from xor_networks import Specimen

import cutaway
from cutaway.errors import BadFormat, BadInput, NotFound
from cutaway.probes import (
    ProbeData,
    probe_data,
)


@pytest.mark.parametrize(
    ("labels", "more", "said"),
    [
        (np.zeros((4, 2)), {}, "2 dimensions"),
        (np.array([0, 1, 0.5, 1]), {"classes": ("no", "yes")}, "0.5 is no class number"),
        (np.array([-1, 1, 0, 1]), {}, "-1 is no class number"),
        (np.array([0, 1, 2, 1]), {}, "2 is no class number"),
        (np.eye(4)[:, :3], {"kind": "multilabel"}, "3 columns"),
    ],
)
def test_labels_that_are_no_labels(labels: np.ndarray, more: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        ProbeData(["a", "b", "c", "d"], labels, **more)


def test_one_class_only(net: cutaway.Network, made: Specimen) -> None:
    with pytest.raises(BadInput, match="of the class '1'"):
        ProbeData(made.prompts, np.ones(240, dtype=int))
    with pytest.raises(BadInput, match="of the class 'a'"):
        probe_data([("x y", "a"), ("x z", "a")])


def test_missing_labels() -> None:
    with pytest.raises(BadInput, match="2 of 4 labels .* missing, the first in row 1"):
        probe_data([("a", 1), ("b", None), ("c", 0), ("d", float("nan"))])
    with pytest.raises(BadInput, match="missing"):
        ProbeData(["a", "b"], np.array([0.0, np.nan]))


def test_text_where_numbers_belong(made: Specimen) -> None:
    with pytest.raises(BadInput, match="no number"):
        probe_data([("a", "1.5"), ("b", "much")], kind="continuous")
    with pytest.raises(BadInput, match="not numbers"):
        ProbeData(["a", "b"], np.array(["x", "y"]))
    with pytest.raises(BadInput, match="different labels"):
        probe_data([(f"text {i}", f"label {i}") for i in range(80)])


def test_lengths_that_do_not_fit(made: Specimen) -> None:
    with pytest.raises(BadInput, match="entries of groups"):
        ProbeData(made.prompts, made.labels["used"], groups=("a",))
    with pytest.raises(BadInput, match="240 labels for 10 inputs"):
        ProbeData(made.prompts[:10], made.labels["used"])


def test_bare_lists_and_other_things_are_refused(net: cutaway.Network) -> None:
    for wrong in (3, [], [("", 1), ("a", 0)], [(None, 1)]):
        with pytest.raises((BadInput, NotFound, BadFormat)):
            probe_data(wrong)
    with pytest.raises(BadInput, match="not a list of one label per token"):
        probe_data([("a", 1), ("b", 0)], per_token=True)
    with pytest.raises(BadInput, match="no table of 0 and 1"):
        ProbeData(["a", "b"], np.array([[0, 2], [1, 0]]), "multilabel", ("x", "y"))
    with pytest.raises(BadInput, match="Every value"):
        ProbeData(["a", "b"], np.array([1.0, 1.0]), "continuous", ())
    with pytest.raises(BadInput, match="3 is no class number"):
        ProbeData(["a", "b"], np.array([1, 3]))
