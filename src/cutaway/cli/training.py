"""`cutaway features train`: dictionaries of features, trained on a network's sites."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape

from cutaway.cli import question, saving, shown
from cutaway.cli.common import STOPPED, Common, command
from cutaway.cli.question import Model, TextFile
from cutaway.cli.screen import Screen
from cutaway.errors import BadInput

_SCALES = {"k": 10**3, "m": 10**6, "b": 10**9}


def register(app: typer.Typer) -> None:
    """Add the command to a program."""
    command(app, "train")(train)


def train(
    common: Common,
    screen: Screen,
    model: Model,
    file: TextFile = None,
    at: Annotated[list[str] | None, typer.Option("--at", help="The sites, e.g. resid_post.5; several with commas.")] = None,
    writes: Annotated[str | None, typer.Option("--writes", help="What a transcoder reconstructs, with commas.")] = None,
    activation: Annotated[
        str, typer.Option("--activation", help="batchtopk, topk, relu, jumprelu, gated or groupmax.")
    ] = "batchtopk",
    latents: Annotated[int | None, typer.Option("--latents", help="How many; default 16 times the width.")] = None,
    k: Annotated[int, typer.Option("--k", help="How many are to fire on a token.")] = 32,
    tokens: Annotated[
        str | None, typer.Option("--tokens", help="Tokens to train on, e.g. 500k, 20M; default all, once.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it will take, and train nothing.")] = False,
) -> None:  # fmt: skip
    """Train dictionaries on the values of sites, twins with a frozen decoder and from another seed beside them.

    --set takes the other keywords of cutaway.train_dictionaries, e.g. kind=crosscoder, controls=frozen, end_to_end=100000.
    """
    from cutaway.features.training import plan_training, train_dictionaries
    from cutaway.verbs import VERBS

    if file is None:
        raise BadInput("There are no texts to train on.", "Give --file texts.txt, one text a line.")
    given: dict[str, Any] = {
        "at": None if at is None else [site.strip() for part in at for site in part.split(",") if site.strip()],
        "writes": None if writes is None else [site.strip() for site in writes.split(",")],
        "activation": activation, "latents": latents, "k": k, "tokens": _count(tokens),
    }  # fmt: skip
    more = question.settings(common)
    VERBS["train_dictionaries"].check(more)
    for name in ("controls", "prefixes"):
        if name in more:
            more[name] = _listed(more[name])
    given |= more
    if plan:
        with screen.work(common.limits(), f"opening {model}") as work:
            net = question.network(common, model)
            known = [p.name for p in VERBS["plan_training"].parameters()]
            said = plan_training(net, file, work=work, **{n: v for n, v in given.items() if n in known})
        screen.result(asdict(said), escape(str(said)))
        return
    place = saving.target(common, "features train", model, *(given["at"] or ()))
    place = saving.claim(place, common.resume)
    with saving.working(screen, common, place, keeps=True) as work:
        net = question.network(common, model)
        found = train_dictionaries(net, file, folder=place.path, seed=common.seed, work=work, **given)
    paths = saving.save(screen, found, place)
    screen.result(found.to_dict() | {"saved": [str(path) for path in paths]}, *shown.terminal(found))
    screen.saved(*paths)
    if not found.complete:
        screen.say(f"[yellow]Stopped.[/] Go on with the same command and --resume {escape(str(place.path))}.")
        raise typer.Exit(STOPPED)


def _count(text: str | None) -> int | None:
    """A number of tokens as people write it.

    >>> _count("500k"), _count("1.5M"), _count("1_000"), _count(None)
    (500000, 1500000, 1000, None)
    """
    if text is None:
        return None
    plain = text.strip().lower().replace("_", "")
    scale = _SCALES.get(plain[-1:], 1)
    try:
        number = float(plain if scale == 1 else plain[:-1]) * scale
        if number != int(number) or number < 1:
            raise ValueError
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{text!r} is no number of tokens.", "Write 50000, 500k or 20M.") from error
    return int(number)


def _listed(value: Any) -> tuple[Any, ...]:
    """None, one value or several, as several."""
    return () if value in (None, "") else tuple(value) if isinstance(value, list | tuple) else (value,)
