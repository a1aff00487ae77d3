"""Export for timm's train.py: a YAML of its options, the architecture, and the provenance.

train.py takes the YAML's keys as defaults of its options (`-c train.yaml`), imports `device_modules` before it builds
the model, and so finds `litv2` registered. The recipe is LITv2's (github ziplab/LITv2, classification/config.py).
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import yaml

from hilo_nas.cost import count_params
from hilo_nas.errors import UsageError
from hilo_nas.export.provenance import build_provenance
from hilo_nas.manifest import Manifest
from hilo_nas.measurement import Measurement
from hilo_nas.records import TrialRecord, write_atomically

__all__ = ["FORMATS", "build_train_options", "export_trial"]

FORMATS = ("timm",)

_DROP_PATH = ((0.0, 0.0), (27.844, 0.2), (48.830, 0.3), (86.521, 0.5))
"""LITv2's stochastic depth by million parameters (S, M and B); between them, and below, in proportion."""
_RAND_AUGMENT = "rand-m9-mstd0.5-mmax9-inc1"
"""LITv2's policy with the noise of the magnitude cut at 9: above, timm asks Pillow to keep 0 bits, and 13.0 refuses."""
_SMALL_IMAGE = 96
"""Below this many pixels a side, images are not scaled up before the centre crop."""


def export_trial(
    manifest: Manifest, record: TrialRecord, folder: Path, *, batch_size: int = 1024, epochs: int = 300
) -> list[Path]:
    """Writes what a training and a deployment of a complete trial need, and returns the files' paths.

    `train.yaml`, `arch.yaml`, `provenance.yaml`, and `timing.env`: the variables that its speed was measured under.

    Args:
        manifest: The study's manifest.
        record: The trial.
        folder: Where to write; made if it is not there.
        batch_size: Images per step over all devices, which the learning rates are scaled to.
        epochs: Epochs of the full training.

    Raises:
        UsageError: The batch size or the epochs are below 1, or the batch size is odd.
        StorageError: The folder cannot be written.
    """
    for name, value in (("batch_size", batch_size), ("epochs", epochs)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, but got {value}")
    if batch_size % 2:
        raise UsageError(f"batch_size must be even, for mixup pairs the images of a batch, but got {batch_size}")
    assert record.subject.arch is not None
    assert record.measurement is not None
    measured = record.measurement
    title = (
        f"# {record.key}: trial {record.number} of study {manifest.name}\n"
        f"# {measured.images_per_s:.4g} ± {measured.images_per_s_half_width:.2g} images/s on {measured.device.model} "
        f"({measured.condition.label()})\n"
    )
    usage = (
        "# python train.py -c train.yaml --data-dir DATA     (timm's train.py; hilo-nas installed beside timm)\n"
        f"# The learning rates are for {batch_size} images per step in all: with several devices, divide batch_size.\n"
        "# LITv2's own code lets the offset convolutions learn at 0.01 of the rate; train.py has one rate for all.\n"
    )
    options = build_train_options(manifest, record, batch_size=batch_size, epochs=epochs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the folder {folder}: {error.strerror or error}. Choose another with -o."
        ) from error
    contents = {
        "train.yaml": title + usage + _dump(options),
        "arch.yaml": title + _dump(record.subject.arch.to_dict()),
        "provenance.yaml": title + _dump(build_provenance(manifest, record)),
        "timing.env": title + _environment(measured),
    }
    for name, text in contents.items():
        write_atomically(folder / name, text)
    return [folder / name for name in contents]


def build_train_options(manifest: Manifest, record: TrialRecord, *, batch_size: int, epochs: int) -> dict[str, Any]:
    """Returns options of timm's train.py by their dest names: the model and LITv2's recipe scaled to the batch."""
    assert record.subject.arch is not None
    scale = batch_size / 512
    side = manifest.objective.img_size
    return {
        "device_modules": ["hilo_nas.models"],
        "model": "litv2",
        "model_kwargs": record.subject.arch.to_dict(),
        "num_classes": manifest.data.num_classes,
        "img_size": side,
        "batch_size": batch_size,
        "epochs": epochs,
        "opt": "adamw",
        "opt_betas": [0.9, 0.999],
        "opt_eps": 1.0e-8,
        "weight_decay": 0.05,
        "sched": "cosine",
        "sched_on_updates": True,
        "lr": 5.0e-4 * scale,
        "warmup_lr": 5.0e-7 * scale,
        "min_lr": 5.0e-6 * scale,
        "warmup_epochs": min(20, epochs // 2),
        "clip_grad": 5.0,
        "drop_path": _drop_path(count_params(record.subject.arch) / 1e6),
        "aa": _RAND_AUGMENT,
        "color_jitter": 0.4,
        "reprob": 0.25,
        "remode": "pixel",
        "mixup": 0.8,
        "cutmix": 1.0,
        "smoothing": 0.1,
        "hflip": 0.5 if manifest.plan.hflip else 0.0,
        "train_interpolation": "bicubic",
        "interpolation": "bicubic",
        "crop_pct": 0.875 if side >= _SMALL_IMAGE else 1.0,
        "amp": True,
        "amp_dtype": "bfloat16",
        "experiment": f"{manifest.name}-{record.number}-{record.key}",
    }


def _environment(measured: Measurement) -> str:
    """The variables of the timing process as lines that a shell or a container reads; other settings as comments."""
    threads = f"# torch.set_num_threads({measured.threads})\n" if measured.device.kind == "cpu" else ""
    lines = [
        f"{name}={value}" if name.isupper() else f"# {name}: {value}" for name, value in measured.environment.items()
    ]
    return "# Set these before Python starts, or the speed will be another one.\n" + threads + "\n".join(lines) + "\n"


def _drop_path(params_m: float) -> float:
    for (low, low_rate), (high, high_rate) in itertools.pairwise(_DROP_PATH):
        if params_m <= high:
            return round(low_rate + (high_rate - low_rate) * (params_m - low) / (high - low), 3)
    return _DROP_PATH[-1][1]


def _dump(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)
