"""Training-free scores. They take seconds per network, with fresh weights and a few minibatches."""

from hilo_nas.proxy.training_free.dss import score_dss
from hilo_nas.proxy.training_free.naswot import score_naswot
from hilo_nas.proxy.training_free.zico import score_zico

__all__ = ["score_dss", "score_naswot", "score_zico"]
