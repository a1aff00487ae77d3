"""Consent to local settings: a study uses from its `local.yaml` only what this user named on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hilo_nas.data.sources import parse_source
from hilo_nas.errors import DataError, UsageError
from hilo_nas.events import Emit, Notice
from hilo_nas.proxy.kinds import find_proxy
from hilo_nas.study.local_settings import Local, load_local
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.text.commands import setting_text

__all__ = ["LocalConsent"]


class LocalConsent:
    """Local settings of a study, from the user's arguments and from its `local.yaml`. Arguments take precedence.

    Args:
        given: Arguments by name, of the settings in `study.local_settings.SETTINGS`. None means not given.
        folder: The study.
    """

    def __init__(self, given: Mapping[str, Any], folder: StoredStudy) -> None:
        self._given, self._folder = given, folder
        self._local: Local = load_local(folder.local_path)

    def warn_of_ignored(self, emit: Emit) -> None:
        """Emits a warning if `local.yaml` is ignored, with the options that have the same effect."""
        ignored = {name: value for name, value in self._local.ignored.items() if self._given.get(name) is None}
        is_default = set(self._local.ignored.items()) == {("data.source", "digits")}
        if self._local.fault is None or is_default:
            return
        text = f"local.yaml of study {self._folder.name} is not used: {self._local.fault}."
        if ignored:
            settings = " ".join(setting_text(*item) for item in ignored.items())
            text += f" It contains {settings}. Repeat the settings that you trust."
        emit(Notice(level="warning", text=text))

    def find(self, setting: str) -> str | None:
        """Returns the value of a setting; None if it is unknown."""
        given = self._given.get(setting)
        return self._local.values.get(setting) if given is None else str(given)

    def check_function(self, setting: str) -> None:
        """Checks that a function from `local.yaml` was not edited since this user named it.

        Raises:
            UsageError: The function was edited.
            NotFoundError: The function does not exist.
        """
        value = self._local.values.get(setting)
        if value is None or self._given.get(setting) is not None or not _is_function(setting, value):
            return
        if not self._local.is_unchanged(setting):
            raise UsageError(
                f"{value} must be unchanged since you named it for study {self._folder.name}, but was edited. To run "
                f"the edited version, name it again: {setting_text(setting, value)}"
            )

    def hint(self, setting: str) -> str:
        """Returns a sentence that names the option that the user must add for an unknown setting."""
        value = self._local.ignored.get(setting)
        if value is None:
            return f"Name it: {setting_text(setting, '...')}"
        return (
            f"Its local.yaml contains {value}, but was not written by this user for this folder. To use that value, "
            f"name it: {setting_text(setting, value)}"
        )


def _is_function(setting: str, value: str) -> bool:
    if setting == "proxy.name":
        proxy = find_proxy(value)
        return proxy is not None and proxy.has_source
    if setting not in ("data.source", "data.val_source"):
        return False
    try:
        return parse_source(value).kind == "function"
    except (DataError, UsageError):  # the source does not exist; opening it reports the error
        return False
