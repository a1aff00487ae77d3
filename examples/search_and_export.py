"""Search on this machine's CPU, choose a network, and export it for timm's train.py.

    python examples/search_and_export.py [FOLDER]

Searches scikit-learn's digits with short trainings, so that it ends within minutes. FOLDER (default: this one) takes
the studies and the export. A second call resumes the study.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

import hilo_nas


def main(folder: Path) -> None:
    """Runs the example."""
    os.environ.setdefault("HILO_NAS_STUDIES_DIR", str(folder / "studies"))
    with hilo_nas.show_progress() as on_event:
        study = hilo_nas.search(
            "litv2_digits",
            study="first",
            until_trials=4,
            device="cpu",
            proxy_images=640,
            settings={"proxy.rungs": 1, "timing.seconds": 0.5, "timing.remeasure": False},
            on_event=on_event,
        )
    frame = study.trials("front")
    print(frame[["images_per_s", "value", "standard_error", "params_m"]])

    fastest = frame["images_per_s"].max()
    best = study.best(min_images_per_s=0.5 * fastest)
    print(f"trial {best.number} is the best of at least {0.5 * fastest:.0f} images/s")
    exported = study.export(folder / "out", trial=best, force=True)
    print(exported.next_step)

    model = hilo_nas.load_model(folder / "out", prepared=True)  # with a checkpoint, once it is trained
    print(model(torch.rand(2, 3, 32, 32)).shape, model.form)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
