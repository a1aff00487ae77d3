"""Declarations of training-free proxies. They take seconds per network, with fresh weights and a few minibatches."""

from __future__ import annotations

from hilo_nas.proxy.kinds.declaration import Metric, Proxy

__all__ = ["REPEATS", "TRAINING_FREE"]

REPEATS = 3
"""Number of repetitions with fresh weights and different images. The score is the mean of their values."""
_VERSION = "training-free-1"
"""Version of the computation. Change it with every change in `proxy/training_free/` that can affect a value."""

TRAINING_FREE = tuple(
    Proxy(
        name=name,
        version=_VERSION,
        options=frozenset({"proxy.img_size", "proxy.batch_size", "data.val_source", "data.group_by", "proxy.confirm"}),
        metrics=(Metric(name=name),),
        description="without training, on images of {data} at {img_size} px",
        work="hilo_nas.proxy.training_free.training_free_score:TrainingFreeWork",
        hashed={"repeats": REPEATS},
    )
    for name in ("naswot", "zico", "dss")
)
