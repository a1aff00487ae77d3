import atexit
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
from PIL import Image  # noqa: E402

from hilo_nas.data import CachedData, prepare_data  # noqa: E402
from hilo_nas.data.reading import ReadOptions  # noqa: E402
from hilo_nas.events import Event  # noqa: E402


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
