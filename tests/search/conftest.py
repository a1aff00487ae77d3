import ctypes
import os

import pytest
import sqlalchemy
from alembic.script import ScriptDirectory
from fakes import FakeMachine
from sqlalchemy.engine import Engine

from hilo_nas.search import dry_run, remeasure, session


@sqlalchemy.event.listens_for(Engine, "connect")
def _trust_the_system(connection, record):
    """Nobody pulls the plug on these studies: what is written need not reach the disk before a test goes on."""
    connection.execute("PRAGMA synchronous = OFF")


_read_directory = ScriptDirectory.from_config
_DIRECTORIES = {}


def _directory_of(config):
    """Optuna's migrations, read once and not for each database that is made: that takes longer than a search here."""
    place = config.get_main_option("script_location")
    if place not in _DIRECTORIES:
        _DIRECTORIES[place] = _read_directory(config)
    return _DIRECTORIES[place]


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
    monkeypatch.setattr(ScriptDirectory, "from_config", staticmethod(_directory_of))
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def machine(monkeypatch):
    """A fake machine, which searches and re-timings of this process find instead of the real one."""
    machine = FakeMachine()
    for module in (dry_run, remeasure, session):
        monkeypatch.setattr(module, "LocalExecutor", machine)
    return machine


@pytest.fixture(autouse=True)
def studies_here(tmp_path, monkeypatch):
    """Studies lie where a command typed here would look for them, so that messages name them and not their paths."""
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))
