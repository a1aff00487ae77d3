"""What is exported: one network, with the trial that it comes from or without one, or a whole study."""

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
_GREATEST = 10**6
"""Classes, or pixels along a side; a larger number in a train.yaml would end in a lack of memory."""
_SMALL_IMAGE = 96
"""Below this many pixels a side, images are not scaled up before the centre crop."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Preparation of an image for the network: resized, cropped at the centre, normalized."""

    img_size: int
    """Side in pixels after the crop."""
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """ImageNet's, of values from 0 to 1, as timm's train.py has it for LITv2."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def crop_pct(self) -> float:
        """Side after the crop as a share of the side before it."""
        return 0.875 if self.img_size >= _SMALL_IMAGE else 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSource:
    """A network to export."""

    arch: ArchConfig
    num_classes: int
    preprocessing: Preprocessing
    name: str
    """Name in titles: `cf9a05e1d2b3: trial 17 of study my-gpu`, or the file that it was read from."""
    assumed: str = ""
    """What was assumed because nobody said it, a sentence; empty where nothing was."""
    manifest: Manifest | None = None
    """The study's; None for an architecture without a trial, as are `record` and `folder`."""
    record: TrialRecord | None = None
    folder: StoredStudy | None = None
    weights: Path | None = None
    """A checkpoint of the training form."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySource:
    """A study to export."""

    name: str
    """Name in messages: `study my-gpu`."""
    manifest: Manifest
    records: tuple[TrialRecord, ...]
    """In the order of their numbers."""


def source_of_study(study: StoredStudy) -> StudySource:
    """Returns a whole study as a source."""
    return StudySource(name=f"study {study.name}", manifest=study.manifest, records=tuple(study.records))


def source_of_trial(
    manifest: Manifest, record: TrialRecord, *, folder: StoredStudy | None = None, weights: Path | None = None
) -> NetworkSource:
    """Returns a complete trial of a study as a source.

    Raises:
        NotFoundError: There is no such checkpoint.
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
    """Returns an architecture's YAML file as a source.

    Args:
        path: The file, as `hilo-nas export` writes arch.yaml.
        num_classes: Classes; where None, those of the train.yaml in its folder, else 1000.
        img_size: Side of the images in pixels; where None, that of the train.yaml in its folder, else 224.
        weights: A checkpoint of the training form.

    Raises:
        UsageError: A file is missing or holds no architecture, or a number is below 1.
        StorageError: The file cannot be read.
    """
    arch = load_arch(path)
    beside = _read_train_options(path.with_name("train.yaml"), arch)
    given = {"num_classes": num_classes, "img_size": img_size}
    fallback = {"num_classes": _DEFAULT_NUM_CLASSES, "img_size": _DEFAULT_IMG_SIZE}
    values: dict[str, int] = {}
    assumed = []
    for name, value in given.items():
        if value is not None:
            values[name] = value
            continue
        values[name] = beside.get(name, fallback[name])
        origin = f"from {path.with_name('train.yaml')}" if name in beside else "the default"
        assumed.append(f"{name} {values[name]} ({origin})")
    for name, value in values.items():
        if value < 1:
            raise UsageError(f"{name} must be at least 1, but got {value}")
        if value > _GREATEST:
            raise UsageError(f"{name} must be at most {_GREATEST:,}, but got {value}")
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
    """Returns the sizes that an export's train.yaml names, where it is of the same architecture."""
    try:
        options = load_yaml(path)
    except (OSError, yaml.YAMLError):
        return {}
    if not isinstance(options, Mapping) or options.get("model_kwargs") != arch.to_dict():
        return {}
    return {name: options[name] for name in ("num_classes", "img_size") if type(options.get(name)) is int}
