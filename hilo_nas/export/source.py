"""Sources of an export: one network, with or without a trial, or a whole study."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hilo_nas.arch.config import ArchConfig, load_arch
from hilo_nas.errors import NotFoundError, UsageError
from hilo_nas.files.safe_yaml import load_yaml
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import StoredStudy

__all__ = ["NetworkSource", "Preprocessing", "StudySource", "load_source", "source_of_study", "source_of_trial"]

_DEFAULT_NUM_CLASSES, _DEFAULT_IMG_SIZE = 1000, 224
_MAX_SIZE = 10**6
"""Maximum of num_classes and img_size. A larger number in a train.yaml would run out of memory."""
_SMALL_IMAGE = 96
"""Image side in pixels below which images are not enlarged before the center crop."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Preprocessing of an image: resize, center crop, normalization."""

    img_size: int
    """Side in pixels after the crop."""
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of ImageNet for values from 0 to 1, as in the config of LITv2 for timm's train.py."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def crop_pct(self) -> float:
        """Ratio of the image side after the crop to the side before it."""
        return 0.875 if self.img_size >= _SMALL_IMAGE else 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSource:
    """A network to export."""

    arch: ArchConfig
    num_classes: int
    preprocessing: Preprocessing
    name: str
    """Name in titles, such as `cf9a05e1d2b3: trial 17 of study my-gpu`, or the name of the architecture's file."""
    assumed: str = ""
    """One sentence about the values that were assumed because nobody gave them. Empty if there are none."""
    manifest: Manifest | None = None
    """Manifest of the study. None for an architecture without a trial, and then `record` and `folder` are None too."""
    record: TrialRecord | None = None
    folder: StoredStudy | None = None
    weights: Path | None = None
    """Checkpoint of the training form of the network."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySource:
    """A study to export."""

    name: str
    """Name in messages, such as `study my-gpu`."""
    manifest: Manifest
    records: tuple[TrialRecord, ...]
    """Records in the order of their numbers."""


def source_of_study(study: StoredStudy) -> StudySource:
    """Returns a study as a source. Under a further condition, its manifest has the title of the study as its name."""
    manifest = dataclasses.replace(study.manifest, name=study.title) if study.is_view else study.manifest
    return StudySource(name=f"study {study.title}", manifest=manifest, records=tuple(study.records))


def source_of_trial(
    manifest: Manifest, record: TrialRecord, *, folder: StoredStudy | None = None, weights: Path | None = None
) -> NetworkSource:
    """Returns a complete trial of a study as a source.

    Raises:
        NotFoundError: The file of weights does not exist.
    """
    assert record.subject.arch is not None
    return NetworkSource(
        arch=record.subject.arch,
        num_classes=manifest.data.num_classes,
        preprocessing=Preprocessing(img_size=manifest.objective.img_size),
        name=f"{record.key}: trial {record.number} of study {manifest.name}",
        manifest=manifest,
        record=record,
        folder=folder,
        weights=_existing(weights),
    )


def load_source(
    path: Path, *, num_classes: int | None = None, img_size: int | None = None, weights: Path | None = None
) -> NetworkSource:
    """Returns the architecture of a YAML file as a source.

    Args:
        path: The file, in the format of the arch.yaml that `hilo-nas export` writes.
        num_classes: Number of classes. If None, the value in the train.yaml next to the file, else 1000.
        img_size: Image side in pixels. If None, the value in the train.yaml next to the file, else 224.
        weights: Checkpoint of the training form of the network.

    Raises:
        UsageError: A file is missing or holds no architecture, or a number is out of range.
        NotFoundError: The file of weights does not exist.
        StorageError: The file cannot be read.
    """
    arch = load_arch(path)
    train_options = _read_train_options(path.with_name("train.yaml"), arch)
    given = {"num_classes": num_classes, "img_size": img_size}
    fallback = {"num_classes": _DEFAULT_NUM_CLASSES, "img_size": _DEFAULT_IMG_SIZE}
    values: dict[str, int] = {}
    assumed = []
    for name, value in given.items():
        if value is not None:
            values[name] = value
            continue
        values[name] = train_options.get(name, fallback[name])
        origin = f"from {path.with_name('train.yaml')}" if name in train_options else "the default"
        assumed.append(f"{name} {values[name]} ({origin})")
    for name, value in values.items():
        if value < 1:
            raise UsageError(f"{name} must be at least 1, but got {value}")
        if value > _MAX_SIZE:
            raise UsageError(f"{name} must be at most {_MAX_SIZE:,}, but got {value}")
    return NetworkSource(
        arch=arch,
        num_classes=values["num_classes"],
        preprocessing=Preprocessing(img_size=values["img_size"]),
        name=f"{arch.key()}: the architecture of {path.name}",
        assumed=f"Assumed: {', '.join(assumed)}." if assumed else "",
        weights=_existing(weights),
    )


def _existing(weights: Path | None) -> Path | None:
    if weights is not None and not weights.is_file():
        raise NotFoundError(f"weights must be a checkpoint file, but there is no file {weights}")
    return weights


def _read_train_options(path: Path, arch: ArchConfig) -> dict[str, Any]:
    """Returns num_classes and img_size of an exported train.yaml, or nothing if it describes another architecture."""
    try:
        options = load_yaml(path)
    except (OSError, yaml.YAMLError):
        return {}
    if not isinstance(options, Mapping) or options.get("model_kwargs") != arch.to_dict():
        return {}
    return {name: options[name] for name in ("num_classes", "img_size") if type(options.get(name)) is int}
