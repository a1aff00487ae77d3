"""Decoder of one image: upright, composited on a background, 8-bit RGB, resized. Deeper images keep their values."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import re
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageFile, ImageOps

from hilo_nas.data.decoding_memory import DecodingMemory
from hilo_nas.data.deep import DeepImage, DeepValues, fit_deep
from hilo_nas.data.formats import describe_impostor
from hilo_nas.data.stored_images import TIFF_HEADS, describe_tiff, find_reader, read_deep

__all__ = ["DecodedImage", "decode_image", "describe_broken", "parse_colour"]

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Operation that turns an image upright, by EXIF orientation."""

_FRAMED = ("GIF", "TIFF", "WEBP", "PNG", "AVIF")
"""Formats in which every frame is an image, so a file with several frames is reported. MPO is not listed, because its
other frames are previews or other views of the same photo."""

_BYTES_PER_PIXEL = {"1": 2, "L": 2, "P": 10, "I": 32, "F": 32}
"""Bytes of memory per pixel during decoding, by mode of the image."""
_BYTES_PER_COLOUR, _BYTES_PER_ALPHA, _BYTES_PER_DEEP_COLOUR = 8, 16, 96


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """A decoded image, with the changes made to it."""

    pixels: np.ndarray | DeepImage
    """Pixels, (S, S, 3; uint8). For more than 8 bits per channel, values that are not yet scaled by the range of the
    data set."""
    digest: bytes
    """SHA-256 of the file, or of the decoded pixels if the source gives no file. Independent of `img_size`."""
    size: tuple[int, int]
    """Width and height before resizing, upright."""
    is_turned: bool
    is_composited: bool
    """True if the image had a transparent pixel, so it was composited on the background."""
    is_first_frame: bool
    """True if the file has several frames, of which the first was read."""
    is_changed: bool
    """True if turning or compositing changed a pixel."""
    is_restored: bool = False
    """True if Pillow's values differ from those in the file, see `DeepValues.is_restored`."""
    is_turned_by_pillow: bool = False
    """True if Pillow itself turned the image upright, as it does for TIFF. `is_turned` and `is_changed` do not cover
    this."""


def parse_colour(name: str) -> tuple[int, int, int]:
    """Returns the red, green and blue values of a color name.

    Raises:
        ValueError: Pillow does not know the color.
    """
    red, green, blue = ImageColor.getrgb(name)[:3]
    return red, green, blue


def decode_image(
    content: bytes | Image.Image | np.ndarray,
    img_size: int | None,
    background: tuple[int, int, int] = (255, 255, 255),
    memory: DecodingMemory | None = None,
) -> DecodedImage:
    """Returns the pixels of an image.

    The shorter side is resized to `img_size` (bicubic) and the center is kept. If there are several frames, the first
    one is read.

    Args:
        content: An image file, an image, or an array (H, W) or (H, W, C) with C = 1 or 3.
        img_size: Side of the output in pixels. None keeps the size of the image.
        background: Color on which transparent pixels are composited.
        memory: Memory shared with other decoding threads.

    Raises:
        TooLargeError: The image needs more memory than is allowed.
        Exception: Pillow may raise any error for a broken file.
    """
    if isinstance(content, np.ndarray):
        if content.dtype == np.uint8 or content.dtype == bool:
            grey = content[..., 0] if content.ndim == 3 and content.shape[2] == 1 else content
            return decode_image(Image.fromarray(grey), img_size, background, memory)
        values = content if content.ndim == 3 else content[..., None]
        return _decode_deep(DeepValues(values=values, alpha=None), None, None, img_size, background)
    with contextlib.ExitStack() as stack:
        image: Image.Image = content if isinstance(content, Image.Image) else Image.open(io.BytesIO(content))
        if isinstance(content, bytes):
            stack.enter_context(image)
        file = content if isinstance(content, bytes) else None
        size = image.size
        # A JPEG decodes faster at a fraction of its size. Twice the target size keeps the resizing accurate enough.
        if img_size is not None:
            image.draft("RGB", (2 * img_size, 2 * img_size))
        reader = find_reader(image, file) if file is not None else None
        if memory is not None:
            stack.enter_context(memory.take(_needed_bytes(image, reader is not None), size))
        is_first_frame = _has_more_frames(image)
        is_turned_by_pillow = image.format == "TIFF" and _read_orientation(image) in _TURNS
        image.load()
        if image.mode == "La":
            image = image.convert("LA")  # the only conversion that Pillow supports
        turn = _TURNS.get(_read_orientation(image))
        if image.width != size[0] and image.size == size[::-1]:
            size = size[::-1]  # Pillow already turned a TIFF.
        if turn is not None and turn in (_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8]):
            size = size[::-1]
        deep = read_deep(image, reader)
        if deep is not None:
            decoded = _decode_deep(deep, file, turn, img_size, background)
        else:
            decoded = _decode_8_bit(image, file, turn, img_size, background)
        return dataclasses.replace(
            decoded, size=size, is_first_frame=is_first_frame, is_turned_by_pillow=is_turned_by_pillow
        )


