"""What a stored study takes from its `local.yaml`: only what this user named on this machine."""

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

__all__ = ["Known"]


class Known:
    """What this user and a study's `local.yaml` say together; the user comes first.

    Args:
        given: Settings of `study.local_settings.SETTINGS` that the user gave, by name; None counts as not given.
        folder: The study.
    """

    def __init__(self, given: Mapping[str, Any], folder: StoredStudy) -> None:
        self._given, self._folder = given, folder
        self._local: Local = load_local(folder.local_path)

    def tell_of_ignored(self, emit: Emit) -> None:
        """Warns of a `local.yaml` that is not used, with what to type to have the same."""
        ignored = {name: value for name, value in self._local.ignored.items() if self._given.get(name) is None}
        is_needless = set(self._local.ignored.items()) == {("data.source", "digits")}  # which a study finds by itself
        if self._local.fault is None or is_needless:
            return
        text = f"local.yaml of study {self._folder.name} is not used: {self._local.fault}."
        if ignored:
            text += f" It says {' '.join(setting_text(*item) for item in ignored.items())}: repeat what you trust."
        emit(Notice(level="warning", text=text))

    def find(self, setting: str) -> str | None:
        """Returns what is known of a setting; None where nothing is."""
        given = self._given.get(setting)
        return self._local.values.get(setting) if given is None else str(given)

    def check_function(self, setting: str) -> None:
        """Checks that a function that no setting names was not edited since this user named it.

        Raises:
            UsageError: It was edited.
            NotFoundError: It is gone.
        """
        value = self._local.values.get(setting)
        if value is None or self._given.get(setting) is not None or not _is_function(setting, value):
            return
        if not self._local.is_unchanged(setting):
            raise UsageError(
                f"{value} was edited since you named it for study {self._folder.name}. To run it as it is now, name it "
                f"again: {setting_text(setting, value)}"
            )

    def hint(self, setting: str) -> str:
        """Returns what to type for a setting that is not known."""
        value = self._local.ignored.get(setting)
        if value is None:
            return f"Name it: {setting_text(setting, '...')}"
        return (
            f"Its local.yaml says {value}, but was not written by this user for this folder. To use that, name it: "
            f"{setting_text(setting, value)}"
        )


def _is_function(setting: str, value: str) -> bool:
    if setting == "proxy.name":
        proxy = find_proxy(value)
        return proxy is not None and proxy.has_source
    if setting not in ("data.source", "data.val_source"):
        return False
    try:
        return parse_source(value).kind == "function"
    except (DataError, UsageError):  # gone; whoever opens it tells
        return False
