"""Which images of a folder or tar may be trained on: its `train` split, or all that lies in no held-out split."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from hilo_nas.errors import DataError

__all__ = ["TRAIN_NAMES", "choose_shards", "choose_training"]

TRAIN_NAMES = ("train", "training")
_HELD_OUT = ("test", "testing", "val", "valid", "validation", "eval", "evaluation")


def choose_training(text: str, members: Sequence[PurePosixPath]) -> tuple[list[int], list[str]]:
    """Returns the places of the members that may be trained on, and what is left out, in sentences.

    A folder is a split, and not a class, where it bears a split's name and holds class folders in its turn. Hidden
    files are passed over in silence.

    Args:
        text: The source in the user's words.
        members: Paths of the images inside the source; the last folder is the class.

    Raises:
        DataError: Only held-out splits are there, or splits without class folders.
    """
    visible = [i for i, m in enumerate(members) if not any(p.startswith(".") or p == "__MACOSX" for p in m.parts)]
    folders = {i: tuple(p.lower() for p in members[i].parent.parts) for i in visible if len(members[i].parts) > 1}
    left_out = []
    if len(folders) < len(visible):
        left_out.append(f"{len(visible) - len(folders)} images of {text} lie in no class folder and are left out")
    if folders and {folder[-1] for folder in folders.values()} <= {*TRAIN_NAMES, *_HELD_OUT}:
        raise DataError(f"the splits of {text} hold images directly; one subfolder per class must lie between")
    common = _common_parents(list(folders.values()))
    depth = len(common)
    splits = {i: folder[depth] if len(folder) > depth + 1 else "" for i, folder in folders.items()}
    held_out = sorted(set(splits.values()) & {*_HELD_OUT})
    chosen = [i for i in folders if splits[i] in TRAIN_NAMES]
    if not chosen:
        chosen = [i for i in folders if splits[i] not in _HELD_OUT]
        left_out += [f"{text}/{name} looks like a held-out split and is never read" for name in held_out]
    if {*common} & {*_HELD_OUT} and not {*common} & {*TRAIN_NAMES}:
        chosen, held_out = [], ["/".join(common)]
    if held_out and not chosen:
        raise DataError(f"{text} holds no training images, only {', '.join(held_out)}, which a search never reads")
    return chosen, left_out


def choose_shards(names: Sequence[str]) -> list[str]:
    """Returns the shards that bear a training split's name, or else all that bear no held-out split's."""
    training = [name for name in names if _has_word(name, TRAIN_NAMES)]
    return training or [name for name in names if not _has_word(name, _HELD_OUT)]


def _has_word(name: str, words: Sequence[str]) -> bool:
    return any(word in words for word in re.split(r"[^a-z]+", name.lower()))


def _common_parents(folders: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Returns the folders that all classes lie in."""
    levels = zip(*(folder[:-1] for folder in folders), strict=False)
    return tuple(level[0] for level in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
