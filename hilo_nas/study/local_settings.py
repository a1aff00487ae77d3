"""Settings of a study that hold on this machine only, stored in a signed `local.yaml`.

The file holds paths to data and user functions. A study from a stranger may contain a `local.yaml` that names code to
run and folders to write to. Therefore the file is used only if the current user wrote it for this folder: its signature
covers the content and the study's folder, and the key is stored outside of every study. Each function is stored with
the SHA-256 of its file. A file that was edited or comes from another user, machine or folder has no valid signature.
The user must then pass the settings as options once, which writes a signed file.
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
"""Environment variable with the folder of this user's key. Defaults to `hilo-nas` in $XDG_STATE_HOME, or in
~/.local/state."""

SETTINGS = {"data": "data.source", "val_data": "data.val_source", "proxy": "proxy.name", "cache_dir": "data.cache_dir"}
"""Keys of the file with the search setting that each one represents."""
_OBSOLETE = ("speeds", "reuse")
"""Keys that earlier versions wrote. They are ignored, but the signature of such a file covers them."""
_KEY_BYTES = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Local:
    """Content of a study's `local.yaml`."""

    values: dict[str, str] = dataclasses.field(default_factory=dict)
    """Values by the name of the setting: `{"data.source": "/data/pets"}`. Empty if the signature is not valid."""
    functions: dict[str, str] = dataclasses.field(default_factory=dict)
    """SHA-256 of the source file of each value that names a function, by setting."""
    ignored: dict[str, str] = dataclasses.field(default_factory=dict)
    """Values by setting from a file without a valid signature. Show them to the user, but never use them."""
    fault: str | None = None
    """Reason why the file is not used. None if it is used or absent."""
    is_damaged: bool = False
    """True if the file cannot be read. False for a file of another user, machine or folder."""

    def is_unchanged(self, setting: str) -> bool:
        """Returns True if the file of a setting's function has the same content as when the user named it.

        Raises:
            NotFoundError: The file does not exist.
            UsageError: The file cannot be read.
        """
        return plugins.hash_source(self.values[setting]) == self.functions.get(setting)


def load_local(path: Path) -> Local:
    """Returns the content of a `local.yaml`.

    The result is empty if the file does not exist. If the file is damaged, `fault` holds the reason.
    """
    if not os.path.lexists(path):
        return Local()
    try:
        if not path.is_file():
            return Local(fault="it is not a regular file", is_damaged=True)
        content = load_yaml(path)
    except OSError as error:
        return Local(fault=f"it cannot be read ({error.strerror or error})", is_damaged=True)
    except yaml.YAMLError as error:
        return Local(fault=f"it is not YAML ({' '.join(str(error).split())})", is_damaged=True)
    if content is None:
        return Local()
    if not isinstance(content, dict):
        fault = f"it must be a mapping of options, but is a {type(content).__name__}"
        return Local(fault=fault, is_damaged=True)
    options = {name: content[name] for name in (*SETTINGS, *_OBSOLETE) if content.get(name) is not None}
    if wrong := [name for name, value in options.items() if not isinstance(value, str)]:
        return Local(fault=f"{', '.join(wrong)} must be text", is_damaged=True)
    if not options:
        return Local()
    functions = content.get("functions") or {}
    if not _is_signed(options, functions, content.get("signature"), path):
        ignored = _by_setting(options)
        return Local(ignored=ignored, fault="it was not written by this user for this folder, or was edited")
    return Local(values=_by_setting(options), functions=_by_setting(functions))


def _by_setting(options: Mapping[str, str]) -> dict[str, str]:
    return {SETTINGS[name]: value for name, value in options.items() if name in SETTINGS}


def write_local(path: Path, values: Mapping[str, str | None]) -> None:
    """Writes the settings of this machine with the signature of this user.

    If the key cannot be stored, the file is not signed and the user must name the settings again.

    Args:
        path: Path of the file.
        values: Values by setting.

    Raises:
        StorageError: The file cannot be written.
    """
    content: dict[str, Any] = {name: values.get(setting) for name, setting in SETTINGS.items()}
    options = {name: value for name, value in content.items() if value is not None}
    functions = {name: digest for name, value in options.items() if (digest := _digest(value))}
    if functions:
        content["functions"] = functions
    key = _load_key() or _make_key()
    if key is not None:
        content["signature"] = _sign(options, functions, path, key)
    write_atomically(path, yaml.safe_dump(content, sort_keys=False))


def state_folder() -> Path:
    """Returns the folder for the user's state outside of studies, such as the signing key."""
    if given := os.environ.get(STATE_VARIABLE):
        return Path(given).expanduser().absolute()
    home = os.environ.get("XDG_STATE_HOME", "")
    return (Path(home) if os.path.isabs(home) else home_folder(STATE_VARIABLE) / ".local/state") / "hilo-nas"


def _digest(value: str) -> str | None:
    """Returns the SHA-256 of a function's source file, or None for other values."""
    if plugins.is_plugin(value):
        with contextlib.suppress(UsageError):
            return plugins.hash_source(value)
    return None


def _is_signed(options: Mapping[str, str], functions: object, signature: object, path: Path) -> bool:
    key = _load_key()
    if key is None or not isinstance(signature, str) or not isinstance(functions, dict):
        return False
    if not all(isinstance(item, str) for pair in functions.items() for item in pair):
        return False
    return hmac.compare_digest(_sign(options, functions, path, key).encode(), signature.encode(errors="replace"))


def _sign(options: Mapping[str, str], functions: Mapping[str, str], path: Path, key: bytes) -> str:
    # The names of these keys are part of all existing signatures.
    signed = {"folder": str(path.parent.resolve()), "said": dict(options), "functions": dict(functions)}
    return hmac.new(key, json.dumps(signed, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _load_key() -> bytes | None:
    with contextlib.suppress(OSError):
        key = (state_folder() / "key").read_bytes()
        if len(key) >= _KEY_BYTES:
            return key
    return None


def _make_key() -> bytes | None:
    """Creates the key of this user atomically and returns it, or None if it cannot be stored."""
    folder = state_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".key.", suffix=".tmp")  # mode 0600
    except OSError:
        return None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, folder / "key")  # unlike a rename, never replaces the key of another process
        key = _load_key()
        if key is None:  # the existing key is truncated
            os.replace(temporary, folder / "key")
            key = _load_key()
        return key
    except OSError:
        return None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
