"""A larger budget for a stored study: its networks become due again, from the rungs that they had reached."""

from __future__ import annotations

import dataclasses

from hilo_nas.errors import UsageError
from hilo_nas.manifest import Manifest
from hilo_nas.measurement import TRAINING
from hilo_nas.study import StudyFolder

__all__ = ["NO_CHECKPOINT", "RAISED", "raise_budget", "raised"]

RAISED = "due again: the budget was raised"
NO_CHECKPOINT = "stays at its rung after the budget was raised: no checkpoint was kept"
_DUE = ("complete", "stopped")


def raised(manifest: Manifest, images: int) -> Manifest:
    """Returns the manifest with a larger full budget; the old one becomes a rung, with others above it where they fit.

    Raises:
        UsageError: The budget is not larger, or the study's training cannot go on.
    """
    plan = manifest.plan
    if plan.proxy != TRAINING:
        raise UsageError(
            f"the budget of a training alone can be raised, but study {manifest.name} is scored by {plan.proxy}"
        )
    if images <= plan.images:
        raise UsageError(f"the budget must be raised above {plan.images:,} images, but got {images:,}")
    rungs, eta = [*plan.rungs, plan.images], manifest.eta or 3.0
    while (above := round(rungs[-1] * eta)) < images:
        rungs.append(above)
    return dataclasses.replace(manifest, plan=dataclasses.replace(plan, images=images, rungs=tuple(rungs)))


def raise_budget(folder: StudyFolder, manifest: Manifest, images: int) -> Manifest:
    """Raises a study's budget and returns its manifest; every trained network is due again, whatever kills this.

    The records are marked first: a mark without a raised budget is closed again by the next search as it was.

    Raises:
        UsageError: See `raised`.
        StorageError: The study cannot be written.
    """
    new = raised(manifest, images)
    for record in folder.load_records():
        if record.state in _DUE and record.scores and record.measurements:
            folder.write_record(dataclasses.replace(record, state="stopped", reason=RAISED))
    folder.write_manifest(new)
    return new
