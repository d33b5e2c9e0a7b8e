"""The command line: ``vrft``."""

from vrft.cli.main import main

__all__ = ["main"]