def _decode_8_bit(
    image: Image.Image,
    file: bytes | None,
    turn: Image.Transpose | None,
    img_size: int | None,
    background: tuple[int, int, int],
) -> DecodedImage:
    plain, changed = _to_opaque(image, background)
    is_composited = changed is not None
    is_changed = bool(changed)
    if turn is not None:
        upright = plain.transpose(turn)
        is_changed |= upright.size != plain.size or upright.tobytes() != plain.tobytes()
        plain = upright
    if file is not None:
        digest = hashlib.sha256(file).digest()
    else:
        whole = image.convert("RGBA") if changed else plain.convert("RGB")
        digest = hashlib.sha256(f"{plain.width}x{plain.height}".encode() + whole.tobytes()).digest()
    return DecodedImage(
        pixels=np.asarray(_fit(plain, img_size).convert("RGB")),
        digest=digest,
        size=plain.size,
        is_turned=turn is not None,
        is_composited=is_composited,
        is_first_frame=False,
        is_changed=is_changed,
    )


def _to_opaque(image: Image.Image, background: tuple[int, int, int]) -> tuple[Image.Image, bool | None]:
    """Returns the image as L or RGB, and True if compositing changed it, or None instead if all pixels are opaque."""
    if image.mode in ("1", "L") and not image.has_transparency_data:
        return image.convert("L"), None  # Gray is resized in one channel, which gives the same result with less memory.
    if not image.has_transparency_data:
        return image.convert("RGB"), None
    layered = image.convert("RGBA")
    lowest, _ = layered.getchannel("A").getextrema()
    bare = layered.convert("RGB") if image.mode == "P" else image.convert("RGB")
    if lowest == 255:
        return bare, None
    ground = Image.new("RGBA", layered.size, (*background, 255))
    ground.alpha_composite(layered)
    composited = ground.convert("RGB")
    return composited, composited.tobytes() != bare.tobytes()


def _decode_deep(
    deep: DeepValues,
    file: bytes | None,
    turn: Image.Transpose | None,
    img_size: int | None,
    background: tuple[int, int, int],
) -> DecodedImage:
    if file is not None:
        digest = hashlib.sha256(file).digest()
    else:
        values = deep.values.astype(deep.values.dtype.newbyteorder("<"), copy=False)
        total = hashlib.sha256(f"{values.shape} {values.dtype.str} {turn}".encode() + values.tobytes())
        total.update(b"" if deep.alpha is None else deep.alpha.tobytes())
        digest = total.digest()

    def fit(channel: Image.Image) -> Image.Image:
        return _fit(channel if turn is None else channel.transpose(turn), img_size)

    height, width = deep.values.shape[:2]
    return DecodedImage(
        pixels=fit_deep(deep, fit, background),
        digest=digest,
        size=(width, height),
        is_turned=turn is not None,
        is_composited=deep.alpha is not None,
        is_first_frame=False,
        is_changed=turn is not None or deep.alpha is not None,
        is_restored=deep.is_restored,
    )


def _fit(image: Image.Image, img_size: int | None) -> Image.Image:
    if img_size is None or image.size == (img_size, img_size):
        return image
    return ImageOps.fit(image, (img_size, img_size), Image.Resampling.BICUBIC)


def _read_orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation of an image. It is 1 (upright) if the metadata has none or is broken."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
        return int(found)
    except Exception:  # Pillow may raise any error for broken metadata. The pixels are intact.
        return 1


def _has_more_frames(image: Image.Image) -> bool:
    if image.format not in _FRAMED:
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # A later frame is broken.
        return True


def _needed_bytes(image: Image.Image, is_read_twice: bool) -> int:
    pixels = image.width * image.height
    if is_read_twice:
        return pixels * _BYTES_PER_DEEP_COLOUR
    if image.has_transparency_data and image.mode != "I":
        return pixels * _BYTES_PER_ALPHA
    if image.mode.startswith("I;16"):
        return pixels * _BYTES_PER_PIXEL["I"]
    return pixels * _BYTES_PER_PIXEL.get(image.mode, _BYTES_PER_COLOUR)


def describe_broken(content: object, error: Exception) -> str:
    """Returns one line on why an image cannot be read, without memory addresses of objects."""
    if isinstance(content, bytes):
        if found := describe_impostor(content, "image"):
            return found
        if content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"mif1", b"msf1"):
            return "the file is HEIC, which needs the package pillow-heif"
        if content.startswith(TIFF_HEADS) and type(error).__name__ == "UnidentifiedImageError":
            return describe_tiff(content)
        if type(error).__name__ == "UnidentifiedImageError":
            return "the file is not in an image format that Pillow reads"
    text = re.sub(r"\s*<[^<>]* at 0x[0-9a-fA-F]+>", "", " ".join(str(error).split()))
    return text or type(error).__name__


@contextlib.contextmanager
def unlimited_pillow() -> Any:
    """Disables Pillow's limits on image sizes, because the user chose these files. `DecodingMemory` limits the memory.

    The limits are global to the process, so they are changed once around the whole reading and not in each thread.
    """
    from PIL import PngImagePlugin

    before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, ImageFile.LOAD_TRUNCATED_IMAGES
    Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, 2**26
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, ImageFile.LOAD_TRUNCATED_IMAGES = before
