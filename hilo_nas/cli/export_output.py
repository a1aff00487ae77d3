"""Output of `hilo-nas export`: what was exported, with its figures."""

from __future__ import annotations

from hilo_nas.export import NetworkSource, StudySource
from hilo_nas.measurement.verdicts import verdict_name
from hilo_nas.proxy.kinds import metric_named
from hilo_nas.study.records import TrialRecord
from hilo_nas.text.figures import figure, with_spread
from hilo_nas.text.plurals import count_of

__all__ = ["describe_source"]


def describe_source(source: NetworkSource | StudySource) -> str:
    """Returns the name of the exported network or study, with its figures or with the assumptions made."""
    if isinstance(source, StudySource):
        return f"{source.name}: {count_of(len(source.records), 'trial')}"
    record = source.record
    if record is None:
        lines = [source.name, source.assumed]
        return "\n".join(line for line in lines if line)
    return f"{source.name}: {_figures(record)}"


def _figures(record: TrialRecord) -> str:
    measured, score = record.measurement, record.score
    assert measured is not None
    assert score is not None
    verdict = verdict_name(measured)
    metric = metric_named(score.metric)
    conditions = ", ".join((measured.condition.label(), *([verdict] if verdict else [])))  # protocol 1 has no verdict
    parts = [
        f"{with_spread(measured.images_per_s, measured.images_per_s_half_width)} images/s on {measured.device.model} "
        f"({conditions})",
        f"{metric.title} {metric.text(score.value)}",
        f"{figure((record.parameters or 0) / 1e6)} M parameters",
    ]
    return ", ".join(parts)
