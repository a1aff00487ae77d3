"""Images in, a set of the cache out: decoding, resizing, hashing and writing, each image once."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

from hilo_nas.data.cache import FORMAT
from hilo_nas.data.reading import ReadOptions
from hilo_nas.data.sources import Sample, Source, SourceSpec
from hilo_nas.errors import DataError, StorageError
from hilo_nas.events import DataPrepared, Emit

__all__ = ["build_set", "check_classes", "decode_image"]

_CHUNK = 64
"""Images in memory at once, in full size where the source gives them decoded."""
_BROKEN_SHOWN = 5


def decode_image(content: bytes | Image.Image | np.ndarray, img_size: int) -> tuple[np.ndarray, bytes]:
    """Returns pixels (img_size, img_size, 3; uint8) and the image's SHA-256.

    The shorter side is resized to `img_size` (bicubic) and the centre is kept. The hash is that of the file's bytes,
    or of the decoded pixels where the source gives no file; it does not depend on `img_size`.
    """
    if isinstance(content, bytes):
        digest = hashlib.sha256(content).digest()
        with Image.open(io.BytesIO(content)) as image:
            # A JPEG decodes faster at a fraction of its size; twice the wanted size keeps the resizing exact enough.
            image.draft("RGB", (2 * img_size, 2 * img_size))
            rgb = _rgb(image)
    else:
        rgb = _rgb(Image.fromarray(content) if isinstance(content, np.ndarray) else content)
        digest = hashlib.sha256(f"{rgb.width}x{rgb.height}".encode() + rgb.tobytes()).digest()
    if rgb.size != (img_size, img_size):
        rgb = ImageOps.fit(rgb, (img_size, img_size), Image.Resampling.BICUBIC)
    return np.asarray(rgb), digest


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow would cut 16-bit grey off at 255 instead of scaling it.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def check_classes(counts: dict[str, int], spec: SourceSpec) -> None:
    """Checks that there is something to tell apart.

    Raises:
        DataError: No image, or one class only.
    """
    if not counts:
        way_out = ".png, .jpg or .jpeg files must lie in one subfolder per class"
        raise DataError(f"no images in {spec.text}" + (f": {way_out}" if spec.kind != "function" else ""))
    if len(counts) == 1:
        way_out = " Images must lie in one subfolder per class." if spec.kind != "function" else ""
        raise DataError(
            f"a classification needs two classes or more, but {spec.text} holds one: {next(iter(counts))!r}.{way_out}"
        )


def build_set(
    workshop: Path, spec: SourceSpec, source: Source, img_size: int, options: ReadOptions, emit: Emit
) -> tuple[str, str]:
    """Writes the source's images into an empty folder; returns their content hash and the set's key.

    Images are decoded by as many threads as there are cores, at most eight.

    Raises:
        DataError: A broken image (all of the first few are named), no image, or one class only.
        StorageError: The disk has not enough room for the images.
        OSError: The folder cannot be written.
    """
    if source.class_counts is not None:
        check_classes(source.class_counts, spec)
    _check_room(workshop, source.total, img_size)
    names: list[str] = []
    members: list[str] = []
    digests: list[bytes] = []
    with open(workshop / "images.npy", "wb") as file:
        _write_header(file, 0, img_size)
        for sample, pixels, digest in _decoded(spec, source, img_size, emit):
            file.write(pixels.tobytes())
            names.append(sample.class_name)
            members.append(sample.member)
            digests.append(digest)
        file.seek(0)
        _write_header(file, len(names), img_size)
        _sync(file)
    counts = Counter(names)
    check_classes(counts, spec)
    class_names = sorted(counts, key=lambda name: ([int(p) if p.isdecimal() else p for p in _runs(name)], name))
    label = {name: index for index, name in enumerate(class_names)}
    content_hash = _content_hash(names, digests)
    meta: dict[str, Any] = {
        "format": FORMAT,
        "name": spec.name,
        "content_hash": content_hash,
        "img_size": img_size,
        "n_images": len(names),
        "class_names": class_names,
        "class_counts": [counts[name] for name in class_names],
    }
    halves = np.frombuffer(b"".join(d[:16] for d in digests), dtype=">u8").astype(np.uint64).reshape(-1, 2)
    _save(workshop / "labels.npy", np.array([label[name] for name in names], dtype=np.int64))
    _save(workshop / "digests.npy", halves)
    _save(workshop / "members.npy", np.frombuffer("\0".join(members).encode(errors="surrogateescape"), dtype=np.uint8))
    with open(workshop / "meta.json", "wb") as file:
        file.write(json.dumps(meta, indent=1).encode())
        _sync(file)
    return content_hash, f"{content_hash[:16]}-{_members_hash(digests, members)[:8]}"


def _runs(name: str) -> list[str]:
    """Splits a name into text and digits by turns, beginning with text, so that 2 sorts before 10."""
    return re.split(r"(\d+)", name.lower())


def _decoded(spec: SourceSpec, source: Source, img_size: int, emit: Emit) -> Iterator[tuple[Sample, np.ndarray, bytes]]:
    """Yields each image with its pixels and digest, and tells how far it has come up to four times a second."""
    broken: list[str] = []
    done, told = 0, time.monotonic()

    def decode(sample: Sample) -> tuple[np.ndarray, bytes] | str:
        if isinstance(sample.content, Exception):
            return f"{sample.member} ({sample.content})"
        try:
            return decode_image(sample.content, img_size)
        except Exception as error:  # Pillow's plugins raise what they like for a broken file.
            return f"{sample.member} ({error})"

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for chunk in _chunks(source.samples()):
            for sample, result in zip(chunk, pool.map(decode, chunk), strict=True):
                if isinstance(result, str):
                    broken.append(result)
                else:
                    yield (sample, *result)
            done += len(chunk)
            if len(broken) >= _BROKEN_SHOWN:
                break
            if time.monotonic() - told >= 0.25:
                told = time.monotonic()
                emit(DataPrepared(done=done, total=source.total))
    if broken:
        raise DataError(
            f"broken images in {spec.text}:\n" + "\n".join(f"  {line}" for line in broken) + "\nRepair or remove them."
        )
    emit(DataPrepared(done=done, total=source.total))


def _chunks(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while chunk := list(itertools.islice(iterator, _CHUNK)):
        yield chunk


def _content_hash(names: list[str], digests: list[bytes]) -> str:
    total = hashlib.sha256()
    for name, digest in sorted(zip(names, digests, strict=True)):
        total.update(hashlib.sha256(name.encode(errors="surrogateescape")).digest() + digest)
    return total.hexdigest()


def _members_hash(digests: list[bytes], members: list[str]) -> str:
    """Returns a hash of which image bears which name, in whichever order they come."""
    total = hashlib.sha256()
    for digest, member in sorted(zip(digests, members, strict=True)):
        total.update(digest + hashlib.sha256(member.encode(errors="surrogateescape")).digest())
    return total.hexdigest()


def _check_room(folder: Path, n_images: int | None, img_size: int) -> None:
    needed, free = (n_images or 0) * img_size**2 * 3, shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"{n_images} images of {img_size} pixels need {needed / 2**20:,.0f} MiB in the image cache, but its disk "
            f"has {free / 2**20:,.0f} MiB free. Free some space, or set HILO_NAS_CACHE_DIR to another folder."
        )


def _write_header(file: BinaryIO, n_images: int, img_size: int) -> None:
    """Writes a .npy header; numpy leaves room in it for the first axis to grow, so it can be written again later."""
    shape = (n_images, img_size, img_size, 3)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, array)
        _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
