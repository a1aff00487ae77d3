"""Follow a search by its events and stop it by a custom rule.

    python examples/watch_events.py STUDY_FOLDER

The search ends after more than three networks in a row that did not change the front. Everything finished is kept: a
later call, or `hilo-nas search --study STUDY_FOLDER`, resumes it.
"""

from __future__ import annotations

import sys

import hilo_nas
from hilo_nas.events import Event, FrontChanged, TrialFinished


class Patience:
    """Raises KeyboardInterrupt, which ends a search cleanly, after some networks without a change of the front.

    Args:
        networks: How many.
    """

    def __init__(self, networks: int) -> None:
        self._networks, self._since = networks, 0

    def __call__(self, event: Event) -> None:
        """Receives an event of the search."""
        if isinstance(event, FrontChanged):
            self._since = 0
            print("front:", ", ".join(f"{speed:.0f} images/s {value:.3f}" for speed, value in event.points))
        elif isinstance(event, TrialFinished):
            self._since += 1
            print(f"trial {event.number} {event.state}: {event.measured} of {event.total}")
            if self._since > self._networks:
                raise KeyboardInterrupt


def main(folder: str, patience: int = 3) -> None:
    """Runs the example."""
    settings = {"search.sampler": "random", "proxy.rungs": 1, "timing.seconds": 0.5, "timing.remeasure": False}
    try:
        hilo_nas.search(
            "litv2_digits",
            study=folder,
            until_trials=20,
            device="cpu",
            proxy_images=640,
            settings=settings,
            on_event=Patience(patience),
        )
    except KeyboardInterrupt:
        print("the front did not change any more")
    print(hilo_nas.load_study(folder))


if __name__ == "__main__":
    main(sys.argv[1])
