"""Sources that `--data` may name: their kind, their name, and a fingerprint of their files. Does not import torch."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from hilo_nas import plugins
from hilo_nas.data.formats import ARCHIVE_ENDINGS, archive_stem, image_endings
from hilo_nas.data.reading import DEFAULTS, ReadOptions
from hilo_nas.data.walk import list_empty, walk_files
from hilo_nas.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

__all__ = [
    "TORCH_DATASETS",
    "Layout",
    "Sample",
    "Source",
    "SourceSpec",
    "absolute_source",
    "list_files",
    "parse_source",
    "read_fingerprint",
]

TORCH_DATASETS = ("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist", "imagenet", "places365")
"""Data sets that `torch/` supports. Each has a training split and a list of class names in torchvision."""

_RULES = "classes and splits, 2"
"""Version of the rules that find classes and splits in names. Sets read by other rules are read again."""

_GLYPHS = ("digits", "torch/mnist", "torch/kmnist", "torch/qmnist")
_FORMS = (
    "digits, a folder with one subfolder per class, a .tar, .zip or .parquet file, a folder of them, torch/NAME, "
    "hfds/NAME, wds/DIR or path/to/file.py:function"
)


Layout = Literal["folders", "label files", "rows", "calls"]
"""Place from which the classes come: folder names, files next to images, a column, or results of a library or
function."""


class Sample(NamedTuple):
    """One image of a source."""

    class_name: str
    member: str
    """Path of the image inside the source. Error messages name it, and groups are defined by it."""
    content: bytes | Image.Image | np.ndarray | Exception
    """Bytes of the file, or the decoded image, or the error that occurred.

    An image is decoded if the source gives no bytes. An array is (H, W) or (H, W, C) with C = 1 or 3.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """An opened source. Its images are read once, in any order."""

    samples: Callable[[], Iterator[Sample]]
    """Reads the images one after the other.

    Raises:
        DataError: A file cannot be read.
    """
    total: int | None
    """Number of images. None if it is unknown."""
    class_counts: dict[str, int] | None
    """Number of images per class. None if it is unknown before the images are read."""
    left_out: tuple[str, ...] = ()
    """Warnings, one sentence for each part of the source that is not used."""
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Number of skipped files that are not images, by extension. `special` counts pipes, sockets and devices.

    Hidden files and files that operating systems create are not counted.
    """
    split: str = ""
    """One sentence about how the training images were chosen. Empty if the source has one split."""
    class_level: str = ""
    """One sentence about the folders that name the classes. Empty if no folder does."""
    layout: Layout = "calls"
    """Place from which the classes come."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """A source that the user named."""

    kind: str
    """`digits`, `folder`, `archive`, `table`, `torch`, `hfds`, `wds` or `function`."""
    text: str
    """The source in the user's words."""
    path: Path | None = None
    """File or folder of the source, or file that defines its function. None if it has no path."""
    dataset: str | None = None
    """Name of the data set after the prefix, or of the function."""

    @property
    def name(self) -> str:
        """Name for tables and records. Never a local path."""
        if self.kind == "function":
            return plugins.name_of(self.text)
        if self.kind == "torch" or (self.kind == "hfds" and self.path is None):
            return f"{self.kind}/{self.dataset}"
        base = self.path.name if self.path else self.kind
        return f"{self.kind}/{base}" if self.kind in ("hfds", "wds") else base

    @property
    def hflip(self) -> bool:
        """True if images of this source may be mirrored, judging by its name. False for digits and letters."""
        return self.name not in _GLYPHS


def parse_source(text: str) -> SourceSpec:
    """Returns the source that a text names. `torch/NAME:DIR` sets the folder of torchvision's files (default `data`).

    Raises:
        DataError: There is no such source.
        NotFoundError: The file or module of a function does not exist.
        UsageError: The module of the function has no Python file.
    """
    if plugins.is_plugin(text) and not _exists(Path(text), text):
        function = text.rpartition(":")[2]
        return SourceSpec(kind="function", text=text, path=plugins.find_file(text), dataset=function)
    prefix, slash, rest = text.partition("/")
    prefix = prefix.lower() if slash else ""
    if text == "digits":
        return SourceSpec(kind="digits", text=text)
    if prefix == "torch":
        dataset, _, folder = rest.partition(":")
        dataset = dataset.lower()
        if dataset not in TORCH_DATASETS:
            hint = _suggest(dataset, TORCH_DATASETS, "torch/")
            raise DataError(f"torch/ takes {', '.join(TORCH_DATASETS)}, but got {dataset!r}.{hint}")
        return SourceSpec(kind="torch", text=text, dataset=dataset, path=_existing(folder or "data", text))
    if prefix == "hfds":
        if not rest:
            raise DataError("hfds/ needs the name of a Hugging Face data set, for example hfds/uoft-cs/cifar10")
        folder_of_it = Path(rest).expanduser()
        return SourceSpec(
            kind="hfds", text=text, dataset=rest, path=folder_of_it.resolve() if folder_of_it.is_dir() else None
        )
    if prefix == "wds":
        return SourceSpec(kind="wds", text=text, path=_existing(rest, text))
    return _parse_path(text)


