"""The home folder of this user."""

from __future__ import annotations

from pathlib import Path

from hilo_nas.errors import StorageError

__all__ = ["home_folder"]


def home_folder(variable: str) -> Path:
    """Returns the home folder of this user.

    Args:
        variable: Environment variable that names another folder for what would lie in it.

    Raises:
        StorageError: This user has none, as in a container that runs under a bare user number.
    """
    try:
        return Path.home()
    except RuntimeError as error:
        raise StorageError(f"this user has no home folder. Name a folder in ${variable}.") from error
