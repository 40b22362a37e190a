"""`cutaway sites`, `cutaway behaviours`, `cutaway runs`: what a network offers, what it can be asked, what was run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column
from rich.text import Text as Words

from cutaway.cli import question
from cutaway.cli.common import Common, command
from cutaway.cli.question import Model
from cutaway.cli.screen import Screen
from cutaway.cli.shown import grid
from cutaway.errors import Stopped

if TYPE_CHECKING:
    from cutaway.behaviours import BuiltIn
    from cutaway.network import Network, Run
    from cutaway.results import Work

_PLAIN = ("out", "resume", "budget", "sets", "seed")
#: Fewer pairs than this cannot show that a behaviour is done.
_PAIRS = 32


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, without=("out", "resume", "sets", "seed"))(sites)
    command(app, without=("out", "resume", "sets"))(behaviours)
    command(app, without=(*_PLAIN, "device", "dtype", "trust_remote_code"))(runs)


def sites(common: Common, screen: Screen, model: Model) -> None:
    """Name the sites of a network that can be read and written: axes, shape, layers; and what is refused, and why."""
    from cutaway.network.views import refusal_lines

    with question.opening(screen, common, model) as (net, _):
        rows, refused = site_rows(net), refusal_lines(net.core)
    data = {"network": net.name, "sites": rows, "refused": [
        {"sites": names, "layers": layers, "why": why} for names, layers, why in refused
    ]}  # fmt: skip
    table = grid(
        (Column("site", no_wrap=True), "layers", Column("one row's axes", no_wrap=True), "what it is"),
        (tuple(escape(row[n]) for n in ("name", "layers", "shape", "meaning")) for row in rows),
    )
    shown: list[Any] = [Words(net.name, "bold"), table]
    for names, layers, why in refused:
        shown.append(
            Words.assemble(("refused ", "yellow"), names, f" in {layers}: " if layers else ": ", why)
        )
    shown.append(
        f'Write a site as resid_post.3, all layers as resid_post: cutaway run {escape(model)} "..." --keep z.1'
    )
    screen.result(data, *shown)


def site_rows(net: Network) -> list[dict[str, Any]]:
    """One row for each kind of site: its name, layers, axes of one row of tokens with their sizes, meaning.

    The size of what runs over the tokens is "p".
    """
    from cutaway.network.sites import SITES
    from cutaway.network.views import site_lines

    sizes = {
        "pos": "p", "dest": "p", "src": "p", "width": net.d_model, "head": net.n_heads, "vocab": net.d_vocab,
    }  # fmt: skip
    done = _seen(net)
    rows: list[dict[str, Any]] = []
    for name, layers in site_lines(net.core):
        kind = SITES[name.rpartition(".")[2]]
        kept = [] if done is None else [done.kept[site] for site in done.sites if _is(site, name)]
        axes = [axis for axis in kind.axes if axis != "batch"]
        found = (
            dict(zip(axes, kept[0].shape[1:], strict=True)) if kept and kept[0].ndim == len(axes) + 1 else {}
        )
        numbers = {a: "p" if sizes.get(a) == "p" else found.get(a, sizes.get(a, "?")) for a in axes}
        shape = ", ".join(a if size == "p" else f"{a} {size}" for a, size in numbers.items())
        rows.append(
            {"name": name, "layers": layers or "-", "shape": shape, "meaning": kind.meaning, "axes": numbers}
        )
    return rows


def _seen(net: Network) -> Run | None:
    """A run of three tokens that kept all sites; None for a network that takes no tokens alone."""
    from cutaway.errors import CutawayError

    if net.d_vocab_in is None:
        return None
    try:
        return net.run([[min(i, net.d_vocab_in - 1) for i in (1, 2, 3)]], keep="*")
    except CutawayError:
        return None


def _is(site: Any, name: str) -> bool:
    return name == (f"{site.stack}.{site.name}" if site.stack else site.name)


def behaviours(
    common: Common,
    screen: Screen,
    model: Annotated[str | None, typer.Argument(help="A network, to see which of them it does.", show_default=False)] = None,
    n: Annotated[int, typer.Option("--n", min=4, help="How many pairs of each it is asked.")] = _PAIRS,
) -> None:  # fmt: skip
    """List the built-in behaviours, each with an example pair; with MODEL, how well this network does them."""
    from cutaway.behaviours import TOLD

    if model is None:
        screen.result(
            {"behaviours": [{"name": name} | vars(told) for name, told in TOLD.items()]},
            grid(
                (Column(no_wrap=True), ""),
                (_told(name, told) for name, told in TOLD.items()),
                show_header=False,
            ),
            "Ask one of a network: cutaway patch MODEL -b pronoun. See which it does: cutaway behaviours MODEL.",
            "Your own pairs: cutaway patch MODEL -b pairs.jsonl.",
        )
        return
    rows = []
    with screen.work(common.limits(), f"opening {model}") as quiet, quiet.interruptible() as work:
        net = question.network(common, model)
        try:
            for i, name in enumerate(TOLD):
                work.step(f"asking {name}", i, len(TOLD))
                rows.append(asked(net, name, n, common.seed, work))
        except Stopped:
            if not rows:
                raise
            screen.warn("Stopped.", f"{len(rows)} of {len(TOLD)} were asked.")
    table = grid(
        ("behaviour", "does it", "right of all", "told apart", "what it says"),
        ((r["name"], _DOES[r["does it"]], r["right"], r["told apart"], escape(r["says"])) for r in rows),
    )
    screen.result({"network": net.name, "n": n, "behaviours": rows}, table,
                  f"right: {_RIGHT}; told apart: {_APART}. {n} pairs of each, seed {common.seed}.")  # fmt: skip


_DOES = {True: "[green]yes[/]", False: "[red]no[/]", None: "[yellow]not made[/]"}
_RIGHT = "the right answer beats the wrong one"
_APART = "the share of pairs whose clean prompt leans more to its answer than the corrupted one does"


def asked(net: Network, name: str, n: int, seed: int, work: Work) -> dict[str, Any]:
    """How well a network does a built-in behaviour; where no pairs can be made for its tokenizer, why."""
    from cutaway.behaviours import behaviour, performance
    from cutaway.errors import CutawayError

    try:
        found = performance(net, behaviour(name, net, n=n, seed=seed, force=True), work=work)
    except Stopped:
        raise
    except CutawayError as error:
        return {"name": name, "does it": None, "right": "", "told apart": "", "says": error.problem}
    right, apart = (
        "" if f is None else "{:.2f} [{:.2f}, {:.2f}]".format(f.value, *f.ends(f.value))
        for f in (found.accuracy, found.told_apart)
    )
    return {"name": name, "does it": found.does_it, "right": right, "told apart": apart, "says": ""}


def _told(name: str, told: BuiltIn) -> tuple[Words, Words]:
    """A behaviour in two columns: its name; what it asks, and a pair."""
    lines = (
        told.says,
        f"\n{told.clean}",
        (f" →{told.right}", "green"),
        f"\n{told.corrupted}",
        (f" →{told.wrong}", "red"),
    )
    return Words(name, "bold"), Words.assemble(*lines)


def runs(
    common: Common,  # noqa: ARG001
    screen: Screen,
    folder: Annotated[Path, typer.Argument(help="A folder of runs.")] = Path("cutaway-runs"),
) -> None:
    """List what was run, the newest first, and make the page over it anew."""
    from cutaway.errors import NotFound
    from cutaway.reports import runs_in, write_index

    found = runs_in(folder)
    if not found:
        raise NotFound(f"There are no runs in {folder}.", "Every command that saves a result makes one.")
    lines: list[Words] = []
    for name, record in found:
        said = " ".join(words for words in (record.verdict, record.headline) if words)
        when = record.when[:16].replace("T", " ")
        lines.append(Words.assemble(f"{when}  ", (record.verb, "bold"), f" {record.model}: {said}"))
        lines.append(Words(f"    {folder / name}", "dim"))
    data = {"runs": [{"folder": str(folder / name)} | vars(record) for name, record in found]}
    screen.result(data, *lines)
    screen.saved(write_index(folder))
