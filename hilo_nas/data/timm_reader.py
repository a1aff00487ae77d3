"""How timm's own reader of folders and archives differs from this package's, for one source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from hilo_nas.data.cache import CacheEntry, load_arrays, load_members
from hilo_nas.data.sources import SourceSpec

__all__ = ["list_differences"]

_ENDINGS = (".png", ".jpg", ".jpeg")
"""Of timm 1.0: `timm.data.readers.img_extensions`."""
_TRAIN = ("train", "training")
_NO_FILES = {
    "digits": "the images are in scikit-learn",
    "function": "the images come from a function",
    "table": "the images are in a table",
}


def list_differences(
    spec: SourceSpec, entry: CacheEntry, class_names: Sequence[str], facts: Mapping[str, Any]
) -> list[str]:
    """Returns why timm would read a source otherwise, one phrase each; empty where it reads the same.

    timm's reader labels by the leaf folder, opens .png, .jpg and .jpeg files alone, and neither turns, composites nor
    scales images. Its readers of torch/NAME, hfds/NAME and wds/DIR are those used here.

    Args:
        spec: The source.
        entry: Its images in the cache.
        class_names: The classes that are used.
        facts: Observations made while the images were read.
    """
    if spec.kind in _NO_FILES:
        return [_NO_FILES[spec.kind]]
    found = []
    if spec.kind not in ("torch", "hfds", "wds"):
        members = [PurePosixPath(member) for member in load_members(entry.path)]
        if any(member.suffix.lower() not in _ENDINGS for member in members):
            found.append("there are images in other formats than .png and .jpg")
        _, _, labels, _ = load_arrays(entry.path)
        if any(entry.class_names[label] != member.parent.name for member, label in zip(members, labels, strict=True)):
            found.append("classes are not the folders that hold the images")
        if (facts.get("split") or facts.get("left_out")) and any(member.parts[0] not in _TRAIN for member in members):
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
