"""Configuration of a search: one typed value, read from YAML, command-line options and Python alike.

What is left out (None) comes from the space's defaults for a new study, and from the study's own configuration for a
stored one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hilo_nas.data.reading import CLASS_LEVELS, ReadOptions, parse_range
from hilo_nas.errors import HiloNasError, NotFoundError, RecordError, StorageError, UsageError
from hilo_nas.measurement import ENVIRONMENTS, PRECISIONS, RUNTIMES, Condition, ProxyPlan, kind_of_device
from hilo_nas.measurement.plain import named_faults, read_field
from hilo_nas.plain_files import read_text
from hilo_nas.proxy.kinds import list_proxies, proxy_named, proxy_names
from hilo_nas.safe_yaml import MOST_BYTES, compose_yaml, parse_yaml

__all__ = [
    "OPTIONS",
    "SAMPLERS",
    "DataConfig",
    "LimitsConfig",
    "ProxyConfig",
    "SearchConfig",
    "StudyConfig",
    "TimingConfig",
    "TrialsConfig",
    "merge_fields",
    "nest_options",
    "parse_setting",
    "read_fields",
]

SAMPLERS = ("gp", "tpe", "nsga2", "random")
_LARGEST_SEED = 2**32 - 1
"""Numpy's generators take no larger one."""


def _field(default: Any, comment: str) -> Any:
    """Returns a field with the comment that `hilo-nas config` prints next to it."""
    return dataclasses.field(default=default, metadata={"comment": comment})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimingConfig:
    """Conditions under which networks are timed."""

    device: str | None = _field(None, "cpu, cuda, cuda:N or mps; the fastest kind that this machine has if left out")
    batch_size: int | None = _field(None, "images per timed call")
    img_size: int | None = _field(None, "side of the timed images in pixels")
    precision: str | None = _field(None, ", ".join(PRECISIONS))
    runtime: str | None = _field(None, ", ".join(RUNTIMES))
    channels_last: bool | None = _field(None, "memory format of torch's images")
    compile: bool | None = _field(None, "time through torch.compile")
    cuda_graph: bool | None = _field(None, "replay a CUDA graph")
    fused: bool | None = _field(None, "time the inference form, as networks are deployed")
    threads: int | None = _field(None, "intra-operation threads of a CPU; torch's own number if left out")
    env: str | None = _field(None, f"environment of the timing process: {' or '.join(ENVIRONMENTS)}")
    also: tuple[str, ...] = _field((), "further conditions with their limits, as batch_size=1,max_latency_ms=20")
    seconds: float | None = _field(None, "seconds per network at most; a shorter time gives wider intervals")
    remeasure: bool = _field(True, "time contended networks again, and the front in shared rounds at the end")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """Limits under the first condition that networks must keep to be trained, on top of the space's own."""

    min_images_per_s: float | None = _field(None, "lowest speed")
    max_latency_ms: float | None = _field(None, "greatest raw 95th percentile of a call")
    max_memory_mib: float | None = _field(None, "greatest peak memory of a call")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyConfig:
    """The proxy that scores networks, and its short trainings."""

    name: str | None = _field(None, f"{', '.join(proxy_names())}, or module:function")
    images: int | None = _field(None, "training images per network at the full budget")
    img_size: int | None = _field(None, "side of the training images in pixels")
    batch_size: int | None = _field(None, "training images per batch")
    precision: str | None = _field(None, "fp32, amp-bf16 or amp-fp16")
    metric: str | None = _field(None, "top1, balanced or likelihood")
    rungs: int | None = _field(None, "scores per training, the full budget included; at each only the best continue")
    reduction_factor: float | None = _field(None, "one of how many networks continues at a rung; 0 for all of them")
    rung_ratio: float | None = _field(None, "images at a rung over those at the rung before")
    confirm: int | None = _field(None, "further seeds that the front is trained with at the end")
    raise_budget: int | None = _field(None, "a larger full budget for a stored study, in training images")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Images that networks are trained and scored on."""

    source: str | None = _field(None, "digits, a folder or archive of class folders, torch/NAME, hfds/NAME, wds/...")
    val_source: str | None = _field(None, "images to score on; a part of the source is held out if left out")
    group_by: str | None = _field(None, "regular expression; images whose paths it matches alike are held out together")
    class_from: str | None = _field(None, f"folders that name a class: {', '.join(CLASS_LEVELS)}")
    background: str | None = _field(None, "colour under transparent images")
    value_range: tuple[float, float] | None = _field(None, "values that become black and white, as 0,4095")
    skip_broken: bool | None = _field(None, "leave broken images out")
    cache_dir: str | None = _field(None, "folder of the decoded images")

    @property
    def cache_path(self) -> Path | None:
        """Folder of the decoded images; None for the usual one."""
        return None if self.cache_dir is None else Path(self.cache_dir)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialsConfig:
    """Networks that are tried, and for how long."""

    sampler: str | None = _field(None, ", ".join(SAMPLERS))
    seed: int | None = _field(None, "seed of the search and of the trainings")
    trials: int | None = _field(None, "networks to measure, on top of those that the study has")
    until_trials: int | None = _field(None, "networks to measure in all")
    timeout_s: float | None = _field(None, "seconds after which no further trial begins")
    baselines: tuple[str, ...] = _field((), "timm's networks to compare with, as resnet18,efficientvit_b2")
    networks: tuple[str, ...] = _field((), "networks to time without a proxy: presets, STUDY:TRIAL, a.yaml")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Where results are stored and copied from."""

    name: str | None = _field(None, "name or folder of the study")
    studies_dir: str | None = _field(None, "folder of all studies")
    speeds: str | None = _field(None, "study whose timings are copied; nothing is timed here")
    reuse: str | None = _field(None, "study whose scores and comparable timings are copied")
    checkpoint_mib: float = _field(2048.0, "disk space for checkpoints; 0 keeps none")
    idle_timeout_s: float = _field(600.0, "seconds of silence after which a worker counts as hung")

    @property
    def studies_path(self) -> Path | None:
        """Folder of all studies; None for the usual one."""
        return None if self.studies_dir is None else Path(self.studies_dir)


