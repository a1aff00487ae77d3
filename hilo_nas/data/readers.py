"""Sources opened with the libraries that know them: timm's readers, torchvision's data sets, scikit-learn's digits.

Only training images come through: where a folder or tar holds splits, `train` is read and the others never are.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from timm.data.dataset_factory import create_dataset
from timm.data.readers.img_extensions import IMG_EXTENSIONS
from timm.data.readers.reader_factory import create_reader
from timm.data.readers.reader_image_in_tar import ReaderImageInTar

from hilo_nas.data.functions import open_function
from hilo_nas.data.reading import DEFAULTS, ReadOptions
from hilo_nas.data.sources import Sample, Source, SourceSpec
from hilo_nas.data.splits import TRAIN_NAMES, choose_shards, choose_training
from hilo_nas.errors import DataError

__all__ = ["open_source"]

_TarReader: Callable[..., Any] = ReaderImageInTar


def open_source(spec: SourceSpec, options: ReadOptions = DEFAULTS) -> Source:
    """Returns the source, ready to be read.

    Raises:
        DataError: It cannot be read, holds no training images, or needs a package that is not installed.
        UsageError: A function is not there, is none, or cannot be imported.
    """
    return _OPENERS[spec.kind](spec)


def _open_digits(spec: SourceSpec) -> Source:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Ink runs from 0 to 16.
    greys = (digits.images * 255 / 16).round().astype("uint8")

    def samples() -> Iterator[Sample]:
        for index, (grey, label) in enumerate(zip(greys, digits.target, strict=True)):
            yield Sample(str(label), f"digit {index}", Image.fromarray(grey))

    return Source(samples=samples, total=len(greys), class_counts=dict(Counter(map(str, digits.target))))


def _open_folder(spec: SourceSpec) -> Source:
    with _reading(spec):
        _check_train_folder(spec)
        reader: Any = create_reader("", root=str(spec.path))
        files = [file for file, _ in reader.samples]
        members = [PurePosixPath(os.path.relpath(file, spec.path)) for file in files]
        chosen, left_out = choose_training(spec.text, members)

    def samples() -> Iterator[Sample]:
        for index in chosen:
            with _reading(spec, str(members[index])), open(files[index], "rb") as file:
                content = file.read()
            yield Sample(members[index].parent.name, str(members[index]), content)

    return _counted(samples, [members[index] for index in chosen], left_out)


def _open_tar(spec: SourceSpec) -> Source:
    with _reading(spec):
        reader = _TarReader(str(spec.path), cache_tarinfo=False)
        members = [_tar_member(sample, reader.root_is_tar) for sample in reader.samples]
        chosen, left_out = choose_training(spec.text, members)

    def samples() -> Iterator[Sample]:
        try:
            for index in chosen:
                with _reading(spec, str(members[index])):
                    file, _ = reader[index]
                    with file:
                        content = file.read()
                yield Sample(members[index].parent.name, str(members[index]), content)
        finally:
            for state in [reader.tar_state] if reader.root_is_tar else reader.tar_state.values():
                for opened in (state, *state.children.values()):
                    if opened.tf is not None:
                        opened.tf.close()
                        opened.reset()

    return _counted(samples, [members[index] for index in chosen], left_out)


def _tar_member(sample: Any, root_is_tar: bool) -> PurePosixPath:
    """Returns the member's path, with the names of the tars around it as folders, as timm labels it."""
    member, tar_name, inner_tar = sample
    around = [] if root_is_tar else [PurePosixPath(tar_name).stem]
    around += [PurePosixPath(inner_tar.path).stem] if inner_tar is not None else []
    return PurePosixPath(*around, member.path.lstrip("/"))


def _open_torch(spec: SourceSpec) -> Source:
    try:
        with _reading(spec):
            dataset: Any = create_dataset(f"torch/{spec.dataset}", root=str(spec.path), split="train")
    except DataError as error:
        raise DataError(
            f"{error}\nThe files of {spec.dataset} must lie in {spec.path} as torchvision leaves them; "
            f"another folder is named by torch/{spec.dataset}:DIR."
        ) from error
    classes = [name if isinstance(name, str) else name[0] for name in dataset.classes]

    def samples() -> Iterator[Sample]:
        for index in range(len(dataset)):
            with _reading(spec, f"image {index}"):
                image, label = dataset[index]
            yield Sample(classes[int(label)], f"image {index}", image)

    return Source(samples=samples, total=len(dataset), class_counts=None)


