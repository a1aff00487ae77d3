"""Proxies that train nothing: seconds for each network, from fresh weights and a few minibatches."""

from __future__ import annotations

from hilo_nas.proxy.kinds.declaration import Metric, Proxy

__all__ = ["REPEATS", "TRAINING_FREE"]

REPEATS = 3
"""Fresh networks, each on different images, of whose values the mean is taken."""
_VERSION = "training-free-1"
"""It changes with anything in `proxy/training_free/` that may change a value."""

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
