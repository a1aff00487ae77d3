"""Readers for the stored values of image files of more than 8 bits per channel.

Pillow converts many such files to 8 bits, and multiplies or inverts the values of others. This module reads the
original values. A file without readable values raises an error, because its truncated values would look like complete
ones.
"""

from __future__ import annotations

import io
import re
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hilo_nas.data.deep import DeepValues
from hilo_nas.errors import DataError

__all__ = ["TIFF_HEADS", "Reader", "describe_tiff", "find_reader", "read_deep"]

Reader = Callable[[Image.Image], np.ndarray]
"""Function that returns the values, (H, W, C) with C from 1 to 4, given the image that Pillow loaded.

If C is even, the last channel is alpha.
"""

_RAWMODE = re.compile(r"(LA|RGB|RGBX|RGBA|RGBa|CMYK);16([BLN])")
"""Raw modes of Pillow that drop the low byte of each value."""
_LOW_BYTES = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
"""Byte order that makes Pillow read the low byte as if it were the high byte."""
_GREY = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Modes in which Pillow keeps more than 8 bits."""
_WAY_OUT = "a 16-bit PNG or TIFF, gray or RGB, or read it with a function, FILE.py:FUNCTION"

TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF files."""
_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA, _FORMAT = 258, 262, 277, 284, 338, 339
_OFFSETS, _BYTE_COUNTS = (273, 324), (279, 325)
_LAYOUT = (256, 257, 259, 266, 274, 278, 317, 322, 323)
"""TIFF tags about the form and location of the values: sides, compression, orientation, strips and tiles."""


def find_reader(image: Image.Image, content: bytes) -> Reader | None:
    """Returns a reader of the stored values, or None if Pillow's values are complete.

    Args:
        image: The image, opened but not yet loaded.
        content: Its file.

    Raises:
        DataError: The file stores more bits per channel than can be read. The message names a solution.
    """
    find = {"TIFF": _find_tiff, "PPM": _find_pnm, "JPEG2000": _find_jpeg2000, "SGI": _find_sgi}.get(image.format or "")
    return find(image, content) if find else _find_colours(image, content)


def read_deep(image: Image.Image, reader: Reader | None) -> DeepValues | None:
    """Returns the values of an image of more than 8 bits, or None for other images.

    Args:
        image: The loaded image.
        reader: Result of `find_reader` before the image was loaded.
    """
    if reader is None and image.mode not in _GREY:
        return None
    plain = np.asarray(image)
    values = plain[..., None] if reader is None else reader(image)
    is_restored = reader is not None and not _is_same(values, plain)
    alpha = None
    transparent = image.info.get("transparency")
    if values.shape[2] in (2, 4):
        alpha = values[..., -1].astype(np.float32) / 65535
        values = values[..., :-1]
    elif isinstance(transparent, tuple if values.shape[2] == 3 else int):
        alpha = (values != np.array(transparent)).any(axis=2).astype(np.float32)
    return DeepValues(
        values=values, alpha=None if alpha is None or (alpha == 1).all() else alpha, is_restored=is_restored
    )


def _is_same(values: np.ndarray, plain: np.ndarray) -> bool:
    """Returns True if the values, (H, W, C), or their high bytes, equal those of Pillow."""
    if plain.dtype == np.uint8:
        values = values >> 8
    return np.array_equal(values.reshape(-1), plain.reshape(-1))


def _refuse(bits: int) -> DataError:
    return DataError(f"the file stores {bits} bits per channel, but Pillow reads 8: convert it to {_WAY_OUT}")


def _find_colours(image: Image.Image, content: bytes) -> Reader | None:
    """Returns a reader for raw modes that drop low bytes, in PNG and TIFF."""
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ()
    rawmode = args if isinstance(args, str) else args[0] if args else ""
    found = _RAWMODE.fullmatch(rawmode) if isinstance(rawmode, str) else None
    if not found:
        return None
    kind, order = found.groups()

    def decode(rawmode: str) -> np.ndarray:
        with Image.open(io.BytesIO(content)) as again:
            again.tile = [tile._replace(args=_replaced(tile.args, rawmode)) for tile in again.tile]
            again.load()
            return np.asarray(again).astype(np.uint16)

    def read(loaded: Image.Image) -> np.ndarray:
        if kind == "LA":
            # Reads the four bytes of gray and alpha as four channels.
            four = decode("RGBA")
            grey: np.ndarray = four[..., 0::2] << 8 | four[..., 1::2]
            return grey
        if kind == "RGBa":
            return _unmultiply(decode(f"RGBA;16{order}") << 8 | decode(f"RGBA;16{_LOW_BYTES[order]}"))
        values = np.asarray(loaded).astype(np.uint16) << 8 | decode(f"{kind};16{_LOW_BYTES[order]}")
        return _to_rgb(values) if kind == "CMYK" else values

    return read


