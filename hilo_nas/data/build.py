"""Builder of cached image sets: decodes, hashes and writes each image of a source once."""

from __future__ import annotations

import hashlib
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

from hilo_nas.data.broken import BrokenImages
from hilo_nas.data.decode import DecodedImage, decode_image, describe_broken, parse_colour, unlimited_pillow
from hilo_nas.data.decoding_memory import DecodingMemory, TooLargeError
from hilo_nas.data.deep import DeepImage
from hilo_nas.data.image_sets import FORMAT, digest_files, write_meta
from hilo_nas.data.ranges import DeepImages
from hilo_nas.data.reading import ReadOptions
from hilo_nas.data.sources import Layout, Sample, Source, SourceSpec
from hilo_nas.errors import DataError, StorageError
from hilo_nas.events import DataPrepared, Emit

__all__ = ["build_set", "check_classes"]

_DECODING = 3
"""Version of the EXIF rotation, compositing and scaling. It is part of the content hash of an image set if they changed
pixels."""
_CHUNK = 64
"""Maximum number of images in memory at once. They are in full size if the source gives decoded images."""


_CLASS_RULES: dict[Layout, str] = {
    "folders": " (images must be in one subfolder per class)",
    "label files": " (the label file next to each image must name its class)",
    "rows": " (each row must hold an image and its class)",
    "calls": "",
}
"""Requirement on the classes, by layout of the source."""


def check_classes(counts: dict[str, int], spec: SourceSpec, layout: Layout) -> None:
    """Checks that a source has at least two classes.

    Raises:
        DataError: There is no image, or only one class.
    """
    if not counts:
        raise DataError(f"no images in {spec.text}{_CLASS_RULES[layout]}")
    if len(counts) == 1:
        raise DataError(
            f"a classification needs two classes or more, but {spec.text} has one: {next(iter(counts))!r}"
            f"{_CLASS_RULES[layout]}."
        )


def build_set(
    workshop: Path, spec: SourceSpec, source: Source, img_size: int, options: ReadOptions, emit: Emit
) -> tuple[str, str]:
    """Writes the images of a source into an empty folder. Returns their content hash and the key of the image set.

    One thread per CPU core decodes the images, up to eight threads.

    Raises:
        DataError: Images are broken (the message lists them), there is no image, or there is only one class.
        StorageError: The disk has too little free space.
        OSError: The folder cannot be written.
    """
    if source.class_counts is not None:
        check_classes(source.class_counts, spec, source.layout)
    _check_room(workshop, source.total, img_size)
    broken = BrokenImages(spec, workshop.parents[1] / "reports")
    names: list[str] = []
    members: list[str] = []
    digests: list[bytes] = []
    tally = _Tally()
    drafts = workshop / "deep.tmp"
    with open(workshop / "images.npy", "wb") as file, open(drafts, "w+b") as aside:
        deep = DeepImages(aside)
        _write_header(file, 0, img_size)
        blank = bytes(img_size**2 * 3)
        with unlimited_pillow():
            for sample, image in _decoded(spec, source, img_size, options, broken, emit):
                if isinstance(image.pixels, DeepImage):
                    deep.add(len(names), image.pixels)
                file.write(blank if isinstance(image.pixels, DeepImage) else image.pixels.tobytes())
                names.append(sample.class_name)
                members.append(sample.member)
                digests.append(image.digest)
                tally.add(image)
        counts = Counter(names)
        broken.check(counts, options.skip_broken, emit)
        check_classes(counts, spec, source.layout)
        file.seek(0)
        _write_header(file, len(names), img_size)
        _sync(file)
        low, high = options.value_range or deep.find_range()
        scaling_changes = bool(len(deep)) and deep.write(workshop / "images.npy", low, high)
    drafts.unlink()
    class_names = sorted(counts, key=lambda name: ([int(p) if p.isdecimal() else p for p in _runs(name)], name))
    label = {name: index for index, name in enumerate(class_names)}
    content_hash = _content_hash(names, digests)
    changes = tally.changes(options)
    if scaling_changes:
        changes["value_range"] = [low, high]
    if changes:
        text = json.dumps({"decoding": _DECODING, **changes}, sort_keys=True)
        content_hash = hashlib.sha256(f"{content_hash} {text}".encode()).hexdigest()
    facts = {
        **tally.to_facts(options),
        **deep.to_facts(len(names), low, high),
        "broken": [list(pair) for pair in broken.found],
        "skipped": dict(source.skipped),
        "split": source.split,
        "class_level": source.class_level,
        "left_out": list(source.left_out),
        "has_rows": source.layout == "rows",
    }
    facts = {name: value for name, value in facts.items() if value}
    halves = np.frombuffer(b"".join(d[:16] for d in digests), dtype=">u8").astype(np.uint64).reshape(-1, 2)
    _save(workshop / "labels.npy", np.array([label[name] for name in names], dtype=np.int64))
    _save(workshop / "digests.npy", halves)
    _save(workshop / "members.npy", np.frombuffer("\0".join(members).encode(errors="surrogateescape"), dtype=np.uint8))
    meta: dict[str, Any] = {
        "format": FORMAT,
        "name": spec.name,
        "content_hash": content_hash,
        "img_size": img_size,
        "n_images": len(names),
        "class_names": class_names,
        "class_counts": [counts[name] for name in class_names],
        "facts": facts,
        "blocks": digest_files(workshop),
    }
    write_meta(workshop, meta)
    return content_hash, f"{content_hash[:16]}-{_members_hash(digests, members, facts)[:8]}"


