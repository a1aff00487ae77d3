"""`hilo-nas measure`: time networks in the same rounds."""

from __future__ import annotations

from typing import Annotated

import typer

from hilo_nas.cli.console import build_console
from hilo_nas.cli.options import Format, Output
from hilo_nas.cli.settings import takes_settings
from hilo_nas.searching.configuration.search_config import SearchConfig

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Time networks side by side on this machine, in the same rounds, with ratios to the first.

A NETWORK is STUDY:TRIAL, timm:NAME, onnx:FILE, openvino:FILE, an architecture's .yaml file or litv2_small,
litv2_medium, litv2_base. All except onnx:FILE and openvino:FILE can end with @SIZE, the image size of that network:
timm:efficientvit_b2@256. Options that are not given come from the first STUDY:TRIAL; without one, they are 32 images of
224 pixels in fp32. With onnx:FILE or openvino:FILE, all networks run in ONNX Runtime or OpenVINO; with files of both
kinds, each in its own runtime. With --runtime best, each network runs in the fastest runtime of this machine."""
EXAMPLES = """Examples:
hilo-nas measure litv2_small timm:resnet50 --batch-size 8
hilo-nas measure my-gpu:17 timm:efficientvit_b2@256 --format csv
hilo-nas measure litv2_small timm:resnet50 --batch-size 1 --runtime best
hilo-nas measure litv2_small --batch-size 1 --set timing.threads=1"""


@takes_settings(
    *("timing.device", "timing.batch_size", "timing.img_size", "timing.precision", "timing.runtime", "timing.seconds")
)
def run(
    config: SearchConfig,
    networks: Annotated[list[str], typer.Argument(metavar="NETWORK", help="Networks to time.")],
    num_classes: Annotated[int, typer.Option(help="Number of classes.")] = 1000,
    output: Output = Format.table,
) -> None:
    """Times the networks and prints the results. Progress goes to standard error."""
    from hilo_nas import api
    from hilo_nas.cli.display import build_display
    from hilo_nas.cli.measure_output import print_measured

    with build_display(build_console(stderr=True), shows_networks=True) as display:
        measured = api.measure(networks, config=config, num_classes=num_classes, on_event=display)
    print_measured(measured, output, build_console())
    if measured.failures:
        raise typer.Exit(max(error.exit_code for error in measured.failures.values()))
