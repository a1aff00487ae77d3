"""Short names for plain data, by its content."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["short_hash"]


def short_hash(fields: Any) -> str:
    """Returns 12 hexadecimal digits that name plain data; equal data has equal names in any order of its keys."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
