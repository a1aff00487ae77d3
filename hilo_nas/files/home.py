"""Home folder of the current user."""

from __future__ import annotations

from pathlib import Path

from hilo_nas.errors import StorageError

__all__ = ["home_folder"]


def home_folder(variable: str) -> Path:
    """Returns the home folder of the current user.

    Args:
        variable: Environment variable that the error message recommends for another folder.

    Raises:
        StorageError: The user has no home folder, for example in a container with an unknown user ID.
    """
    try:
        return Path.home()
    except RuntimeError as error:
        raise StorageError(f"the current user has no home folder. Set ${variable} to a folder.") from error
