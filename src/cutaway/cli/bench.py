"""`cutaway zoo bench`: methods of discovery on networks whose circuit is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.cli import saving
from cutaway.cli.common import Common, command
from cutaway.cli.screen import Screen
from cutaway.cli.shown import grid

if TYPE_CHECKING:
    from cutaway.calibration.bench import ScoreTable


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, without=("resume", "sets", "device", "dtype", "trust_remote_code"))(bench)


def bench(
    common: Common,
    screen: Screen,
    names: Annotated[list[str] | None, typer.Argument(help="Specimens; default: all with a known circuit.")] = None,
    method: Annotated[list[str] | None, typer.Option("--method", "-m", help="Methods; repeatable. Default: all.")] = None,
    n: Annotated[int, typer.Option("--n", min=8, help="Pairs for each seed.")] = 48,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds.")] = 3,
    negatives: Annotated[int, typer.Option("--negatives", min=0, help="Tries on networks that lack the mechanism.")] = 0,
) -> None:  # fmt: skip
    """Score methods against known circuits: AUROC, CPR, CMD, seconds, memory; and count false claims on twins."""
    from dataclasses import replace

    place = saving.target(common, "bench", "", *(names or ()))
    from cutaway.calibration import bench as run

    seeds_used = range(common.seed, common.seed + seeds)
    with screen.work(common.limits()) as quiet, quiet.interruptible() as work:
        table = run.bench(names, method or run.METHODS, n, seeds_used, work=work)
        if negatives:
            table = replace(table, negatives=run.negatives(negatives, names, work=work))
    paths = saving.keep(screen, lambda where: write(table, where), place, table)
    screen.result(table.to_dict(), _shown(table))
    screen.saved(*paths)
    if (tried := table.negatives) is not None:
        screen.say(f"{tried.supported} of {tried.tries} negative controls would be supported.")


def write(table: ScoreTable, place: Path) -> list[Path]:
    """The scores as bench.json and their page (Markdown) in a folder; the page alone where the place ends in .md."""
    from cutaway.calibration.bench_page import page
    from cutaway.results import atomic_write, to_json

    if place.suffix == ".md":
        return [atomic_write(place, page(table))]
    atomic_write(place / "bench.json", to_json(table.to_dict()))
    return [place, atomic_write(place / "report.md", page(table))]


def _shown(table: ScoreTable) -> Any:
    figures = ("auroc", "auroc_all", "auroc_nodes", "cpr", "cmd", "seconds")
    means = ((name, *(table.mean(name, figure) for figure in figures)) for name in table.methods())
    heads = ("method", "edges", "all edges", "nodes", "CPR", "CMD", "seconds")
    return grid(heads, (("" if cell is None else str(cell) for cell in row) for row in means))