def _replaced(args: Any, rawmode: str) -> Any:
    return (rawmode, *args[1:]) if isinstance(args, tuple) else rawmode


def _unmultiply(values: np.ndarray) -> np.ndarray:
    """Returns colors, (H, W, 4; uint16), that are no longer multiplied by alpha."""
    whole = values.astype(np.float64)
    colours = np.rint(whole[..., :3] * 65535 / np.maximum(whole[..., 3:], 1)).clip(0, 65535)
    return np.concatenate([colours.astype(np.uint16), values[..., 3:]], axis=2)


def _to_rgb(inks: np.ndarray) -> np.ndarray:
    """Returns RGB values, (H, W, 3; uint16), of cyan, magenta, yellow and black. Uses Pillow's formula for 8 bits."""
    light = 65535 - inks.astype(np.float64)
    return np.rint(light[..., :3] * light[..., 3:] / 65535).astype(np.uint16)


# TIFF


def _find_tiff(image: Any, content: bytes) -> Reader | None:
    tags = image.tag_v2
    bits = max(tags.get(_BITS, (1,)))
    if bits <= 8:
        return None
    if tags.get(_PLANAR) == 2:
        planes = _find_planes(tags)
        # Pillow takes letters of the raw mode as names of the planes, which is correct only for 8 bits.
        is_raw = image.tile[0].codec_name == "raw"
        if len(planes) > 1:
            if bits != 16:
                raise _refuse(bits)
            if is_raw:
                image.tile = [tile for tile in image.tile if tile.args[0] in image.getbands()]
            is_multiplied = tags.get(_EXTRA) == (1,)
            return lambda loaded: _read_planes(planes, content, tags.prefix, loaded.mode, is_multiplied)
        if is_raw:
            with Image.open(io.BytesIO(_with_directory(content, tags.prefix, planes[0]))) as whole:
                image.tile = whole.tile
    if image.mode not in _GREY:
        reader = _find_colours(image, content)
        if reader is None:
            raise _refuse(bits)
        return reader
    is_inverted = tags.get(_PHOTOMETRIC) == 0
    if max(tags.get(_FORMAT, (1,))) == 1 and (is_inverted or bits == 32):
        return lambda loaded: _unsigned(np.asarray(loaded)[..., None], bits, is_inverted)
    return None


def _unsigned(values: np.ndarray, bits: int, is_inverted: bool) -> np.ndarray:
    """Returns values of unsigned integers. Pillow reads 32-bit ones as signed, and inverts only 8-bit ones."""
    if bits == 32:
        values = values.view(np.uint32)
    return values.dtype.type(2**bits - 1) - values if is_inverted else values


def _find_planes(tags: Mapping[int, Any]) -> list[dict[int, tuple[int, ...]]]:
    """Returns the tags of a gray image for each plane."""
    n_planes = int(tags.get(_SAMPLES, 1))
    layout = {tag: _numbers(tags[tag]) for tag in (*_LAYOUT, *_OFFSETS, *_BYTE_COUNTS) if tag in tags}
    layout |= {tag: _numbers(tags[tag])[:1] for tag in (_BITS, _FORMAT) if tag in tags}
    layout |= {_PHOTOMETRIC: (1,)}
    planes = []
    for number in range(n_planes):
        plane = dict(layout)
        for tag in {*_OFFSETS, *_BYTE_COUNTS} & {*layout}:
            share = len(layout[tag]) // n_planes
            plane[tag] = layout[tag][number * share : (number + 1) * share]
        planes.append(plane)
    return planes


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(map(int, value)) if isinstance(value, tuple) else (int(value),)


def _read_planes(
    planes: list[dict[int, tuple[int, ...]]], content: bytes, prefix: bytes, mode: str, is_multiplied: bool
) -> np.ndarray:
    """Returns the planes, (H, W, C). Pillow reads each from a file whose directory has only that plane."""
    values = []
    for plane in planes[: Image.getmodebands(mode)]:
        with Image.open(io.BytesIO(_with_directory(content, prefix, plane))) as image:
            values.append(np.asarray(image).astype(np.uint16))
    stacked = np.stack(values, axis=2)
    if mode == "CMYK":
        return _to_rgb(stacked)
    return _unmultiply(stacked) if is_multiplied else stacked


