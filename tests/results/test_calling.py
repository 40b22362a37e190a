"""Values of keywords: what runs through once, what the system refuses, what looks like a sequence and is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from cutaway.errors import BadInput, UnknownOption
from cutaway.results import strict


@strict
def counted(net: object, *, names: Sequence[str] = ()) -> int:
    return len(names) + sum(len(name) for name in names)


@strict
def streamed(net: object, *, texts: Iterable[str] = ()) -> bool:
    return iter(texts) is texts


@strict
def read(net: object, *, file: str | Path) -> str:
    return Path(file).read_text(encoding="utf-8")


def test_what_runs_through_once_is_a_sequence_where_one_is_asked_for() -> None:
    assert counted(None, names=iter(["a", "bc"])) == 5
    assert counted(None, names=(c for c in "abc")) == 6
    assert streamed(None, texts=iter(["a"]))  # and stays what it is where it may run through


@pytest.mark.parametrize("bad", [iter([1]), pd.DataFrame({"a": [1]}), {"a": 1}, {1, 2}, 3])
def test_what_is_no_sequence_of_that_kind_is_refused_in_a_sentence(bad: object) -> None:
    with pytest.raises(BadInput, match="counted takes a list of texts as names"):
        counted(None, names=bad)  # type: ignore[arg-type]


def test_what_the_system_refuses_is_said_with_the_path() -> None:
    with pytest.raises(BadInput, match="xxx.*: File name too long"):
        read(None, file="x" * 5000)
    with pytest.raises(BadInput, match="not there': No such file"):
        read(None, file="not there")


@pytest.mark.parametrize("method", ["run", "loss"])
def test_a_misspelt_keyword_of_a_method_gets_the_nearest(method: str) -> None:
    import cutaway

    net = cutaway.open("zoo:tales")
    with pytest.raises(UnknownOption, match="has no option 'eddits'. Did you mean edits"):
        getattr(net, method)("Mary was sad", eddits=[])
