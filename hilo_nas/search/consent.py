"""What a stored study takes from its `local.yaml`: only what this user named on this machine."""

from __future__ import annotations

import shlex

from hilo_nas.data.sources import parse_source
from hilo_nas.errors import DataError, UsageError
from hilo_nas.events import Emit, Notice
from hilo_nas.local import Local, load_local
from hilo_nas.proxy.kinds import find_proxy
from hilo_nas.search.config import SearchConfig
from hilo_nas.study import Study

__all__ = ["Known"]


class Known:
    """What a configuration and a study's `local.yaml` say together; the configuration comes first.

    Args:
        config: What was asked.
        folder: The study.
    """

    def __init__(self, config: SearchConfig, folder: Study) -> None:
        self._config, self._folder = config, folder
        self._local: Local = load_local(folder.local_path)

    def tell_of_ignored(self, emit: Emit) -> None:
        """Warns of a `local.yaml` that is not used, with what to type to have the same."""
        ignored = {name: value for name, value in self._local.ignored.items() if self._config.option(name) is None}
        is_needless = set(self._local.ignored.items()) == {("data", "digits")}  # which a study finds by itself
        if self._local.fault is None or is_needless:
            return
        text = f"local.yaml of study {self._folder.name} is not used: {self._local.fault}."
        if ignored:
            text += f" It says {' '.join(option_text(*item) for item in ignored.items())}: repeat what you trust."
        emit(Notice(level="warning", text=text))

    def find(self, option: str) -> str | None:
        """Returns what is known of an option; None where nothing is."""
        given = self._config.option(option)
        return self._local.values.get(option) if given is None else str(given)

    def check_function(self, option: str) -> None:
        """Checks that a function that no option names was not edited since this user named it.

        Raises:
            UsageError: It was edited.
            NotFoundError: It is gone.
        """
        value = self._local.values.get(option)
        if value is None or self._config.option(option) is not None or not _is_function(option, value):
            return
        if not self._local.is_unchanged(option):
            raise UsageError(
                f"{value} was edited since you named it for study {self._folder.name}. To run it as it is now, name it "
                f"again: {option_text(option, value)}"
            )

    def hint(self, option: str) -> str:
        """Returns what to type for an option that is not known."""
        value = self._local.ignored.get(option)
        name = f"--{option.replace('_', '-')}"
        if value is None:
            return f"Name it with {name}."
        return (
            f"Its local.yaml says {value}, but was not written by this user for this folder. To use that, name it: "
            f"{option_text(option, value)}"
        )


def option_text(option: str, value: str) -> str:
    """Returns an option as one types it in a shell."""
    return f"--{option.replace('_', '-')} {shlex.quote(value)}"


def _is_function(option: str, value: str) -> bool:
    if option == "proxy":
        proxy = find_proxy(value)
        return proxy is not None and proxy.has_source
    if option not in ("data", "val_data"):
        return False
    try:
        return parse_source(value).kind == "function"
    except (DataError, UsageError):  # gone; whoever opens it tells
        return False