class _Tally:
    """Counts of the changes made to the images of an image set: turned, composited, cropped to the center."""

    def __init__(self) -> None:
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._counts: Counter[str] = Counter()
        self._changes: Counter[str] = Counter()

    def add(self, image: DecodedImage) -> None:
        self._sizes[image.size] += 1
        self._counts["n_turned"] += image.is_turned or image.is_turned_by_pillow
        self._counts["n_composited"] += image.is_composited
        self._counts["n_first_frame"] += image.is_first_frame
        self._counts["n_cut"] += image.size[0] != image.size[1]
        if image.is_changed:
            self._changes["turned"] += image.is_turned
            self._changes["background"] += image.is_composited
        self._changes["restored"] += image.is_restored

    def changes(self, options: ReadOptions) -> dict[str, Any]:
        """Returns the changes to pixels that are part of the content hash."""
        found: dict[str, Any] = {}
        if self._changes["turned"]:
            found["turned"] = True
        if self._changes["restored"]:
            found["restored"] = True
        if self._changes["background"]:
            found["background"] = list(parse_colour(options.background))
        return found

    def to_facts(self, options: ReadOptions) -> dict[str, Any]:
        facts: dict[str, Any] = {name: count for name, count in self._counts.items() if count}
        if "n_composited" in facts:
            facts["background"] = options.background
        by_area = sorted(self._sizes.elements(), key=lambda size: (size[0] * size[1], size))
        if by_area:
            chosen = {"smallest": by_area[0], "median": by_area[len(by_area) // 2], "largest": by_area[-1]}
            facts["sizes"] = {name: list(size) for name, size in chosen.items()}
        return facts


def _runs(name: str) -> list[str]:
    """Splits a name into text and digits in turn, starting with text: `img10.png` gives `["img", "10", ".png"]`.

    Digits are compared as numbers, so that 2 sorts before 10.
    """
    return re.split(r"(\d+)", name.lower())


def _decoded(
    spec: SourceSpec, source: Source, img_size: int, options: ReadOptions, broken: BrokenImages, emit: Emit
) -> Iterator[tuple[Sample, DecodedImage]]:
    """Yields each readable image. Emits the progress up to four times per second."""
    background, memory = parse_colour(options.background), DecodingMemory()
    done, last_emit = 0, time.monotonic()

    def decode(sample: Sample) -> DecodedImage | str:
        if isinstance(sample.content, Exception):
            return describe_broken(None, sample.content)
        try:
            return decode_image(sample.content, img_size, background, memory)
        except TooLargeError as error:
            return str(error)
        except MemoryError:
            return "there is too little memory to decode it"
        except Exception as error:  # Pillow's plugins raise any type of error for a broken file.
            return describe_broken(sample.content, error)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for chunk in _chunks(source.samples(), memory.limit_bytes // 4):
            for sample, result in zip(chunk, pool.map(decode, chunk), strict=True):
                if isinstance(result, str):
                    broken.add(sample, result)
                else:
                    yield sample, result
            done += len(chunk)
            if time.monotonic() - last_emit >= 0.25:
                last_emit = time.monotonic()
                emit(DataPrepared(done=done, total=source.total))
    emit(DataPrepared(done=done, total=source.total))


def _chunks(samples: Iterable[Sample], most_bytes: int) -> Iterator[list[Sample]]:
    """Yields samples in chunks. A chunk is shorter if its files are large."""
    chunk: list[Sample] = []
    held = 0
    for sample in samples:
        chunk.append(sample)
        held += len(sample.content) if isinstance(sample.content, bytes) else 0
        if len(chunk) == _CHUNK or held > most_bytes:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _content_hash(names: list[str], digests: list[bytes]) -> str:
    total = hashlib.sha256()
    for name, digest in sorted(zip(names, digests, strict=True)):
        total.update(hashlib.sha256(name.encode(errors="surrogateescape")).digest() + digest)
    return total.hexdigest()


def _members_hash(digests: list[bytes], members: list[str], facts: dict[str, Any]) -> str:
    """Returns a hash of the images with their names and of how they were read, independent of their order."""
    total = hashlib.sha256()
    for digest, member in sorted(zip(digests, members, strict=True)):
        total.update(digest + hashlib.sha256(member.encode(errors="surrogateescape")).digest())
    total.update(json.dumps(facts, sort_keys=True).encode(errors="surrogateescape"))
    return total.hexdigest()


def _check_room(folder: Path, n_images: int | None, img_size: int) -> None:
    needed, free = (n_images or 0) * img_size**2 * 3, shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"{n_images} images of {img_size} pixels need {needed / 2**20:,.0f} MiB in the image cache, but its disk "
            f"has {free / 2**20:,.0f} MiB free. Free some space, or set HILO_NAS_CACHE_DIR to another folder."
        )


def _write_header(file: BinaryIO, n_images: int, img_size: int) -> None:
    """Writes a .npy header. numpy reserves space for the first axis to grow, so the header can be rewritten later."""
    shape = (n_images, img_size, img_size, 3)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, array)
        _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
