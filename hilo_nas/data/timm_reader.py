"""Differences between this package's and timm's reading of a source."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from hilo_nas.data.cache import CacheEntry, load_arrays, load_members
from hilo_nas.data.sources import SourceSpec

__all__ = ["list_differences"]

_ENDINGS = (".png", ".jpg", ".jpeg")
"""Extensions in timm 1.0: `timm.data.readers.img_extensions`."""
_TRAIN = ("train/", "training/")
_NO_FILES = {
    "digits": "the images are in scikit-learn",
    "function": "the images come from a function",
    "table": "the images are in a table",
}


def list_differences(
    spec: SourceSpec, entry: CacheEntry, class_names: Sequence[str], facts: Mapping[str, Any]
) -> list[str]:
    """Returns the reasons why timm would read a source differently, one phrase each. Empty if it reads the same.

    timm's reader uses the innermost folder as the label and opens only .png, .jpg and .jpeg files. It does not rotate,
    composite or scale images. For torch/NAME, hfds/NAME and wds/DIR, this package uses timm's readers.

    Args:
        spec: The source.
        entry: The images of the source in the cache.
        class_names: Classes that are used.
        facts: Facts about how the images were read (`CacheEntry.facts`).
    """
    # A folder may hold Parquet or Arrow files.
    kind = "table" if spec.kind == "folder" and facts.get("has_rows") else spec.kind
    if kind in _NO_FILES:
        return [_NO_FILES[kind]]
    found = []
    if kind not in ("torch", "hfds", "wds"):
        members = load_members(entry.path)
        if not all(member.lower().endswith(_ENDINGS) for member in members):
            found.append("there are images in other formats than .png and .jpg")
        _, _, labels, _ = load_arrays(entry.path)
        names = [entry.class_names[label] for label in labels.tolist()]
        if any(_leaf_of(member) != name for member, name in zip(members, names, strict=True)):
            found.append("classes are not the folders that hold the images")
        is_part = facts.get("split") or facts.get("left_out")
        if is_part and not all(member.lower().startswith(_TRAIN) for member in members):
            found.append("only a part of the images is for training")
    if facts.get("n_turned"):
        found.append("photos are turned by their EXIF orientation")
    if facts.get("n_composited"):
        found.append("transparent images are composited on a background")
    if facts.get("n_scaled"):
        found.append("images of more than 8 bits are scaled")
    if facts.get("broken") or len(class_names) < len(entry.class_names):
        found.append("broken images or classes are left out")
    return found


def _leaf_of(member: str) -> str:
    """Returns the name of the folder that holds an image."""
    return unicodedata.normalize("NFC", member.rpartition("/")[0].rpartition("/")[2])
