"""`python -m cutaway.cli`."""

from cutaway.cli.main import app

app()
