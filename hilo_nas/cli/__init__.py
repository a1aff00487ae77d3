"""The command line: the only room that prints."""

from hilo_nas.cli.app import main

__all__ = ["main"]
