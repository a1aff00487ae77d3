"""Search space with knobs, limits and anchors. Converts between flat integers for Optuna and architectures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from random import Random
from typing import Any

from hilo_nas.arch.attentions import attention_named, lofi_heads
from hilo_nas.arch.config import N_STAGES, PER_STAGE, ArchConfig
from hilo_nas.errors import UsageError

__all__ = ["KNOBS", "Anchor", "Knob", "SearchSpace", "find_params", "stage_values"]

KNOBS = (
    "patch_size",
    "embed_dims",
    "depths",
    "head_dim",
    "num_heads",
    "attention",
    "alpha",
    "window_size",
    "mlp_ratios",
)
"""Names of all knobs. A space has exactly one of head_dim and num_heads."""


@dataclasses.dataclass(frozen=True)
class Knob:
    """Property of an architecture that a search can vary, with its possible values."""

    name: str
    """One of `KNOBS`."""
    stage: int | None
    """Index of the stage (0 to 3), or None if all stages share the value."""
    choices: tuple[Any, ...]
    """Values to choose from. Numbers are in ascending order, so neighboring indices mean similar networks."""

    @property
    def param(self) -> str:
        """Name of the Optuna parameter, for example `depths_3` for the third stage, or `alpha` for a shared value."""
        return self.name if self.stage is None else f"{self.name}_{self.stage + 1}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anchor:
    """Hand-made architecture that a search tries first, for comparison."""

    name: str
    arch: ArchConfig
    outside: bool = False
    """True if the space file declares that the space does not contain this network."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Set of the networks that a search can propose."""

    name: str
    knobs: tuple[Knob, ...]
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    anchors: tuple[Anchor, ...] = ()
    defaults: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Default sizes and budgets for searches of the space (`img_size`, `proxy_images`, ...)."""
    description: str = ""

    @cached_property
    def dimensions(self) -> dict[str, int]:
        """Number of choices by parameter name, such as `{"depths_3": 4}`. Knobs with a single choice are omitted."""
        return {knob.param: len(knob.choices) for knob in self.knobs if len(knob.choices) > 1}

    @property
    def n_configs(self) -> int:
        """Number of combinations of knob values. Several combinations may describe the same network."""
        return math.prod(self.dimensions.values())

    def decode(self, params: Mapping[str, int]) -> ArchConfig:
        """Returns the architecture of the flat integer parameters.

        Each integer is an index into the choices of a knob: `{"depths_3": 1}` selects the second choice of stage 3.

        Raises:
            UsageError: A parameter is missing, unknown, or out of range.
        """
        if params.keys() != self.dimensions.keys():
            raise UsageError(
                f"the parameters must be {', '.join(self.dimensions)}, but got {', '.join(params) or 'none'}"
            )
        for param, index in params.items():
            if not 0 <= index < self.dimensions[param]:
                raise UsageError(f"{param} must be from 0 to {self.dimensions[param] - 1}, but got {index}")
        chosen = {(knob.name, knob.stage): knob.choices[params.get(knob.param, 0)] for knob in self.knobs}
        return self.build_arch(chosen)

    @staticmethod
    def build_arch(chosen: Mapping[tuple[str, int | None], Any]) -> ArchConfig:
        """Returns the architecture with the given value of each knob.

        Args:
            chosen: Value of each knob, by its name and stage.

        Raises:
            ArchError: The architecture is invalid.
        """
        stages = [stage_values(chosen, i) for i in range(N_STAGES)]
        fields: dict[str, Any] = {name: tuple(stage[name] for stage in stages) for name in PER_STAGE}
        return ArchConfig(patch_size=chosen["patch_size", None], **fields)

    def encode(self, arch: ArchConfig) -> dict[str, int]:
        """Returns flat integer parameters that describe an architecture.

        `decode` turns them into an architecture with an equal key. Only knobs without effect may differ.

        Raises:
            UsageError: The space does not contain the network. The message lists the missing values.
        """
        params, faults = {}, []
        for knob in self.knobs:
            fitting = [i for i, choice in enumerate(knob.choices) if _fits(knob, choice, arch)]
            if not fitting:
                needed = arch.patch_size if knob.name == "patch_size" else _needed_values(knob, arch)
                faults.append(f"{knob.param} has {list(knob.choices)}, but the network needs {needed}")
            elif len(knob.choices) > 1:
                params[knob.param] = fitting[0]
        if not faults and self.decode(params).key() != arch.key():
            faults.append("it has all values of the network, but not in one combination")
        if faults:
            raise UsageError("the space does not contain this network: " + "; ".join(faults))
        return params

    def sample(self, random: Random) -> dict[str, int]:
        """Returns flat integer parameters, each drawn uniformly."""
        return {param: random.randrange(n) for param, n in self.dimensions.items()}

    def neighbours(self, params: Mapping[str, int]) -> Iterator[dict[str, int]]:
        """Yields the parameters in which one knob is moved to its next or previous choice."""
        for param, n in self.dimensions.items():
            for index in (params[param] - 1, params[param] + 1):
                if 0 <= index < n:
                    yield {**params, param: index}

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of a YAML file that describes an equal space."""
        knobs: dict[str, Any] = {}
        for knob in self.knobs:
            if knob.stage is None:
                knobs[knob.name] = list(knob.choices)
            else:
                knobs.setdefault(knob.name, [None] * N_STAGES)[knob.stage] = list(knob.choices)
        anchors = {
            anchor.name: {**anchor.arch.to_dict(), **({"outside": True} if anchor.outside else {})}
            for anchor in self.anchors
        }
        parts = {"description": self.description, **knobs, "limits": dict(self.limits), "anchors": anchors}
        parts["defaults"] = dict(self.defaults)
        return {name: part for name, part in parts.items() if part}

    def hash(self) -> str:
        """Returns a stable hash of knobs, limits and anchors, without description and defaults."""
        content = {name: part for name, part in self.to_dict().items() if name not in ("description", "defaults")}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def find_params(space: SearchSpace, arch: ArchConfig) -> dict[str, int] | None:
    """Returns the parameters of a network, or None if the space does not contain it."""
    try:
        return space.encode(arch)
    except UsageError:
        return None


