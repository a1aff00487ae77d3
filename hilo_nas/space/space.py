"""A search space: knobs, limits, anchors, and the only translator between Optuna's flat integers and architectures."""

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
"""What a space may vary; of head_dim and num_heads exactly one."""


@dataclasses.dataclass(frozen=True)
class Knob:
    """One choice to be made."""

    name: str
    """A name of `KNOBS`."""
    stage: int | None
    """The stage (0 to 3) that it governs, or None for one value for all stages."""
    choices: tuple[Any, ...]
    """Numbers ascend, so that neighbouring integers are neighbouring networks."""

    @property
    def param(self) -> str:
        """Optuna's name for it, for instance `depths_3` for stage 3, or `alpha` where the stages share it."""
        return self.name if self.stage is None else f"{self.name}_{self.stage + 1}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anchor:
    """A known architecture that a search tries first, for comparison."""

    name: str
    arch: ArchConfig
    outside: bool = False
    """Whether the space declares that it cannot spell this network."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The networks that a search may propose."""

    name: str
    knobs: tuple[Knob, ...]
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    anchors: tuple[Anchor, ...] = ()
    defaults: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Sizes and budgets that suit the space where the command line names none (`img_size`, `proxy_images`, ...)."""
    description: str = ""

    @cached_property
    def dimensions(self) -> dict[str, int]:
        """The number of choices of each knob that has more than one, by Optuna's name: its flat integer space."""
        return {knob.param: len(knob.choices) for knob in self.knobs if len(knob.choices) > 1}

    @property
    def n_configs(self) -> int:
        """The number of ways to set the knobs; several may spell the same network."""
        return math.prod(self.dimensions.values())

    def decode(self, params: Mapping[str, int]) -> ArchConfig:
        """Returns the architecture that the flat integers spell.

        Raises:
            UsageError: A parameter is missing, unknown, or outside its range.
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
        """Returns the architecture in which each knob (name, stage) has the value chosen.

        Raises:
            ArchError: The values break a law of `ArchConfig`.
        """
        stages = [stage_values(chosen, i) for i in range(N_STAGES)]
        fields: dict[str, Any] = {name: tuple(stage[name] for stage in stages) for name in PER_STAGE}
        return ArchConfig(patch_size=chosen["patch_size", None], **fields)

    def encode(self, arch: ArchConfig) -> dict[str, int]:
        """Returns flat integers that spell this network (its key, not necessarily its own spelling of dead knobs).

        Raises:
            UsageError: The space cannot spell it; names the values that it lacks.
        """
        params, faults = {}, []
        for knob in self.knobs:
            fitting = [i for i, choice in enumerate(knob.choices) if _fits(knob, choice, arch)]
            if not fitting:
                wanted = arch.patch_size if knob.name == "patch_size" else _wanted(knob, arch)
                faults.append(f"{knob.param} has {list(knob.choices)}, but the network needs {wanted}")
            elif len(knob.choices) > 1:
                params[knob.param] = fitting[0]
        if not faults and self.decode(params).key() != arch.key():
            faults.append("its values are all there, but not together")
        if faults:
            raise UsageError("the space cannot spell this network: " + "; ".join(faults))
        return params

    def sample(self, random: Random) -> dict[str, int]:
        """Returns flat integers drawn evenly."""
        return {param: random.randrange(n) for param, n in self.dimensions.items()}

    def neighbours(self, params: Mapping[str, int]) -> Iterator[dict[str, int]]:
        """Yields the settings one step away: one knob moved to the next choice up or down."""
        for param, n in self.dimensions.items():
            for index in (params[param] - 1, params[param] + 1):
                if 0 <= index < n:
                    yield {**params, param: index}

    def to_dict(self) -> dict[str, Any]:
        """Returns the space as its YAML would say it; reading that gives an equal space."""
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
        """Returns a stable hash of knobs, limits and anchors: equal hashes are the same search."""
        content = {name: part for name, part in self.to_dict().items() if name not in ("description", "defaults")}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def find_params(space: SearchSpace, arch: ArchConfig) -> dict[str, int] | None:
    """Returns the parameters of a network; None where the space cannot spell it."""
    try:
        return space.encode(arch)
    except UsageError:
        return None


def stage_values(chosen: Mapping[tuple[str, int | None], Any], stage: int) -> dict[str, Any]:
    """Returns one stage's value of each knob of `PER_STAGE`; shared widths double from stage to stage."""

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
    """Whether the choice gives the network what it needs in every stage that feels the knob."""
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


def _wanted(knob: Knob, arch: ArchConfig) -> Any:
    if knob.name == "head_dim":
        values = [arch.embed_dims[i] // arch.num_heads[i] for i in _stages(knob)]
    else:
        values = [getattr(arch, knob.name)[i] for i in _stages(knob)]
    return values[0] if len(set(values)) == 1 else values
