"""`cutaway`: the commands. Heavy libraries are loaded by the command that needs them, so `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cutaway.cli import bench, circuits, probing
from cutaway.cli import stream as stream_commands
from cutaway.cli.options import STOPPED, Common, Group, command
from cutaway.cli.screen import Screen
from cutaway.cli.zoo import zoo_app

app = typer.Typer(
    name="cutaway",
    cls=Group,
    help="Open a trained network, find the mechanism behind a behaviour, and test it by intervening.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(zoo_app, name="zoo")
command(app)(stream_commands.lens)
command(app)(stream_commands.stream)
probing.register(app)
circuits.register(app)
bench.register(zoo_app)

Model = Annotated[
    str, typer.Argument(help="A Hugging Face id, a local folder, or zoo:NAME.", show_default=False)
]
BehaviourName = Annotated[
    str,
    typer.Option(
        "--behaviour",
        "-b",
        help="A built-in behaviour (ioi, pronoun, agreement, ...) or a file of pairs.",
        show_default=False,
    ),
]
Examples = Annotated[int, typer.Option("--n", min=2, help="How many pairs.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Where to save. Default: a folder named after model and behaviour."),
]
Force = Annotated[bool, typer.Option("--force", help="Go on although the network does not do the behaviour.")]


@app.callback(invoke_without_command=True)
def cutaway(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)
    ] = False,
) -> None:
    """Open a trained network, find the mechanism behind a behaviour, and test it by intervening."""
    if version:
        from cutaway import __version__

        typer.echo(__version__)
        raise typer.Exit


@command(app, "open")
def open_(common: Common, screen: Screen, model: Model) -> None:
    """Show a network's anatomy and its certificate: what was checked, to what error, and what is refused."""
    from cutaway.cli import work

    net = work.network(common, model)
    screen.result(work.described(net), net)


@command(app)
def run(
    common: Common,
    screen: Screen,
    model: Model,
    text: Annotated[str, typer.Argument(help="The prompt.")],
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", "-k", help="Sites to keep, e.g. resid_post, z.3; repeatable."),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many next tokens to show.")] = 5,
    save: Annotated[
        Path | None, typer.Option("--save", help="Write the kept sites and logits to this .safetensors file.")
    ] = None,
) -> None:
    """Run a prompt: the likeliest next tokens, and the shapes of the sites that were kept."""
    from cutaway.cli import work

    net = work.network(common, model)
    done = net.run(text, keep=keep or [])
    saved = None if save is None else work.save_run(screen, done, save)
    data = work.run_data(net, done, top)
    screen.result(data | ({"saved": str(saved)} if saved else {}), *work.run_tables(net, done, top))
    if saved is not None:
        screen.saved(saved)


