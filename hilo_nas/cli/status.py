"""`hilo-nas status`: progress and cost of a study."""

from __future__ import annotations

from hilo_nas.cli.console import build_console
from hilo_nas.cli.options import Format, OptionalStudy, Output

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Show the progress and cost of a study, and why trials failed. Without STUDY, list all studies."""

EXAMPLES = "Example: hilo-nas status my-gpu"


def run(study: OptionalStudy = None, output: Output = Format.table) -> None:
    """Prints the state of a study, or a row for each study."""
    from hilo_nas.cli.status_output import print_status
    from hilo_nas.cli.studies import print_studies

    if study is None:
        print_studies(output, build_console())
    else:
        print_status(study, output)
