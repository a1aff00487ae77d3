"""Measuring throughput on the device itself: a worker process, a timer, and the networks between them."""

from hilo_nas.measure.worker import TUNED_ENVIRONMENT, Worker

__all__ = ["TUNED_ENVIRONMENT", "Worker"]