@command(app)
def patch(
    common: Common,
    screen: Screen,
    model: Model,
    behaviour: BehaviourName,
    at: Annotated[str, typer.Option("--at", help="The site to patch.")] = "resid_pre",
    by: Annotated[
        str,
        typer.Option(
            "--by", help="layer, and with it position, span, head or neuron: layer,position or layer,head."
        ),
    ] = "layer,position",
    direction: Annotated[
        str, typer.Option("--direction", help="restore (clean into corrupted) or corrupt.")
    ] = "restore",
    ablate: Annotated[
        str | None,
        typer.Option("--ablate", help="zero, mean or resample on the clean prompts, instead of patching."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what the sweep will cost, and do not run it.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", help="Keep finished cells in this folder, and go on from what is there."),
    ] = None,
    n: Examples = 64,
    out: Out = None,
    force: Force = False,
) -> None:
    """Activation patching: which layers, positions or heads matter, with intervals. Saves the numbers and a heat map."""
    from cutaway.cli import work
    from cutaway.results import Work

    net = work.network(common, model)
    pairs = work.pairs(screen, net, common, behaviour, n, force, aligned="position" in by or "span" in by)
    sweep = work.Sweep(
        net, pairs, at, tuple(part.strip() for part in by.split(",")), direction, ablate, common.seed
    )
    if plan:
        screen.result(*work.plan_shown(sweep))
        return
    with screen.progress() as report, work.quiet_warnings():
        effects = sweep.run(Work(lambda step: report(step.label, step.done, step.total)), resume)
    way = direction if ablate is None else f"ablate-{ablate}"
    target = out or Path(f"cutaway-patch-{work.slug(model)}-{work.slug(behaviour)}-{at}-{way}")
    paths = work.save_effects(screen, effects, target)
    screen.result(work.effects_data(effects, paths), work.effects_table(effects))
    screen.saved(*paths)
    if not effects.complete:
        screen.say(
            "[yellow]Stopped.[/] The finished cells were kept and saved; the rest is marked as not run."
        )
        raise typer.Exit(STOPPED)


@command(app)
def paths(
    common: Common,
    screen: Screen,
    model: Model,
    behaviour: BehaviourName,
    senders: Annotated[
        list[str] | None,
        typer.Option("--from", help='A sender, e.g. "head 3.1" or "MLP 0"; repeatable. Default: all.'),
    ] = None,
    receivers: Annotated[
        list[str] | None,
        typer.Option(
            "--to", help='A receiver, e.g. "head 5.3 <q>", "MLP 4", "logits"; repeatable. Default: all.'
        ),
    ] = None,
    direction: Annotated[
        str, typer.Option("--direction", help="corrupt (corrupted into clean) or restore.")
    ] = "corrupt",
    resume: Annotated[
        Path | None,
        typer.Option("--resume", help="Keep finished paths in this folder, and go on from what is there."),
    ] = None,
    n: Examples = 64,
    out: Out = None,
    force: Force = False,
) -> None:
    """Exact path patching: what each component tells each other directly. Saves the numbers and a heat map."""
    from cutaway.cli import work
    from cutaway.effects import path_patch
    from cutaway.results import Work

    net = work.network(common, model)
    pairs = work.pairs(screen, net, common, behaviour, n, force)
    with screen.progress() as report, work.quiet_warnings():
        effects = path_patch(
            net, pairs, senders=senders or None, to=receivers or None, direction=direction, seed=common.seed,  # type: ignore[arg-type]
            folder=resume,
            work=Work(lambda step: report(step.label, step.done, step.total)),
        )  # fmt: skip
    target = out or Path(f"cutaway-paths-{work.slug(model)}-{work.slug(behaviour)}-{direction}")
    saved = work.save_effects(screen, effects, target)
    screen.result(work.effects_data(effects, saved), work.effects_table(effects))
    screen.saved(*saved)
    if not effects.complete:
        screen.say(
            "[yellow]Stopped.[/] The finished paths were kept and saved; the rest is marked as not run."
        )
        raise typer.Exit(STOPPED)


@command(app)
def explain(
    common: Common,
    screen: Screen,
    model: Model,
    behaviour: BehaviourName,
    n: Examples = 128,
    out: Out = None,
    force: Force = False,
    no_controls: Annotated[
        bool, typer.Option("--no-controls", help="Skip the controls (then nothing can be supported).")
    ] = False,
) -> None:
    """Find the components that carry a behaviour, test them on held-out prompts, and write a report."""
    from cutaway.cli import work
    from cutaway.explanations import explain as explain_it
    from cutaway.results import Work

    net = work.network(common, model)
    pairs = work.pairs(screen, net, common, behaviour, n, force)
    with screen.progress() as report:
        found = explain_it(
            net, pairs, seed=common.seed, force=force, controls=not no_controls,
            work=Work(lambda step: report(step.label, step.done, step.total)),
            command=work.command_line(common, model, behaviour, n, force, no_controls),
        )  # fmt: skip
    target = out or Path(f"cutaway-{work.slug(model)}-{work.slug(behaviour)}")
    folder = work.save_explanation(screen, found, target)
    path = folder.with_suffix(".html") if target.suffix == ".html" else folder / "report.html"
    screen.result(
        found.to_dict() | {"report": str(path)}, work.verdict_line(found), *work.claim_tables(found)
    )
    screen.saved(folder, path)
    if not found.complete:
        screen.say("[yellow]Stopped.[/] What was finished is in the report, marked as partial.")
        raise typer.Exit(STOPPED)
