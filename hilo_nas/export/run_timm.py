"""Runs a script of timm's repository with the network of this folder.

python run_timm.py path/to/pytorch-image-models/validate.py --data-dir DATA --checkpoint CHECKPOINT

timm does not know LITv2 by itself, and only its train.py has an option to import it. This file imports hilo_nas.models
(hilo-nas must be installed beside timm), which registers LITv2, then runs the script with the arguments given. It adds
`-c train.yaml` for train.py, and `--model local-dir:FOLDER` for other scripts, which reads config.json, unless the
arguments name a model or a config.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Runs the script that the arguments begin with."""
    if not arguments or not Path(arguments[0]).is_file():
        got = f"no file {arguments[0]}" if arguments else "no argument"
        sys.exit(f"usage: python run_timm.py SCRIPT ARGS: SCRIPT must be a script of timm's repository, but got {got}")
    script, *rest = arguments
    folder = Path(__file__).resolve().parent
    is_training = Path(script).name == "train.py"
    names = {argument.partition("=")[0] for argument in rest}
    if not names & {"--model", "-m", "-c", "--config"}:
        rest = (["-c", str(folder / "train.yaml")] if is_training else ["--model", f"local-dir:{folder}"]) + rest
    importlib.import_module("hilo_nas.models")
    sys.argv = [script, *rest]
    sys.path[0] = str(Path(script).resolve().parent)  # as if Python had been given the script
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
