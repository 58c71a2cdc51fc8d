"""The command line, one file for each group of verbs."""

from handful.cli.main import main

__all__ = ["main"]
