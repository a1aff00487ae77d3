"""Short hashes of plain data."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["short_hash"]


def short_hash(fields: Any) -> str:
    """Returns a hash of plain data, as 12 hexadecimal digits. It does not depend on the order of keys."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
