"""Export for timm: options of train.py, a model config, the architecture, provenance, a launcher of timm's scripts.

train.py takes the YAML's keys as defaults of its options (`-c train.yaml`) and imports `device_modules` before it
builds the model. Other scripts cannot import anything: `run_timm.py` does it for them, and they read `config.json`
through timm's `local-dir:`. The recipe is LITv2's (github ziplab/LITv2, classification/config.py).
"""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path
from typing import Any

from hilo_nas.arch import load_arch
from hilo_nas.cost import count_params
from hilo_nas.errors import ConversionError, UsageError
from hilo_nas.export import run_timm
from hilo_nas.export.exporter import ExportOptions
from hilo_nas.export.provenance import build_provenance
from hilo_nas.export.source import ExportSource
from hilo_nas.export.text import build_title, dump, shell_line
from hilo_nas.figures import with_spread
from hilo_nas.manifest import Manifest
from hilo_nas.measurement import Measurement
from hilo_nas.records import TrialRecord, write_atomically
from hilo_nas.safe_yaml import load_yaml
from hilo_nas.study import slug

__all__ = ["TIMM", "TimmExporter", "build_train_options"]

_DROP_PATH = ((0.0, 0.0), (27.844, 0.2), (48.830, 0.3), (86.521, 0.5))
"""LITv2's stochastic depth by million parameters (S, M and B); between them, and below, in proportion."""
_RAND_AUGMENT = "rand-m9-mstd0.5-mmax9-inc1"
"""LITv2's policy with the noise of the magnitude cut at 9: above, timm asks Pillow to keep 0 bits, and 13.0 refuses."""
_SMALL_IMAGE = 96
"""Below this many pixels a side, images are not scaled up before the centre crop."""


class TimmExporter:
    """Writes what a training and a check of a complete trial with timm's scripts need."""

    name = "timm"
    files = ("train.yaml", "config.json", "arch.yaml", "provenance.yaml", "timing.env", "run_timm.py")

    def check(self, source: ExportSource, options: ExportOptions) -> None:
        """Raises a UsageError for an architecture without a trial, and for numbers that no training can have."""
        if source.record is None:
            raise UsageError(
                f"format timm needs a trial of a study, for its data and its figures, but got {source.name}. Use "
                "hilo-nas export STUDY --trial N."
            )
        for name, value in (("batch_size", options.batch_size), ("epochs", options.epochs)):
            if value < 1:
                raise UsageError(f"{name} must be at least 1, but got {value}")
        if options.batch_size % 2:
            raise UsageError(
                f"batch_size must be even because mixup pairs the images of a batch, but got {options.batch_size}"
            )

    def write(self, source: ExportSource, folder: Path, options: ExportOptions) -> list[str]:
        """Writes the files; `timing.env` holds the variables that the speed was measured under."""
        manifest, record = source.manifest, source.record
        assert manifest is not None
        assert record is not None
        assert record.measurement is not None
        measured = record.measurement
        title = build_title(
            source.name,
            f"{with_spread(measured.images_per_s, measured.images_per_s_half_width)} images/s on "
            f"{measured.device.model} ({measured.condition.label()})",
        )
        usage = build_title(
            "python train.py -c train.yaml --data-dir DATA     (timm's train.py; hilo-nas installed as well)",
            f"The learning rates are for {options.batch_size} images per step in all: with several devices, divide "
            "batch_size.",
            "LITv2's own code lets the offset convolutions learn at 0.01 of the rate; train.py has one rate for all.",
        )
        train = build_train_options(manifest, record, batch_size=options.batch_size, epochs=options.epochs)
        contents = {
            "train.yaml": title + usage + dump(train),
            "config.json": json.dumps(_build_config(train), indent=2) + "\n",
            "arch.yaml": title + dump(source.arch.to_dict()),
            "provenance.yaml": title + dump(build_provenance(manifest, record)),
            "timing.env": title + _environment(measured),
            "run_timm.py": Path(run_timm.__file__).read_text(encoding="utf-8"),
        }
        for name in self.files:
            write_atomically(folder / name, contents[name])
        return []

    def verify(self, folder: Path) -> str:
        """Checks that all files name one architecture."""
        arch = load_arch(folder / "arch.yaml")
        train = load_yaml(folder / "train.yaml")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not arch.to_dict() == train["model_kwargs"] == config["model_args"]:
            raise ConversionError(f"the files of {folder} must name one architecture, but differ. Export it again.")
        return f"verified: all files name the architecture {arch.key()}"

    def next_step(self, folder: Path) -> str:
        """Returns how to train and to check the network."""
        train, launcher = shlex.quote(str(folder / "train.yaml")), shlex.quote(str(folder / "run_timm.py"))
        return (
            f"Train it with timm's train.py: python train.py -c {train} --data-dir DATA\n"
            f"Other scripts of timm: python {launcher} validate.py --data-dir DATA --checkpoint CHECKPOINT"
        )


TIMM = TimmExporter()


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
        "experiment": f"{slug(manifest.name)}-{record.number}-{record.key}",
    }


def _build_config(train: dict[str, Any]) -> dict[str, Any]:
    """Returns what timm's `local-dir:` reads."""
    side = train["img_size"]
    return {
        "architecture": train["model"],
        "num_classes": train["num_classes"],
        "model_args": train["model_kwargs"],
        "pretrained_cfg": {
            "num_classes": train["num_classes"],
            "input_size": [3, side, side],
            "interpolation": train["interpolation"],
            "crop_pct": train["crop_pct"],
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc",
        },
    }


def _environment(measured: Measurement) -> str:
    """The variables of the timing process as lines that a shell or a container reads; other settings as comments."""
    lines = [build_title("Set these before Python starts, or the speed will be another one.")]
    if measured.device.kind == "cpu":
        lines.append(build_title(f"torch.set_num_threads({measured.threads})"))
    return "".join(lines) + "".join(shell_line(name, str(value)) for name, value in measured.environment.items())


def _drop_path(params_m: float) -> float:
    for (low, low_rate), (high, high_rate) in itertools.pairwise(_DROP_PATH):
        if params_m <= high:
            return round(low_rate + (high_rate - low_rate) * (params_m - low) / (high - low), 3)
    return _DROP_PATH[-1][1]
