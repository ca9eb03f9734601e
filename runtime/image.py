"""From a picture to the numbers the vision encoder takes; one reader and one recipe for training and for running.

Recipe (the paper's preprocessing): pad to a square with the picture in the middle, resize bicubically, divide by 255,
subtract the mean, divide by the standard deviation. It stands as data in every checkpoint and in every bundle.

Reader: JPEG, PNG, WebP, BMP, GIF and TIFF become RGB with a defined result (EXIF orientation applied, transparency on
white, 16 bits scaled, first frame of an animation), or an ImageError that says why not.
"""

from __future__ import annotations

import importlib
import io
import math
import os
import struct
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from parrot_runtime.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

MAX_PIXELS = 16_000_000
MAX_BYTES = 64 << 20
# A strip picture is mostly padding: the padded square may hold this many times the pixels a picture may.
_PADDING_FACTOR = 16
_STRIP_PIXELS = 1 << 22
_HIGHER = "raise the limit (--max-pixels of parrot-run and parrot-eval, data.max_pixels of a training)"
_WHITE = (255, 255, 255)

# First bytes -> Pillow's name of the format. The plugin is chosen here, so that no other parser sees the bytes.
_FORMATS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)
_PLUGINS = {"JPEG": "Jpeg", "PNG": "Png", "GIF": "Gif", "BMP": "Bmp", "TIFF": "Tiff", "WEBP": "WebP"}
# warnings.catch_warnings changes the process: one thread at a time.
_WARNINGS_LOCK = threading.Lock()


@dataclass(frozen=True)
class ImageRecipe:
    """How a picture becomes ``float32[3, size, size]``; ``mean`` and ``std`` are per channel, RGB, after 1/255."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad_colour: tuple[int, ...] = (122, 116, 104)
    aspect: Literal["pad"] = "pad"
    resample: Literal["bicubic"] = "bicubic"

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 4096:
            raise ValueError(f"size is {self.size}; expected 1 to 4096 pixels")
        if not len(self.mean) == len(self.std) == len(self.pad_colour) == 3:
            raise ValueError("mean, std and pad_colour need three values each, for red, green and blue")
        if not all(map(math.isfinite, self.mean)) or not all(math.isfinite(s) and s > 0 for s in self.std):
            raise ValueError("mean must be finite, std finite and above zero")
        if not all(0 <= channel <= 255 for channel in self.pad_colour):
            raise ValueError(f"pad_colour is {self.pad_colour}; expected values from 0 to 255")

    @classmethod
    def clip(cls, size: int) -> ImageRecipe:
        """The recipe of CLIP's vision tower at ``size`` pixels."""
        return cls(size, CLIP_MEAN, CLIP_STD)


def read_image(
    source: str | Path | bytes | Image.Image,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    name: str | None = None,
) -> Image.Image:
    """Read a picture from a path, from the bytes of a file, or from Pillow, as an RGB image the right way up.

    ``name`` is what errors call the picture (its path by default). The pixel limit is checked on the header, before
    anything is decoded. Raises ImageError for whatever is not a whole picture within the limits.
    """
    if isinstance(source, str | Path):
        name = name or shown(source)
        source = _read_bytes(source, name, max_bytes)
    name = name or "the picture"
    opened = _open(source, name, max_bytes) if isinstance(source, bytes) else source
    _check_size(opened, name, max_pixels)
    try:
        opened.load()
        _check_profile(opened, name)
        return _turned(_to_rgb(opened, name), _orientation(opened))
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen types; every one means this file cannot be decoded
        raise ImageError(
            f"{name}: the picture is damaged or cut short ({_reason(error)}); get the file again"
        ) from error


def preprocess(image: Image.Image, recipe: ImageRecipe) -> np.ndarray:
    """An RGB image as ``float32[3, size, size]``, by ``recipe``. Raises ValueError for an image that is not RGB."""
    if image.mode != "RGB":
        raise ValueError(f"the image has mode {image.mode}; expected RGB, as read_image gives")
    levels = np.arange(256) / 255.0
    table = np.stack([(levels - mean) / std for mean, std in zip(recipe.mean, recipe.std, strict=True)]).astype(
        np.float32
    )
    pixels = np.asarray(_pad_and_resize(image, recipe))
    return np.stack([table[channel][pixels[:, :, channel]] for channel in range(3)])


