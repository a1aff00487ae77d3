"""The official LITv2 code on this machine: where it lies, and which state of it.

Nothing here runs it; that is for worker processes (`benchmarks.official.official_code`).
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

__all__ = ["CODE", "find_fault", "read_state"]

CODE = Path("classification")
"""Folder of a checkout from which its classification code is run."""
_NETWORK = CODE / "models" / "litv2.py"
_URL = "https://github.com/ziplab/LITv2"


def find_fault(checkout: Path) -> str | None:
    """Returns why a folder is no checkout of the official code, with the way out; None where it is one."""
    if (checkout / _NETWORK).is_file():
        return None
    found = f"has no {_NETWORK}" if checkout.is_dir() else "is no folder"
    return (
        f"checkout must be a copy of the official code, but {checkout} {found}. Use git clone {_URL}, and "
        "--checkout with the folder that it makes."
    )


def read_state(checkout: Path) -> str:
    """Returns which state of the code a checkout holds: its commit, if it has one, and a hash of its models."""
    models = sorted((checkout / _NETWORK).parent.glob("*.py"))
    content = hashlib.sha256(b"\0".join(path.name.encode() + b"\0" + path.read_bytes() for path in models))
    files = f"{CODE}/models/*.py have sha256 {content.hexdigest()[:12]}"
    commit = _git(checkout, "rev-parse", "--show-toplevel", "HEAD")
    if commit is None or Path(commit[0]) != checkout.resolve():  # a folder of another repository
        return f"no commit, {files}"
    changed = " with changes" if _git(checkout, "status", "--porcelain", "--untracked-files=no") else ""
    return f"commit {commit[1]}{changed}, {files}"


def _git(folder: Path, *arguments: str) -> list[str] | None:
    """Lines that git says; None where it is not installed, or the folder is none of its own."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.splitlines()
