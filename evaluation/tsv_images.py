"""The pictures in a file of VLMEvalKit: base64, or the index of the row that holds them."""

import base64
import io
import warnings
from collections.abc import Iterator, Mapping

from PIL import Image, UnidentifiedImageError

_LONGEST_REFERENCE = 64


class Images:
    """Pictures by row; a short ``image`` field is the index of the row that holds the picture."""

    def __init__(self, records: list[tuple[int, dict[str, str]]]) -> None:
        self._by_index = {record["index"].strip(): record["image"].strip() for _, record in records}

    def of(self, record: Mapping[str, str]) -> str | None:
        """The base64 text, or None where there is none."""
        image = record["image"].strip()
        if len(image) <= _LONGEST_REFERENCE:
            image = self._by_index.get(image, "")
        return image if len(image) > _LONGEST_REFERENCE else None

    def problems(self, record: Mapping[str, str]) -> Iterator[str]:
        """What is wrong with a row's picture. Only headers are read here, pixels when the model sees them."""
        image = record["image"].strip()
        if len(image) <= _LONGEST_REFERENCE:
            if not image:
                yield "it has no picture"
            elif self.of(record) is None:
                yield f"its picture is that of row {image!r}, which holds none"
            return
        try:
            data = base64.b64decode(image, validate=True)
        except ValueError:
            yield "its picture is not base64"
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the runtime has its own limit
                Image.open(io.BytesIO(data)).close()
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            yield "its picture is in no known format"