def shown(path: str | Path) -> str:
    """``path`` as one printable line, whatever bytes its name is made of."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else repr(text)


def _pad_and_resize(image: Image.Image, recipe: ImageRecipe) -> Image.Image:
    """What ``pad to a square, then resize`` gives, bit by bit, without ever holding the square.

    Pillow resizes in two passes, first along the rows, then along the columns. Rows are independent in the first pass,
    so they are padded and shrunk a strip at a time: a 16,000 x 1,000 panorama costs megabytes, not 768.
    """
    from PIL import Image

    side, size, colour = max(image.size), recipe.size, tuple(recipe.pad_colour)
    left, top = (side - image.width) // 2, (side - image.height) // 2
    narrow = Image.new("RGB", (size, side), colour)
    rows = max(1, _STRIP_PIXELS // side)
    for first in range(0, image.height, rows):
        last = min(first + rows, image.height)
        strip = Image.new("RGB", (side, last - first), colour)
        strip.paste(image.crop((0, first, image.width, last)), (left, 0))
        narrow.paste(strip.resize((size, last - first), Image.Resampling.BICUBIC), (0, top + first))
    return narrow.resize((size, size), Image.Resampling.BICUBIC)


def _read_bytes(path: str | Path, name: str, max_bytes: int) -> bytes:
    if str(path).startswith(("http://", "https://")):
        raise ImageError(f"{name}: pictures are read from files; download it first")
    try:
        with open(path, "rb") as file:
            return file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: there is no such picture; check the path") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name}: this is a folder; give the picture files in it") from error
    except OSError as error:
        raise ImageError(f"{name}: the picture cannot be read ({error.strerror}); check the file") from error
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"{name}: no file can have this name ({error}); check the path") from error


def _open(data: bytes, name: str, max_bytes: int) -> Image.Image:
    """Parse the header only."""
    if not data:
        raise ImageError(f"{name}: the file is empty; get the picture again")
    if len(data) > max_bytes:
        raise ImageError(f"{name}: the file is over {max_bytes:,} bytes, the limit for a picture; save it smaller")
    format_name = _format_of(data)
    if format_name is None:
        raise ImageError(f"{name}: {_describe(data)}; expected a JPEG, PNG, WebP, BMP, GIF or TIFF picture")
    from PIL import Image

    importlib.import_module(f"PIL.{_PLUGINS[format_name]}ImagePlugin")
    try:
        with _WARNINGS_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's own bomb limit: ours is lower and comes next
            return Image.open(io.BytesIO(data), formats=[format_name])
    except Image.DecompressionBombError as error:
        most = 2 * Image.MAX_IMAGE_PIXELS
        raise ImageError(f"{name}: its header claims more than {most:,} pixels; make the picture smaller") from error
    except Exception as error:  # as in read_image: any type means the header makes no sense
        raise ImageError(
            f"{name}: a {format_name} file whose header is damaged or cut short; get the file again"
        ) from error


def _format_of(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((format_name for magic, format_name in _FORMATS if data.startswith(magic)), None)


def _describe(data: bytes) -> str:
    """What a file that is no picture of ours looks like, to say more than 'unknown'."""
    head = data[:1024].lstrip().lower()
    if head.startswith(b"<svg") or b"<svg" in head:
        return "this is an SVG drawing; convert it to PNG"
    if data[4:8] == b"ftyp":
        return f"this is a {data[8:12].decode('ascii', 'replace')} file (HEIC, AVIF or a film); convert it to JPEG"
    if head.startswith(b"%pdf"):
        return "this is a PDF; save the page as PNG"
    try:
        data[:1024].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(data[:1024]) - 4:  # later, it may be a character cut by the slice
            return "this is not a picture"
    return "this is text, not a picture" if b"\0" not in data[:1024] else "this is not a picture"


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: the picture is {width} x {height} pixels; expected at least 1 x 1")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width} x {height} is {width * height:,} pixels, the limit is {max_pixels:,}; "
            f"make the picture smaller, or {_HIGHER}"
        )
    if max(width, height) ** 2 > _PADDING_FACTOR * max_pixels:
        raise ImageError(
            f"{name}: {width} x {height} is too narrow a strip to be padded to a square; crop the picture, or {_HIGHER}"
        )


def _check_profile(image: Image.Image, name: str) -> None:
    """Colour profiles are not applied (the recipe has none), but a damaged one says the file is damaged."""
    if "icc_profile" not in image.info:
        return
    profile = image.info["icc_profile"]
    if not isinstance(profile, bytes) or len(profile) < 128 or profile[36:40] != b"acsp":
        raise ImageError(f"{name}: the picture's colour profile is damaged; save the picture again without a profile")


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _scaled_to_8_bits(image).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError(f"{name}: samples of 32 bits have no defined range; save the picture with 8 or 16 bits")
    if image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image
        rgba = straight.convert("RGBA")
        rgb = Image.new("RGB", image.size, _WHITE)
        rgb.paste(rgba, mask=rgba.getchannel("A"))
        return rgb
    return image.convert("RGB")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """Grey samples of 16 bits (or of as many as a TIFF says) to 0..255, rounded; Pillow's own convert() saturates."""
    from PIL import Image

    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(258, (16,))[0]  # TIFF 6.0: BitsPerSample
    full = (1 << bits) - 1
    samples = np.asarray(image).astype(np.uint32)
    grey = ((np.minimum(samples, full) * 255 + full // 2) // full).astype(np.uint8)
    if image.format == "TIFF" and tags.get(262) == 0:  # PhotometricInterpretation: WhiteIsZero
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[samples == transparent] = 255
    return Image.fromarray(grey)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 when there is none that can be read."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = turns.get(orientation)
    turned = image if turn is None else image.transpose(turn)
    # Orientation and profile are dealt with: whoever reads this image again must not find them.
    turned.info = {}
    return turned


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:120] if text and text.isprintable() else type(error).__name__