def absolute_source(text: str) -> str:
    """Returns a text that names the same source from any working directory, with an absolute path and resolved links.

    For a function, see `hilo_nas.plugins.absolute`.

    A name without a path (`digits`, `hfds/NAME`) is returned unchanged. It means the same in every working directory:
    `digits` is the built-in data set (a folder would be `./digits`), and `hfds/DIR` is a folder if it exists.

    Raises:
        DataError: There is no such source.
        NotFoundError: The file or module of a function does not exist.
        UsageError: The module of the function has no Python file.
    """
    spec = parse_source(text)
    if spec.path is None:
        return text
    if spec.kind == "function":
        return plugins.absolute(text)
    if spec.kind == "torch":
        return f"torch/{spec.dataset}:{spec.path}"
    return f"{spec.kind}/{spec.path}" if spec.kind in ("hfds", "wds") else str(spec.path)


def _parse_path(text: str) -> SourceSpec:
    path = _existing(text, text)
    if path.is_dir():
        try:
            next(path.iterdir(), None)  # Fails here if the folder cannot be listed.
        except OSError as error:
            raise DataError(f"{text} cannot be read: {error}") from error
        return SourceSpec(kind="folder", text=text, path=path)
    if path.suffix == ".py":
        raise DataError(f"a Python file must be given with the name of a function, {text}:FUNCTION, but got {text}")
    if not path.is_file():
        raise DataError(f"a source must be a folder or a regular file, but {text} is neither")
    if archive_stem(path.name):
        return SourceSpec(kind="archive", text=text, path=path)
    if path.suffix.lower() in (".parquet", ".arrow"):
        return SourceSpec(kind="table", text=text, path=path)
    raise DataError(
        f"a data file must end in {', '.join(ARCHIVE_ENDINGS)} or .parquet, but got {text}. Unpack it and use the "
        f"folder. A source is {_FORMS}."
    )


def _existing(folder: str, text: str) -> Path:
    """Returns the path with links resolved.

    Raises:
        DataError: It does not exist. The message suggests a similar name.
    """
    path = Path(folder).expanduser()
    if not folder or not _exists(path, text):
        hint = ""
        if text == folder:
            hint = _suggest(text.lower().replace("-", ""), TORCH_DATASETS, "torch/") or _suggest(text, ("digits",))
        if not hint and folder and path.parent.is_dir():
            siblings = [entry.name for entry in path.parent.iterdir()]
            hint = _suggest(path.name, siblings, f"{path.parent}/" if path.parent.name else "")
        if text.lower().startswith("torch/") and not hint:
            hint = " Add the folder of torchvision's files: torch/NAME:DIR."
        raise DataError(f"no data at {folder!r}: no such file or folder.{hint} A source is {_FORMS}.")
    return path.resolve()


def _exists(path: Path, text: str) -> bool:
    try:
        return path.exists()
    except OSError as error:  # the name is too long, or a folder may not be entered
        shown = text if len(text) <= 60 else f"{text[:60]}..."
        raise DataError(f"no data at {shown!r}: {error.strerror}. A source is {_FORMS}.") from error


def _suggest(name: str, known: list[str] | tuple[str, ...], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f" Did you mean {prefix}{close[0]}?" if close else ""


def read_fingerprint(spec: SourceSpec, options: ReadOptions = DEFAULTS) -> str:
    """Returns a hash of the absolute path and of the size and modification time of every file.

    Reads no image, and calls `stat` once per file. A data set of the Hugging Face hub is identified only by its name,
    and a function only by the content of its file. Files that the function reads are not checked.

    Raises:
        DataError: The folder cannot be listed.
        UsageError: The file of a function cannot be read.
    """
    lines = [spec.kind, spec.dataset or "", str(spec.path or "")]
    if spec.path is not None:
        lines.append(_RULES)
    lines += [f"{name}={value}" for name, value in sorted(options.to_dict().items())]
    if spec.kind == "digits":
        lines.append(importlib.metadata.version("scikit-learn"))
    elif spec.kind == "function":
        lines.append(plugins.hash_source(spec.text))
    elif spec.path is not None:
        try:
            lines += sorted(_stat_lines(spec.path))
            lines += sorted(image_endings())  # More files are images if a newer Pillow or a plugin reads them.
        except OSError as error:
            raise DataError(f"{spec.text} cannot be read: {error}") from error
    return hashlib.sha256("\0".join(lines).encode(errors="surrogateescape")).hexdigest()


def list_files(spec: SourceSpec) -> list[str]:
    """Returns the files of a source. Empty for functions, the built-in data set and data sets of a hub.

    Raises:
        OSError: A folder cannot be listed.
    """
    if spec.path is None or spec.kind == "function":
        return []
    return [str(spec.path)] if spec.path.is_file() else [entry.path for _, entry in walk_files(spec.path)]


def _stat_lines(path: Path) -> Iterator[str]:
    if path.is_file():
        stat = path.stat()
        yield f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}"
        return
    # An empty class folder gives a warning until it is filled or removed.
    yield from (f"{path}/{name}\0empty" for name in list_empty(path))
    for name, entry in walk_files(path):
        try:
            stat = entry.stat()
        except OSError:  # A broken link matters only if it has the name of an image.
            yield f"{path}/{name}\0gone"
        else:
            yield f"{path}/{name}\0{stat.st_size}\0{stat.st_mtime_ns}"
