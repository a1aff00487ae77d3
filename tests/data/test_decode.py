"""How images become pixels: every mode and depth, turned, composited and scaled, and what changes the identity."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError, features

from hilo_nas.data import prepare_data
from hilo_nas.data.cache import load_arrays
from hilo_nas.data.decode import decode_image, describe_broken
from hilo_nas.data.decoding_memory import DecodingMemory, TooLargeError
from hilo_nas.data.deep import DeepImage
from hilo_nas.data.reading import ReadOptions
from hilo_nas.errors import DataError
from hilo_nas.events import Notice

DIGITS = "ec5dc2a5a48a2304db48d977ddd2831f8bb1b4ed07f99f9430ceb91143d04786"
"""Content hash of the digits' images since the first cache."""


def decode(content, img_size=4, **options) -> np.ndarray:
    """Returns an image's pixels; deeper ones scaled by their own range."""
    pixels = decode_image(content, img_size, **options).pixels
    return pixels.scale(pixels.low, pixels.high) if isinstance(pixels, DeepImage) else pixels


def packed(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png16(values: np.ndarray) -> bytes:
    """Returns a 16-bit PNG of 1 to 4 channels, which Pillow cannot write."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture
def read(tmp_path, own_cache, events):
    """Writes files of two classes, prepares them, and returns entry, pixels by name, and labels."""

    def run(name, files, img_size=8, val=None, **options):
        for source, contents in ((name, files), *(() if val is None else (("val", val),))):
            for member, content in contents.items():
                path = tmp_path / source / member
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else packed(content))
        data = prepare_data(
            str(tmp_path / name),
            img_size,
            val_data=None if val is None else str(tmp_path / "val"),
            options=ReadOptions(**options),
            emit=events.append,
        )
        entry, pixels, _, _ = load_arrays(Path(data.path if val is None else data.val_path))
        return entry, pixels

    return run


def blobs(scale, offset=0, kind=np.uint16, size=8, n=3):
    """Returns files of two classes: squares and rows, as values from `offset` to `offset + scale`."""
    files = {}
    for label in ("disc", "bar"):
        for i in range(n):
            values = np.full((size, size), offset, dtype=kind)
            values[i + 1 : i + 3, 1 : (3 if label == "disc" else 7)] += kind(scale)
            files[f"{label}/{i}.png"] = Image.fromarray(values)
    return files


# Shape and mode.


def test_the_centre_of_an_oblong_image_is_kept():
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 200
    assert (decode(Image.fromarray(wide), 10) == 200).all()


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"],
)
@pytest.mark.parametrize("img_size", [4, 9])
def test_every_mode_becomes_colour(mode, img_size):
    image = Image.new(mode, (9, 9))
    assert decode(image, img_size).shape == (img_size, img_size, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_opaque_8_bit_images_are_read_as_plain_conversion_reads_them(mode):
    noise = np.random.default_rng(0).integers(0, 256, (21, 17, 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    for img_size in (8, 17):
        from PIL import ImageOps

        expected = ImageOps.fit(image.convert("RGB"), (img_size, img_size), Image.Resampling.BICUBIC)
        assert (decode(image, img_size) == np.asarray(expected)).all()


# More than 8 bits.


@pytest.mark.parametrize("depth", ["16", "12", "int32", "float", "unit"])
def test_deep_images_are_scaled_by_the_range_of_the_data_set(read, depth):
    plain, _ = {}, None
    plain = blobs(255, kind=np.uint8)
    files = {
        "16": blobs(180, 51480),
        "12": blobs(2040),
        "int32": {k: packed(v, "TIFF") for k, v in blobs(900, 10**9, np.int32).items()},
        "float": {k: packed(v, "TIFF") for k, v in blobs(3.5, -2, np.float32).items()},
        "unit": {k: packed(v, "TIFF") for k, v in blobs(1, 0, np.float32).items()},
    }[depth]
    for img_size in (8, 5):
        _, expected = read("plain", plain, img_size)
        entry, pixels = read("deep", files, img_size)
        difference = np.abs(pixels.astype(int) - expected)
        assert difference.max() == 0 if img_size == 8 else difference.mean() < 1
        assert entry.facts["n_scaled"] == 6


def test_the_range_is_of_all_images_and_not_of_each(read):
    files = {f"{c}/{i}.png": Image.fromarray(np.full((8, 8), 100 * i, dtype=np.uint16)) for c in "ab" for i in range(4)}
    entry, pixels = read("steps", files)
    assert sorted(set(pixels.ravel().tolist())) == [0, 85, 170, 255]
    assert entry.facts["value_range"] == [0, 300]


def test_a_given_range_is_kept_and_values_beyond_are_clipped(read):
    files = {f"{c}/{i}.png": Image.fromarray(np.full((8, 8), 100 * i, dtype=np.uint16)) for c in "ab" for i in range(4)}
    entry, pixels = read("steps", files, value_range=(100.0, 200.0))
    assert sorted(set(pixels.ravel().tolist())) == [0, 255]
    assert entry.facts["value_range"] == [100, 200]


def test_validation_images_are_scaled_by_the_range_of_the_training_images(read):
    val = {
        f"{c}/{i}.png": Image.fromarray(np.full((8, 8), 51480 + 90 + i, dtype=np.uint16))
        for c in ("disc", "bar")
        for i in range(2)
    }
    entry, pixels = read("thermal", blobs(180, 51480), val=val)
    assert entry.facts["value_range"] == [51480, 51660]
    assert set(pixels.ravel().tolist()) == {128, 129}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_low_bytes_of_16_bit_colours_count(channels, kind):
    values = np.random.default_rng(0).integers(51480, 51660, (6, 6, channels), dtype=np.uint16)
    values[0, 0, 0], values[0, 1, 0] = 51480, 51659
    if channels in (2, 4):
        values[..., -1] = 65535
    colours = values[..., : 1 if channels < 3 else 3].astype(float)
    expected = np.rint((colours - 51480) * 255 / 179)
    if kind == "TIFF":
        if channels != 3:
            pytest.skip("Pillow writes no such file, and none is made here")
        content = tiff(values)
    else:
        content = png16(values)
    assert (decode(content, 6) == np.broadcast_to(expected, (6, 6, 3))).all()


def tiff(values: np.ndarray, *, order="<", photometric=None, planar=1, is_packed=False, **tags: list[int]) -> bytes:
    """Returns a TIFF of (H, W, C), in strips of three rows, compressed or not; further tags are named `tNNN`."""
    height, width, channels = values.shape
    planes = [values[..., [c]] for c in range(channels)] if planar == 2 else [values]
    strips = [
        p[y : y + 3].astype(values.dtype.newbyteorder(order)).tobytes() for p in planes for y in range(0, height, 3)
    ]
    strips = [zlib.compress(strip) if is_packed else strip for strip in strips]
    ends = np.cumsum([8, *map(len, strips)]).tolist()
    entries = {
        256: [width],
        257: [height],
        258: [8 * values.itemsize] * channels,
        259: [8 if is_packed else 1],
        262: [(1 if channels < 3 else 2) if photometric is None else photometric],
        273: ends[:-1],
        277: [channels],
        278: [3],
        279: [len(strip) for strip in strips],
        284: [planar],
        339: [{"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * channels,
        **{int(tag[1:]): value for tag, value in tags.items()},
    }
    start = ends[-1] + ends[-1] % 2
    table, behind, after = b"", b"", start + 2 + 12 * len(entries) + 4
    for tag, numbers in sorted(entries.items()):
        data = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            data, behind = struct.pack(f"{order}I", after + len(behind)), behind + data
        table += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + data
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    body = (head + b"".join(strips)).ljust(start, b"\0")
    return body + struct.pack(f"{order}H", len(entries)) + table + bytes(4) + behind


def noise(channels=3, low=0, high=65536, kind=np.uint16) -> np.ndarray:
    return np.random.default_rng(channels).integers(low, high, (7, 5, channels)).astype(kind)


def stored(content: bytes) -> np.ndarray:
    """Returns the values of an image of more than 8 bits, not scaled."""
    deep = decode_image(content, None).pixels
    assert isinstance(deep, DeepImage)
    return deep.values.astype(np.float64) + deep.offset


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("extra", [None, 0, 2])
def test_a_16_bit_tiff_in_planes_is_read_as_one_in_pixels(order, is_packed, extra):
    values = noise(3 if extra is None else 4)
    tags = {} if extra is None else {"t338": [extra]}
    if extra is not None:
        values[..., 3] = 65535
    for planar in (1, 2):
        content = tiff(values, order=order, planar=planar, is_packed=is_packed, **tags)
        assert (stored(content) == values[..., :3]).all()


def test_a_tiff_in_planes_is_turned_and_reported():
    values = noise()
    decoded = decode_image(tiff(values, planar=2, t274=[6]), None)
    assert (decoded.pixels.values + decoded.pixels.offset == np.rot90(values, -1)).all()
    assert decoded.is_turned_by_pillow


@pytest.mark.parametrize("kind", ["u2", "i2", "i4", "f4"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_one_channel_in_its_own_plane_is_a_gray_image(kind, order):
    values = noise(1, 0, 30000, kind)
    assert (stored(tiff(values, order=order, planar=2)) == values).all()


@pytest.mark.parametrize("planar", [1, 2])
def test_16_bit_colours_that_are_multiplied_by_their_alpha_are_divided_by_it(planar):
    values = noise(4, 1000, 30000)
    values[..., 3] = 40000
    content = tiff(values, planar=planar, t338=[1])
    deep = decode_image(content, None, background=(0, 0, 0)).pixels
    expected = np.rint(values[..., :3] * 65535.0 / 40000)
    assert (deep.low, deep.high) == (expected.min(), expected.max())


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_inks_become_colours_of_16_bits(planar, order):
    inks = noise(4)
    light = 65535.0 - inks
    expected = np.rint(light[..., :3] * light[..., 3:] / 65535)
    assert (stored(tiff(inks, order=order, photometric=5, planar=planar)) == expected).all()


@pytest.mark.parametrize(("kind", "greatest"), [("u1", 255), ("u2", 65535)])
def test_grey_whose_white_is_zero_is_inverted_at_every_depth(kind, greatest):
    values = noise(1, 0, greatest + 1, kind)
    plain, inverted = (tiff(values, photometric=number) for number in (1, 0))
    assert (decode(inverted, None) == decode(tiff(greatest - values), None)).all()
    assert not (decode(inverted, None) == decode(plain, None)).all()


def test_unsigned_integers_of_32_bits_do_not_become_negative():
    values = np.array([0, 1000, 2**31, 2**32 - 1] * 3, dtype=np.uint32).reshape(4, 3, 1)
    deep = decode_image(tiff(values), None).pixels
    assert (deep.low, deep.high) == (0, 2**32 - 1)


@pytest.mark.parametrize("head", [b"P5", b"P2", b"P6", b"P3"])
@pytest.mark.parametrize("greatest", [300, 4095, 65535])
def test_values_of_a_netpbm_file_are_kept_for_any_maximum(head, greatest):
    values = noise(1 if head in (b"P5", b"P2") else 3, 0, greatest + 1)
    data = values.astype(">u2").tobytes()
    if head in (b"P2", b"P3"):
        data = b"# made by hand\n" + " ".join(map(str, values.ravel())).encode()
    assert (stored(head + b" 5 7 %d\n" % greatest + data) == values).all()


def j2k(values: np.ndarray, bits: int) -> bytes:
    """Returns a JPEG 2000 codestream of fewer bits per channel than it was written with.

    The decoder adds half the range to values around 0, hence the shift."""
    written = values.astype(np.int64) + (1 << 8 * values.itemsize - 1) - (1 << bits - 1)
    image = Image.fromarray(written.astype(values.dtype).squeeze())
    content = bytearray(packed(image, "JPEG2000", no_jp2=True))
    for channel in range(values.shape[2]):
        content[42 + 3 * channel] = bits - 1
    return bytes(content)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow without JPEG 2000")
def test_values_of_a_grey_jpeg_2000_are_its_own():
    values = noise(1, 0, 4096)
    assert (stored(j2k(values, 12)) == values).all()
    assert (stored(j2k(values, 16)) == values).all()


def test_a_file_of_more_bits_than_can_be_read_is_refused_with_the_way_out(read):
    colours = noise(3, 0, 256, np.uint8)
    sgi = packed(Image.fromarray(colours), "SGI", bpc=2)
    files = {"a/0.sgi": sgi, "b/0.png": Image.new("RGB", (5, 7))}
    if features.check("jpg_2000"):
        content = bytearray(packed(Image.fromarray(colours), "JPEG2000", no_jp2=True))
        content[42:51:3] = bytes([15] * 3)
        files["a/1.j2k"] = bytes(content)
    with pytest.raises(DataError) as caught:
        read("deep", files)
    for member in files:
        if member.startswith("a/"):
            assert f"{member} (the file stores 16 bits per channel, but Pillow reads 8: convert it to" in str(
                caught.value
            )
    assert "FILE.py:FUNCTION" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (noise(1, kind=np.float64), "floats of 64 bits in 1 channel"),
        (noise(1, kind=np.float16), "floats of 16 bits in 1 channel"),
        (noise(3, kind=np.float32), "floats of 32 bits in 3 channels"),
        (noise(5), "unsigned integers of 16 bits in 5 channels"),
        (noise(2), "unsigned integers of 16 bits in 2 channels"),
    ],
)
def test_a_tiff_type_that_pillow_does_not_read_is_reported(values, form):
    content = tiff(values)
    with pytest.raises(UnidentifiedImageError) as caught:
        decode_image(content, 4)
    text = describe_broken(content, caught.value)
    assert f"({form})" in text
    assert "convert it to" in text
    assert describe_broken(content[:40], caught.value) == "the file is a damaged TIFF"


def test_nan_becomes_the_low_end_and_infinities_the_ends(read):
    values = np.full((8, 8), 0.5, dtype=np.float32)
    values[0], values[1], values[2], values[3], values[4] = np.nan, np.inf, -np.inf, 0, 1
    files = {}
    for name in ("a/0.tif", "a/1.tif", "b/0.tif", "b/1.tif"):
        files[name] = packed(Image.fromarray(values), "TIFF")
        values[7, len(files)] = 0.25
    entry, pixels = read("holes", files)
    assert pixels[0, :6, 0, 0].tolist() == [0, 255, 0, 0, 255, 128]
    assert (entry.facts["n_nan"], entry.facts["n_infinite"], entry.facts["n_float"]) == (4, 4, 4)


def test_transparent_pixels_of_deep_images_are_composited_and_have_no_part_in_the_range():
    values = np.zeros((4, 4, 2), dtype=np.uint16)
    values[..., 0], values[..., 1] = 1000, 65535
    values[0, :, 0] = 2000
    values[1] = (60000, 0)
    assert decode(png16(values))[:, 0, 0].tolist() == [255, 255, 0, 0]
    assert decode(png16(values), background=(0, 0, 9))[1, 0].tolist() == [0, 0, 9]


# Transparency.


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_images_are_composited_on_the_background(read, mode):
    glyph = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    glyph.paste((0, 0, 0, 255), (2, 2, 6, 6))
    content = packed(glyph.convert(mode))
    if mode == "P":
        image = Image.new("P", (8, 8), 0)
        image.putpalette([0, 0, 0] * 2)
        image.paste(1, (2, 2, 6, 6))
        content = packed(image, transparency=0)
    files = {"a/0.png": content, "a/1.png": Image.new("RGB", (8, 8), "red"), "b/0.png": content}
    files["b/1.png"] = Image.new("RGB", (8, 8), "white")
    entry, images = read("glyphs", files)
    assert (entry.facts["n_composited"], entry.facts["background"]) == (2, "white")
    assert images[0][0, 0].tolist() == [255, 255, 255]
    assert images[0][3, 3].tolist() == [0, 0, 0]
    _, images = read("glyphs", files, background="#0000ff")
    assert images[0][0, 0].tolist() == [0, 0, 255]


def test_a_palette_with_an_alpha_channel_is_composited():
    image = Image.new("P", (8, 8), 0)
    image.putalpha(Image.new("L", (8, 8), 0))
    assert image.mode == "PA"
    assert (decode(image, 8) == 255).all()


# Orientation.


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_images_are_turned_as_their_exif_tag_says(orientation, kind):
    upright = np.zeros((24, 36, 3), dtype=np.uint8)
    upright[:8, :12], upright[:8, 24:] = 255, 128
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    content = packed(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
    decoded = decode_image(content, 24)
    assert decoded.size == (36, 24)
    assert (decoded.is_turned or decoded.is_turned_by_pillow) == (orientation > 1)
    assert np.abs(decoded.pixels.astype(int) - upright[:, 6:30]).max() <= 8


def test_a_turned_tiff_is_counted_and_keeps_its_identity(read):
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        f"{c}/{i}.tif": packed(Image.fromarray(noise(3, 0, 256, np.uint8) // (i + 1)), "TIFF", exif=exif)
        for i, c in enumerate("abab")
    }
    entry, _ = read("turned", files)
    assert entry.facts["n_turned"] == 4
    assert entry.content_hash == plain_hash(files)


def test_a_large_photo_that_decodes_at_a_fraction_of_its_size_is_turned_too():
    upright = np.zeros((320, 320, 3), dtype=np.uint8)
    upright[:160] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = decode(packed(Image.fromarray(np.rot90(upright).copy()), "JPEG", exif=exif), 8)
    assert pixels[:3].min() > 250
    assert pixels[5:].max() < 5


def test_broken_metadata_do_not_break_an_image():
    image = Image.fromarray(np.full((6, 6, 3), 90, dtype=np.uint8))
    content = packed(image, exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert (decode(content) == 90).all()


# Frames.


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_several_frames_is_read_and_said(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("black", "white")]
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode_image(packed(frames[0], kind, save_all=True, append_images=frames[1:], **options), 8)
    assert decoded.is_first_frame
    assert (decoded.pixels == 0).all()
    assert not decode_image(packed(frames[0], kind, **options), 8).is_first_frame


# Size.


def test_an_image_beyond_pillows_limit_is_read(read, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    files = {f"{c}/{i}.png": Image.new("1", (90 + i, 90)) for c in "ab" for i in range(2)}
    entry, _ = read("scans", files)
    assert entry.facts["sizes"] == {"smallest": [90, 90], "median": [91, 90], "largest": [91, 90]}
    assert Image.MAX_IMAGE_PIXELS == 100


def test_an_image_beyond_the_memory_names_the_way_to_allow_it(read, monkeypatch):
    monkeypatch.setenv("HILO_NAS_DECODE_MIB", "0.1")
    files = {f"{c}/{i}.png": Image.new("RGB", (8 + i, 8)) for c in "ab" for i in range(2)}
    files["a/huge.png"] = Image.new("RGB", (300, 100))
    with pytest.raises(DataError, match=r"a/huge\.png \(300 x 100 pixels need .*set HILO_NAS_DECODE_MIB"):
        read("scans", files)


def test_memory_for_decoding_is_shared_and_given_back():
    memory = DecodingMemory(100)
    for _ in range(3):
        with memory.take(60, (1, 1)), memory.take(40, (1, 1)):
            pass
    with pytest.raises(TooLargeError, match="3 x 2 pixels"), memory.take(101, (3, 2)):
        pass


# Broken files.


def broken_set():
    whole = packed(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)))
    photo = packed(Image.open(io.BytesIO(whole)), "JPEG")
    return {
        **{f"{c}/{i}.png": Image.new("RGB", (8, 8), (i, 0, 0)) for c in ("cat", "dog") for i in range(3)},
        "cat/cut.png": whole[: len(whole) // 2],
        "dog/empty.png": b"",
        "dog/page.png": b"<html>404 not found</html>",
        "cat/cut.jpg": photo[:-200],
        "cat/noise.png": bytes(range(200)),
    }


def test_all_broken_files_are_reported_at_once_with_reasons_and_no_addresses(read):
    with pytest.raises(DataError) as caught:
        read("broken", broken_set())
    text = str(caught.value)
    assert "5 of 11 images cannot be read" in text
    for line in (
        "cat/cut.png (",
        "dog/empty.png (the file is empty",
        "dog/page.png (the file is a web page",
        "cat/cut.jpg (",
    ):
        assert line in text
    assert "data.skip_broken=true" in text
    assert "0x" not in text


def test_many_broken_files_are_listed_in_a_file(read, own_cache):
    files = {**broken_set(), **{f"cat/z{i}.png": b"" for i in range(30)}}
    with pytest.raises(DataError, match="and 15 more, all listed in ") as caught:
        read("broken", files)
    (report,) = (own_cache / "data" / "reports").iterdir()
    assert str(report) in str(caught.value)
    assert len(report.read_text().splitlines()) == 35


def test_broken_files_are_left_out_on_request_and_counted_per_class(read, events):
    entry, pixels = read("broken", broken_set(), skip_broken=True)
    assert (entry.n_images, len(pixels), len(entry.facts["broken"])) == (6, 6, 5)
    (text,) = [e.text for e in events if isinstance(e, Notice) and "left out 5 of 11" in e.text]
    assert "cat: 3, dog: 2" in text


def test_a_class_of_nothing_but_broken_files_is_an_error_even_so(read):
    files = {**broken_set(), "owl/0.png": b""}
    with pytest.raises(DataError, match="No image is left of 'owl'"):
        read("broken", files, skip_broken=True)
    with pytest.raises(DataError, match=r"No image is left\. Repair"):
        read("all", {"cat/0.png": b"", "dog/0.png": b""}, skip_broken=True)


# Identity.


def test_the_digits_keep_their_content_hash(digits16):
    assert load_arrays(Path(digits16.path))[0].content_hash == DIGITS


def test_the_content_hash_changes_only_where_a_pixel_is_read_otherwise_than_before(read):
    base = {f"{c}/{i}.png": Image.new("L", (8, 8), 7 * i) for c in "ab" for i in range(3)}

    def content_hash(name, files, **options):
        return read(name, files, **options)[0].content_hash

    opaque = {k: v.convert("RGBA") for k, v in base.items()}
    assert content_hash("opaque", opaque) == content_hash("opaque", opaque, background="black")
    clear = {**opaque, "a/0.png": Image.new("RGBA", (8, 8), (0, 0, 0, 0))}
    assert content_hash("clear", clear) != content_hash("clear", clear, background="red")
    # Black under full transparency was read as black before.
    old = {**opaque, "a/0.png": clear["a/0.png"]}
    assert content_hash("clear", clear, background="black") == plain_hash(old)
    assert content_hash("clear", clear) != plain_hash(old)
    deep = {k: Image.fromarray(np.asarray(v).astype(np.uint16) * 100) for k, v in base.items()}
    assert content_hash("deep", deep) != plain_hash(deep)
    assert content_hash("deep", deep) != content_hash("deep", deep, value_range=(0.0, 5000.0))
    extremes = {k: Image.fromarray(np.full((8, 8), 65535 * (i % 2), np.uint16)) for i, k in enumerate(base)}
    assert content_hash("extremes", extremes) == plain_hash(extremes)


def test_the_identity_says_where_values_are_others_than_pillows(read):
    base = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8, 1)
    files = {f"{c}/{i}.tif": np.roll(base, 7 * i + 3 * (c == "a")) for c in "ab" for i in range(3)}

    def content_hash(**options):
        contents = {name: tiff(values, **options) for name, values in files.items()}
        return read("white", contents)[0].content_hash, contents

    found, contents = content_hash(photometric=0)
    as_before = hash_of(contents, {"value_range": [0.0, 65535.0]})
    assert found != as_before
    found, contents = content_hash(photometric=1)
    assert found == hash_of(contents, {"value_range": [0.0, 65535.0]})


def hash_of(files: dict[str, bytes], changes: dict) -> str:
    text = json.dumps({"decoding": 3, **changes}, sort_keys=True)
    return hashlib.sha256(f"{plain_hash(files)} {text}".encode()).hexdigest()


def plain_hash(files) -> str:
    """Returns the content hash by the files alone, as it was before images were turned, composited or scaled."""
    total = hashlib.sha256()
    pairs = sorted(
        (k.split("/")[0], hashlib.sha256(v if isinstance(v, bytes) else packed(v)).digest()) for k, v in files.items()
    )
    for name, digest in pairs:
        total.update(hashlib.sha256(name.encode()).digest() + digest)
    return total.hexdigest()
