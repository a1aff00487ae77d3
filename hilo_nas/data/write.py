"""Writer of a data set as it was read: upright 8-bit RGB files, one folder per class, in `train` and `validation`.

timm's train.py reads the written folder as this package reads the source.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from hilo_nas.data.cache import default_cache_dir, load_members
from hilo_nas.data.decode import decode_image, parse_colour, unlimited_pillow
from hilo_nas.data.decoding_memory import DecodingMemory, TooLargeError
from hilo_nas.data.deep import DeepImage
from hilo_nas.data.prepared_images import CachedData, find_places, prepare_data
from hilo_nas.data.reading import DEFAULTS, ReadOptions
from hilo_nas.data.sources import parse_source
from hilo_nas.data.summary import load_facts
from hilo_nas.errors import DataError, StorageError, UsageError
from hilo_nas.events import DataPrepared, Emit, Notice
from hilo_nas.files.plain_files import check_no_link
from hilo_nas.measurement import ProxyPlan
from hilo_nas.study.records import write_atomically
from hilo_nas.text.plurals import agree, count_of

__all__ = ["CLASS_MAP", "Written", "name_folders", "write_data"]

CLASS_MAP = "class_map.txt"
"""Name of the file that lists the class folders in label order, for timm's --class-map."""
_IMG_SIZE = 32
"""Side in pixels of the cached image set, which is only used for the split and the value range."""
_LONGEST = 80
_SHOWN = 20
_FORBIDDEN = '/\\:*?"<>|'
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)
"""Names that Windows reserves for devices, with any extension."""

Sides = Mapping[tuple[str, int, int], str]
"""Split folder of each image to write, by the name and digest of the image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """Numbers of images that `write_data` wrote, and renamed class folders."""

    counts: dict[str, int]
    """Number of images in `train` and in `validation`."""
    renamed: dict[str, str]
    """Folder of each class whose name cannot be a folder name, by class: `{"a/b": "a_b"}`."""


def write_data(
    source: str,
    folder: Path,
    *,
    cache_dir: Path | None = None,
    val_data: str | None = None,
    group_by: str | None = None,
    options: ReadOptions = DEFAULTS,
    force: bool = False,
    emit: Emit,
) -> Written:
    """Writes images in full size as PNG files to `train/CLASS` and `validation/CLASS` in a folder.

    Args:
        source: The source, as for `prepare_data`.
        folder: The output folder. It is created if missing.
        cache_dir: Folder of the cache. None means `default_cache_dir()`.
        val_data: Another source for `validation`. If None, `validation` gets the images that a search holds out.
        group_by: `ProxyPlan.group_by`.
        options: Options for reading both sources.
        force: Write into a folder that holds files. Files of the same names are replaced, and others are kept.
        emit: Receives the events of `prepare_data`, and `DataPrepared` for written images.

    Raises:
        UsageError: The folder holds files and `force` is not set.
        DataError: The data cannot be read; or some images cannot be written and `skip_broken` is not set. In the latter
            case the other images are written.
        StorageError: The folder or the cache cannot be written.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"the images must be written to a folder, but {folder} is a file. Choose another folder.")
        if folder.is_dir() and any(folder.iterdir()) and not force:
            raise UsageError(f"{folder} must be empty, but holds files. Choose another folder, or add --force.")
        data = prepare_data(
            source,
            _IMG_SIZE,
            cache_dir=cache_dir or default_cache_dir(),
            val_data=val_data,
            group_by=group_by,
            options=options,
            emit=emit,
        )
        folders = name_folders(data.class_names)
        _check_folders(folder, folders.values())
        folder.mkdir(parents=True, exist_ok=True)
        writer = _Writer(folder, folders, options, emit)
        train, validation = _find_sides(data, group_by)
        writer.write(source, train, _load_range(data.path))
        if val_data is not None and data.val_path is not None:
            writer.write(val_data, validation, _load_range(data.val_path))
        write_atomically(folder / CLASS_MAP, "".join(f"{folders[name]}\n" for name in data.class_names))
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error
    return Written(counts=writer.counts, renamed={name: to for name, to in folders.items() if name != to})


def _check_folders(folder: Path, class_folders: Iterable[str]) -> None:
    """Checks that no output folder is a link, because images would be written elsewhere.

    Raises:
        OSError: One of them is a link.
    """
    names = list(class_folders)
    for side in ("train", "validation"):
        for path in (folder / side, *(folder / side / name for name in names)):
            check_no_link(path)


def name_folders(class_names: Sequence[str]) -> dict[str, str]:
    """Returns a folder name for each class. It is valid on all systems and unique regardless of case."""
    taken: set[str] = set()
    found = {}
    # Valid names of classes are kept unchanged, so they come first.
    for name in sorted(class_names, key=lambda name: (_safe(name) != name, name)):
        folder, number = _safe(name), 1
        while folder.casefold() in taken:
            number += 1
            folder = f"{_safe(name)}-{number}"
        taken.add(folder.casefold())
        found[name] = folder
    return {name: found[name] for name in class_names}


def _safe(name: str) -> str:
    text = unicodedata.normalize("NFC", name)
    text = "".join("_" if char in _FORBIDDEN or not char.isprintable() else char for char in text)
    text = text[:_LONGEST].strip(" .")
    while len(text.encode()) > 200:
        text = text[:-1]
    return f"_{text}" if not text or _DEVICES.fullmatch(text) else text


