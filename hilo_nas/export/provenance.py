"""Provenance of an exported network: study, trial, device, measured values and versions. It contains no local paths."""

from __future__ import annotations

import dataclasses
from typing import Any

from hilo_nas.measurement.verdicts import verdict_name
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord

__all__ = ["build_provenance"]


def build_provenance(manifest: Manifest, record: TrialRecord) -> dict[str, Any]:
    """Returns the data needed to check or reproduce the figures of an exported trial."""
    assert record.measurement is not None
    assert record.score is not None
    measurement, score = record.measurement, record.score
    return {
        "study": manifest.name,
        "trial": record.number,
        "key": record.key,
        "space": {"name": manifest.space.name, "hash": manifest.space.hash()},
        "params": record.parameters,
        "macs": record.macs,
        "measured": {
            "images_per_s": measurement.images_per_s,
            "images_per_s_95": list(measurement.images_per_s_interval or (None, None)),
            "images_per_s_spread": measurement.images_per_s_spread,
            "latency_ms": {
                "p50": measurement.latency_ms_p50,
                "p95": measurement.latency_ms_p95,
                "p99": measurement.latency_ms_p99,
            },
            "memory_mib": measurement.memory_mib,
            "condition": measurement.condition.to_dict(),
            "device": dataclasses.asdict(measurement.device),
            "form": measurement.form,
            "verdict": verdict_name(measurement),
            "threads": measurement.threads,
            "environment": dict(measurement.environment),
            "protocol": measurement.protocol,
            "versions": dict(measurement.versions),
            "measured_at": measurement.measured_at,
        },
        "proxy": {
            "value": score.value,
            "standard_error": score.standard_error,
            "metric": score.metric,
            "plan": {**manifest.plan.to_dict(), "hash": score.plan_hash},
            "data": dataclasses.asdict(manifest.data),
            "seed": score.seed,
            "seeds": score.seeds,
            "versions": dict(score.versions),
        },
        "versions": dict(manifest.versions),
    }
