"""Reader of search spaces from YAML. It reports all faults of a file at once, each with its line and a fix."""

from __future__ import annotations

import difflib
import itertools
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from hilo_nas.arch.attentions import attention_named, attention_names, find_attention
from hilo_nas.arch.config import MOST_BLOCKS, N_STAGES, PRESETS, ArchConfig
from hilo_nas.errors import ArchError, FileFaultsError, NotFoundError, UsageError
from hilo_nas.files.plain_files import read_text
from hilo_nas.files.safe_yaml import MOST_BYTES, compose_yaml, parse_yaml
from hilo_nas.space.limits import LIMITS
from hilo_nas.space.space import KNOBS, Anchor, Knob, SearchSpace

__all__ = ["DEFAULTS", "build_space", "find_space", "list_shipped", "load_space"]

DEFAULTS = ("img_size", "batch_size", "proxy_img_size", "proxy_batch_size", "proxy_images", "num_classes", "trials")
"""Settings of a search for which a space can provide a default."""

_OPTIONAL = {"alpha": (0.9,), "mlp_ratios": (4.0,), "patch_size": (4,)}
_SHARED_ONLY = ("patch_size",)
_FLOATS = ("alpha", "mlp_ratios")
_MAX_INTEGER = 10**6
"""Maximum integer value of a knob. Larger values give sizes that torch does not support."""
_REPEATED = object()
"""Last item of a path in `_lines` that marks a repeated key."""
_MAX_DEPTH = 4
"""Maximum length of a path of keys and indices, as in: anchors, a name, embed_dims, 2."""


def list_shipped() -> dict[str, Path]:
    """Returns the paths of the spaces that are shipped with the package, by name."""
    installed = Path(str(resources.files("hilo_nas"))) / "search_spaces"  # in a wheel
    folder = installed if installed.is_dir() else installed.parent.parent / "search_spaces"  # in a checkout
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_space(name: str) -> Path:
    """Returns the path of a space, given by the name of a shipped space or by a path.

    Raises:
        NotFoundError: There is no such file or space. The message lists similar names.
    """
    shipped = list_shipped()
    if name in shipped:
        return shipped[name]
    path = Path(name)
    try:
        if path.is_file():
            return path
    except OSError as error:  # the name is too long for the file system, or a folder is not accessible
        shown = name if len(name) <= 60 else f"{name[:60]}..."
        raise NotFoundError(
            f"no search space file at {shown}: {error.strerror}. Shipped spaces: {', '.join(shipped)}."
        ) from error
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise NotFoundError(f"no search space file at {name}. Shipped spaces: {', '.join(shipped)}.")
    similar = difflib.get_close_matches(name, shipped, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(similar)}?" if similar else f"Shipped spaces: {', '.join(shipped)}."
    raise NotFoundError(f"no search space is called {name!r}. {hint}")


def load_space(name: str) -> SearchSpace:
    """Returns a space, given by the name of a shipped space or by the path of a YAML file.

    Raises:
        NotFoundError: There is no such space.
        FileFaultsError: The file has faults. The error lists all of them.
    """
    path = find_space(name)
    try:
        text = read_text(path, MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise FileFaultsError(path, [f"cannot be read: {getattr(error, 'strerror', None) or error}"]) from error
    try:
        node, content = compose_yaml(text), parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}: " if mark else ""
        raise FileFaultsError(path, [f"{at}is not YAML: {getattr(error, 'problem', None) or error}"]) from error
    if content is None:
        raise FileFaultsError(
            path, ["is empty, but a space needs embed_dims, depths, attention and other knobs. See `space show`"]
        )
    if not isinstance(content, dict):
        raise FileFaultsError(path, [f"must be a mapping of knobs, but is a {type(content).__name__}"])
    assert node is not None
    return build_space(path.stem, content, path=path, lines=_lines(node))


def build_space(
    name: str, content: Mapping[str, Any], *, path: object = None, lines: Mapping[tuple[Any, ...], int] | None = None
) -> SearchSpace:
    """Returns the space from the content of a YAML file.

    Args:
        name: Name of the space.
        content: Content of the file.
        path: Path of the file, for messages.
        lines: Line number of each value, by its path of keys and indices.

    Raises:
        FileFaultsError: The content has faults. The error lists all of them.
    """
    reader = _Reader(lines or {})
    space = reader.read(name, content)
    if reader.faults:
        raise FileFaultsError(path or name, [text for _, text in sorted(reader.faults, key=lambda fault: fault[0])])
    return space


def _lines(node: yaml.Node, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], int]:
    """Returns the line number of each value, by its path of keys and indices. (path, _REPEATED) is a repeated key.

    The length of paths is limited to that of a valid space, so the function also ends for recursive YAML aliases.
    """
    lines = {path: node.start_mark.line + 1}
    if len(path) == _MAX_DEPTH:
        return lines
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            at = (*path, key.value)
            if at in lines:
                lines[(*at, _REPEATED)] = key.start_mark.line + 1
            lines |= {**_lines(value, at), at: key.start_mark.line + 1}
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines |= _lines(value, (*path, i))
    return lines


