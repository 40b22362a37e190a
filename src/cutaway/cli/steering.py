"""`cutaway steer`: what a network writes while a direction is added."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cutaway.cli import question, saving, shown
from cutaway.cli.common import Common, command
from cutaway.cli.question import Model
from cutaway.cli.screen import Screen
from cutaway.errors import BadInput, require_known


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(steer)


def steer(
    common: Common,
    screen: Screen,
    model: Model,
    prompts: Annotated[list[str], typer.Argument(help="Texts that it continues.", show_default=False)],
    positive: Annotated[Path | None, typer.Option(
        "--positive", help="Texts that have what is wanted: .txt, one a line.", show_default=False)] = None,
    negative: Annotated[Path | None, typer.Option(
        "--negative", help="Texts that do not, otherwise alike.", show_default=False)] = None,
    at: Annotated[str | None, typer.Option(
        "--at", help="One site of one layer, e.g. resid_post.8.", show_default=False)] = None,
    direction: Annotated[Path | None, typer.Option(
        "--direction", help="Or a saved direction, in place of texts and site.", show_default=False)] = None,
    strengths: Annotated[str, typer.Option("--strengths", help="With commas; 0 is added.")] = "-2,-1,0,1,2",
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="How many tokens it writes at most.")] = 30,
    on: Annotated[str, typer.Option("--on", help="Which tokens it is added at: all, prompt or new.")] = "all",
) -> None:  # fmt: skip
    """Steer: let a network continue prompts while a direction is added, at several strengths, beside a random direction.

    --set pos=-1 says which token of each text is read (none: the mean of all), --set control=false leaves out the random
    direction.
    """
    from cutaway.control import SteeringVector, difference_of_means
    from cutaway.control import steer as steer_it
    from cutaway.control.steering import COLUMNS

    given = question.settings(common)
    require_known(given, ("pos", "control"), "steer")
    pushes = _numbers(strengths)
    made = (positive, negative, at)
    if (direction is None) == all(part is None for part in made) or (direction is None and None in made):
        raise BadInput(
            "The direction is not told once.",
            "Give --positive, --negative and --at, or --direction FOLDER of a saved one.",
        )
    place = saving.target(common, "steer", model, prompts[0], at or "")
    with saving.working(screen, common, place) as work:
        net = question.network(common, model)
        if direction is not None:
            vector: SteeringVector = SteeringVector.load(direction)
        else:
            pos = {"pos": given["pos"]} if "pos" in given else {}
            vector = difference_of_means(
                net, positive, negative, at=str(at), seed=common.seed, work=work, **pos
            )
        how: Any = {
            "strengths": pushes,
            "max_new_tokens": tokens,
            "on": on,
            "control": given.get("control", True),
        }
        found = steer_it(net, prompts, vector, seed=common.seed, work=work, **how)
    paths = saving.save(screen, found, place)
    if direction is None:
        paths.append(saving.or_elsewhere(screen, vector.save, paths[0] / "direction"))
    data = found.to_dict() | {"direction": vector.to_dict(), "saved": [str(path) for path in paths]}
    table = shown.frame_table(found.to_pandas().drop(columns="prompt" if len(prompts) == 1 else []))
    told = "\n".join(f"{name}: {words}" for name, words in COLUMNS.items() if name in found.to_pandas())
    screen.result(data, shown.headline(vector), shown.headline(found), found.about, table, told)
    screen.saved(*paths)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise BadInput(
            f"{text!r} are no strengths.", "Write numbers with commas: --strengths=-2,0,2."
        ) from error
