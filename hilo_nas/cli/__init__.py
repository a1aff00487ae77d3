"""Command line interface. This is the only package that prints."""

from hilo_nas.cli.app import main

__all__ = ["main"]