class _Reader:
    """Reader of the content of one file. It collects all faults."""

    def __init__(self, lines: Mapping[tuple[Any, ...], int]) -> None:
        self.lines = lines
        self.faults: list[tuple[int, str]] = []

    def fault(self, at: tuple[Any, ...], text: str) -> None:
        line = next((self.lines[at[:n]] for n in range(len(at), 0, -1) if at[:n] in self.lines), 0)
        self.faults.append((line, f"line {line}: {text}" if line else text))

    def read(self, name: str, content: Mapping[str, Any]) -> SearchSpace:
        for at in self.lines:
            if at and at[-1] is _REPEATED:
                self.faults.append((self.lines[at], f"line {self.lines[at]}: {at[-2]} is given twice. Keep one."))
        known = (*KNOBS, "limits", "anchors", "defaults", "description")
        for key in content:
            if key not in known:
                similar = difflib.get_close_matches(str(key), known, n=1)
                hint = f"Did you mean {similar[0]}?" if similar else f"Known entries: {', '.join(known)}."
                self.fault((str(key),), f"unknown entry {key!r}. {hint}")
        knobs = self._knobs(content)
        limits = self._limits(content.get("limits", {}))
        defaults = self._defaults(content.get("defaults", {}))
        description = content.get("description", "")
        if not isinstance(description, str):
            self.fault(("description",), f"description must be text, but got {description!r}")
            description = ""
        space = SearchSpace(
            name=name, knobs=knobs, limits=limits, defaults=defaults, description=" ".join(description.split())
        )
        if self.faults:
            self._anchors(content.get("anchors", {}), None)
            return space
        anchors = self._anchors(content.get("anchors", {}), space)
        return SearchSpace(
            name=name,
            knobs=knobs,
            limits=limits,
            defaults=defaults,
            description=space.description,
            anchors=anchors,
        )

    def _knobs(self, content: Mapping[str, Any]) -> tuple[Knob, ...]:
        knobs: list[Knob] = []
        needed = [name for name in KNOBS if name not in ("head_dim", "num_heads")]
        for name in needed:
            if name not in content and name not in _OPTIONAL:
                self.fault((), f"{name} is missing: list the values that the search can choose from")
        if ("head_dim" in content) == ("num_heads" in content):
            word = "both are" if "head_dim" in content else "neither is"
            self.fault(("num_heads",), f"exactly one of head_dim and num_heads must be given, but {word}")
        for name in KNOBS:
            if name in content:
                knobs += self._knob(name, content[name])
            elif name in _OPTIONAL:
                knobs.append(Knob(name, None, _OPTIONAL[name]))
        if not self.faults:
            self._check_heads(knobs)
            self._check_ratios(knobs)
        return tuple(knobs)

    def _knob(self, name: str, value: Any) -> list[Knob]:
        if not isinstance(value, list):
            self.fault((name,), f"{name} must be a list of values to choose from, but got {value!r}. Write [{value}].")
            return []
        if not any(isinstance(item, list) for item in value):
            return [Knob(name, None, self._choices(name, value, (name,)))]
        if name in _SHARED_ONLY:
            self.fault((name,), f"{name} applies to the whole network: give one list of values, not one per stage")
            return []
        if len(value) != N_STAGES or not all(isinstance(item, list) for item in value):
            self.fault(
                (name,),
                f"{name} must be one list of values for all stages, or {N_STAGES} lists, one per stage, "
                f"but got {len(value)} entries of which {sum(isinstance(item, list) for item in value)} are lists",
            )
            return []
        return [Knob(name, i, self._choices(name, item, (name, i))) for i, item in enumerate(value)]

    def _choices(self, name: str, values: list[Any], at: tuple[Any, ...]) -> tuple[Any, ...]:
        where = name if len(at) == 1 else f"{name} of stage {at[1] + 1}"
        if not values:
            self.fault(at, f"{where} has no values: a knob needs at least one")
            return ()
        choices: list[Any] = []
        for i, value in enumerate(values):
            choice = self._choice(name, value, where, (*at, i))
            if choice is not None and choice in choices:
                hint = ""
                if len(at) == 1 and len(values) == N_STAGES:
                    hint = f" For one value per stage write [{', '.join(f'[{item}]' for item in values)}]."
                self.fault((*at, i), f"{where} contains {value!r} twice.{hint}")
            elif choice is not None:
                choices.append(choice)
        return tuple(choices if name == "attention" else sorted(choices))

    def _choice(self, name: str, value: Any, where: str, at: tuple[Any, ...]) -> Any:
        """Checks one value from the file and returns it in the type of its knob.

        If the value is invalid, reports a fault and returns None.
        """
        if name == "attention":
            value = "none" if value is None else value
            if not isinstance(value, str) or find_attention(value) is None:
                self.fault(at, f"{where} must be one of {', '.join(attention_names())}, but got {value!r}")
                return None
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fault(at, f"{where} must be a number, but got {value!r}")
            return None
        if name == "alpha":
            if not 0 <= value <= 1:
                self.fault(at, f"{where} must be in [0, 1], but got {value}")
                return None
            return float(value)
        if name in _FLOATS:
            if not 0 < value <= 64:
                self.fault(at, f"{where} must be in (0, 64], but got {value}")
                return None
            return float(value)
        if (isinstance(value, float) and not value.is_integer()) or value < 1:
            self.fault(at, f"{where} must be a whole number of at least 1, but got {value}")
            return None
        maximum = MOST_BLOCKS if name == "depths" else _MAX_INTEGER
        if value > maximum:
            self.fault(at, f"{where} must be at most {maximum}, but got {value}")
            return None
        return int(value)

    def _check_heads(self, knobs: list[Knob]) -> None:
        """Reports each value of head_dim or num_heads that does not divide a width of a stage with attention."""
        by = {(knob.name, knob.stage): knob.choices for knob in knobs}
        rule = "head_dim" if ("head_dim", None) in by or ("head_dim", 0) in by else "num_heads"
        for i in range(N_STAGES):
            kinds = by.get(("attention", i)) or by["attention", None]
            if not any("num_heads" in attention_named(kind).uses for kind in kinds):
                continue
            widths = _widths(by, i)
            values = by.get((rule, i)) or by[rule, None]
            at = (rule, i) if (rule, i) in by else (rule,)
            for value, width in itertools.product(values, widths):
                if width % value:
                    self.fault(
                        at,
                        f"stage {i + 1}: {rule} must divide every width, but {value} does not divide {width}",
                    )

    def _check_ratios(self, knobs: list[Knob]) -> None:
        """Reports each value of mlp_ratios that gives a hidden width below 1 for a width of a stage."""
        by = {(knob.name, knob.stage): knob.choices for knob in knobs}
        for i in range(N_STAGES):
            at = ("mlp_ratios", i) if ("mlp_ratios", i) in by else ("mlp_ratios",)
            ratios = by.get(("mlp_ratios", i)) or by["mlp_ratios", None]
            for ratio, width in itertools.product(ratios, _widths(by, i)):
                if int(width * ratio) < 1:
                    self.fault(
                        at,
                        f"stage {i + 1}: mlp_ratios must give a hidden width of at least 1, but {ratio:g} of {width} "
                        f"gives none. Use at least {-(-(10**6) // width) / 10**6:g}.",
                    )

    def _limits(self, value: Any) -> dict[str, float]:
        limits = {}
        for name, limit in self._mapping("limits", value).items():
            if name not in LIMITS:
                self.fault(("limits", name), f"unknown limit {name!r}. Known limits: {', '.join(LIMITS)}.")
            elif isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 < limit <= sys.float_info.max:
                self.fault(("limits", name), f"limit {name} must be a number above 0, but got {limit!r}")
            else:
                limits[name] = float(limit)
        return limits

    def _defaults(self, value: Any) -> dict[str, int]:
        defaults = {}
        for name, number in self._mapping("defaults", value).items():
            if name not in DEFAULTS:
                self.fault(("defaults", name), f"unknown default {name!r}. Known defaults: {', '.join(DEFAULTS)}.")
            elif isinstance(number, bool) or not isinstance(number, int) or number < 1:
                self.fault(
                    ("defaults", name), f"default {name} must be a whole number of at least 1, but got {number!r}"
                )
            else:
                defaults[name] = number
        return defaults

    def _anchors(self, value: Any, space: SearchSpace | None) -> tuple[Anchor, ...]:
        anchors = []
        for name, content in self._mapping("anchors", value).items():
            at = ("anchors", name)
            fields = {"preset": content} if isinstance(content, str) else content
            if not isinstance(fields, dict):
                self.fault(at, f"anchor {name} must be an architecture or the name of one of {', '.join(PRESETS)}")
                continue
            fields = dict(fields)
            outside = fields.pop("outside", False)
            try:
                arch = _anchor_arch(fields)
            except ArchError as error:
                for line in str(error).split("\n"):
                    self.fault(at, f"anchor {name}: {line}")
                continue
            anchors.append(Anchor(name=str(name), arch=arch, outside=bool(outside)))
            if space is not None and not outside:
                try:
                    space.encode(arch)
                except UsageError as error:
                    self.fault(at, f"anchor {name}: {error}. Add the values, or mark it with `outside: true`.")
        return tuple(anchors)

    def _mapping(self, name: str, value: Any) -> dict[Any, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fault((name,), f"{name} must be a mapping, but got {value!r}")
            return {}
        return value


def _widths(by: Mapping[tuple[str, int | None], tuple[Any, ...]], stage: int) -> tuple[int, ...]:
    """Returns the possible widths of a stage in channels.

    A width that all stages share doubles from stage to stage: 64 gives 64, 128, 256 and 512.
    """
    own = by.get(("embed_dims", stage))
    return own or tuple(width * 2**stage for width in by["embed_dims", None])


def _anchor_arch(fields: dict[str, Any]) -> ArchConfig:
    preset = fields.pop("preset", None)
    if preset is None:
        return ArchConfig.from_dict(fields)
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ArchError(f"preset must be one of {', '.join(PRESETS)}, but got {preset!r}")
    return ArchConfig.from_dict({**PRESETS[preset].to_dict(), **fields})
