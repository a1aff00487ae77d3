"""Export to timm: options of train.py, a model config, the architecture, provenance, and a launcher of timm's scripts.

train.py reads the YAML file as defaults of its options (`-c train.yaml`). It imports `device_modules` before it builds
the model. timm's other scripts have no such option, so `run_timm.py` imports hilo_nas.models and then runs them. They
read `config.json` through timm's `local-dir:`. The recipe is that of LITv2 (github ziplab/LITv2,
classification/config.py).
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilo_nas.arch.config import load_arch
from hilo_nas.arch.cost import count_params
from hilo_nas.errors import ConversionError, UsageError
from hilo_nas.export import run_timm
from hilo_nas.export.export_options import ExportOptions
from hilo_nas.export.provenance import build_provenance
from hilo_nas.export.source import NetworkSource, Preprocessing
from hilo_nas.export.text import build_title, dump, shell_line
from hilo_nas.export.writing import hints_of_writing
from hilo_nas.measurement import Measurement
from hilo_nas.study.stored_study import slug
from hilo_nas.text.commands import command
from hilo_nas.text.figures import with_spread

__all__ = ["TIMM", "TimmExporter", "build_train_options"]

_DROP_PATH = ((0.0, 0.0), (27.844, 0.2), (48.830, 0.3), (86.521, 0.5))
"""Drop path rate of LITv2 (S, M and B) by parameters in millions. Other sizes are interpolated linearly."""
_RAND_AUGMENT = "rand-m9-mstd0.5-mmax9-inc1"
"""LITv2's RandAugment policy, with the magnitude clipped at 9. Above 9, timm asks Pillow to keep 0 bits, which Pillow
13.0 refuses."""


class TimmExporter:
    """Writer of the files that train and validate a complete trial with timm's scripts."""

    name = "timm"
    source_type = NetworkSource
    files = ("train.yaml", "config.json", "arch.yaml", "provenance.yaml", "timing.env", "run_timm.py")
    options = frozenset({"batch_size", "epochs"})
    can_replace = True

    def check(self, source: NetworkSource, options: ExportOptions) -> None:
        """Raises a UsageError if the source has no trial, or if batch_size or epochs are invalid."""
        faults = []
        if source.record is None:
            faults.append(
                "format timm needs a trial of a study because it exports its data and measured values, but got "
                f"{source.name}. Use "
                "hilo-nas export STUDY --trial N."
            )
        for name, value in (("batch_size", options.batch_size), ("epochs", options.epochs)):
            if value < 1:
                faults.append(f"{name} must be at least 1, but got {value}")
        if options.batch_size % 2:
            faults.append(
                f"batch_size must be even because mixup pairs the images of a batch, but got {options.batch_size}"
            )
        if faults:
            raise UsageError("\n".join(faults))

    def write(self, source: NetworkSource, folder: Path, options: ExportOptions) -> list[str]:
        """Writes the files. `timing.env` holds the environment variables of the timing process."""
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
            "python train.py -c train.yaml --data-dir DATA     (timm's train.py; hilo-nas must be installed)",
            f"The learning rates are for {options.batch_size} images per step. With several devices, divide batch_size "
            "by their number.",
            "LITv2's code uses 0.01 of the learning rate for the offset convolutions; train.py has one rate for all.",
        )
        train = build_train_options(source, options)
        contents = {
            "train.yaml": title + usage + dump(train),
            "config.json": json.dumps(_build_config(train, source.preprocessing), indent=2) + "\n",
            "arch.yaml": title + dump(source.arch.to_dict()),
            "provenance.yaml": title + dump(build_provenance(manifest, record)),
            "timing.env": title + _environment(measured),
            "run_timm.py": Path(run_timm.__file__).read_text(encoding="utf-8"),
        }
        for name in self.files:
            (folder / name).write_text(contents[name], encoding="utf-8")
        return []

    def verify(self, source: NetworkSource, folder: Path) -> str:
        """Builds the network with timm from the written files and compares it with the architecture."""
        import timm

        from hilo_nas.models import load_model

        arch = load_arch(folder / "arch.yaml")
        if arch != source.arch:
            raise ConversionError(
                f"arch.yaml must describe {source.arch.key()}, but describes {arch.key()}. Export it again."
            )
        models = {"train.yaml": load_model(folder), "config.json": timm.create_model(f"local-dir:{folder}")}
        parameters = count_params(arch, num_classes=source.num_classes)
        for name, model in models.items():
            found = sum(parameter.numel() for parameter in model.parameters())
            if found != parameters:
                raise ConversionError(
                    f"{name} must describe {arch.key()} with {parameters:,} parameters, but timm builds a network with "
                    f"{found:,}. Export it again."
                )
        return f"verified: timm builds {arch.key()} from train.yaml and config.json, {parameters:,} parameters"

    def next_step(self, source: NetworkSource, files: Sequence[Path]) -> str:
        """Returns commands that train, validate and deploy the network."""
        paths = dict(zip(self.files, files, strict=True))
        train, launcher = shlex.quote(str(paths["train.yaml"])), shlex.quote(str(paths["run_timm.py"]))
        deploy = command("export", paths["arch.yaml"], "--format", "onnx", "--weights", "CHECKPOINT", "-o", "DIR")
        lines = [
            f"Train it with timm's train.py: python train.py -c {train} --data-dir DATA",
            f"Other scripts of timm: python {launcher} validate.py --data-dir DATA --checkpoint CHECKPOINT",
        ]
        if source.folder is not None and source.manifest is not None:
            lines += hints_of_writing(source.folder, source.manifest)
        lines.append(f"Deploy it: {deploy}")
        if source.record is not None and source.record.measurement and source.record.measurement.condition.fused:
            lines.append(
                "The speed is that of the inference form. Deploy the result of hilo_nas.models.prepare_for_inference."
            )
        return "\n".join(lines)


