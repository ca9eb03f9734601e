"""The picture reader and the recipe, against plain Pillow and numpy written out, and against everything broken."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from parrot_runtime.errors import ImageError
from parrot_runtime.image import CLIP_MEAN, CLIP_STD, ImageRecipe, preprocess, read_image, shown

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")


def _photo(width=37, height=23, seed=0):
    """Smooth colours with a bright corner, so that a turn or a flip shows."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image.paste((255, 255, 0), (0, 0, width // 4, height // 4))
    return image


def _encoded(image, format_name, **options):
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def _png(width, height, depth, colour, rows, *extra):
    """A PNG written by hand: ``rows`` are raw scan lines without filter bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = chunk(b"IHDR", header) + b"".join(chunk(*pair) for pair in extra)
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


# -- the recipe -------------------------------------------------------------------------------------------------------


def _plain_recipe(image, recipe):
    """The recipe as it is told: a whole padded square, one resize, arithmetic in float64."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), recipe.pad_colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    small = square.resize((recipe.size, recipe.size), Image.Resampling.BICUBIC)
    pixels = np.asarray(small).astype(np.float64) / 255
    return ((pixels - np.array(recipe.mean)) / np.array(recipe.std)).transpose(2, 0, 1)


@pytest.mark.parametrize(
    "size", [(37, 23), (23, 37), (28, 28), (1, 1), (1, 200), (3001, 7), (7, 3001), (5, 4), (2500, 2400)]
)
@pytest.mark.parametrize("target", [28, 33])
def test_preprocess_is_the_recipe(size, target):
    recipe = ImageRecipe.clip(target)
    image = _photo(*size)
    result = preprocess(image, recipe)
    assert result.dtype == np.float32
    assert result.shape == (3, target, target)
    # One rounding to float32 of values below 3: the pixels themselves are equal bit by bit.
    np.testing.assert_allclose(result, _plain_recipe(image, recipe), atol=3e-7, rtol=0)


def test_preprocess_refuses_other_modes():
    with pytest.raises(ValueError, match="mode L; expected RGB"):
        preprocess(Image.new("L", (3, 3)), ImageRecipe.clip(28))


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"mean": (0.1, 0.2)},
        {"std": (1.0, 0.0, 1.0)},
        {"mean": (float("nan"),) * 3},
        {"pad_colour": (1, 2, 256)},
    ],
)
def test_recipe_refuses_nonsense(change):
    values = {"size": 28, "mean": CLIP_MEAN, "std": CLIP_STD} | change
    with pytest.raises(ValueError, match=next(iter(change))):
        ImageRecipe(**values)


# -- formats and modes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_from_bytes_path_and_pillow(tmp_path, format_name):
    photo = _photo()
    options = {"lossless": True} if format_name == "WEBP" else {}
    data = _encoded(photo, format_name, **options)
    path = tmp_path / "picture"  # no suffix: the bytes say what it is
    path.write_bytes(data)
    results = [np.asarray(read_image(source)) for source in (data, path, str(path), Image.open(path))]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    if format_name in ("PNG", "WEBP", "BMP", "TIFF"):
        np.testing.assert_array_equal(results[0], np.asarray(photo))
    else:  # JPEG loses detail, GIF colours; the picture must still be the same one
        assert np.abs(results[0].astype(int) - np.asarray(photo).astype(int)).mean() < 12


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(format_name, options, orientation):
    upright = np.asarray(_photo())
    # EXIF 2.32, table of tag 274: where row 0 and column 0 of the stored picture stand in the upright one.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _encoded(Image.fromarray(np.ascontiguousarray(stored)), format_name, exif=exif, **options)
    result = np.asarray(read_image(data)).astype(int)
    assert result.shape == upright.shape
    assert np.abs(result - upright.astype(int)).max() <= (6 if format_name == "JPEG" else 0)
    # What has been turned once is not turned again.
    np.testing.assert_array_equal(np.asarray(read_image(read_image(data))), result)


def test_broken_exif_means_no_turn():
    data = _encoded(_photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_image(data).size == (37, 23)


def test_alpha_stands_on_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (200, 0, 0, 255)
    pixels[0, 1] = (200, 0, 0, 0)
    pixels[1, 0] = (100, 0, 0, 51)  # a fifth
    result = np.asarray(read_image(_encoded(Image.fromarray(pixels), "PNG")))
    assert result[0, 0].tolist() == [200, 0, 0]
    assert result[0, 1].tolist() == [255, 255, 255]
    assert result[1, 0].tolist() == [224, 204, 204]


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBa", "La", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"]
)
def test_every_mode_of_pillow_becomes_rgb(mode):
    grey = Image.new("L", (9, 7), 128)
    through = {"PA": "P", "La": "LA", "RGBa": "RGBA", "LAB": "RGB", "HSV": "RGB", "YCbCr": "RGB", "CMYK": "RGB"}.get(
        mode
    )
    image = grey.convert(through).convert(mode) if through else grey.convert(mode)
    result = read_image(image)
    assert result.mode == "RGB"
    assert result.size == (9, 7)
    if mode != "1":
        assert np.abs(np.asarray(result).astype(int) - 128).max() <= 2


