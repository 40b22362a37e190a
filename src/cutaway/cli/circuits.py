"""`cutaway trace` and `cutaway test`: find a circuit, and test it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.cli.options import STOPPED, Common, command
from cutaway.cli.screen import Screen

if TYPE_CHECKING:
    from rich.table import Table

    from cutaway.circuits import Circuit, CircuitTest

Model = Annotated[
    str, typer.Argument(help="A Hugging Face id, a local folder, or zoo:NAME.", show_default=False)
]
BehaviourName = Annotated[
    str,
    typer.Option("--behaviour", "-b", help="A behaviour by name, or a file of pairs.", show_default=False),
]
Examples = Annotated[int, typer.Option("--n", min=4, help="How many pairs.")]
Force = Annotated[bool, typer.Option("--force", help="Go on although the network does not do the behaviour.")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Where to save. Default: named after model and behaviour.")
]


def register(app: typer.Typer) -> None:
    """Add both commands."""
    command(app)(trace)
    command(app, "test")(examine)


def trace(
    common: Common,
    screen: Screen,
    model: Model,
    behaviour: BehaviourName,
    method: Annotated[
        str, typer.Option("--method", "-m", help="eap, eap-ig, acdc, path-patching, ...")
    ] = "eap-ig",
    edges: Annotated[
        float | None,
        typer.Option(
            "--edges", help="How many edges, or a share below 1. Default: the fewest that keep 85 %."
        ),
    ] = None,
    select: Annotated[str, typer.Option("--select", help="top, greedy, threshold or optimum.")] = "top",
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="The least |score|, or ACDC's threshold.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of an integral.")] = 5,
    ablation: Annotated[str, typer.Option("--ablation", help="What removed edges carry.")] = "counterfactual",
    n: Examples = 64,
    out: Out = None,
    force: Force = False,
) -> None:
    """Find the circuit of a behaviour on its discovery pairs; save it with scores and a figure."""
    from cutaway.circuits import option_names
    from cutaway.circuits import trace as find
    from cutaway.cli import work
    from cutaway.results import Work

    net = work.network(common, model)
    pairs = work.pairs(screen, net, common, behaviour, n, force)
    size = None if edges is None else edges if edges < 1 else int(edges)
    more = {"steps": steps} if "steps" in option_names(method) else {}
    with screen.progress() as report:
        found = find(
            net, pairs, method=method, edges=size, select=select, threshold=threshold, ablation=ablation, seed=common.seed,
            force=force, work=Work(lambda p: report(p.label, p.done, p.total)), **more,
        )  # fmt: skip
    target = out or Path(f"cutaway-trace-{work.slug(model)}-{work.slug(behaviour)}")
    saved = work.or_elsewhere(screen, lambda place: _save_circuit(found, place), target)
    screen.result(_circuit_data(found, saved), str(found), _edges_table(found))
    screen.saved(*saved)
    screen.say(
        f"Test it: cutaway test {saved[0]} {model} --behaviour {behaviour} --n {n} --seed {common.seed}"
    )


def examine(
    common: Common,
    screen: Screen,
    circuit: Annotated[
        Path, typer.Argument(help="A circuit: a folder that trace saved, a .json or a .pt graph file.")
    ],
    model: Model,
    behaviour: BehaviourName,
    n: Examples = 64,
    out: Out = None,
    force: Force = False,
    no_controls: Annotated[
        bool,
        typer.Option(
            "--no-controls", help="Skip random weights and shuffled answers (then nothing is supported)."
        ),
    ] = False,
) -> None:
    """Test a circuit on held-out pairs beside random circuits, random weights and shuffled answers; judge, and report."""
    from cutaway.circuits import read, test
    from cutaway.cli import work
    from cutaway.results import Work

    held = read(circuit)
    net = work.network(common, model)
    pairs = work.pairs(screen, net, common, behaviour, n, force)
    if held.graph.network == "":
        held = held.on(net)
    with screen.progress() as report:
        result = test(
            net,
            held,
            pairs,
            controls=not no_controls,
            seed=common.seed,
            work=Work(lambda step: report(step.label, step.done, step.total)),
        )
    target = out or Path(f"cutaway-test-{work.slug(model)}-{work.slug(behaviour)}")
    saved = work.or_elsewhere(screen, lambda place: _save_test(result, place), target)
    screen.result(result.to_dict() | {"saved": [str(p) for p in saved]}, result.claim)
    screen.saved(*saved)
    if not result.complete:
        raise typer.Exit(STOPPED)


def _save_circuit(found: Circuit, place: Path) -> list[Path]:
    from cutaway.reports import write

    folder = found.save(place / "circuit")
    return [folder, write(found.page(), place / "circuit.html")]


def _save_test(result: CircuitTest, place: Path) -> list[Path]:
    from cutaway.reports import write

    return [result.save(place / "test"), write(result.page(), place / "test.html")]


def _circuit_data(found: Circuit, saved: list[Path]) -> dict[str, Any]:
    return {
        "edges": found.table().to_dict("records"), "nodes": found.nodes, "of": found.graph.n_edges,
        "notes": list(found.notes), "saved": [str(p) for p in saved],
    }  # fmt: skip


def _edges_table(found: Circuit, most: int = 15) -> Table:
    from rich.table import Table

    frame = found.table()
    frame = frame.sort_values("score", key=lambda s: -abs(s)).head(most)
    table = Table(
        "from", "to", "score", box=None, title=f"the {len(frame)} strongest edges", title_justify="left"
    )
    for _, row in frame.iterrows():
        table.add_row(str(row["writer"]), str(row["reader"]), f"{row['score']:+.3g}")
    return table