def _find_sides(data: CachedData, group_by: str | None) -> tuple[Sides, Sides]:
    """Returns the split folders of the images of the training source, and those of the validation source."""
    places = find_places(data, ProxyPlan, group_by)
    training = _sides_of(data.path, places.digests, places.training, "train")
    if data.val_path is not None:
        return training, _sides_of(data.val_path, places.scored_digests, places.scored, "validation")
    return {**training, **_sides_of(data.path, places.digests, places.scored, "validation")}, {}


def _load_range(path: str) -> tuple[float, float] | None:
    """Returns the values that became black and white in a cached image set, or None if all its images have 8 bits."""
    found = load_facts(Path(path)).get("value_range")
    return None if found is None else (float(found[0]), float(found[1]))


def _sides_of(path: str, digests: np.ndarray, places: np.ndarray, side: str) -> Sides:
    members, halves = load_members(Path(path)), digests.tolist()
    return {(members[place], *halves[place]): side for place in places.tolist()}


class _Writer:
    """Writer of the images of one or two sources."""

    def __init__(self, folder: Path, folders: Mapping[str, str], options: ReadOptions, emit: Emit) -> None:
        self._folder, self._folders, self._options, self._emit = folder, folders, options, emit
        self.counts = {"train": 0, "validation": 0}

    def write(self, source: str, sides: Sides, value_range: tuple[float, float] | None) -> None:
        """Writes the images of a source that have a split folder.

        Args:
            source: The source in the user's words.
            sides: Split folders of the images.
            value_range: Values that become black and white in images of more than 8 bits.

        Raises:
            DataError: Images are too large or changed, and `skip_broken` is not set or no image is left.
            OSError: A file cannot be written.
        """
        from hilo_nas.data.readers import open_source  # the import may take seconds

        background, memory = parse_colour(self._options.background), DecodingMemory()
        missing, done = {*sides}, 0
        too_large: dict[str, str] = {}
        with unlimited_pillow():
            for sample in open_source(parse_source(source), self._options).samples():
                try:
                    if isinstance(sample.content, Exception):
                        raise sample.content
                    image = decode_image(sample.content, None, background, memory)
                except (TooLargeError, MemoryError) as error:
                    too_large[sample.member] = str(error) or "there is too little memory to decode it"
                    continue
                except Exception:  # The image is also missing in the cache, or it changed and is reported below.
                    continue
                key = (sample.member, *_halves_of(image.digest))
                if (side := sides.get(key)) is None:
                    continue
                pixels = image.pixels
                if isinstance(pixels, DeepImage):
                    assert value_range is not None  # the cache holds this image and scaled it
                    pixels = pixels.scale(*value_range)
                place = self._folder / side / self._folders[sample.class_name]
                place.mkdir(parents=True, exist_ok=True)
                name = f"{self.counts[side]:06d}-{_safe(PurePosixPath(sample.member).stem)[:40]}.png"
                (place / name).unlink(missing_ok=True)  # the old file may be a link
                with open(place / name, "xb") as file:
                    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="PNG")
                self.counts[side] += 1
                missing.discard(key)
                done += 1
                self._emit(DataPrepared(done=done, total=len(sides)))
        if missing:
            self._report_missing(source, [member for member, _, _ in sorted(missing)], too_large, len(sides))

    def _report_missing(self, source: str, missing: Sequence[str], too_large: Mapping[str, str], total: int) -> None:
        """Warns of images that a search reads but that were not written.

        Raises:
            DataError: `skip_broken` is not set, or no image was written.
        """
        large = [f"{member} ({too_large[member]})" for member in missing if member in too_large]
        changed = [member for member in missing if member not in too_large]
        reasons = [
            f"{count_of(len(items), 'image')} {what}:\n{_listed(items)}"
            for items, what in (
                (large, "too large to be decoded in full size, at which images are written"),
                (changed, "changed since the images were read for the cache"),
            )
            if items
        ]
        text = (
            f"{len(missing):,} of {count_of(total, 'image')} of {source} {agree(len(missing), 'was', 'were')} left out"
        )
        text = "\n".join([f"{text} of {self._folder}", *reasons])
        if self._options.skip_broken and len(missing) < total:
            self._emit(Notice(level="warning", text=text))
            return
        ways = [
            *(["Allow more memory with HILO_NAS_DECODE_MIB."] if large else []),
            *(["Do not change the images during the export."] if changed else []),
            *([] if self._options.skip_broken else ["Or leave the images out with data.skip_broken=true."]),
            "Write to an empty folder.",
        ]
        raise DataError("\n".join([text, " ".join(ways)]))


def _halves_of(digest: bytes) -> tuple[int, int]:
    """Returns the part of a digest that is stored in the cache."""
    first, second = np.frombuffer(digest[:16], dtype=">u8").tolist()
    return first, second


def _listed(items: Sequence[str]) -> str:
    shown = [f"  {item}" for item in items[:_SHOWN]]
    rest = len(items) - len(shown)
    return "\n".join([*shown, f"  and {rest:,} more"] if rest else shown)
