"""A study's `local.yaml`: where its data and functions lie on this machine, used only if this user wrote it here.

A study may come from a stranger, with a `local.yaml` that names code to run and folders to write to. So the file has
a signature by a key outside every study, over its content and the study's own folder; each function that it names is
kept with the SHA-256 of its file. A file of another user, machine or folder, or one that was edited, has no valid
signature: its content must be named by option once, and is signed then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hilo_nas import plugins
from hilo_nas.errors import UsageError
from hilo_nas.files.home import home_folder
from hilo_nas.files.safe_yaml import load_yaml
from hilo_nas.study.records import write_atomically

__all__ = ["SETTINGS", "STATE_VARIABLE", "Local", "load_local", "state_folder", "write_local"]

STATE_VARIABLE = "HILO_NAS_STATE_DIR"
"""Names the folder of this user's key; else `hilo-nas` below $XDG_STATE_HOME, else below ~/.local/state."""

SETTINGS = {"data": "data.source", "val_data": "data.val_source", "proxy": "proxy.name", "cache_dir": "data.cache_dir"}
"""What the file may say, with the setting of a search that says the same."""
_EARLIER = ("speeds", "reuse")
"""What earlier versions wrote and signed; they mean nothing any more."""
_KEY_BYTES = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Local:
    """What a study's `local.yaml` says."""

    values: dict[str, str] = dataclasses.field(default_factory=dict)
    """By setting; empty where this user did not write the file here."""
    functions: dict[str, str] = dataclasses.field(default_factory=dict)
    """SHA-256 of the file of each value that names a function, by setting."""
    ignored: dict[str, str] = dataclasses.field(default_factory=dict)
    """What a file says that this user did not write here; to be shown, never used."""
    fault: str | None = None
    """Why the file is not used; None where it is, or is not there."""

    def is_unchanged(self, setting: str) -> bool:
        """Returns whether a function is the one that this user named: whether its file has the same content.

        Raises:
            NotFoundError: It is gone.
            UsageError: Its file cannot be read.
        """
        return plugins.hash_source(self.values[setting]) == self.functions.get(setting)


def load_local(path: Path) -> Local:
    """Returns what a `local.yaml` says; an absent file says nothing, and a damaged one has a fault."""
    if not os.path.lexists(path):
        return Local()
    try:
        if not path.is_file():
            return Local(fault="it is no file")
        content = load_yaml(path)
    except OSError as error:
        return Local(fault=f"it cannot be read ({error.strerror or error})")
    except yaml.YAMLError as error:
        return Local(fault=f"it is not YAML ({' '.join(str(error).split())})")
    if content is None:
        return Local()
    if not isinstance(content, dict):
        return Local(fault=f"it must hold options, but holds a {type(content).__name__}")
    said = {name: content[name] for name in (*SETTINGS, *_EARLIER) if content.get(name) is not None}
    if wrong := [name for name, value in said.items() if not isinstance(value, str)]:
        return Local(fault=f"{', '.join(wrong)} must be text")
    if not said:
        return Local()
    functions = content.get("functions") or {}
    if not _is_signed(said, functions, content.get("signature"), path):
        ignored = _by_setting(said)
        return Local(ignored=ignored, fault="it was not written by this user for this folder, or was edited")
    return Local(values=_by_setting(said), functions=_by_setting(functions))


def _by_setting(said: Mapping[str, str]) -> dict[str, str]:
    return {SETTINGS[name]: value for name, value in said.items() if name in SETTINGS}


def write_local(path: Path, values: Mapping[str, str | None]) -> None:
    """Writes what is true on this machine, signed as this user's; without a key it will have to be named again.

    Args:
        path: The file.
        values: By setting.

    Raises:
        StorageError: The file cannot be written.
    """
    content: dict[str, Any] = {name: values.get(setting) for name, setting in SETTINGS.items()}
    said = {name: value for name, value in content.items() if value is not None}
    functions = {name: digest for name, value in said.items() if (digest := _digest(value))}
    if functions:
        content["functions"] = functions
    key = _load_key() or _make_key()
    if key is not None:
        content["signature"] = _sign(said, functions, path, key)
    write_atomically(path, yaml.safe_dump(content, sort_keys=False))


def state_folder() -> Path:
    """Returns the folder of what this user's searches keep outside their studies."""
    if given := os.environ.get(STATE_VARIABLE):
        return Path(given).expanduser().absolute()
    home = os.environ.get("XDG_STATE_HOME", "")
    return (Path(home) if os.path.isabs(home) else home_folder(STATE_VARIABLE) / ".local/state") / "hilo-nas"


def _digest(value: str) -> str | None:
    """The SHA-256 of the file of a function; None for other values."""
    if plugins.is_plugin(value):
        with contextlib.suppress(UsageError):
            return plugins.hash_source(value)
    return None


def _is_signed(said: Mapping[str, str], functions: object, signature: object, path: Path) -> bool:
    key = _load_key()
    if key is None or not isinstance(signature, str) or not isinstance(functions, dict):
        return False
    if not all(isinstance(item, str) for pair in functions.items() for item in pair):
        return False
    return hmac.compare_digest(_sign(said, functions, path, key).encode(), signature.encode(errors="replace"))


def _sign(said: Mapping[str, str], functions: Mapping[str, str], path: Path, key: bytes) -> str:
    facts = {"folder": str(path.parent.resolve()), "said": dict(said), "functions": dict(functions)}
    return hmac.new(key, json.dumps(facts, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _load_key() -> bytes | None:
    with contextlib.suppress(OSError):
        key = (state_folder() / "key").read_bytes()
        if len(key) >= _KEY_BYTES:
            return key
    return None


def _make_key() -> bytes | None:
    """Makes this user's key, whole or not at all; None where it cannot be stored."""
    folder = state_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".key.", suffix=".tmp")  # of mode 0600
    except OSError:
        return None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, folder / "key")  # never over that of another process
        key = _load_key()
        if key is None:  # a key that was cut short
            os.replace(temporary, folder / "key")
            key = _load_key()
        return key
    except OSError:
        return None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