_SECTIONS: Mapping[str, type[Any]] = {
    "timing": TimingConfig,
    "limits": LimitsConfig,
    "proxy": ProxyConfig,
    "data": DataConfig,
    "search": TrialsConfig,
    "study": StudyConfig,
}
_OTHER_NAMES = {
    ("timing", "seconds"): "timing_s",
    ("proxy", "name"): "proxy",
    ("proxy", "images"): "proxy_images",
    ("proxy", "img_size"): "proxy_img_size",
    ("proxy", "batch_size"): "proxy_batch_size",
    ("proxy", "precision"): "proxy_precision",
    ("proxy", "reduction_factor"): "eta",
    ("data", "source"): "data",
    ("data", "val_source"): "val_data",
    ("search", "baselines"): "peers",
    ("study", "name"): "study",
}
OPTIONS: Mapping[str, tuple[str, str]] = {
    _OTHER_NAMES.get((section, field.name), field.name): (section, field.name)
    for section, kind in _SECTIONS.items()
    for field in dataclasses.fields(kind)
}
"""Section and field of each option, by the name that it has on its own: `proxy_images` is `images` of `proxy`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """All settings of a search.

    Raises:
        UsageError: A value cannot be what it is; names all.
    """

    space: str | None = None
    """A shipped space's name or a YAML file."""
    timing: TimingConfig = dataclasses.field(default_factory=TimingConfig)
    limits: LimitsConfig = dataclasses.field(default_factory=LimitsConfig)
    proxy: ProxyConfig = dataclasses.field(default_factory=ProxyConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    search: TrialsConfig = dataclasses.field(default_factory=TrialsConfig)
    study: StudyConfig = dataclasses.field(default_factory=StudyConfig)

    def __post_init__(self) -> None:
        peers = tuple(p if ":" in p or not p else f"timm:{p}" for p in self.search.baselines)
        object.__setattr__(self, "search", dataclasses.replace(self.search, baselines=peers))
        if faults := [*_faults_of(self)]:
            raise UsageError("\n".join(faults))

    @classmethod
    def of(cls, *, space: str | None = None, **options: Any) -> SearchConfig:
        """Returns the configuration of some options by their names in `OPTIONS`; None means left out.

        Raises:
            UsageError: An option is not known, or cannot be what it is.
        """
        return cls.from_dict(nest_options(space=space, **options))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SearchConfig:
        """Returns the configuration that plain data describes: sections of fields, each of which may be left out.

        Raises:
            UsageError: A section or a field is not known, or has a value of another type; names all.
        """
        faults, values = [], {}
        for name, value in fields.items():
            if name == "space":
                values[name] = value
            elif name not in _SECTIONS:
                faults.append(_unknown(name, [*_SECTIONS, "space"]))
            elif value is None:
                continue  # all of its fields are comments
            elif not isinstance(value, Mapping):
                faults.append(f"{name} must be a section of fields, but got {value!r:.80}")
            else:
                own = {field.name for field in dataclasses.fields(_SECTIONS[name])}
                known = [f"{name}.{field}" for field in own]
                faults += [_unknown(f"{name}.{key}", known) for key in value if key not in own]
                try:
                    kept = {key: _spread(key, item) for key, item in value.items() if key in own and item is not None}
                    values[name] = read_field(kept, _SECTIONS[name])
                except RecordError as error:
                    faults += named_faults(name, error)
        if not isinstance(values.get("space"), str | None):
            faults.append(f"space must be text, but got {values['space']!r:.80}")
        if faults:
            raise UsageError("\n".join(faults))
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data without what is left out, fit for YAML; `from_dict` builds an equal value."""
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

    def option(self, name: str) -> Any:
        """Returns the value of an option by its name in `OPTIONS`."""
        section, field = OPTIONS[name]
        return getattr(getattr(self, section), field)

    def with_options(self, **options: Any) -> SearchConfig:
        """Returns the configuration with other values of some options."""
        changed = self
        for name, value in options.items():
            section, field = OPTIONS[name]
            own = dataclasses.replace(getattr(changed, section), **{field: value})
            changed = dataclasses.replace(changed, **{section: own})
        return changed


def _spread(field: str, value: Any) -> Any:
    """Returns a value as its field holds it: one text may stand for a list."""
    if not isinstance(value, str):
        return value
    if field == "also":
        return (value,)
    if field in ("baselines", "networks"):
        return tuple(part.strip() for part in value.split(","))
    return parse_range(value) if field == "value_range" else value


def nest_options(*, space: str | None = None, **options: Any) -> dict[str, Any]:
    """Returns options as sections of fields, those that are None or empty left out.

    Raises:
        UsageError: An option is not known.
    """
    fields: dict[str, Any] = {} if space is None else {"space": space}
    if unknown := [_unknown(name, list(OPTIONS)) for name in options if name not in OPTIONS]:
        raise UsageError("\n".join(unknown))
    for name, value in options.items():
        if value is not None and value != ():
            section, field = OPTIONS[name]
            fields.setdefault(section, {})[field] = str(value) if isinstance(value, Path) else value
    return fields


def merge_fields(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Returns sections of fields, the later layers over the earlier ones."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            below = merged.get(name)
            merged[name] = {**below, **value} if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def parse_setting(text: str) -> dict[str, Any]:
    """Returns the field that `SECTION.FIELD=VALUE` sets; the value is YAML.

    Raises:
        UsageError: The text is of no such form.
    """
    name, equals, value = text.partition("=")
    section, dot, field = name.strip().partition(".")
    if not equals or (not dot and section != "space"):
        raise UsageError(f"a setting must be SECTION.FIELD=VALUE such as timing.compile=true, but got {text!r}")
    try:
        read = parse_yaml(value)
    except yaml.YAMLError as error:
        raise UsageError(f"{name} must be a YAML value, but got {value!r} ({' '.join(str(error).split())})") from error
    return {section: {field: read}} if dot else {section: read}


def read_fields(path: Path) -> dict[str, Any]:
    """Returns the sections of fields in a configuration's YAML file.

    Raises:
        NotFoundError: There is no such file.
        UsageError: It is no YAML mapping.
        StorageError: It cannot be read.
    """
    if path.is_dir():
        raise UsageError(f"a configuration must be a file, but {path} is a folder")
    try:
        text = read_text(path, MOST_BYTES)
        content = {} if (node := compose_yaml(text)) is None else parse_yaml(text)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no configuration {path}") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold sections of fields, but holds {content!r:.80}")
    if twice := [*_repeated(node)]:
        raise UsageError("\n".join(f"{path}: {name} stands there twice" for name in twice))
    return content


def _repeated(node: yaml.Node | None, above: str = "") -> Iterator[str]:
    """Yields the keys that a document's mappings repeat."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        name = f"{above}{key.value}"
        if name in seen:
            yield name
        seen.add(name)
        yield from _repeated(value, f"{name}.")


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(known))}."
    return f"{name} is no known setting. {hint}"


