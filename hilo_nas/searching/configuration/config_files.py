"""Configurations in files and on the command line: YAML, manifests of studies, and single settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from hilo_nas.errors import NotFoundError, StorageError, UsageError
from hilo_nas.files.plain_files import read_text
from hilo_nas.files.safe_yaml import MOST_BYTES, compose_yaml, parse_yaml
from hilo_nas.searching.configuration.search_config import LISTS, SearchConfig, nest_settings

__all__ = ["load_config", "merge_fields", "parse_setting", "read_fields", "render_config"]


def load_config(
    base: SearchConfig | Mapping[str, Any] | str | Path | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
) -> SearchConfig:
    """Returns a configuration from a base, single settings and keyword values. Later ones take precedence.

    Args:
        base: A configuration, nested settings such as `{"timing": {"device": "cpu"}}`, a YAML file, or the
            `manifest.yaml` of a study. A manifest gives the settings of its study.
        settings: Values by name, such as `{"timing.device": "cpu"}`, or texts of the form `SECTION.FIELD=VALUE`.
        given: Values by the name of the setting, like `settings`. None means left out.

    Raises:
        NotFoundError: The file does not exist.
        UsageError: A setting is unknown or has an invalid value. The message names the file if the setting is in it.
        RecordError: The file is an invalid manifest.
    """
    layers: list[Mapping[str, Any]] = []
    if isinstance(base, str | Path):
        layers.append(_read_file(Path(base)))
    elif isinstance(base, Mapping):
        layers.append(SearchConfig.from_dict(base).to_dict())
    elif isinstance(base, SearchConfig):
        layers.append(base.to_dict())
    elif base is not None:
        raise UsageError(f"a configuration must be a SearchConfig, a mapping or a file, but got {base!r:.80}")
    if isinstance(settings, Mapping):
        layers.append(nest_settings(settings, keep_none=True))
    else:
        layers.append(_join(parse_setting(text) for text in settings))
    return SearchConfig.from_dict(merge_fields(*layers, nest_settings(given or {})))


def _read_file(path: Path) -> dict[str, Any]:
    """Returns the settings in a file. For a manifest, these are the settings of its study."""
    fields = read_fields(path)
    if "schema_version" in fields:
        from hilo_nas.searching.configuration.resolve import config_of
        from hilo_nas.study.stored_study import StoredStudy

        return config_of(StoredStudy(path.parent).manifest).to_dict()
    try:
        return SearchConfig.from_dict(fields).to_dict()
    except UsageError as error:
        raise UsageError("\n".join(f"{path}: {line}" for line in str(error).split("\n"))) from error


def render_config(config: SearchConfig) -> str:
    """Returns a configuration as YAML with a comment per field. Fields without a value are commented out."""
    lines = [f"space: {_scalar(config.space)}"]
    for section in dataclasses.fields(config):
        own = getattr(config, section.name)
        if not dataclasses.is_dataclass(own):
            continue
        lines += ["", f"{section.name}:"]
        for field in dataclasses.fields(own):
            value = getattr(own, field.name)
            text = "" if value in (None, ()) else f" {_scalar(value)}"
            lines.append(f"  {'' if text else '# '}{field.name}:{text}  # {field.metadata['comment']}")
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    """Returns a value as YAML on one line."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).strip().removesuffix("...").strip()


def merge_fields(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested settings merged from several layers. Later layers override earlier ones.

    `{"timing": {"device": "cpu"}}` and `{"timing": {"threads": 2}}` give a section `timing` with both fields.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            earlier = merged.get(name)
            merged[name] = {**earlier, **value} if isinstance(earlier, dict) and isinstance(value, Mapping) else value
    return merged


def _join(settings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns nested settings, one per item, merged into one mapping. Repeated list settings are concatenated."""
    joined: dict[str, Any] = {}
    for fields in settings:
        for section, values in fields.items():
            earlier = joined.get(section)
            if isinstance(earlier, dict) and isinstance(values, Mapping):
                for field, value in values.items():
                    extends = field in LISTS and field in earlier
                    earlier[field] = [*_as_list(earlier[field]), *_as_list(value)] if extends else value
            else:
                joined[section] = dict(values) if isinstance(values, Mapping) else values
    return joined


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def parse_setting(text: str) -> dict[str, Any]:
    """Returns one setting as a nested mapping: `timing.compile=true` gives `{"timing": {"compile": True}}`.

    Only `space=VALUE` has no section.

    The value of a text field is not parsed, because YAML reads `#336699` as a comment and `[0-9]+` as a list. Other
    values are YAML.

    Raises:
        UsageError: The text is not `SECTION.FIELD=VALUE` or `space=VALUE`.
    """
    name, equals, value = text.partition("=")
    section, dot, field = name.strip().partition(".")
    if not equals or (not dot and section != "space"):
        raise UsageError(f"a setting must be SECTION.FIELD=VALUE such as timing.compile=true, but got {text!r}")
    try:
        read = (value.strip() or None) if _is_text(section, field) else parse_yaml(value)
    except yaml.YAMLError as error:
        raise UsageError(f"{name} must be a YAML value, but got {value!r} ({' '.join(str(error).split())})") from error
    return {section: {field: read}} if dot else {section: read}


def _is_text(section: str, field: str) -> bool:
    kind = type(getattr(SearchConfig(), section, None))
    return dataclasses.is_dataclass(kind) and get_type_hints(kind).get(field) == str | None


def read_fields(path: Path) -> dict[str, Any]:
    """Returns the nested settings in a YAML file, such as `{"timing": {"device": "cpu"}}`.

    Raises:
        NotFoundError: The file does not exist.
        UsageError: The file is not a YAML mapping, or repeats a key.
        StorageError: The file cannot be read.
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
        raise UsageError("\n".join(f"{path}: {name} must appear once, but appears twice" for name in twice))
    return content


def _repeated(node: yaml.Node | None, above: str = "") -> Iterator[str]:
    """Yields each key that occurs twice in the same mapping of a YAML document, such as `timing.device`."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        name = f"{above}{key.value}"
        if name in seen:
            yield name
        seen.add(name)
        yield from _repeated(value, f"{name}.")
