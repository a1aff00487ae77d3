"""Fakes and conformance tests for evaluators, proxies and exporters, for this package and for plug-ins."""

from hilo_nas.evaluation import use_evaluator
from hilo_nas.testing.evaluators import FakeAnswers, FakeEvaluator, FakeRun, HangsError, check_evaluator
from hilo_nas.testing.exporters import check_exporter
from hilo_nas.testing.proxies import DeclarationChecks, ProxyChecks

__all__ = [
    "DeclarationChecks",
    "FakeAnswers",
    "FakeEvaluator",
    "FakeRun",
    "HangsError",
    "ProxyChecks",
    "check_evaluator",
    "check_exporter",
    "use_evaluator",
]
