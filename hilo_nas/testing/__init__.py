"""Fakes, and the checks that every implementation of an interface must pass, for tests here and in other packages."""

from hilo_nas.evaluation import use_evaluator
from hilo_nas.testing.evaluators import FakeAnswers, FakeEvaluator, HangsError, check_evaluator
from hilo_nas.testing.exporters import check_exporter
from hilo_nas.testing.proxies import DeclarationChecks, ProxyChecks

__all__ = [
    "DeclarationChecks",
    "FakeAnswers",
    "FakeEvaluator",
    "HangsError",
    "ProxyChecks",
    "check_evaluator",
    "check_exporter",
    "use_evaluator",
]
