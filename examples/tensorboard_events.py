"""Send each trial of a search to TensorBoard.

pip install tensorboard
python examples/tensorboard_events.py STUDY_FOLDER
tensorboard --logdir STUDY_FOLDER/tensorboard
"""

from __future__ import annotations

import sys
from pathlib import Path

import hilo_nas
from hilo_nas.events import Event, TrialFinished

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:
    sys.exit("This example needs TensorBoard: pip install tensorboard")


def main(folder: str, trials: int = 6) -> None:
    """Runs the example. A second call continues the search and the curves."""
    with SummaryWriter(Path(folder) / "tensorboard") as writer:

        def send(event: Event) -> None:
            if isinstance(event, TrialFinished):
                for name in ("images_per_s", "value", "seconds"):
                    if (figure := getattr(event, name)) is not None:
                        writer.add_scalar(f"trial/{name}", figure, event.number)
                writer.add_text("trial/network", event.network or event.key, event.number)

        settings = {"proxy.rungs": 1, "timing.seconds": 0.5}
        hilo_nas.search(
            "litv2_digits", study=folder, until_trials=trials, proxy_images=640, settings=settings, on_event=send
        )


if __name__ == "__main__":
    main(sys.argv[1])
