"""Configuration of a search: one typed value, read from YAML, command-line flags and Python.

A setting is named `SECTION.FIELD` in YAML, in `--set` and in messages. Settings that are left out (None) come from the
defaults of the space for a new study, and from the stored configuration for an existing one.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hilo_nas.data.reading import CLASS_LEVELS, parse_range
from hilo_nas.errors import RecordError, UsageError
from hilo_nas.measurement import ENVIRONMENTS, PRECISIONS, RUNTIMES
from hilo_nas.measurement.condition_options import BEST_RUNTIME
from hilo_nas.measurement.fields import named_faults, read_field
from hilo_nas.proxy.kinds import proxy_names
from hilo_nas.searching.configuration.config_checks import EVALUATORS, SAMPLERS, list_faults
from hilo_nas.searching.configuration.default_baselines import DEFAULT
from hilo_nas.text.durations import parse_duration

__all__ = [
    "LISTS",
    "SAMPLERS",
    "SHORT_NAMES",
    "DataConfig",
    "EvaluatorConfig",
    "LimitsConfig",
    "ProxyConfig",
    "SearchConfig",
    "StudyConfig",
    "TimingConfig",
    "TrialsConfig",
    "nest_settings",
]


def _field(default: Any, comment: str, *, short: str | None = None, metavar: str | None = None) -> Any:
    """Returns a dataclass field with a comment, which YAML files and the help texts of flags show.

    Args:
        default: Default value; None if the space or the stored study provides it.
        comment: Meaning of the value.
        short: Name of the flag and the keyword argument, if it differs from the name of the field.
        metavar: Placeholder for the value in the help text of the flag.
    """
    return dataclasses.field(default=default, metadata={"comment": comment, "short": short, "metavar": metavar})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimingConfig:
    """Device and condition of the timings."""

    device: str | None = _field(
        None,
        "cpu, cuda, cuda:N or mps; for a search also equal ones, as cuda:0,cuda:1 or cuda:all; the fastest kind of "
        "this machine if left out",
    )
    batch_size: int | None = _field(None, "images per timed call")
    img_size: int | None = _field(None, "side of the timed images in pixels")
    precision: str | None = _field(None, f"number format: {', '.join(PRECISIONS)}")
    runtime: str | None = _field(
        None, f"runtime of the networks: {', '.join(RUNTIMES)}; {BEST_RUNTIME} (the fastest) for measure only"
    )
    channels_last: bool | None = _field(None, "use the channels_last memory format of torch")
    compile: bool | None = _field(None, "use torch.compile")
    cuda_graph: bool | None = _field(None, "replay a CUDA graph")
    fused: bool | None = _field(None, "time the inference form, as networks are deployed")
    threads: int | None = _field(None, "intra-op threads of the CPU; torch's default if left out")
    env: str | None = _field(None, f"environment of the timing process: {' or '.join(ENVIRONMENTS)}")
    also: tuple[str, ...] = _field(
        (),
        "further conditions with their limits, as ['batch_size=1,max_latency_ms=20'], or on another device, as "
        "['device=cpu']",
    )
    seconds: float | None = _field(None, "maximum seconds per network; less time gives wider intervals")
    remeasure: bool = _field(True, "time contended networks again, and the front in shared rounds at the end")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """Limits under the first condition. Only networks that meet them and the limits of the space are trained."""

    min_images_per_s: float | None = _field(None, "minimum speed in images/s")
    max_latency_ms: float | None = _field(None, "maximum raw 95th percentile of the time per call in milliseconds")
    max_memory_mib: float | None = _field(None, "maximum peak memory of a call in MiB")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyConfig:
    """Proxy that scores networks, with the settings of its short trainings and rungs."""

    name: str | None = _field(
        None,
        f"proxy that scores networks: {', '.join(proxy_names())}, or module:function",
        short="proxy",
        metavar="PROXY",
    )
    images: int | None = _field(None, "training images per network at the full budget", short="proxy_images")
    img_size: int | None = _field(None, "side of the training images in pixels", short="proxy_img_size")
    batch_size: int | None = _field(None, "training images per batch", short="proxy_batch_size")
    precision: str | None = _field(
        None, "number format of the trainings: fp32, amp-bf16 or amp-fp16", short="proxy_precision"
    )
    metric: str | None = _field(None, "metric of the scores: top1, balanced or likelihood")
    rungs: int | None = _field(None, "scores per training, including the full budget; only the best networks continue")
    reduction_factor: float | None = _field(None, "one of this many networks continues at a rung; 0 trains all fully")
    rung_ratio: float | None = _field(None, "training images at a rung divided by those at the previous rung")
    confirm: int | None = _field(None, "number of additional seeds to train the front with at the end")
    raise_budget: int | None = _field(None, "new, larger full budget of a stored study, in training images")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Images to train and score on."""

    source: str | None = _field(
        None,
        "images: digits, a folder or archive of class folders, torch/NAME, hfds/NAME, wds/... or module:function",
        short="data",
        metavar="DATA",
    )
    val_source: str | None = _field(None, "validation images; a part of the source is held out if left out")
    group_by: str | None = _field(None, "regular expression on paths; images with equal matches stay in the same split")
    class_from: str | None = _field(None, f"folder level that names the class: {', '.join(CLASS_LEVELS)}")
    background: str | None = _field(None, "background colour of transparent images")
    value_range: tuple[float, float] | None = _field(None, "pixel values of black and white, as 0,4095")
    skip_broken: bool | None = _field(None, "skip images that cannot be decoded")
    cache_dir: str | None = _field(None, "folder of the image cache")
    max_cache_gib: float | None = _field(None, "maximum disk space of the image cache in GiB; no limit if left out")

    @property
    def cache_path(self) -> Path | None:
        """Folder of the image cache; None for the default."""
        return None if self.cache_dir is None else Path(self.cache_dir)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialsConfig:
    """Number of networks to try, sampler, seed and time limit."""

    sampler: str | None = _field(None, f"sampler that proposes networks: {', '.join(SAMPLERS)}")
    seed: int | None = _field(None, "seed of the search and of the trainings")
    trials: int | None = _field(None, "number of networks to measure, in addition to those in the study")
    until_trials: int | None = _field(None, "total number of networks to measure")
    min_gain: float | None = _field(
        None, "stop if ten more networks are expected to add less than this share of the hypervolume, such as 0.01"
    )
    timeout_s: float | None = _field(
        None, "time after which no new trial begins, in seconds or as 30m or 1h30m", metavar="TIME"
    )
    baselines: tuple[str, ...] = _field(
        (), "timm networks to compare with, as [resnet18, efficientvit_b2]; default names some for the image size"
    )
    networks: tuple[str, ...] = _field((), "networks to time without a proxy, as [litv2_small, my-gpu:17, arch.yaml]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Location of the results, and studies to copy from."""

    name: str | None = _field(None, "name or folder of the study", short="study", metavar="NAME")
    speeds: str | None = _field(None, "study to copy timings from; networks are not timed here")
    reuse: str | None = _field(None, "study to copy scores and comparable timings from")
    report: str | None = _field(None, "HTML file with a report, which the search rewrites as it goes")
    track: str | None = _field(None, "experiment tracker that receives a copy of each trial: mlflow or wandb")
    checkpoint_mib: float = _field(2048.0, "maximum disk space of checkpoints in MiB; 0 keeps none")
    idle_timeout_s: float = _field(600.0, "time without output after which a worker is stopped, in seconds or as 10m")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluatorConfig:
    """Machines that time and train. A study does not store these settings."""

    kind: str | None = _field(
        None, f"who does the work: {' or '.join(EVALUATORS)} (a cluster); this machine if left out", short="evaluator"
    )
    address: str | None = _field(None, "Ray cluster: HOST:PORT, or auto (running on this machine, the default)")
    time_on: str | None = _field(None, "Ray resource of the nodes that time; all nodes if left out")
    train_on: str | None = _field(None, "Ray resource of the nodes that train; those that time if left out")


_SECTIONS: Mapping[str, type[Any]] = {
    "timing": TimingConfig,
    "limits": LimitsConfig,
    "proxy": ProxyConfig,
    "data": DataConfig,
    "search": TrialsConfig,
    "study": StudyConfig,
    "evaluator": EvaluatorConfig,
}
SHORT_NAMES: Mapping[str, str] = {
    field.metadata["short"] or field.name: f"{section}.{field.name}"
    for section, kind in _SECTIONS.items()
    for field in dataclasses.fields(kind)
}
"""Settings by the short names of flags and keyword arguments, such as `proxy_img_size` for `proxy.img_size`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """All settings of a search.

    Raises:
        UsageError: A value is invalid. The message lists all faults.
    """

    space: str | None = None
    """Name of a shipped space, or path of a YAML file."""
    timing: TimingConfig = dataclasses.field(default_factory=TimingConfig)
    limits: LimitsConfig = dataclasses.field(default_factory=LimitsConfig)
    proxy: ProxyConfig = dataclasses.field(default_factory=ProxyConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    search: TrialsConfig = dataclasses.field(default_factory=TrialsConfig)
    study: StudyConfig = dataclasses.field(default_factory=StudyConfig)
    evaluator: EvaluatorConfig = dataclasses.field(default_factory=EvaluatorConfig)

    def __post_init__(self) -> None:
        baselines = tuple(
            name if ":" in name or name in ("", DEFAULT) else f"timm:{name}" for name in self.search.baselines
        )
        object.__setattr__(self, "search", dataclasses.replace(self.search, baselines=baselines))
        if faults := list_faults(self):
            raise UsageError("\n".join(faults))

    @classmethod
    def of(cls, *, space: str | None = None, **settings: Any) -> SearchConfig:
        """Returns the configuration for settings given by their short names (`SHORT_NAMES`). None means left out.

        For example, `SearchConfig.of(proxy_img_size=32)` sets `proxy.img_size`.

        Raises:
            UsageError: A setting is unknown or has an invalid value.
        """
        if unknown := [_unknown(name, list(SHORT_NAMES)) for name in settings if name not in SHORT_NAMES]:
            raise UsageError("\n".join(unknown))
        return cls.from_dict(nest_settings({"space": space, **{SHORT_NAMES[n]: v for n, v in settings.items()}}))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SearchConfig:
        """Returns the configuration for nested settings, such as `{"timing": {"device": "cpu"}}`.

        Each section and each field may be left out.

        Raises:
            UsageError: A section or a field is unknown, or a value has the wrong type. The message lists all faults.
        """
        faults, values = [], {}
        for name, value in fields.items():
            if name == "space":
                values[name] = value
            elif name not in _SECTIONS:
                faults.append(_unknown(name, [*_SECTIONS, "space"]))
            elif value is None:
                continue  # a section whose fields are all commented out
            elif not isinstance(value, Mapping):
                faults.append(f"{name} must be a section of fields, but got {value!r:.80}")
            else:
                own = {field.name for field in dataclasses.fields(_SECTIONS[name])}
                known = [f"{name}.{field}" for field in own]
                faults += [_unknown(f"{name}.{key}", known) for key in value if key not in own]
                kept = {key: item for key, item in value.items() if key in own and item is not None}
                for key in [*kept]:
                    try:
                        kept[key] = _coerce_text(key, kept[key])
                    except UsageError as error:
                        faults.append(f"{name}.{key}: {error}")
                        del kept[key]
                try:
                    values[name] = read_field(kept, _SECTIONS[name])
                except RecordError as error:
                    faults += named_faults(name, error)
        if not isinstance(values.get("space"), str | None):
            faults.append(f"space must be text, but got {values['space']!r:.80}")
        if faults:
            raise UsageError("\n".join(faults))
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings that differ from their defaults as plain data.

        `from_dict` restores an equal configuration.
        """
        found: dict[str, Any] = {} if self.space is None else {"space": self.space}
        for section, kind in _SECTIONS.items():
            own = getattr(self, section)
            values = {
                field.name: list(value) if isinstance(value, tuple) else value
                for field in dataclasses.fields(kind)
                if (value := getattr(own, field.name)) != field.default
            }
            if values:
                found[section] = values
        return found

    def value(self, setting: str) -> Any:
        """Returns the value of a setting by its name, such as `timing.device`."""
        section, _, field = setting.partition(".")
        return getattr(getattr(self, section), field)

    def replace(self, settings: Mapping[str, Any]) -> SearchConfig:
        """Returns a copy with new values of some settings, such as `{"timing.device": "cuda"}`."""
        changed: dict[str, Any] = {}
        for name, value in settings.items():
            section, _, field = name.partition(".")
            own = changed.get(section, getattr(self, section))
            changed[section] = dataclasses.replace(own, **{field: value})
        return dataclasses.replace(self, **changed)


LISTS = frozenset(
    field.name for kind in _SECTIONS.values() for field in dataclasses.fields(kind) if field.default == ()
)
"""Names of the fields that hold several values, without their section."""


_NUMBERS = frozenset(
    field.name
    for kind in _SECTIONS.values()
    for field in dataclasses.fields(kind)
    if str(field.type).startswith("float")
)
_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


def nest_settings(settings: Mapping[str, Any], *, keep_none: bool = False) -> dict[str, Any]:
    """Returns settings as nested sections: `{"timing.device": "cpu"}` becomes `{"timing": {"device": "cpu"}}`.

    Names without a dot, such as `space`, stay at the top.

    Args:
        settings: Values by name. Empty tuples are left out, and so is None unless `keep_none`.
        keep_none: True to keep None values, which then override earlier values.
    """
    fields: dict[str, Any] = {}
    for name, value in settings.items():
        if (value is None and not keep_none) or value == ():
            continue
        section, dot, field = name.partition(".")
        plain = str(value) if isinstance(value, Path) else value
        if dot:
            fields.setdefault(section, {})[field] = plain
        else:
            fields[section] = plain
    return fields


def _coerce_text(field: str, value: Any) -> Any:
    """Returns a text value converted to the type of its field: list item, range, duration or number.

    YAML 1.1, which PyYAML implements, reads 1e-3 and 1.5e3 as text, because they lack a decimal point or an exponent
    sign.
    """
    if not isinstance(value, str):
        return value
    if field in LISTS:
        return (value,)
    if field.endswith("timeout_s"):
        return parse_duration(value)
    if field == "value_range":
        return parse_range(value)
    return float(value) if _EXPONENT.fullmatch(value) and field in _NUMBERS else value


def _unknown(name: str, known: list[str]) -> str:
    similar = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"Did you mean {similar[0]}?" if similar else f"Use one of {', '.join(sorted(known))}."
    return f"{name} is not a known setting. {hint}"
