import atexit
import ctypes
import gc
import os
import shutil
import signal
import tempfile

# A run in the background of a shell script is started with Ctrl-C ignored, and so would be what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tiny networks gain nothing from a second thread, which only waits where others want the core. It must be said
# before torch is imported, and the workers that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Locks of this run's own: the tests and other users of the machine do not wait for each other. What tests start
# inherits it.
os.environ["HILO_NAS_LOCKS_DIR"] = tempfile.mkdtemp(prefix="hilo-nas-test-locks-")
atexit.register(shutil.rmtree, os.environ["HILO_NAS_LOCKS_DIR"], ignore_errors=True)

import dataclasses  # noqa: E402
import tarfile  # noqa: E402
from collections.abc import Callable, Mapping  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from fakes import FakeMachine  # noqa: E402
from hypothesis import settings  # noqa: E402
from PIL import Image  # noqa: E402
from planted import Answers, Load, Machine  # noqa: E402

from hilo_nas.data import CachedData, prepare_data  # noqa: E402
from hilo_nas.data.reading import ReadOptions  # noqa: E402
from hilo_nas.events import Event  # noqa: E402
from hilo_nas.testing import FakeEvaluator, use_evaluator  # noqa: E402


def pytest_collection_finish() -> None:
    """Keeps torch's many objects out of the collections of garbage, which take a twelfth of the time otherwise."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


settings.register_profile("short", max_examples=40)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))  # `default` has 100 examples


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees another's cache or key, or the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("HILO_NAS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("HILO_NAS_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def events() -> list[Event]:
    return []


@dataclasses.dataclass(frozen=True)
class ImageMaker:
    """Writes small random images."""

    root: Path

    def folder(self, name: str, counts: Mapping[str, int], seed: int = 0, size: tuple[int, int] = (12, 12)) -> Path:
        """Writes `counts[subfolder]` images into each subfolder."""
        rng = np.random.default_rng(seed)
        for sub, count in counts.items():
            (self.root / name / sub).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(self.root / name / sub / f"{index}.png")
        return self.root / name

    def tar(self, folder: Path, name: str) -> Path:
        """Packs a folder's content."""
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(self.root / name, "w") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, arcname=path.name)
        return self.root / name


@pytest.fixture
def images(tmp_path: Path) -> ImageMaker:
    return ImageMaker(tmp_path)


@pytest.fixture(scope="session")
def digits16(tmp_path_factory: pytest.TempPathFactory) -> CachedData:
    return prepare_data("digits", 16, cache_dir=tmp_path_factory.mktemp("digits"), emit=lambda event: None)


@pytest.fixture
def prepare(events: list[Event]) -> Callable[..., CachedData]:
    """Prepares a source at 8 pixels in the test's own cache; events are kept."""

    def run(source: object, img_size: int = 8, val_data: object = None, **options: Any) -> CachedData:
        val = None if val_data is None else str(val_data)
        reading = ReadOptions(**options)
        return prepare_data(str(source), img_size, val_data=val, options=reading, emit=events.append)

    return run


class _SignalStack(ctypes.Structure):
    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


_DISABLED = 2
"""SS_DISABLE of Linux's signal.h."""


@pytest.fixture(autouse=True)
def plain_signals() -> None:
    """Lets handlers run on the usual stack: conversions to OpenVINO in this process leave another one that is gone.

    The first signal after tests/models/test_convert.py would else end the process with a segmentation fault.
    """
    if hasattr(libc := ctypes.CDLL(None), "sigaltstack"):
        libc.sigaltstack(ctypes.byref(_SignalStack(None, _DISABLED, 0)), None)


@pytest.fixture(autouse=True)
def quick_storage(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.fixture
def planted_machine():
    """Class of machines with planted noise."""
    return Machine


@pytest.fixture
def evaluator():
    """Builds a fake evaluator: `evaluator(seconds_of, machine=..., failing=..., count=..., missing=...)`."""

    def build(seconds_of, *, machine=None, failing=lambda name: None, count=None, missing=None):
        quiet = Machine()
        options = {"machine": machine or (lambda: quiet), "failing": failing, "count": count, "missing": missing or {}}
        return FakeEvaluator(Answers(seconds_of, **options))

    return build


@pytest.fixture
def load():
    return Load()


_MIGRATIONS: dict[str, Any] = {}
"""Optuna's migrations by their folder: to read them takes longer than a search here."""


@pytest.fixture
def quick_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads Optuna's migrations once and not for each database."""
    from alembic.script import ScriptDirectory

    read = ScriptDirectory.from_config

    def read_once(config: Any) -> Any:
        place = config.get_main_option("script_location")
        if place not in _MIGRATIONS:
            _MIGRATIONS[place] = read(config)
        return _MIGRATIONS[place]

    monkeypatch.setattr(ScriptDirectory, "from_config", staticmethod(read_once))
