"""Loading of exported networks and checkpoints. Networks are built as timm's train.py builds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import yaml
from timm.models import load_state_dict
from torch import nn

from hilo_nas.arch.config import ArchConfig
from hilo_nas.errors import ArchError, NotFoundError, UsageError
from hilo_nas.files.safe_yaml import load_yaml
from hilo_nas.models.inference import prepare_for_inference
from hilo_nas.models.litv2 import LITv2
from hilo_nas.models.weights import checkpoint_filter_fn

__all__ = ["create_model", "load_checkpoint", "load_model"]


def create_model(network: str | ArchConfig, *, num_classes: int = 1000, **options: Any) -> nn.Module:
    """Returns a network with random initial weights, built by `timm.create_model`.

    Args:
        network: An architecture or the name of a timm model. This package registers `litv2` and its presets with timm.
        num_classes: Number of classes.
        **options: Further arguments of the network, such as `drop_path_rate`.

    Raises:
        ArchError: The options contain an invalid field of the architecture.

    Examples:
        >>> hilo_nas.create_model(hilo_nas.load_study("my-gpu").best().arch, num_classes=10)
    """
    name, fields = ("litv2", network.to_dict()) if isinstance(network, ArchConfig) else (network, {})
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, **{**fields, **options})
    return model


def load_model(folder: str | Path, checkpoint: str | Path | None = None, *, prepared: bool = False) -> LITv2:
    """Returns the network from a folder that `hilo-nas export --format timm` wrote, in evaluation mode on the CPU.

    Args:
        folder: Folder that contains train.yaml.
        checkpoint: Checkpoint for `load_checkpoint`; None for random initial weights.
        prepared: True to return the inference form in float32 on the CPU. For other devices and precisions, call
            `prepare_for_inference` on the result.

    Raises:
        NotFoundError: A file is missing.
        UsageError: train.yaml does not describe a LITv2, or the checkpoint does not fit the network.
    """
    path = Path(folder) / "train.yaml"
    try:
        options = load_yaml(path)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"the folder must be one that `hilo-nas export` wrote, but there is no file {path}"
        ) from error
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path} must be YAML, but cannot be read: {error}") from error
    if not isinstance(options, Mapping) or options.get("model") != "litv2":
        raise UsageError(f"{path} must have the model litv2, as `hilo-nas export` writes it")
    num_classes, fields = options.get("num_classes"), options.get("model_kwargs")
    if type(num_classes) is not int or not 0 <= num_classes <= 10**6 or not isinstance(fields, Mapping):
        raise UsageError(f"{path} must have num_classes (0 to 1,000,000) and model_kwargs (the architecture)")
    try:
        arch = ArchConfig.from_dict(fields)
    except ArchError as error:
        raise ArchError(f"model_kwargs in {path} must be a valid architecture, but: {error}") from error
    model: nn.Module = timm.create_model("litv2", pretrained=False, num_classes=num_classes, **arch.to_dict())
    assert isinstance(model, LITv2)
    if checkpoint is not None:
        load_checkpoint(model, checkpoint)
    model.eval()
    return prepare_for_inference(model) if prepared else model


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Loads all weights of a network from a file. Does not execute code from the file.

    Args:
        model: Network in its training form or prepared for inference.
        path: Checkpoint of timm's train.py, state dict, or .safetensors file, with the parameter names of this package
            or of the official code. If a checkpoint has averaged (EMA) weights, these are loaded.

    Raises:
        NotFoundError: The file does not exist.
        UsageError: The file does not contain weights, or they do not fit the network.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"a checkpoint must be a file, but there is no file {path}")
    try:
        weights: dict[str, Any] = load_state_dict(str(path), weights_only=True)
        weights = checkpoint_filter_fn(weights, model)
    except Exception as error:  # pickle, zip, safetensors and torch each raise other classes
        raise UsageError(
            f"{path} must contain weights (a checkpoint of timm's train.py, a state dict or .safetensors), but cannot "
            f"be read: {error}"
        ) from error
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise UsageError(f"{path} must contain the weights of this network, but they do not fit: {error}") from error
