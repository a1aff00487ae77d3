"""Trainings set aside on disk, to go on where they paused: between rungs, after a kill, under a raised budget."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hilo_nas.errors import StorageError
from hilo_nas.events import Emit, Notice

__all__ = ["load_checkpoint", "read_generators", "save_checkpoint", "set_aside", "set_generators"]

_told: set[Path] = set()
"""Folders of which this process has said that they take no checkpoint."""


def save_checkpoint(path: Path, name: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Writes a training's state, wholly or not at all.

    Args:
        path: The file; its folder is made where it is absent.
        name: What the training is, as plain values; `load_checkpoint` asks for the same.
        state: Tensors and plain values.

    Raises:
        StorageError: The file cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            torch.save({"name": dict(name), "state": dict(state)}, file)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        if not isinstance(error, OSError | RuntimeError):  # torch tells of a full disk by the latter
            raise
        raise StorageError(f"cannot write the checkpoint {path}: {error}. Free some space.") from error


def set_aside(path: Path, name: Mapping[str, Any], state: Mapping[str, Any], emit: Emit) -> None:
    """Saves a checkpoint where the disk takes it; else warns, once per folder: the score counts without it.

    Args:
        path: See `save_checkpoint`, like what follows.
        name: What the training is.
        state: Tensors and plain values.
        emit: Takes the warning.
    """
    try:
        save_checkpoint(path, name, state)
    except StorageError as error:
        if path.parent not in _told:
            _told.add(path.parent)
            text = f"{error} The search continues without it: a network that goes on is trained from its start again"
            emit(Notice(level="warning", text=text))


def load_checkpoint(path: Path, name: Mapping[str, Any], until: int, emit: Emit) -> dict[str, Any]:
    """Returns the state of a training that has not gone beyond `until` images, or nothing where the file has none.

    A file that is torn or of another training costs the time to train again, told as a warning, and nothing else.

    Args:
        path: The file.
        name: What the training is.
        until: Images seen at most.
        emit: Takes the warning.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state: dict[str, Any] = content["state"]
        if content["name"] != dict(name):
            why = "is of another training"
        elif state["images_seen"] > until:
            why = f"is of {state['images_seen']} images, {until} were asked for"
        else:
            return state
    except Exception as error:  # torch raises what it meets: EOFError, RuntimeError, UnpicklingError, KeyError
        why = f"cannot be read ({type(error).__name__})"
    emit(Notice(level="warning", text=f"the checkpoint {path.name} {why}: the network is trained from its start"))
    return {}


def read_generators(device: torch.device) -> dict[str, Tensor]:
    """Returns the states of torch's own generators, which dropout draws from: the CPU's, and the device's own."""
    states = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_generators(device: torch.device, states: Mapping[str, Any]) -> None:
    """Puts back what `read_generators` returned; a device whose state is not there goes on as it is.

    Args:
        device: Where the training goes on.
        states: By name, as they were read; other entries are left alone.
    """
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
