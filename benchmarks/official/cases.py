"""Cases of the comparison with the official LITv2 (a network at one batch size), and the forms timed in each case."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.small_networks import SMALL, SMALL_CLASSES, SMALL_PX
from hilo_nas.arch.config import PRESETS, ArchConfig
from hilo_nas.bench.backbones.forms import name_form
from hilo_nas.measurement import Condition
from hilo_nas.timing import Entrant

__all__ = ["OFFICIAL", "OURS", "Case", "TimedForm", "list_cases", "list_forms"]

OFFICIAL, OURS = "official", "ours"
_CODE = "benchmarks.official.official_code"
_PX = 224
_TRAINED_PRESET = "litv2_small"
_TRAINING_BATCH_SIZES = {"cpu": 8}
_TRAINING_BATCH_SIZE = 64
_SMALL_TRAINING_BATCH_SIZE = 128
"""Batch size of a search's short trainings in the space `litv2_cifar`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A network at one batch size: a forward pass, or a training step without the optimizer."""

    network: str
    arch: ArchConfig
    batch_size: int
    is_training: bool = False

    @property
    def is_small(self) -> bool:
        """True for the networks for small images."""
        return self.network in SMALL

    @property
    def img_size(self) -> int:
        """Side of the images in pixels."""
        return SMALL_PX if self.is_small else _PX

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return SMALL_CLASSES if self.is_small else 1000

    @property
    def step(self) -> str:
        """`inference` or `training`."""
        return "training" if self.is_training else "inference"

    def __str__(self) -> str:
        return f"{self.step} of {self.network} at batch {self.batch_size}, {self.img_size} px"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimedForm:
    """Network of one code (official or ours) in one form and precision."""

    code: str
    """`official` or `ours`."""
    condition: Condition

    @property
    def name(self) -> str:
        """Name, unique within a case."""
        return f"{self.code} {name_form(self.condition)} {self.condition.precision}"

    @property
    def compared_with(self) -> str:
        """Name of the form it is compared with: the plain official code, with autocast for half precision."""
        return f"{OFFICIAL} plain {_autocast_of(self.condition.precision)}"

    def entrant(self, case: Case, checkout: Path) -> Entrant:
        """Returns the entry that a worker builds and times."""
        arguments: dict[str, Any] = {"arch": case.arch.to_dict()}
        if self.code == OFFICIAL:
            arguments |= {"checkout": str(checkout), "img_size": case.img_size}
        subject: dict[str, Any] = {"function": f"{_CODE}:build_{self.code}", "arguments": arguments}
        if case.is_training:
            subject = {"training": subject}
        return Entrant(subject=subject, condition=self.condition, num_classes=case.num_classes)


def list_cases(networks: Sequence[str], batch_sizes: Sequence[int], device: str, *, training: bool) -> list[Case]:
    """Returns the presets at each batch size, then training steps of the small networks and the smallest preset."""
    cases = [
        Case(network=name, arch=PRESETS[name], batch_size=batch_size) for name in networks for batch_size in batch_sizes
    ]
    if training:
        cases += [
            Case(network=name, arch=arch, batch_size=_SMALL_TRAINING_BATCH_SIZE, is_training=True)
            for name, arch in SMALL.items()
        ]
        batch_size = _TRAINING_BATCH_SIZES.get(device.partition(":")[0], _TRAINING_BATCH_SIZE)
        arch = PRESETS[_TRAINED_PRESET]
        cases.append(Case(network=_TRAINED_PRESET, arch=arch, batch_size=batch_size, is_training=True))
    return cases


def list_forms(
    case: Case, precisions: Sequence[str], *, device: str, threads: int | None, compiles: bool
) -> list[TimedForm]:
    """Returns the forms to time in a case, the official network in fp32 first.

    Our network runs plain and fused. In half precision, our weights are in half precision, while the official code
    supports only autocast. Training steps are never fused, and both codes keep fp32 weights in training.
    """

    def build_form(code: str, precision: str, *, fused: bool = False, compiled: bool = False) -> TimedForm:
        is_autocast = code == OFFICIAL or case.is_training
        condition = Condition(
            device=device,
            batch_size=case.batch_size,
            img_size=case.img_size,
            precision=_autocast_of(precision) if is_autocast else precision,
            threads=threads,
            fused=fused,
            compile=compiled,
        )
        return TimedForm(code=code, condition=condition)

    forms = [build_form(OFFICIAL, "fp32")]
    for precision in precisions:
        forms += [build_form(OFFICIAL, precision), build_form(OURS, precision)]
        if not case.is_training:
            forms.append(build_form(OURS, precision, fused=True))
        if compiles:
            forms += [
                build_form(OFFICIAL, precision, compiled=True),
                build_form(OURS, precision, compiled=True, fused=not case.is_training),
            ]
    return list({item.name: item for item in forms}.values())


def _autocast_of(precision: str) -> str:
    """Returns the autocast version of a half precision; other precisions unchanged."""
    return f"amp-{precision}" if precision in ("bf16", "fp16") else precision
