"""Warnings about scores at chance level: the score of always guessing the largest class."""

from __future__ import annotations

from hilo_nas.events import Notice
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord

__all__ = ["warn_of_guessing"]


def warn_of_guessing(manifest: Manifest, record: TrialRecord) -> Notice | None:
    """Returns a warning if a network scores no better than always guessing one class; None otherwise.

    The threshold is `Manifest.guessing_score`.
    """
    level = manifest.guessing_score
    if level is None or record.score is None or record.score.value > level + 1e-9:
        return None
    text = (
        f"trial {record.number} ({record.key}) scored {100 * record.score.value:.1f} % after "
        f"{record.score.images_seen:,} images; always guessing the largest class gives {100 * level:.1f} %. Such a "
        "network did not learn. Raise --proxy-images, or check the images with `hilo-nas data show`."
    )
    return Notice(level="warning", text=text)
