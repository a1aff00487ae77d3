"""Scores computed from facts in a trial's record."""

from __future__ import annotations

from hilo_nas.clock import utc_now
from hilo_nas.measurement import ProxyScore
from hilo_nas.measurement.intervals import Z95
from hilo_nas.proxy.kinds.formula import Formula, NetworkFacts
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.versions import versions

__all__ = ["score_record"]


def score_record(record: TrialRecord, manifest: Manifest) -> ProxyScore:
    """Returns the score from a proxy that does not need a worker (`Proxy.work` is None).

    Args:
        record: Record of a timed network.
        manifest: Manifest of the study.

    Raises:
        HiloNasError: The record does not have the fact that the proxy uses.
    """
    plan, measurement = manifest.plan, record.measurement
    proxy = plan.declaration
    assert isinstance(proxy, Formula), f"{proxy.name} needs a worker"
    facts = NetworkFacts(
        parameters=record.parameters,
        macs=record.macs,
        images_per_s=None if measurement is None else measurement.images_per_s,
        images_per_s_error=0.0 if measurement is None else measurement.half_width / Z95,
    )
    value, standard_error = proxy.evaluate(facts)
    return ProxyScore(
        plan_hash=manifest.plan_hash,
        metric=plan.score_metric,
        value=value,
        standard_error=standard_error,
        loss=None,
        n_val=0,
        images_seen=plan.budgets[-1],
        seconds=0.0,
        seed=manifest.seed,
        micro_batch_size=1,
        device="cpu",
        versions=versions(),
        scored_at=utc_now(),
    )
