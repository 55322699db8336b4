"""``python -m mergefront``: the command line without the console script."""

from .study.cli import app

app()
