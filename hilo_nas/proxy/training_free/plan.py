"""Which training-free scores there are, and which of them may be compared. It needs no torch."""

from __future__ import annotations

import hashlib
import json

from hilo_nas.measurement import ProxyPlan

__all__ = ["NAMES", "REPEATS", "VERSION", "hash_training_free"]

NAMES = ("naswot", "zico", "dss")
"""As `--proxy` takes them."""

REPEATS = 3
"""Fresh networks, on images of their own, that a score is the mean of."""

VERSION = "training-free-1"
"""Raised with every change to this room that may change a score."""


def hash_training_free(name: str, plan: ProxyPlan, data_hash: str) -> str:
    """Returns the name under which scores are comparable, as `ProxyPlan.hash` does it for trainings.

    Of the plan, only what these scores depend on counts: the image size, the batch, and which images are held out.

    Args:
        name: One of `NAMES`.
        plan: The proxy's plan.
        data_hash: `CachedData.content_hash`.
    """
    fields = {
        "proxy": name,
        "img_size": plan.img_size,
        "batch_size": plan.batch_size,
        "val_fraction": plan.val_fraction,
        "val_images": plan.val_images,
        "data": data_hash,
        "version": VERSION,
        "repeats": REPEATS,
    }
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
