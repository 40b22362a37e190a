"""Values of keywords: what runs through once, what the system refuses, what looks like a sequence and is none."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import cutaway
from cutaway.errors import BadInput, UnknownOption
from cutaway.results import strict, values
from cutaway.verbs import VERBS


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


def test_what_never_ends_is_refused_and_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MOST_ONCE", 100)
    with pytest.raises(BadInput, match="The values of names have not ended after 100. Give a list"):
        counted(None, names=(str(i) for i in itertools.count()))
    assert counted(None, names=(c for c in "a" * 100)) == 200
    assert counted(None, names=["a"] * 101) == 202  # a list says how long it is


def test_so_does_everything_else_that_reads_a_list_from_what_is_run_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = cutaway.open("zoo:tales")
    monkeypatch.setattr(values, "MOST_ONCE", 100)
    pair = ("Mary was sad because", "Tom was sad because", " she", " he")
    endless: Any = itertools.cycle
    row = dict(zip(("clean", "corrupted", "right", "wrong"), pair, strict=True))
    for call in (
        lambda: net.run(endless(["Mary was sad"])),
        lambda: net.loss(endless(["Mary was sad"])),
        lambda: cutaway.Ablate("z", layer=2, head=endless(range(4)), how="mean", over=endless(["Mary"])),
        lambda: cutaway.patch(
            net, clean=pair[0], corrupted=pair[1], answers=pair[2:], layers=endless(range(4))
        ),
        lambda: cutaway.behaviour(endless([row]), net),
        lambda: cutaway.probe_data(endless([("a text", "a")])),
        lambda: cutaway.difference_of_means(net, endless(["Mary"]), ["Tom"], at="resid_post.1"),
    ):
        with pytest.raises(BadInput, match="have not ended after 100"):
            call()


def test_errors_name_the_verb_as_it_is_called() -> None:
    for name, verb in VERBS.items():
        if any(p.name.startswith("**") for p in verb.parameters()) and name != "open":
            continue
        with pytest.raises(UnknownOption, match=rf"^{name} has no option 'xyzzy'"):
            verb.find()(*["zoo:tales"] * (name == "open"), xyzzy=1)
    with pytest.raises(BadInput, match="^test needs net and circuit and behaviour. Call test"):
        cutaway.test()  # type: ignore[call-arg]
    with pytest.raises(BadInput, match="^open takes true or false as certify, not 'no'"):
        cutaway.open("zoo:tales", certify="no")  # type: ignore[arg-type]


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
    net = cutaway.open("zoo:tales")
    with pytest.raises(UnknownOption, match="has no option 'eddits'. Did you mean edits"):
        getattr(net, method)("Mary was sad", eddits=[])
