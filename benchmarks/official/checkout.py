"""Checkout of the official LITv2 code: location and version.

This module does not run the code. Worker processes do (`benchmarks.official.official_code`).
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

__all__ = ["CODE", "find_fault", "read_state"]

CODE = Path("classification")
"""Folder of the classification code in a checkout."""
_NETWORK = CODE / "models" / "litv2.py"
_URL = "https://github.com/ziplab/LITv2"


def find_fault(checkout: Path) -> str | None:
    """Returns an error message if a folder is not a checkout of the official code; None if it is."""
    if (checkout / _NETWORK).is_file():
        return None
    found = f"has no {_NETWORK}" if checkout.is_dir() else "is not a folder"
    return (
        f"checkout must be a copy of the official code, but {checkout} {found}. Use git clone {_URL}, and give its "
        "folder as --checkout."
    )


def read_state(checkout: Path) -> str:
    """Returns the version of a checkout as text: its commit, if it has one, and a hash of its model files."""
    models = sorted((checkout / _NETWORK).parent.glob("*.py"))
    content = hashlib.sha256(b"\0".join(path.name.encode() + b"\0" + path.read_bytes() for path in models))
    files = f"{CODE}/models/*.py have sha256 {content.hexdigest()[:12]}"
    commit = _git(checkout, "rev-parse", "--show-toplevel", "HEAD")
    if commit is None or Path(commit[0]) != checkout.resolve():  # a folder of another repository
        return f"no commit, {files}"
    changed = " with changes" if _git(checkout, "status", "--porcelain", "--untracked-files=no") else ""
    return f"commit {commit[1]}{changed}, {files}"


def _git(folder: Path, *arguments: str) -> list[str] | None:
    """Returns the lines of git's output; None if git is not installed or fails."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.splitlines()