TIMM = TimmExporter()


def build_train_options(source: NetworkSource, options: ExportOptions) -> dict[str, Any]:
    """Returns the options of timm's train.py by dest name: the model, and LITv2's recipe scaled to the batch size."""
    manifest, record = source.manifest, source.record
    assert manifest is not None
    assert record is not None
    batch_size, epochs = options.batch_size, options.epochs
    scale = batch_size / 512
    return {
        "device_modules": ["hilo_nas.models"],
        "model": "litv2",
        "model_kwargs": source.arch.to_dict(),
        "num_classes": source.num_classes,
        "img_size": source.preprocessing.img_size,
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
        "drop_path": _drop_path(count_params(source.arch) / 1e6),
        "aa": _RAND_AUGMENT,
        "color_jitter": 0.4,
        "reprob": 0.25,
        "remode": "pixel",
        "mixup": 0.8,
        "cutmix": 1.0,
        "smoothing": 0.1,
        "hflip": 0.5 if manifest.plan.hflip else 0.0,
        "train_interpolation": source.preprocessing.interpolation,
        "interpolation": source.preprocessing.interpolation,
        "crop_pct": source.preprocessing.crop_pct,
        "amp": True,
        "amp_dtype": "bfloat16",
        "experiment": f"{slug(manifest.name)}-{record.number}-{record.key}",
    }


def _build_config(train: dict[str, Any], preprocessing: Preprocessing) -> dict[str, Any]:
    """Returns the content of `config.json` for timm's `local-dir:`."""
    side = preprocessing.img_size
    return {
        "architecture": train["model"],
        "num_classes": train["num_classes"],
        "model_args": train["model_kwargs"],
        "pretrained_cfg": {
            "num_classes": train["num_classes"],
            "input_size": [3, side, side],
            "interpolation": preprocessing.interpolation,
            "crop_pct": preprocessing.crop_pct,
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc",
        },
    }


def _environment(measured: Measurement) -> str:
    """Returns the environment variables of the timing process as `NAME=value` lines, and other settings as comments."""
    lines = [
        build_title("Set these variables before Python starts. Otherwise the speed differs from the measured one.")
    ]
    if measured.device.kind == "cpu":
        lines.append(build_title(f"torch.set_num_threads({measured.threads})"))
    variables = dict(measured.environment)
    if "frozen" in measured.form.split():  # a timing freezes the weights without the variable
        variables["TORCHINDUCTOR_FREEZING"] = "1"
    return "".join(lines) + "".join(shell_line(name, str(value)) for name, value in variables.items())


def _drop_path(params_m: float) -> float:
    for (low, low_rate), (high, high_rate) in itertools.pairwise(_DROP_PATH):
        if params_m <= high:
            return round(low_rate + (high_rate - low_rate) * (params_m - low) / (high - low), 3)
    return _DROP_PATH[-1][1]
