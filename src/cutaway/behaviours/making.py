"""`behaviour(...)`: one door to the generators, the files and the tables."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor

from cutaway.behaviours.data import Behaviour
from cutaway.behaviours.formats import from_dataset, from_frame, read
from cutaway.behaviours.generators import GENERATORS, FactTable, facts
from cutaway.behaviours.generators.specimen import specimen
from cutaway.behaviours.images import ImagePairs
from cutaway.behaviours.metrics import Answers, Metric
from cutaway.behaviours.metrics import metric as find_metric
from cutaway.behaviours.requiring import require_performed
from cutaway.errors import BadFormat, BadInput, NotFound, did_you_mean, require_known
from cutaway.network.items import class_names
from cutaway.results import strict

if TYPE_CHECKING:
    from cutaway.network import Network

_FILES = (".json", ".jsonl", ".csv")
#: Options of a file of pairs.
_OF_FILES = ("aligned", "chat", "system")
_OTHER_NAMES = {
    "indirect-object": "ioi", "subject-verb": "agreement", "subject-verb-agreement": "agreement",
    "gendered-pronoun": "pronoun", "factual-recall": "facts", "copying": "list-copying",
    "docstrings": "docstring",
}  # fmt: skip


@strict
def behaviour(
    source: str | os.PathLike[str] | pd.DataFrame | FactTable | ImagePairs | Behaviour | Any,
    net: Network,
    *,
    n: int = 128,
    seed: int = 0,
    metric: str | Metric | Callable[[Tensor, Answers], Tensor] | None = None,
    force: bool = False,
    **options: Any,
) -> Behaviour:
    """Contrast pairs for a network, checked: it must do the behaviour, or NotPerformed is raised with the figures.

    Args:
        source: the name of a generator (see `GENERATORS`), a .jsonl/.json/.csv file, a pandas frame, a Hugging Face
            dataset, a table of facts, pairs of images, a specimen of the zoo ("zoo:NAME"), or a Behaviour.
        net: the network.
        n: at most this many pairs.
        seed: of the drawing and of the split.
        metric: None takes the behaviour's own (logit_diff; prob_diff for greater-than).
        force: go on when the network does not do it.
        options: of the generator or reader (`aligned=True` leaves out pairs of unequal length; `chat=True` takes prompts as
            what a user says, through the chat template, and `system=` as what the system says before).

    Raises NotFound for an unknown name, UnknownOption for an option that the source does not have, BadBehaviour when pairs
    cannot be made for this tokenizer, BadFormat for a file that cannot be read, NotPerformed unless forced.
    """
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise BadInput(f"{n!r} examples are asked for.", "Ask for a whole number, at least 1.")
    n = int(n)
    pairs = _make(source, net, n, seed, options)
    if metric is not None:
        pairs = pairs.with_metric(find_metric(metric))
    require_performed(net, pairs, force=force)
    return pairs


def _make(source: Any, net: Network, n: int, seed: int, options: dict[str, Any]) -> Behaviour:
    if isinstance(source, Behaviour):
        require_known(options, (), "A behaviour that exists")
        return source if source.n <= n else source[:n]
    if isinstance(source, ImagePairs):
        require_known(options, (), "A behaviour of images")
        named = source if source.classes else replace(source, classes=class_names(net.config))
        return named.behaviour(n, seed)
    if isinstance(source, FactTable):
        return facts(net, n, seed, source, **_known(facts, options))
    if isinstance(source, pd.DataFrame):
        return from_frame(source, net, n=n, seed=seed, **_known(from_frame, options))
    if not isinstance(source, (str, os.PathLike)):
        if not hasattr(source, "__iter__"):
            raise BadInput(
                f"A {type(source).__name__} is no source of contrast pairs.",
                f"Give a name ({', '.join(GENERATORS)}), a file, a frame or a dataset.",
            )
        return from_dataset(source, net, n=n, seed=seed, **_known(from_dataset, options))
    if Path(source).suffix in _FILES:
        pairs_only = {key: options.pop(key) for key in _OF_FILES if key in options}
        content = read(source, net, n, seed, **pairs_only)
        if isinstance(content, FactTable):
            return facts(net, n, seed, content, **_known(facts, options))
        require_known(options, _OF_FILES, f"A file of pairs ({source})")
        return content
    if os.path.isfile(source) and _key(str(source)) not in GENERATORS:
        raise BadFormat(
            f"The file {source} is of a type that is not read.",
            f"Give a file that ends in {', '.join(_FILES)}.",
        )
    if str(source).startswith("zoo:"):
        return specimen(str(source), net, n=n, seed=seed, **_known(specimen, options))
    draw = generator(str(source))
    return draw(net, n=n, seed=seed, **_known(draw, options))


def _known(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options, if the function has them all; `UnknownOption` with the nearest name otherwise."""
    mine = [name for name in inspect.signature(function).parameters if name not in ("net", "table")]
    # `metric` and `force` were taken already; they are named so that a misspelt one is recognised
    require_known(options, [*mine, "metric", "force"], function.__name__.replace("_", "-"))
    return options


def _key(name: str) -> str:
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    return _OTHER_NAMES.get(key, key)


def generator(name: str) -> Callable[..., Behaviour]:
    """The generator of this name; NotFound with the nearest names.

    >>> generator("greater_than").__name__
    'greater_than'
    """
    key = _key(name)
    if key not in GENERATORS:
        remedy = f"{did_you_mean(key, GENERATORS, 3)} Files end in {', '.join(_FILES)}."
        raise NotFound(f"There is no behaviour {name!r}.", remedy)
    return GENERATORS[key]