def _with_directory(content: bytes, prefix: bytes, tags: Mapping[int, tuple[int, ...]]) -> bytes:
    """Returns a TIFF with a new directory of these tags after the old content. All tags are of the type LONG."""
    order = "<" if prefix == b"II" else ">"
    start = len(content) + len(content) % 2
    after = start + 2 + 12 * len(tags) + 4
    entries = behind = b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            place, behind = struct.pack(f"{order}I", after + len(behind)), behind + packed
            packed = place
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed
    header = prefix + struct.pack(f"{order}HI", 42, start)
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + behind
    return header + content[8:].ljust(start - 8, b"\0") + directory


def describe_tiff(content: bytes) -> str:
    """Returns the reason why Pillow does not identify a TIFF, and a solution."""
    from PIL import TiffImagePlugin

    try:
        file = io.BytesIO(content)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if content[2] == 43 else 8))
        file.seek(tags.next)
        tags.load(file)
        bits, kind, samples = (_numbers(tags.get(tag, (1,))) for tag in (_BITS, _FORMAT, _SAMPLES))
        if 256 not in tags:
            return "the file is a damaged TIFF"
    except Exception:  # Pillow may raise any error for a broken directory.
        return "the file is a damaged TIFF"
    types = {1: "unsigned integers", 2: "signed integers", 3: "floats"}
    found = f"{types.get(max(kind), 'values')} of {max(bits)} bits in {samples[0]} channel{'s' * (samples[0] != 1)}"
    found += ", white is zero" * (tags.get(_PHOTOMETRIC) == 0) + ", big-endian" * content.startswith(b"MM")
    floats = "a TIFF of gray 32-bit floats, " if max(kind) == 3 else ""
    return f"Pillow does not read this type of TIFF ({found}): convert it to {floats}{_WAY_OUT}"


# Other formats


def _find_pnm(image: Any, content: bytes) -> Reader | None:
    """Returns a reader for PGM and PPM files with a maximum above 255. Pillow would scale it to 255 or 65535."""
    decoder, _, offset, args = image.tile[0]
    greatest = args[-1] if decoder in ("ppm", "ppm_plain") and isinstance(args, tuple) else 0
    if not isinstance(greatest, int) or greatest <= 255:
        return None
    n_channels = len(image.getbands())
    if n_channels not in (1, 3):
        raise _refuse(greatest.bit_length())

    def read(loaded: Image.Image) -> np.ndarray:
        count = loaded.width * loaded.height * n_channels
        if decoder == "ppm":
            values = np.frombuffer(content, ">u2", count, offset)
        else:
            text = re.sub(rb"#[^\r\n]*", b" ", content[offset:]).split(maxsplit=count)[:count]
            values = np.array(text, dtype=np.int64)
        # The dtype of gray images is Pillow's for a maximum of 65535, which it does not scale.
        kind = np.int32 if n_channels == 1 else np.uint16
        return values.astype(kind).reshape(loaded.height, loaded.width, n_channels)

    return read


class _Component(NamedTuple):
    """Channel of a JPEG 2000 file."""

    bits: int
    is_signed: bool


def _find_jpeg2000(image: Image.Image, content: bytes) -> Reader | None:
    """Returns a reader for deep channels. Pillow shifts a single channel up to 16 bits, and others down to 8."""
    parts = _list_components(content)
    bits = max((part.bits for part in parts), default=8)
    if bits <= 8 or (image.mode == "I;16" and parts[0] == _Component(16, False)):
        return None
    if image.mode != "I;16" or bits > 16:
        raise _refuse(bits)
    zero = 2 ** (bits - 1) if parts[0].is_signed else 0
    return lambda loaded: (np.asarray(loaded).astype(np.int32)[..., None] >> (16 - bits)) - zero


def _list_components(content: bytes) -> list[_Component]:
    """Returns the channels declared in the SIZ marker of the codestream."""
    start = content.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(content) < start + 42:
        return []
    (n_components,) = struct.unpack_from(">H", content, start + 40)
    depths = content[start + 42 : start + 42 + 3 * n_components : 3]
    return [_Component((depth & 0x7F) + 1, depth > 0x7F) for depth in depths]


def _find_sgi(image: Image.Image, content: bytes) -> Reader | None:
    if content[3] > 1:
        raise _refuse(8 * content[3])
    return None