def _faults_of(config: SearchConfig) -> Iterator[str]:
    """Yields what no study can have: a stored study compares values with its own, and these are no difference."""
    for name, least in _LEAST.items():
        if (count := config.option(name)) is not None and count < least:
            yield f"{name} must be at least {least}, but got {count}"
    eta, ratio, search = config.proxy.reduction_factor, config.proxy.rung_ratio, config.search
    if eta is not None and not (eta == 0 or 1 < eta < math.inf):
        yield f"eta must be a number above 1, or 0 to train all networks fully, but got {eta:g}"
    if ratio is not None and not 1 < ratio < math.inf:
        yield f"rung_ratio must be a number above 1, but got {ratio:g}"
    if not config.study.checkpoint_mib >= 0:
        yield f"checkpoint_mib must be at least 0, but got {config.study.checkpoint_mib:g}"
    for name in ("min_images_per_s", "max_latency_ms", "max_memory_mib", "timing_s"):
        if (limit := config.option(name)) is not None and not 0 < limit < math.inf:
            yield f"{name.replace('timing_s', 'seconds')} must be a number above 0, but got {limit:g}"
    for peer in search.baselines:
        if not peer.startswith("timm:") or peer == "timm:":
            yield f"a peer must be a name that timm knows, as NAME or timm:NAME, but got {peer!r}"
    for name in ("timeout_s", "idle_timeout_s"):
        if (seconds := config.option(name)) is not None and not seconds > 0:
            yield f"{name.removesuffix('_s')} must be more than 0 seconds, but got {seconds:g}"
    if search.trials is not None and search.until_trials is not None:
        yield "give either trials (more) or until_trials (a total), not both"
    if config.data.group_by is not None and config.data.val_source is not None:
        yield "give either group_by or val_data, not both: with validation data nothing is split"
    if search.sampler is not None and search.sampler not in SAMPLERS:
        yield f"sampler must be one of {', '.join(SAMPLERS)}, but got {search.sampler!r}"
    if search.seed is not None and not 0 <= search.seed <= _LARGEST_SEED:
        yield f"seed must lie between 0 and {_LARGEST_SEED}, but got {search.seed}"
    for check in (_check_reading, _check_condition, _check_proxy, _check_metric, _check_plan):
        try:
            check(config)
        except HiloNasError as error:
            yield str(error)


