"""Small data sets in folders and archives, and what reading them gives."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from hilo_nas.data.readers import open_source
from hilo_nas.data.reading import ReadOptions
from hilo_nas.data.sources import parse_source


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), number % 256, dtype=np.uint8)).save(file, "png")
    return file.getvalue()


PETS = {f"{kind}/{i}.png": png(i + 10 * (kind == "dog")) for kind in ("cat", "dog") for i in range(3)}


def read(path: Path | str, **options):
    """Returns the opened source, and the content of each image by its member."""
    source = open_source(parse_source(str(path)), ReadOptions(**options))
    samples = list(source.samples())
    assert len(samples) == source.total
    return source, {sample.member: sample.content for sample in samples}


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def pack(path: Path, files: dict[str, bytes], mode: str = "w", links=(), special=()) -> Path:
    """Packs files into a tar; links are (name, target, type)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target, kind in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
        for name in special:
            info = tarfile.TarInfo(name)
            info.type = tarfile.FIFOTYPE
            tar.addfile(info)
    return path


def pack_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
