"""Sentences about the values of a study."""

from __future__ import annotations

from hilo_nas.proxy.kinds import Metric
from hilo_nas.study.manifest import DataIdentity, Manifest
from hilo_nas.study.posteriors import Outlook
from hilo_nas.text.figures import figure
from hilo_nas.text.plurals import count_of

__all__ = ["describe_outlook", "describe_proxy"]


def describe_outlook(outlook: Outlook, metric: Metric) -> str:
    """Returns the expected gain of further trainings, such as `10 more networks: hypervolume +2.1 %, ...`."""
    value = metric.scale * outlook.value_gain
    gain = f"{value:+.1f} points of {metric.gain}" if metric.is_share else f"{metric.gain} {value:+.3g}"
    return (
        f"{count_of(outlook.networks, 'more network')}: hypervolume {100 * outlook.hypervolume_gain:+.1f} %, "
        f"{gain} at {figure(outlook.images_per_s, 3)} images/s"
    )


def describe_proxy(manifest: Manifest, *, whole: bool = False) -> str:
    """Returns a description of a study's proxy.

    Args:
        manifest: Manifest of the study.
        whole: True to include the proxy's name.
    """
    plan = manifest.plan
    proxy = plan.declaration
    text = (proxy.summary or "{name}: " + proxy.description) if whole else proxy.description
    return text.format(
        name=proxy.name,
        images=plan.images,
        data=manifest.data.name,
        img_size=plan.img_size,
        batch_size=plan.batch_size,
        metric=plan.metric,
        scored_on=_scored_on(manifest.data) + (f", in INT8 by {plan.int8_runtime}" if plan.int8_runtime else ""),
    )


def _scored_on(data: DataIdentity) -> str:
    """Returns a description of the images that networks are scored on."""
    count = "" if data.n_scored is None else f"{data.n_scored:,} "
    if data.val_name is not None:
        return f"on the {count}images of data.val_source ({data.val_name})"
    return f"on {count}held-out images of the training split"
