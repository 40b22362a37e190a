"""`cutaway`: the commands. Heavy libraries are loaded by the command that needs them, so `--help` is quick."""

from __future__ import annotations

from typing import Annotated

import typer

from cutaway.cli import bench, commands, indexing, lens, looking, network, probing, steering, training
from cutaway.cli.common import Group
from cutaway.cli.features import features_app
from cutaway.cli.zoo import zoo_app

app = typer.Typer(
    name="cutaway",
    cls=Group,
    help="Open a trained network, find the mechanism behind a behaviour, and test it by intervening.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)
network.register(app)
looking.register(app)
commands.register(app)
lens.register(app)
probing.register(app)
steering.register(app)
training.register(features_app)
indexing.register(features_app)
app.add_typer(features_app, name="features")
app.add_typer(zoo_app, name="zoo")
bench.register(zoo_app)


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
