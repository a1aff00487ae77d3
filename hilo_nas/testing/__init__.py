"""Conformance tests for extensions; each raises an AssertionError that says what is wrong."""

from hilo_nas.testing.exporters import check_exporter

__all__ = ["check_exporter"]
