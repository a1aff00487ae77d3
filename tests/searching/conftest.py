import ctypes
import os

import pytest
from fakes import FakeMachine

from hilo_nas.testing import use_evaluator


class _SignalStack(ctypes.Structure):
    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


_DISABLED = 2
"""SS_DISABLE of Linux's signal.h."""


@pytest.fixture(autouse=True)
def plain_signals():
    """Lets handlers run on the usual stack: conversions to OpenVINO in this process leave another one that is gone.

    The first signal after tests/models/test_convert.py would else end the process with a segmentation fault.
    """
    if hasattr(libc := ctypes.CDLL(None), "sigaltstack"):
        libc.sigaltstack(ctypes.byref(_SignalStack(None, _DISABLED, 0)), None)


@pytest.fixture(autouse=True)
def quick_storage(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def machine():
    """A fake machine, which searches and re-timings of this process find instead of the real one."""
    machine = FakeMachine()
    with use_evaluator(machine):
        yield machine


@pytest.fixture(autouse=True)
def studies_here(tmp_path, monkeypatch):
    """Studies lie where a command typed here would look for them, so that messages name them and not their paths."""
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))
