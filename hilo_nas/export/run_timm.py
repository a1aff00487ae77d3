"""Runs a script of timm's repository with the network in this folder.

python run_timm.py path/to/pytorch-image-models/validate.py --data-dir DATA --checkpoint CHECKPOINT

timm does not know LITv2, and only its train.py has an option to import it. This file imports hilo_nas.models, which
registers LITv2. Then it runs the script with the given arguments. hilo-nas must be installed.

The file adds arguments unless the command line names a model or a config:

* `-c train.yaml` for train.py
* `--model local-dir:FOLDER`, which reads config.json, and `--img-size` for validate.py, benchmark.py, onnx_export.py
  and inference.py
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from pathlib import Path

_SCRIPTS_WITH_MODEL = ("validate.py", "benchmark.py", "onnx_export.py", "inference.py")


def main(arguments: list[str]) -> None:
    """Runs the script given as the first argument."""
    if not arguments or not Path(arguments[0]).is_file():
        got = f"no file {arguments[0]}" if arguments else "no argument"
        sys.exit(f"usage: python run_timm.py SCRIPT ARGS: SCRIPT must be a script of timm's repository, but got {got}")
    script, *rest = arguments
    added = _network(Path(script).name, {argument.partition("=")[0] for argument in rest})
    importlib.import_module("hilo_nas.models")
    sys.argv = [script, *added, *rest]
    sys.path[0] = str(Path(script).resolve().parent)  # as Python sets it for a script
    runpy.run_path(script, run_name="__main__")


def _network(script: str, given: set[str]) -> list[str]:
    """Returns the arguments that select the network in this folder for a script."""
    folder = Path(__file__).resolve().parent
    if given & {"--model", "-m", "-c", "--config"}:
        return []
    if script == "train.py":
        return ["-c", str(folder / "train.yaml")]
    if script not in _SCRIPTS_WITH_MODEL:
        return []
    model = ["--model", f"local-dir:{folder}"]
    if given & {"--img-size", "--input-size"}:
        return model
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return [*model, "--img-size", str(config["pretrained_cfg"]["input_size"][-1])]


if __name__ == "__main__":
    main(sys.argv[1:])
