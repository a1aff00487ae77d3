"""Contact sheet with a few training images per class, as the network receives them."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from hilo_nas.data.cache import load_arrays
from hilo_nas.data.prepared_images import CachedData, find_places
from hilo_nas.errors import UsageError
from hilo_nas.events import Emit
from hilo_nas.files.plain_files import check_plain, read_bytes
from hilo_nas.measurement import ProxyPlan
from hilo_nas.study.records import write_atomically

__all__ = ["PER_CLASS", "check_target", "draw_sheet", "encode_sheet", "write_sheet"]

PER_CLASS = 6
"""Number of images shown per class."""
_MOST_CLASSES = 60
_MOST_PIXELS = 12_000
"""Maximum height of a sheet, which image viewers and Pillow support at any width."""
_LEAST_TILE = 64
"""Minimum side of an image. Smaller images are enlarged by an integer factor, without smoothing."""
_GAP, _TEXT_WIDTH, _LINE = 4, 240, 16
_MARK = ("Software", "hilo-nas data show")
"""PNG text chunk that identifies a sheet."""
_HEAD = 4096
"""Number of bytes at the start of the file that contain the mark."""
_MOST_SHEET_BYTES = 2**28


def draw_sheet(data: CachedData, group_by: str | None = None) -> tuple[Image.Image, int]:
    """Returns the sheet and the number of classes on it. It shows an evenly spaced subset if there are too many.

    Args:
        data: The prepared images. The sheet shows the pixels that networks of its `img_size` are trained on.
        group_by: `ProxyPlan.group_by`, because only training images are shown.

    Raises:
        StorageError: The image cache is missing or damaged.
    """
    _, images, _, _ = load_arrays(Path(data.path))
    places = find_places(data, ProxyPlan, group_by)
    labels = places.labels[places.training]
    scale = -(-_LEAST_TILE // data.img_size)
    tile = data.img_size * scale
    count = min(data.num_classes, _MOST_CLASSES, max(_MOST_PIXELS // (tile + _GAP), 1))
    shown = _spread(data.num_classes, count).tolist()
    width = _TEXT_WIDTH + PER_CLASS * (tile + _GAP) + _GAP
    sheet = Image.new("RGB", (width, len(shown) * (tile + _GAP) + 2 * _GAP + 2 * _LINE), "white")
    draw, font = ImageDraw.Draw(sheet), _load_font()
    for row, label in enumerate(shown):
        top = _GAP + row * (tile + _GAP)
        of_class = places.training[labels == label]
        _write(draw, font, (_GAP, top + tile // 2 - _LINE), data.class_names[label])
        _write(draw, font, (_GAP, top + tile // 2), f"{len(of_class):,} for training")
        for column, place in enumerate(of_class[_spread(len(of_class), PER_CLASS)].tolist()):
            image = Image.fromarray(np.asarray(images[place])).resize((tile, tile), Image.Resampling.NEAREST)
            sheet.paste(image, (_TEXT_WIDTH + column * (tile + _GAP), top))
    bottom = sheet.height - 2 * _LINE - _GAP
    which = f"{len(shown):,} of {data.num_classes:,} classes, evenly spaced" if len(shown) < data.num_classes else ""
    size = f"{data.img_size} px" + (f", enlarged {scale} times" if scale > 1 else "")
    _write(draw, font, (_GAP, bottom), f"{data.name} at {size}", width - 2 * _GAP)
    _write(draw, font, (_GAP, bottom + _LINE), which, width - 2 * _GAP)
    return sheet, len(shown)


def write_sheet(data: CachedData, path: Path, group_by: str | None = None) -> int:
    """Writes the sheet as a PNG file and returns the number of classes on it.

    Args:
        data: The prepared images.
        path: The file.
        group_by: `ProxyPlan.group_by`.

    Raises:
        StorageError: The image cache is missing or damaged, or the file cannot be written.
    """
    sheet, shown = draw_sheet(data, group_by)
    write_atomically(path, _png_of(sheet))
    return shown


def encode_sheet(data: Mapping[str, Any], group_by: str | None = None, *, emit: Emit) -> dict[str, str]:
    """Returns the sheet as a base64 PNG file under the key `png`, so that it can be called in another process.

    Args:
        data: `CachedData.to_dict()`.
        group_by: `ProxyPlan.group_by`.
        emit: Unused. Every function of the worker has this argument.

    Raises:
        StorageError: The image cache is missing or damaged.
    """
    sheet, _ = draw_sheet(CachedData.from_dict(data), group_by)
    return {"png": base64.b64encode(_png_of(sheet)).decode()}


def _png_of(sheet: Image.Image) -> bytes:
    marks, content = PngInfo(), io.BytesIO()
    marks.add_text(*_MARK)
    sheet.save(content, format="PNG", pnginfo=marks)
    return content.getvalue()


def check_target(path: Path, *, force: bool) -> None:
    """Checks that a sheet may be written to a path. Without `force`, only an earlier sheet may be replaced.

    Raises:
        UsageError: Another file is there.
    """
    if not os.path.lexists(path):
        return
    if path.is_dir() and not path.is_symlink():
        raise UsageError(f"the sheet must be written to a file, but {path} is a folder. Choose another path with -o.")
    if not force and not _is_sheet(path):
        raise UsageError(
            f"{path} must be a new file or an earlier sheet, but is neither. Choose another path with -o, or add "
            "--force."
        )


def _is_sheet(path: Path) -> bool:
    try:
        check_plain(path)
        head = read_bytes(path, _MOST_SHEET_BYTES)[:_HEAD]
    except OSError:
        return False
    name, value = (part.encode() for part in _MARK)
    return head.startswith(b"\x89PNG\r\n\x1a\n") and b"tEXt" + name + b"\0" + value in head


def _spread(total: int, count: int) -> np.ndarray:
    """Returns up to `count` evenly spaced indices from 0 to `total - 1`."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(np.int64)


def _load_font() -> Any:
    try:
        return ImageFont.load_default(size=13)
    except (ImportError, OSError):  # Pillow without FreeType
        return ImageFont.load_default()


def _write(draw: ImageDraw.ImageDraw, font: Any, at: tuple[int, int], text: str, width: int = _TEXT_WIDTH - 8) -> None:
    """Draws one line of text, truncated if it is too wide. Characters that cannot be shown are escaped."""
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    try:
        draw.textlength(text, font=font)
    except UnicodeEncodeError:  # the font without FreeType has only Latin letters
        text = text.encode("ascii", errors="backslashreplace").decode()
    if draw.textlength(text, font=font) > width:
        while text and draw.textlength(f"{text}...", font=font) > width:
            text = text[:-1]
        text = f"{text}..."
    draw.text(at, text, fill="black", font=font)
