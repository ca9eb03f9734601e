"""LLaVA records in three languages, good ones, and files of them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

LANGUAGES = ("en", "zh", "tr")
TEXTS = {
    "en": ("What is in the picture?", "A red square."),
    "zh": ("图里有什么？", "一个红色的方块。"),
    "tr": ("Görselde ne var?", "Kırmızı bir kare."),
}
FURTHER = {
    "es": ("¿Qué hay en la imagen?", "Un cuadrado rojo."),
    "de": ("Was ist auf dem Bild?", "Ein rotes Quadrat."),
}


def record(number: int, **changes) -> dict:
    """A good LLaVA record; every fifth has no image, every seventh two turns."""
    language = LANGUAGES[number % 3]
    question, answer = TEXTS[language]
    item = {
        "id": f"r{number}",
        "language": language,
        "conversations": [
            {"from": "human", "value": f"<image>\n{question}"},
            {"from": "gpt", "value": answer + "!" * (number % 4)},
        ],
        "image": f"pictures/{number % 8}.png",
    }
    if number % 5 == 4:
        del item["image"]
        item["conversations"][0]["value"] = question
    if number % 7 == 6:
        item["conversations"] += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return item | changes


ASKED = {
    "en": "Which?\nA. red\nB. blue",
    "zh": "哪个？\nA. 红\nB. 蓝\nC. 绿",
    "tr": "Hangisi?\nA. kırmızı\nB. mavi",
}


def held_out_records(count=20):
    """The second turn of every other one offers letters; that of the fifth is answered in words all the same."""
    records = []
    for number in range(count):
        item = record(number, id=f"h{number}")
        if number % 2:
            answer = "B" if number != 5 else "Blue."
            question = ASKED[item["language"]]
            item["conversations"] += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        records.append(item)
    return records


def further_records(*codes, count=24):
    """Good records in turn in each of ``codes``; as in ``record``, one in five has no picture."""
    records = []
    for number in range(count):
        item = record(number)
        code = codes[number % len(codes)]
        question, answer = FURTHER[code]
        turns = [("human", ("<image>\n" if "image" in item else "") + question), ("gpt", answer)]
        item |= {"language": code, "conversations": [{"from": who, "value": text} for who, text in turns]}
        records.append(item)
    return records


def write_data(folder: Path, records=None, *, name="train.json", count=40) -> Path:
    """Write records (``count`` good ones by default) and eight pictures; returns the JSON file."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(3)
    for number in range(8):
        path = folder / "pictures" / f"{number}.png"
        if not path.exists():
            pixels = random.integers(0, 256, (18 + number, 25, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    path = folder / name
    path.write_text(json.dumps([record(number) for number in range(count)] if records is None else records))
    return path