_LEAST = {
    **dict.fromkeys(("trials", "until_trials", "batch_size", "img_size", "threads"), 1),
    **dict.fromkeys(("proxy_img_size", "proxy_batch_size", "proxy_images", "rungs", "raise_budget"), 1),
    "confirm": 0,
}
"""Options that are counts, with the least value of each."""


def _check_reading(config: SearchConfig) -> None:
    names = [field.name for field in dataclasses.fields(ReadOptions)]
    ReadOptions.from_dict({name: value for name in names if (value := config.option(name)) is not None})


def _check_condition(config: SearchConfig) -> None:
    if config.timing.device is not None:
        kind_of_device(config.timing.device)
    names = ("precision", "runtime", "env")
    Condition(**{name: value for name in names if (value := config.option(name)) is not None})


def _check_proxy(config: SearchConfig) -> None:
    if config.proxy.name is not None:
        proxy_named(config.proxy.name)


def _check_metric(config: SearchConfig) -> None:
    metric = config.proxy.metric
    known = [metric.name for proxy in list_proxies() if "metric" in proxy.options for metric in proxy.metrics]
    if metric is not None and metric not in known:
        raise UsageError(f"metric must be one of {', '.join(known)}, but got {metric!r}")


def _check_plan(config: SearchConfig) -> None:
    given: dict[str, Any] = {"precision": config.proxy.precision, "group_by": config.data.group_by}
    ProxyPlan(img_size=1, batch_size=1, images=1, **{name: value for name, value in given.items() if value is not None})
