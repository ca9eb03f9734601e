"""What the picture reader refuses, and what it bears: broken, cut, giant and random bytes, odd names."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import FORMATS, encoded, photo, png
from PIL import ImageCms

from parrot_runtime.errors import ImageError
from parrot_runtime.image import ImageRecipe, preprocess, read_image, shown


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
        (png(0, 3, 8, 2, [b""]), "0 x 3|header is damaged"),
        (png(2**31 - 1, 2**31 - 1, 8, 2, [b""]), "pixels"),
        (png(60000, 60000, 8, 2, [b""]), "pixels"),
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
    path.write_bytes(encoded(photo(), "PNG"))
    path.chmod(0)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(path)


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("tenth", range(10))
def test_cut_at_any_tenth(format_name, tenth):
    options = {"TIFF": {"compression": "tiff_lzw"}}.get(format_name, {})
    for variant in [options, {"progressive": True}] if format_name == "JPEG" else [options]:
        data = encoded(photo(200, 150), format_name, **variant)
        with pytest.raises(ImageError):
            read_image(data[: len(data) * tenth // 10])


def test_pixel_limit_is_read_from_the_header():
    # The picture's data is missing altogether: only a reader that stops at the header gives this message.
    bomb = png(5000, 5000, 8, 2, [])
    with pytest.raises(ImageError, match="5000 x 5000 is 25,000,000 pixels, the limit is 16,000,000"):
        read_image(bomb)
    with pytest.raises(ImageError, match="damaged"):
        read_image(bomb, max_pixels=25_000_000)


def test_pixel_limit_holds_for_every_format_and_for_pillow_images():
    for format_name in FORMATS:
        with pytest.raises(ImageError, match="37 x 23 is 851 pixels, the limit is 850"):
            read_image(encoded(photo(), format_name), max_pixels=850)
    with pytest.raises(ImageError, match="the limit is 850"):
        read_image(photo(), max_pixels=850)


def test_pillows_own_bomb_warning_neither_shows_nor_gets_in_the_way(recwarn):
    with pytest.raises(ImageError, match="10000 x 10000 is 100,000,000 pixels"):
        read_image(png(10000, 10000, 8, 2, []))
    assert not recwarn.list


def test_a_strip_that_pads_to_a_giant_is_refused():
    with pytest.raises(ImageError, match="too narrow a strip"):
        read_image(png(100_000, 1, 8, 0, [b"\0" * 100_000]))


def test_byte_limit(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(photo(), "PNG") + b"\0" * 5000)
    assert read_image(path).size == (37, 23)
    with pytest.raises(ImageError, match="over 5,000 bytes"):
        read_image(path, max_bytes=5000)


def test_colour_profiles():
    good = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for format_name in ("PNG", "JPEG", "WEBP", "TIFF"):
        assert read_image(encoded(photo(), format_name, icc_profile=good)).size == (37, 23)
        for bad in (b"\xab" * 300, good[:100]):
            with pytest.raises(ImageError, match="colour profile is damaged"):
                read_image(encoded(photo(), format_name, icc_profile=bad))


@pytest.mark.parametrize(
    "name", ["картина.png", "图 片.png", "-q.png", "line\nbreak.png", "صورة.png", "İğne.PNG", b"raw-\xff\xfe.png"]
)
def test_odd_file_names(tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), os.fsencode(name))
    with open(path, "wb") as file:
        file.write(encoded(photo(), "PNG"))
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

_SEEDS = [encoded(photo(40, 30), format_name) for format_name in FORMATS] + [
    encoded(photo(40, 30).convert("P"), "GIF", save_all=True, append_images=[photo(40, 30, 1).convert("P")]),
    encoded(photo(40, 30), "TIFF", compression="tiff_lzw"),
    encoded(photo(40, 30), "JPEG", progressive=True, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
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