def test_cmyk_jpeg():
    data = _encoded(Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK"), "JPEG", quality=100)
    result = np.asarray(read_image(data)).astype(int)
    assert np.abs(result - [255, 0, 0]).max() <= 4


def test_palette_with_a_transparent_colour():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 0)
    result = read_image(_encoded(image, "PNG", transparency=0))
    assert result.getpixel((0, 0)) == (255, 255, 255)
    assert result.getpixel((3, 3)) == (0, 0, 255)


SIXTEEN = np.array([[0, 128, 257, 32768], [65535, 65407, 40000, 1]], np.uint16)
EIGHT = np.rint(SIXTEEN / 257).astype(np.uint8)


def test_16_bit_grey_png_is_scaled():
    data = _png(4, 2, 16, 0, [row.astype(">u2").tobytes() for row in SIXTEEN])
    np.testing.assert_array_equal(np.asarray(read_image(data))[:, :, 1], EIGHT)


def test_16_bit_grey_png_with_a_transparent_level():
    rows = [row.astype(">u2").tobytes() for row in SIXTEEN]
    data = _png(4, 2, 16, 0, rows, (b"tRNS", struct.pack(">H", 40000)))
    expected = np.where(SIXTEEN == 40000, 255, EIGHT)
    np.testing.assert_array_equal(np.asarray(read_image(data))[:, :, 0], expected)


# Big-endian WhiteIsZero is missing: Pillow reads none, so it is refused as damaged.
@pytest.mark.parametrize(("order", "photometric"), [("<", 0), ("<", 1), (">", 1)])
def test_16_bit_grey_tiff_is_scaled(order, photometric):
    data = _tiff(SIXTEEN, order, photometric)
    expected = EIGHT if photometric else 255 - EIGHT
    np.testing.assert_array_equal(np.asarray(read_image(data))[:, :, 2], expected)


def _tiff(samples, order, photometric):
    """A grey 16-bit TIFF written by hand (TIFF 6.0, section 3)."""
    raw = samples.astype(f"{order}u2").tobytes()
    height, width = samples.shape
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, photometric), (277, 1), (278, height)]
    offset = 8 + 2 + 12 * (len(tags) + 2) + 4
    entries = sorted([(tag, 3, value) for tag, value in tags] + [(273, 4, offset), (279, 4, len(raw))])
    data = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    for tag, kind, value in entries:
        data += struct.pack(f"{order}HHI", tag, kind, 1)
        data += struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value)
    return data + struct.pack(f"{order}I", 0) + raw


