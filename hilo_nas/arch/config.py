"""Architectures: configurations of LITv2 networks, without weights and image size.

The design follows LITv2 (arXiv 2205.13213): four stages, a patch embedding before the first stage, and deformable token
merging between stages. Width, depth and attention can differ per stage. `hilo_nas.models.litv2` builds the module.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hilo_nas.arch.attentions import attention_named, attention_names, find_attention, lofi_heads
from hilo_nas.errors import ArchError, NotFoundError, StorageError, UsageError
from hilo_nas.files.safe_yaml import load_yaml

__all__ = [
    "MOST_BLOCKS",
    "N_STAGES",
    "PER_STAGE",
    "PRESETS",
    "ArchConfig",
    "canonical_stage",
    "describe_arch",
    "load_arch",
]

N_STAGES = 4
PER_STAGE = ("embed_dims", "depths", "num_heads", "attention", "alpha", "window_size", "mlp_ratios")
"""Knobs with one value per stage."""
MOST_BLOCKS = 1000
"""Maximum number of blocks per stage. The deepest LITv2 has 18; build time grows with the number of blocks."""
_MAX_VALUE = 10**7
"""Maximum of every integer of an architecture except depths. torch does not accept tensor sizes far above it."""
_MAX_SHOWN = 80
"""Maximum number of characters of an invalid value in a message."""


_UNUSED_VALUES = {"num_heads": 1, "alpha": 0.0, "window_size": 1}
"""Canonical value of each knob when the attention layer does not use it."""


def _canonical_alpha(num_heads: int, alpha: float, window_size: int) -> float:
    lofi = lofi_heads(num_heads, alpha, window_size)
    if lofi in (0, num_heads):
        return float(lofi > 0)
    # Add half a head, so that a rounding error cannot change int(num_heads * alpha).
    return (lofi + 0.5) / num_heads


def _canonical_mlp_ratio(embed_dim: int, mlp_ratio: float) -> float:
    hidden = int(embed_dim * mlp_ratio)
    return hidden / embed_dim if int(embed_dim * (hidden / embed_dim)) == hidden else (hidden + 0.5) / embed_dim


def canonical_stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the canonical form of a stage.

    Args:
        stage: Value of each knob in `PER_STAGE`.
    """
    uses = attention_named(stage["attention"]).uses
    canonical = {name: stage[name] if name in uses else _UNUSED_VALUES.get(name, stage[name]) for name in PER_STAGE}
    if "alpha" in uses:
        canonical["alpha"] = _canonical_alpha(stage["num_heads"], stage["alpha"], stage["window_size"])
    canonical["mlp_ratios"] = _canonical_mlp_ratio(stage["embed_dims"], stage["mlp_ratios"])
    return canonical


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchConfig:
    """A LITv2 architecture: seven knobs with one value per stage, and the patch size.

    Raises:
        ArchError: A value is invalid. The message lists all invalid values.
    """

    embed_dims: tuple[int, ...]
    """Channels per stage. Any widths are allowed; the original LITv2 doubles them from stage to stage."""
    depths: tuple[int, ...]
    """Blocks per stage, at least 1."""
    num_heads: tuple[int, ...]
    """Attention heads per stage. Must divide the stage's width if the attention layer uses heads."""
    attention: tuple[str, ...] = ("none", "none", "hilo", "hilo")
    """Kind of attention per stage, one of `attention_names()`."""
    alpha: tuple[float, ...] = (0.9, 0.9, 0.9, 0.9)
    """Fraction of HiLo's heads that Lo-Fi gets, in [0, 1]: `int(num_heads * alpha)` heads."""
    window_size: tuple[int, ...] = (2, 2, 2, 1)
    """Side of the HiLo window in tokens of the stage's map; 1 means plain attention. Window side or reduction ratio of
    other kinds."""
    mlp_ratios: tuple[float, ...] = (4.0, 4.0, 4.0, 4.0)
    """Hidden width of the ConvFFN divided by the stage's width."""
    patch_size: int = 4
    """Side of a patch in pixels. The network's total stride is 8 * patch_size."""

    def __post_init__(self) -> None:
        faults = self._normalise()
        if not faults:
            faults = self._faults()
        if faults:
            raise ArchError("\n".join(faults))

    def _normalise(self) -> list[str]:
        """Converts lists to tuples and numbers to the field's type; returns a message per value that fails."""
        faults = []
        for name in PER_STAGE:
            value = getattr(self, name)
            if isinstance(value, str) or not hasattr(value, "__iter__"):
                faults.append(f"{name} must be a list of {N_STAGES} values, one per stage, but got {_shown(value)}")
                continue
            values = list(value)
            if len(values) != N_STAGES:
                faults.append(
                    f"{name} must have {N_STAGES} values, one per stage, but got {len(values)}: {_shown(values)}"
                )
                continue
            want = {"attention": str, "alpha": float, "mlp_ratios": float}.get(name, int)
            for stage, item in enumerate(values):
                if type(item) is want:
                    continue
                values[stage] = _convert(want, item)
                if values[stage] is None:
                    kind = {int: "a whole number", float: "a number", str: "a name"}[want]
                    faults.append(f"stage {stage + 1}: {name} must be {kind}, but got {_shown(item)}")
            object.__setattr__(self, name, tuple(values))
        patch_size = _convert(int, self.patch_size)
        if patch_size is None:
            faults.append(f"patch_size must be a whole number, but got {_shown(self.patch_size)}")
        else:
            object.__setattr__(self, "patch_size", patch_size)
        return faults

    def _faults(self) -> list[str]:
        faults = self._check_maxima()
        if faults:  # the checks below divide and multiply these values
            return faults
        if self.patch_size < 1:
            faults.append(f"patch_size must be at least 1, but got {self.patch_size}")
        for i in range(N_STAGES):
            at = f"stage {i + 1}: "
            width, heads = self.embed_dims[i], self.num_heads[i]
            if width < 1:
                faults.append(f"{at}embed_dims must be at least 1, but got {width}")
            if self.depths[i] < 1:
                faults.append(f"{at}depths must be at least 1, but got {self.depths[i]}")
            if heads < 1:
                faults.append(f"{at}num_heads must be at least 1, but got {heads}")
            kind = find_attention(self.attention[i])
            if kind is None:
                kinds = ", ".join(attention_names())
                faults.append(f"{at}attention must be one of {kinds}, but got {self.attention[i]!r}")
            elif "num_heads" in kind.uses and width > 0 and heads > 0 and width % heads:
                low = [d for d in range(1, math.isqrt(width) + 1) if width % d == 0]
                near = sorted({*low, *(width // d for d in low)}, key=lambda d: (abs(d - heads), d))[:4]
                near.sort()
                faults.append(
                    f"{at}num_heads must divide embed_dims ({width}), but got {heads}. "
                    f"Use one of {', '.join(map(str, near))}."
                )
            if not 0.0 <= self.alpha[i] <= 1.0:
                faults.append(f"{at}alpha must be in [0, 1], but got {self.alpha[i]}")
            if self.window_size[i] < 1:
                faults.append(f"{at}window_size must be at least 1, but got {self.window_size[i]}")
            if not 1 <= max(width, 1) * self.mlp_ratios[i] < math.inf:
                faults.append(f"{at}mlp_ratios must give a hidden width of at least 1, but got {self.mlp_ratios[i]}")
        return faults

    def _check_maxima(self) -> list[str]:
        faults = []
        if self.patch_size > _MAX_VALUE:
            faults.append(f"patch_size must be at most {_MAX_VALUE:,}, but got {_shown(self.patch_size)}")
        for name in ("embed_dims", "depths", "num_heads", "window_size"):
            most = MOST_BLOCKS if name == "depths" else _MAX_VALUE
            faults += [
                f"stage {stage + 1}: {name} must be at most {most:,}, but got {_shown(value)}"
                for stage, value in enumerate(getattr(self, name))
                if value > most
            ]
        return faults

    @property
    def stride(self) -> int:
        """Total stride: pixels per token of the last stage, along one side. Also the minimum side of an image."""
        return self.patch_size << (N_STAGES - 1)

    def canonical(self) -> ArchConfig:
        """Returns the canonical form of the architecture. Equal canonical forms build the same modules.

        Knobs that a layer does not use get a fixed value. All values of alpha with the same number of Lo-Fi heads
        become one value, and so do all MLP ratios with the same hidden width.
        """
        return ArchConfig(**self._canonical_fields())

    def key(self) -> str:
        """Returns a stable hash of the canonical form: 12 hexadecimal digits. Equal keys mean the same network."""
        text = json.dumps(self._canonical_fields(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _canonical_fields(self) -> dict[str, Any]:
        stages = [canonical_stage({name: getattr(self, name)[i] for name in PER_STAGE}) for i in range(N_STAGES)]
        fields: dict[str, Any] = {name: [stage[name] for stage in stages] for name in PER_STAGE}
        return {**fields, "patch_size": self.patch_size}

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain lists and numbers, for JSON, YAML and keyword arguments."""
        fields = {name: list(getattr(self, name)) for name in PER_STAGE}
        return {**fields, "patch_size": self.patch_size}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ArchConfig:
        """Returns the architecture with the fields from `to_dict`.

        Raises:
            ArchError: A field is unknown, missing or invalid.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        faults = [
            f"unknown field {_shown(name)}; the fields are {', '.join(known)}" for name in fields if name not in known
        ]
        faults += [
            f"{name} is missing"
            for name, field in known.items()
            if name not in fields and field.default is dataclasses.MISSING
        ]
        if faults:
            raise ArchError("\n".join(faults))
        return cls(**fields)


def load_arch(path: Path) -> ArchConfig:
    """Returns the architecture in a YAML file, such as the arch.yaml that `hilo-nas export` writes.

    Raises:
        NotFoundError: The file does not exist.
        StorageError: The file cannot be read.
        UsageError: The file is not YAML, or it does not contain an architecture.
    """
    try:
        fields = load_yaml(path)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
    if not isinstance(fields, Mapping):
        raise UsageError(
            f"{path} must hold an architecture (as `hilo-nas export` writes arch.yaml), but got {_shown(fields)}"
        )
    try:
        return ArchConfig.from_dict(fields)
    except ArchError as error:
        lines = "\n".join(f"  {line}" for line in str(error).splitlines())
        raise ArchError(f"{path} holds no architecture:\n{lines}") from error


def _shown(value: Any) -> str:
    """Returns the representation of a value for a message, truncated if long."""
    try:
        text = repr(value)
    except ValueError:  # Python does not convert integers of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _convert(want: type, value: Any) -> Any:
    """Returns the value converted to the type `want`, or None if the conversion would change it."""
    if isinstance(value, bool) or value is None:
        return None
    if want is str:
        return value if isinstance(value, str) else None
    if isinstance(value, str):
        return None
    try:
        converted = want(value)
        return converted if converted == value else None
    except (TypeError, ValueError, OverflowError):
        return None


PRESETS: dict[str, ArchConfig] = {
    "litv2_small": ArchConfig(embed_dims=(96, 192, 384, 768), depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    "litv2_medium": ArchConfig(embed_dims=(96, 192, 384, 768), depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    "litv2_base": ArchConfig(embed_dims=(128, 256, 512, 1024), depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
}
"""LITv2-S, -M and -B of the paper: alpha 0.9, window size 2 in stage 3 and 1 in stage 4."""


def describe_arch(arch: ArchConfig) -> str:
    """Returns a one-line summary: patch size, widths, depths, MLP ratios, and attention per stage."""
    arch = arch.canonical()
    stages = []
    for i, kind in enumerate(arch.attention):
        if kind == "hilo" and arch.window_size[i] == 1:
            stages.append(f"{i + 1}: {arch.num_heads[i]} heads")
        elif kind == "hilo":
            lofi = int(arch.num_heads[i] * arch.alpha[i])
            stages.append(f"{i + 1}: {lofi}/{arch.num_heads[i]} lofi, s={arch.window_size[i]}")
        elif kind != "none":
            uses = attention_named(kind).uses
            knobs = [f"{arch.num_heads[i]} heads"] * ("num_heads" in uses)
            knobs += [f"s={arch.window_size[i]}"] * ("window_size" in uses)
            stages.append(f"{i + 1}: {kind}, {', '.join(knobs)}")
    ratios = _dashed(arch.mlp_ratios if len(set(arch.mlp_ratios)) > 1 else arch.mlp_ratios[:1])
    return f"p{arch.patch_size} {_dashed(arch.embed_dims)} x {_dashed(arch.depths)}, mlp {ratios}" + (
        f" [{'; '.join(stages)}]" if stages else ""
    )


def _dashed(values: Sequence[float]) -> str:
    return "-".join(f"{value:g}" for value in values)
