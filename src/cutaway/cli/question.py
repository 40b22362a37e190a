"""What a command asks, and of which network: opening it, the behaviour's pairs, keywords as they are written."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.errors import BadInput, Stopped

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.behaviours.cases import Cases
    from cutaway.cli.common import Common
    from cutaway.cli.screen import Screen
    from cutaway.network import Network
    from cutaway.results import Work

Model = Annotated[
    str, typer.Argument(help="A Hugging Face id, a local folder, or zoo:NAME.", show_default=False)
]
Text = Annotated[str, typer.Argument(help="The text that is read.", show_default=False)]
BehaviourName = Annotated[
    str,
    typer.Option(
        "--behaviour",
        "-b",
        help="A built-in behaviour (ioi, pronoun, agreement, ...) or a file of pairs.",
        show_default=False,
    ),
]
MaybeText = Annotated[str | None, typer.Argument(help="The text that is read.", show_default=False)]
PromptTable = Annotated[
    Path | None,
    typer.Option(
        "--table",
        help="Or a table of prompts (.csv, .json, .jsonl): text, answer, and a column for each variable.",
        show_default=False,
    ),
]
TextFile = Annotated[
    Path | None,
    typer.Option(
        "--file", help="Or a file of texts: .txt (one a line), .csv, .json, .jsonl.", show_default=False
    ),
]
MaybeBehaviour = Annotated[
    str | None,
    typer.Option(
        "--behaviour",
        "-b",
        help="A built-in behaviour (ioi, pronoun, agreement, ...) or a file of pairs.",
        show_default=False,
    ),
]
Clean = Annotated[
    str | None,
    typer.Option("--clean", help="Or two prompts of yours: this one, ...", show_default=False),
]
Corrupted = Annotated[
    str | None,
    typer.Option("--corrupted", help="... its twin, with another answer, ...", show_default=False),
]
TheAnswers = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--answers",
        help='... and the right and the wrong answer, each with its space: --answers " Mary" " John".',
        show_default=False,
        metavar="RIGHT WRONG",
    ),
]
#: The options that say what is asked; all others say how.
ASKING = ("behaviour", "n", "force", "clean", "corrupted", "answers")
Examples = Annotated[int, typer.Option("--n", min=2, help="How many pairs.")]
Force = Annotated[bool, typer.Option("--force", help="Go on although the network does not do the behaviour.")]
FILES = (".json", ".jsonl", ".csv")


def network(common: Common, model: str, remember: bool = True) -> Network:
    """Open a network as the shared options say; `remember`: may anatomy and certificate come from an earlier opening?"""
    from transformers.utils import logging

    from cutaway.network.opening import open_network

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    net = open_network(
        model,
        device=common.device,
        dtype=common.dtype,
        trust_remote_code=common.trust_remote_code,
        remember=remember,
    )
    return attached(net, common.attached or ())


def attached(net: Network, given: Sequence[str]) -> Network:
    """The network with dictionaries attached, each as `[NAME=]FOLDER[@READS[:WRITES]]`.

    Raises `BadInput` for what has another form, and what reading and attaching raise.
    """
    for spec in given:
        match = re.fullmatch(
            r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<path>[^@]+)(?:@(?P<reads>[^:]+)(?::(?P<writes>.+))?)?", spec
        )
        if match is None:
            raise BadInput(
                f"{spec!r} names no dictionary.",
                "Write [NAME=]FOLDER[@READS[:WRITES]], e.g. sae=my-sae@resid_post.5.",
            )
        from cutaway.features import with_dictionary
        from cutaway.features.formats import read

        reads, writes = (
            None if match[side] is None else match[side].split("+") for side in ("reads", "writes")
        )
        net = with_dictionary(net, read(match["path"]), reads, writes, match["name"] or "")
    return net


@contextmanager
def opening(
    screen: Screen, common: Common, model: str, remember: bool = True
) -> Iterator[tuple[Network, Work]]:
    """Open a network for a command that only looks at it, and the work that this is, within its budget.

    A budget of memory is for the weights, which are looked at before they are loaded; one of time holds for all. Raises
    `OutOfMemory` for weights that are more, and `Stopped` where the time is over when the network is open, both with what
    would be enough.
    """
    from cutaway.results.price import duration

    limits = common.limits()
    if (memory := limits.pop("memory", None)) is not None:
        _require_weights_within(model, common.dtype, memory)
    with screen.work(limits, f"opening {model}") as work, work.interruptible():
        net = network(common, model, remember)
        if (allowed := limits.get("seconds")) is not None and work.seconds > allowed:
            raise Stopped(
                f"The budget of {duration(allowed)} is spent: opening took {work.seconds:.1f} seconds.",
                f"{duration(1.5 * work.seconds).capitalize()} would be enough.",
            )
        yield net, work


def _require_weights_within(model: str, dtype: str | None, memory: int) -> None:
    """Raise `OutOfMemory` where the weights in a folder or file take more than this."""
    import torch

    from cutaway.network.files import check_fits_memory
    from cutaway.network.loading import dtype_of, numbers_at
    from cutaway.network.opening import folder_of

    asked, folder = None if dtype is None else dtype_of(dtype), folder_of(model)
    if folder is not None:
        check_fits_memory(model, numbers_at(folder), asked, torch.device("cpu"), memory)


def pairs(
    screen: Screen, net: Network, common: Common, behaviour: str, n: int, force: bool, aligned: bool = True
) -> Behaviour:
    """The behaviour's pairs; NotPerformed unless forced.

    aligned: of a file, only the pairs of equal length, with a remark on stderr how many were left out.
    """
    from cutaway.behaviours import behaviour as pairs_of

    options: dict[str, Any] = {"aligned": True} if aligned and behaviour.endswith(FILES) else {}
    chosen = pairs_of(behaviour, net, n=n, seed=common.seed, force=force, **options)
    chosen = chosen.only_aligned() if options else chosen
    for note in chosen.notes:
        if options and "differ in length" in note:
            screen.say(note)
    return chosen


def behaviour_of(
    screen: Screen, net: Network, common: Common, given: Mapping[str, Any], verb: str, aligned: bool = True
) -> Behaviour:
    """The behaviour that a command was given: by name or file, or as two prompts with their answers.

    Raises BadInput where both or neither are given, or a part of the three.
    """
    from cutaway.behaviours import Prompts

    prompts = Prompts(given.get("clean"), given.get("corrupted"), given.get("answers"))
    options = [f"--{name}" for name in prompts.given]
    if given["behaviour"] is not None and options:
        raise BadInput(
            f"--behaviour and {', '.join(options)} are given at once.",
            "Give a behaviour, or two prompts with their answers.",
        )
    if given["behaviour"] is not None:
        return pairs(screen, net, common, given["behaviour"], given["n"], given["force"], aligned)
    if not options:
        raise BadInput(
            f"{verb} was given neither a behaviour nor two prompts.",
            'Add --behaviour NAME, or --clean "..." --corrupted "..." --answers " right" " wrong".',
        )
    return prompts.behaviour(net, verb)


def cases_of_given(
    screen: Screen, net: Network, common: Common, given: Mapping[str, Any], verb: str
) -> Cases:
    """The prompts whose variables are known that a command was given: a built-in behaviour's, a table's, or pairs.

    Raises BadInput where a behaviour and a table are given, or neither, or the table is no such file.
    """
    from cutaway.behaviours.cases import READY, cases_from, cases_of, cases_of_pairs

    behaviour, table = given["behaviour"], given["table"]
    if (behaviour is None) == (table is None):
        raise BadInput(
            f"{verb} was given neither a behaviour nor a table of prompts."
            if table is None
            else "A behaviour and a table are given at once.",
            f"Add --behaviour NAME ({', '.join(READY)}, or a file of pairs), or --table prompts.csv.",
        )
    if table is not None:
        return cases_from(net, rows_of(table), name=table.stem, seed=common.seed)
    if behaviour in READY or behaviour.startswith("zoo:"):
        return cases_of(behaviour, net, given["n"], common.seed)
    return cases_of_pairs(net, pairs(screen, net, common, behaviour, given["n"], given["force"]))


def rows_of(table: Path) -> list[dict[str, Any]]:
    """The rows of a table of prompts. Raises BadInput for a file that is not there or is no such table."""
    import pandas as pd

    readers: dict[str, Any] = {
        ".csv": lambda path: pd.read_csv(path, keep_default_na=False),
        ".json": lambda path: pd.read_json(path, orient="records"),
        ".jsonl": lambda path: pd.read_json(path, orient="records", lines=True),
    }
    if table.suffix not in readers:
        raise BadInput(
            f"{str(table)!r} is no table of prompts.", f"Give a file that ends in {', '.join(readers)}."
        )
    if not table.is_file():
        raise BadInput(f"There is no file {str(table)!r}.", "Name a table of prompts that is there.")
    try:
        return readers[table.suffix](table).to_dict("records")
    except (ValueError, OSError) as error:
        raise BadInput(
            f"{str(table)!r} cannot be read as a table: {error}.",
            "Give one row for each prompt, with its columns.",
        ) from error


def texts_of(given: Mapping[str, Any]) -> Any:
    """The text that a command was given, or its file of texts. Raises BadInput where both or neither are given."""
    text, file = given["text"], given["file"]
    if (text is None) == (file is None):
        raise BadInput(
            "A text and a file are given at once." if text is not None else "There is no text to read.",
            "Give a text in quotes, or --file texts.txt.",
        )
    return file if text is None else text


def value(text: str) -> Any:
    """A value as people write it: a number, true or false, none, a list with commas, or text.

    >>> value("0.5"), value("true"), value("none"), value("layer,head"), value("mean"), value("0-2")
    (0.5, True, None, ['layer', 'head'], 'mean', '0-2')
    """
    plain = {"true": True, "yes": True, "false": False, "no": False, "none": None}
    if text.strip().lower() in plain:
        return plain[text.strip().lower()]
    try:
        literal = ast.literal_eval(text.strip())
        return list(literal) if isinstance(literal, tuple) else literal
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [value(part.strip()) for part in text.split(",") if part.strip()] if "," in text else text


def settings(common: Common) -> dict[str, Any]:
    """The keywords given with `--set NAME=VALUE`, a dotted name as a field of the keyword before the dot.

    Raises BadInput for what is not of that form, or given twice.

    >>> from cutaway.cli.common import Common
    >>> settings(Common(sets=["layers=0,1", "limits.kept=0.8"]))
    {'layers': [0, 1], 'limits': {'kept': 0.8}}
    """
    given: dict[str, Any] = {}
    for item in common.sets or ():
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise BadInput(
                f"--set {item!r} is not of the form NAME=VALUE.", "Write, for example, --set layers=0,1."
            )
        head, dot, field = name.strip().replace("-", "_").partition(".")
        place = given.setdefault(head, {}) if dot else given
        key = field if dot else head
        if not isinstance(place, dict) or key in place:
            raise BadInput(f"--set {name.strip()} is given twice.", "Give it once.")
        place[key] = value(text)
    return given


def layers(text: str) -> list[int]:
    """Layers as people write them.

    >>> layers("0-2"), layers("1,3"), layers("-1")
    ([0, 1, 2], [1, 3], [-1])
    """
    numbers: list[int] = []
    for part in (p.strip() for p in text.split(",")):
        first, dash, last = part[1:].partition("-")
        try:
            begin = int(part[:1] + first)
            numbers += range(begin, int(last) + 1) if dash else [begin]
        except ValueError as error:
            raise BadInput(f"{text!r} is no range of layers.", "Write 0-5 or 0,2,4.") from error
    if not numbers:
        raise BadInput(f"The range of layers {text!r} is empty.", "Write 0-5 or 0,2,4.")
    return numbers