def test_16_bit_rgb_png_is_scaled():
    row = np.array([[65535, 0, 32896], [257, 514, 771]], ">u2").tobytes()
    result = np.asarray(read_image(_png(2, 1, 16, 2, [row])))
    assert result[0].tolist() == [[255, 0, 128], [1, 2, 3]]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_32_bit_samples_are_refused(mode):
    with pytest.raises(ImageError, match="32 bits"):
        read_image(_encoded(Image.new(mode, (4, 4)), "TIFF"))


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(format_name):
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"lossless": True} if format_name == "WEBP" else {}
    data = _encoded(red, format_name, save_all=True, append_images=[blue], **options)
    assert read_image(data).getpixel((4, 4)) == (255, 0, 0)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello, I am a text\n" * 80, "this is text"),
        ("çok güzel".encode() * 200, "this is text"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "heic file"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (bytes(range(256)) * 8, "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "header is damaged or cut short"),
        (b"\xff\xd8\xff", "header is damaged or cut short"),
        (b"GIF89a\0\0\0\0\0\0\0", "pixels|damaged"),
        (b"BM" + b"\xff" * 60, "header is damaged|damaged"),
        (b"II*\0\xff\xff\xff\xff", "header is damaged"),
        (b"RIFF\x10\0\0\0WEBPVP8X", "header is damaged"),
        (_png(0, 3, 8, 2, [b""]), "0 x 3|header is damaged"),
        (_png(2**31 - 1, 2**31 - 1, 8, 2, [b""]), "pixels"),
        (_png(60000, 60000, 8, 2, [b""]), "pixels"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, data, message):
    path = tmp_path / "input.bin"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message) as error:
        read_image(path)
    assert "input.bin" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_missing_folder_and_bad_names(tmp_path):
    for source, message in [
        (tmp_path / "nope.jpg", "there is no such picture"),
        (tmp_path, "this is a folder"),
        ("a\0b.png", "no file can have this name"),
        ("x" * 5000, "cannot be read"),
        ("https://example.org/a.png", "download it first"),
    ]:
        with pytest.raises(ImageError, match=message):
            read_image(source)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(_encoded(_photo(), "PNG"))
    path.chmod(0)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(path)


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("tenth", range(10))
def test_cut_at_any_tenth(format_name, tenth):
    options = {"TIFF": {"compression": "tiff_lzw"}}.get(format_name, {})
    for variant in [options, {"progressive": True}] if format_name == "JPEG" else [options]:
        data = _encoded(_photo(200, 150), format_name, **variant)
        with pytest.raises(ImageError):
            read_image(data[: len(data) * tenth // 10])


def test_pixel_limit_is_read_from_the_header():
    # The picture's data is missing altogether: only a reader that stops at the header gives this message.
    bomb = _png(5000, 5000, 8, 2, [])
    with pytest.raises(ImageError, match="5000 x 5000 is 25,000,000 pixels, the limit is 16,000,000"):
        read_image(bomb)
    with pytest.raises(ImageError, match="damaged"):
        read_image(bomb, max_pixels=25_000_000)


def test_pixel_limit_holds_for_every_format_and_for_pillow_images():
    for format_name in FORMATS:
        with pytest.raises(ImageError, match="37 x 23 is 851 pixels, the limit is 850"):
            read_image(_encoded(_photo(), format_name), max_pixels=850)
    with pytest.raises(ImageError, match="the limit is 850"):
        read_image(_photo(), max_pixels=850)


def test_pillows_own_bomb_warning_neither_shows_nor_gets_in_the_way(recwarn):
    with pytest.raises(ImageError, match="10000 x 10000 is 100,000,000 pixels"):
        read_image(_png(10000, 10000, 8, 2, []))
    assert not recwarn.list


def test_a_strip_that_pads_to_a_giant_is_refused():
    with pytest.raises(ImageError, match="too narrow a strip"):
        read_image(_png(100_000, 1, 8, 0, [b"\0" * 100_000]))


def test_byte_limit(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(_encoded(_photo(), "PNG") + b"\0" * 5000)
    assert read_image(path).size == (37, 23)
    with pytest.raises(ImageError, match="over 5,000 bytes"):
        read_image(path, max_bytes=5000)


def test_colour_profiles():
    good = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for format_name in ("PNG", "JPEG", "WEBP", "TIFF"):
        assert read_image(_encoded(_photo(), format_name, icc_profile=good)).size == (37, 23)
        for bad in (b"\xab" * 300, good[:100]):
            with pytest.raises(ImageError, match="colour profile is damaged"):
                read_image(_encoded(_photo(), format_name, icc_profile=bad))


@pytest.mark.parametrize(
    "name", ["картина.png", "图 片.png", "-q.png", "line\nbreak.png", "صورة.png", "İğne.PNG", b"raw-\xff\xfe.png"]
)
def test_odd_file_names(tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), os.fsencode(name))
    with open(path, "wb") as file:
        file.write(_encoded(_photo(), "PNG"))
    assert read_image(os.fsdecode(path)).size == (37, 23)
    with open(path, "wb") as file:
        file.write(b"broken")
    with pytest.raises(ImageError) as error:
        read_image(os.fsdecode(path))
    str(error.value).encode()  # printable on any terminal
    assert "\n" not in str(error.value)


def test_shown():
    assert shown("a b.png") == "a b.png"
    assert shown("a\nb.png") == "'a\\nb.png'"
    assert shown(os.fsdecode(b"a\xff.png")) == "a\\xff.png"


# -- anything at all --------------------------------------------------------------------------------------------------

_SEEDS = [_encoded(_photo(40, 30), format_name) for format_name in FORMATS] + [
    _encoded(_photo(40, 30).convert("P"), "GIF", save_all=True, append_images=[_photo(40, 30, 1).convert("P")]),
    _encoded(_photo(40, 30), "TIFF", compression="tiff_lzw"),
    _encoded(_photo(40, 30), "JPEG", progressive=True, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_bytes_give_a_picture_or_an_image_error(data):
    damaged = bytearray(data.draw(st.sampled_from(_SEEDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    _read_or_refuse(bytes(damaged if data.draw(st.booleans()) else damaged[:cut]))


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*"]),
)
def test_random_bytes_give_a_picture_or_an_image_error(tail, magic):
    _read_or_refuse(magic + tail)


def _read_or_refuse(data):
    try:
        image = read_image(data, max_pixels=1_000_000)
    except ImageError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - an error is one of two right results
        return
    assert image.mode == "RGB"
    assert preprocess(image, ImageRecipe.clip(28)).shape == (3, 28, 28)
