"""What `--data` may name, told without torch: which kind of source it is, its name, and whether it has changed."""

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
"""Names that `torch/` takes; each has a training split and a list of class names in torchvision."""

_RULES = "classes and splits, 2"
"""Version of the rules by which folders and files name classes and splits; a set read by others is read anew."""

_GLYPHS = ("digits", "torch/mnist", "torch/kmnist", "torch/qmnist")
_FORMS = (
    "digits, a folder with one subfolder per class, a .tar, .zip or .parquet file, a folder of them, torch/NAME, "
    "hfds/NAME, wds/DIR or path/to/file.py:function"
)


Layout = Literal["folders", "label files", "rows", "calls"]
"""Where classes stand: in names of folders, in files beside the images, in a column, or in what a library or function
returns."""


class Sample(NamedTuple):
    """One image as the source gives it."""

    class_name: str
    member: str
    """Where the image lies inside the source; what an error message names, and what groups are told by."""
    content: bytes | Image.Image | np.ndarray | Exception
    """The file's bytes, or the decoded image where the source does not give them (an array is (H, W) or (H, W, 1|3)),
    or why this one cannot be read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """An opened source: its images, read once, in no particular order."""

    samples: Callable[[], Iterator[Sample]]
    """Reads the images one after the other.

    Raises:
        DataError: A file cannot be read.
    """
    total: int | None
    """Images to come; None where the source does not know."""
    class_counts: dict[str, int] | None
    """Images per class, where that is known before they are read."""
    left_out: tuple[str, ...] = ()
    """Warnings: one sentence for each part of the source that is not used."""
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Number of files passed over because they are no images, by ending; `special` counts pipes, sockets and devices.

    What the operating system leaves behind and hidden files are not counted."""
    split: str = ""
    """How the training images were chosen, in one sentence; empty where the source has one split."""
    class_level: str = ""
    """Which folders name a class, in one sentence; empty where no folder does."""
    layout: Layout = "calls"
    """Where the classes of the images stand."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """A source as the user named it."""

    kind: str
    """`digits`, `folder`, `archive`, `table`, `torch`, `hfds`, `wds` or `function`."""
    text: str
    """The user's own words."""
    path: Path | None = None
    """The file or folder that holds it, or defines its function; None where it has no place of its own."""
    dataset: str | None = None
    """The data set's name after the prefix, or the function's."""

    @property
    def name(self) -> str:
        """The name for tables and records; never a local path."""
        if self.kind == "function":
            return plugins.name_of(self.text)
        if self.kind == "torch" or (self.kind == "hfds" and self.path is None):
            return f"{self.kind}/{self.dataset}"
        base = self.path.name if self.path else self.kind
        return f"{self.kind}/{base}" if self.kind in ("hfds", "wds") else base

    @property
    def hflip(self) -> bool:
        """Whether images of this source may be mirrored, as far as its name tells: not digits and letters."""
        return self.name not in _GLYPHS