def stage_values(chosen: Mapping[tuple[str, int | None], Any], stage: int) -> dict[str, Any]:
    """Returns one stage's value of each field in `PER_STAGE`.

    A width that all stages share doubles from stage to stage: 64 gives 64, 128, 256 and 512.
    """

    def value(name: str) -> Any:
        return chosen[name, stage] if (name, stage) in chosen else chosen[name, None]

    width = chosen["embed_dims", stage] if ("embed_dims", stage) in chosen else chosen["embed_dims", None] * 2**stage
    values = {name: value(name) for name in PER_STAGE if name not in ("embed_dims", "num_heads")}
    if "num_heads" not in attention_named(values["attention"]).uses:
        heads = 1
    elif ("head_dim", stage) in chosen or ("head_dim", None) in chosen:
        heads = width // value("head_dim")
    else:
        heads = value("num_heads")
    return {**values, "embed_dims": width, "num_heads": heads}


def _stages(knob: Knob) -> range:
    return range(N_STAGES) if knob.stage is None else range(knob.stage, knob.stage + 1)


def _fits(knob: Knob, choice: Any, arch: ArchConfig) -> bool:
    """Returns True if a choice matches the network in each stage in which the knob has an effect."""
    if knob.name == "patch_size":
        return bool(choice == arch.patch_size)
    if knob.name == "embed_dims" and knob.stage is None:
        return all(arch.embed_dims[i] == choice * 2**i for i in range(N_STAGES))
    return all(_fits_stage(knob.name, choice, arch, i) for i in _stages(knob))


def _fits_stage(name: str, choice: Any, arch: ArchConfig, i: int) -> bool:
    uses = attention_named(arch.attention[i]).uses
    if name == "head_dim":
        return "num_heads" not in uses or arch.num_heads[i] * choice == arch.embed_dims[i]
    if name in ("num_heads", "alpha", "window_size") and name not in uses:
        return True
    if name == "alpha":
        heads, window = arch.num_heads[i], arch.window_size[i]
        return lofi_heads(heads, choice, window) == lofi_heads(heads, arch.alpha[i], window)
    if name == "mlp_ratios":
        return int(arch.embed_dims[i] * choice) == int(arch.embed_dims[i] * arch.mlp_ratios[i])
    return bool(choice == getattr(arch, name)[i])


def _needed_values(knob: Knob, arch: ArchConfig) -> Any:
    if knob.name == "head_dim":
        values = [arch.embed_dims[i] // arch.num_heads[i] for i in _stages(knob)]
    else:
        values = [getattr(arch, knob.name)[i] for i in _stages(knob)]
    return values[0] if len(set(values)) == 1 else values
