"""Small files in exactly the format of the kit's: what the published ones look like, made here."""

import base64
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

COLUMNS = ["index", "image", "question", "hint", "A", "B", "C", "D", "answer", "category", "l2-category", "split"]


def picture(seed: int = 0) -> str:
    """A tiny PNG as base64; every seed gives another picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (3, 5), (seed % 256, seed // 256 % 256, 7)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def write_rows(path: Path, rows: Sequence[dict], columns: Sequence[str] = COLUMNS) -> Path:
    """``rows`` as pandas would write them: quotes only where needed, and doubled inside."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def choice(answer: str = "B", *options: str, **more: object) -> dict:
    """A row with options (a dog, a cat, red, dark red unless given)."""
    texts = options or ("a dog", "a cat", "red", "dark red")
    return dict(zip("ABCD", texts, strict=False)) | {"answer": answer} | more


def yes_no(answer: str, words: tuple[str, str] = ("Yes", "No"), **more: object) -> dict:
    """A Yes/No row as in the nano files: A and B hold the words, C and D are empty."""
    return {"A": words[0], "B": words[1], "answer": answer, "category": "existence"} | more


def open_row(answer: str, **more: object) -> dict:
    return {"answer": answer, "category": "colour"} | more
