"""`python -m cutaway`: the command line."""

from cutaway.cli.main import app

app()
