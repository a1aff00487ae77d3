"""Checkpoints of trainings, used to resume between rungs, after a killed process, and with a raised budget."""

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

_warned_folders: set[Path] = set()
"""Folders for which this process has warned that a checkpoint cannot be written."""


def save_checkpoint(path: Path, name: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Writes the state of a training atomically.

    Args:
        path: Path of the file. Missing folders are created.
        name: Identity of the training, as plain values. `load_checkpoint` compares it.
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
        if not isinstance(error, OSError | RuntimeError):  # torch raises RuntimeError if the disk is full
            raise
        raise StorageError(f"cannot write the checkpoint {path}: {error}. Free some space.") from error


def set_aside(path: Path, name: Mapping[str, Any], state: Mapping[str, Any], emit: Emit) -> None:
    """Saves a checkpoint, or warns if it cannot be written.

    A missing checkpoint does not invalidate the score. The warning is emitted once per folder.

    Args:
        path: Path of the file, as for `save_checkpoint`.
        name: Identity of the training.
        state: Tensors and plain values.
        emit: Receives the warning.
    """
    try:
        save_checkpoint(path, name, state)
    except StorageError as error:
        if path.parent not in _warned_folders:
            _warned_folders.add(path.parent)
            text = f"{error} The search continues without it, but a resumed training starts from the beginning"
            emit(Notice(level="warning", text=text))


def load_checkpoint(path: Path, name: Mapping[str, Any], until: int, emit: Emit) -> dict[str, Any]:
    """Returns the state of a training that has seen at most `until` images, or an empty dict.

    If the file is damaged, belongs to another training or has seen more images, a warning is emitted. The training
    then starts from the beginning.

    Args:
        path: Path of the file.
        name: Identity of the training.
        until: Maximum number of images seen.
        emit: Receives the warning.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state: dict[str, Any] = content["state"]
        if content["name"] != dict(name):
            fault = "belongs to another training"
        elif state["images_seen"] > until:
            fault = f"must have seen at most {until} images, but has seen {state['images_seen']}"
        else:
            return state
    except Exception as error:  # torch raises many classes: EOFError, RuntimeError, UnpicklingError, KeyError
        fault = f"cannot be read ({type(error).__name__})"
    text = f"the checkpoint {path.name} {fault}. The training starts from the beginning"
    emit(Notice(level="warning", text=text))
    return {}


def read_generators(device: torch.device) -> dict[str, Tensor]:
    """Returns the states of torch's default random generators on the CPU and the device, for example for dropout."""
    states = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_generators(device: torch.device, states: Mapping[str, Any]) -> None:
    """Restores the states from `read_generators`. The generator of a device without a stored state is not changed.

    Args:
        device: Device of the resumed training.
        states: States by name. Other entries are ignored.
    """
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
