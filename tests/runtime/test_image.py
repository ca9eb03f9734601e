"""The picture reader and the recipe, against plain Pillow and numpy written out."""

import struct

import numpy as np
import pytest
from pictures import FORMATS, encoded, photo, png
from PIL import Image

from parrot_runtime.errors import ImageError
from parrot_runtime.image import CLIP_MEAN, CLIP_STD, ImageRecipe, preprocess, read_image

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
    image = photo(*size)
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
    picture = photo()
    options = {"lossless": True} if format_name == "WEBP" else {}
    data = encoded(picture, format_name, **options)
    path = tmp_path / "picture"  # no suffix: the bytes say what it is
    path.write_bytes(data)
    results = [np.asarray(read_image(source)) for source in (data, path, str(path), Image.open(path))]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    if format_name in ("PNG", "WEBP", "BMP", "TIFF"):
        np.testing.assert_array_equal(results[0], np.asarray(picture))
    else:  # JPEG loses detail, GIF colours; the picture must still be the same one
        assert np.abs(results[0].astype(int) - np.asarray(picture).astype(int)).mean() < 12


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
    upright = np.asarray(photo())
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
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), format_name, exif=exif, **options)
    result = np.asarray(read_image(data)).astype(int)
    assert result.shape == upright.shape
    assert np.abs(result - upright.astype(int)).max() <= (6 if format_name == "JPEG" else 0)
    # What has been turned once is not turned again.
    np.testing.assert_array_equal(np.asarray(read_image(read_image(data))), result)


def test_broken_exif_means_no_turn():
    data = encoded(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_image(data).size == (37, 23)


def test_alpha_stands_on_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (200, 0, 0, 255)
    pixels[0, 1] = (200, 0, 0, 0)
    pixels[1, 0] = (100, 0, 0, 51)  # a fifth
    result = np.asarray(read_image(encoded(Image.fromarray(pixels), "PNG")))
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
    data = encoded(Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK"), "JPEG", quality=100)
    result = np.asarray(read_image(data)).astype(int)
    assert np.abs(result - [255, 0, 0]).max() <= 4


def test_palette_with_a_transparent_colour():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 0)
    result = read_image(encoded(image, "PNG", transparency=0))
    assert result.getpixel((0, 0)) == (255, 255, 255)
    assert result.getpixel((3, 3)) == (0, 0, 255)


SIXTEEN = np.array([[0, 128, 257, 32768], [65535, 65407, 40000, 1]], np.uint16)
EIGHT = np.rint(SIXTEEN / 257).astype(np.uint8)


def test_16_bit_grey_png_is_scaled():
    data = png(4, 2, 16, 0, [row.astype(">u2").tobytes() for row in SIXTEEN])
    np.testing.assert_array_equal(np.asarray(read_image(data))[:, :, 1], EIGHT)


def test_16_bit_grey_png_with_a_transparent_level():
    rows = [row.astype(">u2").tobytes() for row in SIXTEEN]
    data = png(4, 2, 16, 0, rows, (b"tRNS", struct.pack(">H", 40000)))
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
    result = np.asarray(read_image(png(2, 1, 16, 2, [row])))
    assert result[0].tolist() == [[255, 0, 128], [1, 2, 3]]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_32_bit_samples_are_refused(mode):
    with pytest.raises(ImageError, match="32 bits"):
        read_image(encoded(Image.new(mode, (4, 4)), "TIFF"))


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(format_name):
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"lossless": True} if format_name == "WEBP" else {}
    data = encoded(red, format_name, save_all=True, append_images=[blue], **options)
    assert read_image(data).getpixel((4, 4)) == (255, 0, 0)