def _open_hfds(spec: SourceSpec) -> Source:
    _check_package("datasets", "datasets", spec)
    import datasets

    with _reading(spec):
        features = datasets.load_dataset_builder(spec.dataset).info.features or {}
        image_key = next((name for name, kind in features.items() if type(kind).__name__ == "Image"), "image")
        label_key = next((name for name, kind in features.items() if type(kind).__name__ == "ClassLabel"), "label")
        reader: Any = create_reader(
            f"hfds/{spec.dataset}", split="train", input_key=image_key, target_key=label_key, download=False
        )
        names = {index: name for name, index in reader.class_to_idx.items()}

    def samples() -> Iterator[Sample]:
        for index in range(len(reader)):
            with _reading(spec, f"row {index}"):
                file, label = reader[index]
                with file:
                    content = file.read()
            yield Sample(str(names.get(label, label)), f"row {index}", content)

    return Source(samples=samples, total=len(reader), class_counts=None)


def _open_wds(spec: SourceSpec) -> Source:
    _check_package("webdataset", "webdataset", spec)
    with _reading(spec), _timm_warnings():
        described = any((spec.path / name).is_file() for name in ("_info.json", "info.json")) if spec.path else False
        split = "train" if described else _shards(spec)
        dataset: Any = create_dataset("wds/", root=str(spec.path), split=split, is_training=False)

    def samples() -> Iterator[Sample]:
        with _reading(spec), _timm_warnings() as skipped:
            for index, (image, label) in enumerate(dataset):
                yield Sample(str(label), f"sample {index}", image)
        if skipped:
            reason = skipped[0].removeprefix("Handling webdataset error ").removesuffix(". Ignoring.")
            raise DataError(f"broken samples in {spec.text}: {len(skipped)}, the first for {reason}")

    return Source(samples=samples, total=dataset.reader.num_samples or None, class_counts=None)


def _shards(spec: SourceSpec) -> str:
    """Returns the training shards of a folder without a description, as webdataset's list of URLs."""
    chosen = choose_shards(sorted(entry.name for entry in spec.path.glob("*.tar")) if spec.path else [])
    if not chosen:
        raise DataError(f"no training shards (.tar) in {spec.text}")
    return "::".join(chosen)


@contextlib.contextmanager
def _timm_warnings() -> Iterator[list[str]]:
    """Collects what timm's webdataset reader only logs: above all the broken samples, which it skips."""
    texts: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("timm.data.readers.reader_wds")
    logger.addHandler(handler)
    try:
        yield texts
    finally:
        logger.removeHandler(handler)


_OPENERS: dict[str, Callable[[SourceSpec], Source]] = {
    "digits": _open_digits,
    "folder": _open_folder,
    "tar": _open_tar,
    "tars": _open_tar,
    "torch": _open_torch,
    "hfds": _open_hfds,
    "wds": _open_wds,
    "function": open_function,
}


def _check_train_folder(spec: SourceSpec) -> None:
    """Checks that a `train` folder that is there also holds something, lest its neighbours be taken for classes.

    Raises:
        DataError: It is empty.
    """
    for name in TRAIN_NAMES:
        folder = spec.path / name if spec.path else None
        if folder and folder.is_dir() and not any(files for _, _, files in os.walk(folder, followlinks=True)):
            raise DataError(f"the training folder {spec.text.rstrip('/')}/{name} is empty")


def _counted(samples: Callable[[], Iterator[Sample]], members: list[PurePosixPath], left_out: list[str]) -> Source:
    counts = dict(Counter(member.parent.name for member in members))
    return Source(samples=samples, total=len(members), class_counts=counts, left_out=tuple(left_out))


@contextlib.contextmanager
def _reading(spec: SourceSpec, member: str | None = None) -> Iterator[None]:
    """Turns what the libraries raise while they read into a DataError that names the place."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        if _says_no_images(error):
            extensions = ", ".join(IMG_EXTENSIONS)
            raise DataError(
                f"no images in {spec.text}: one subfolder per class with files that end in {extensions} must lie there"
            ) from error
        kind = "is no readable .tar" if isinstance(error, tarfile.TarError) else "cannot be read"
        raise DataError(f"{f'{member} in ' if member else ''}{spec.text} {kind}: {error}") from error


def _says_no_images(error: Exception) -> bool:
    """Whether timm says so: in words for a folder, by having nothing to unpack for a tar."""
    said = str(error)
    return "Found 0 images" in said or (isinstance(error, ValueError) and "not enough values to unpack" in said)


def _check_package(module: str, package: str, spec: SourceSpec) -> None:
    if importlib.util.find_spec(module) is None:
        raise DataError(f"{spec.text} needs the package {package}, which is not installed: pip install {package}")