def parse_source(text: str) -> SourceSpec:
    """Returns what the user's words name; `torch/NAME:DIR` says where torchvision's files lie (default `data`).

    Raises:
        DataError: Nothing of that name exists.
        NotFoundError: There is no such file or module, for a function.
        UsageError: The function's module has no file of Python.
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
            hint = _near(dataset, TORCH_DATASETS, "torch/")
            raise DataError(f"torch/ takes {', '.join(TORCH_DATASETS)}, but got {dataset!r}.{hint}")
        return SourceSpec(kind="torch", text=text, dataset=dataset, path=_existing(folder or "data", text))
    if prefix == "hfds":
        if not rest:
            raise DataError("hfds/ wants the name of a Hugging Face data set, for instance hfds/uoft-cs/cifar10")
        folder_of_it = Path(rest).expanduser()
        return SourceSpec(
            kind="hfds", text=text, dataset=rest, path=folder_of_it.resolve() if folder_of_it.is_dir() else None
        )
    if prefix == "wds":
        return SourceSpec(kind="wds", text=text, path=_existing(rest, text))
    return _parse_path(text)


def absolute_source(text: str) -> str:
    """Returns words that name the same source from any working directory: its file or folder in full, links resolved.

    For a function, see `hilo_nas.plugins.absolute`.

    A name that is no path (`digits`, `hfds/NAME`) stays as it is, and means what `parse_source` takes it for, whatever
    lies in the working directory: `digits` is built in (a folder is `./digits`), `hfds/DIR` a folder where it exists.

    Raises:
        DataError: Nothing of that name exists.
        NotFoundError: There is no such file or module, for a function.
        UsageError: The function's module has no file of Python.
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
            next(path.iterdir(), None)  # Refused here, where the folder may not be listed.
        except OSError as error:
            raise DataError(f"{text} cannot be read: {error}") from error
        return SourceSpec(kind="folder", text=text, path=path)
    if path.suffix == ".py":
        raise DataError(f"a file of Python must be given with a function in it, {text}:FUNCTION, but got {text}")
    if not path.is_file():
        raise DataError(f"a source must be a folder or a regular file, but {text} is neither")
    if archive_stem(path.name):
        return SourceSpec(kind="archive", text=text, path=path)
    if path.suffix.lower() in (".parquet", ".arrow"):
        return SourceSpec(kind="table", text=text, path=path)
    raise DataError(
        f"a data file must end in {', '.join(ARCHIVE_ENDINGS)} or .parquet, but got {text}. Unpack it, and give the "
        f"folder; a source is {_FORMS}."
    )


def _existing(folder: str, text: str) -> Path:
    """Returns the path with links resolved.

    Raises:
        DataError: It does not exist; with the nearest name that does.
    """
    path = Path(folder).expanduser()
    if not folder or not _exists(path, text):
        hint = ""
        if text == folder:
            hint = _near(text.lower().replace("-", ""), TORCH_DATASETS, "torch/") or _near(text, ("digits",))
        if not hint and folder and path.parent.is_dir():
            siblings = [entry.name for entry in path.parent.iterdir()]
            hint = _near(path.name, siblings, f"{path.parent}/" if path.parent.name else "")
        if text.lower().startswith("torch/") and not hint:
            hint = " Name the folder that holds torchvision's files: torch/NAME:DIR."
        raise DataError(f"no data at {folder!r}: no such file or folder.{hint} A source is {_FORMS}.")
    return path.resolve()


def _exists(path: Path, text: str) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name that is longer than the file system takes, a folder that may not be entered
        shown = text if len(text) <= 60 else f"{text[:60]}..."
        raise DataError(f"no data at {shown!r}: {error.strerror}. A source is {_FORMS}.") from error


def _near(name: str, known: list[str] | tuple[str, ...], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f" Did you mean {prefix}{close[0]}?" if close else ""


def read_fingerprint(spec: SourceSpec, options: ReadOptions = DEFAULTS) -> str:
    """Returns a hash of what the file system says: absolute path, and every file's size and time of change.

    Reads no image; one `stat` per file. A data set of the Hugging Face hub is known by its name alone, a function by
    its file's content; what it reads is not looked at.

    Raises:
        DataError: The folder cannot be listed.
        UsageError: A function's file cannot be read.
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
            lines += sorted(image_endings())  # More files count once Pillow or an addition to it reads them.
        except OSError as error:
            raise DataError(f"{spec.text} cannot be read: {error}") from error
    return hashlib.sha256("\0".join(lines).encode(errors="surrogateescape")).hexdigest()


def list_files(spec: SourceSpec) -> list[str]:
    """Returns the files that a source is read from; none where it is a function, built in or on a hub.

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
    # A class without images is told, until its folder is filled or removed.
    yield from (f"{path}/{name}\0empty" for name in list_empty(path))
    for name, entry in walk_files(path):
        try:
            stat = entry.stat()
        except OSError:  # A link that leads nowhere; it matters only where an image is wanted of it.
            yield f"{path}/{name}\0gone"
        else:
            yield f"{path}/{name}\0{stat.st_size}\0{stat.st_mtime_ns}"
