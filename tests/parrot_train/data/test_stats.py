"""Counts by language and dataset, and the pie with each language's own name."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_records import record

from parrot_runtime import plotting
from parrot_runtime.errors import InputError
from parrot_runtime.languages import BY_CODE, LANGUAGES
from parrot_train.data.pie import save_pie
from parrot_train.data.stats import as_data, count, describe, slices


def test_counts_by_language_and_dataset(data):
    one = data(name="one.json")
    items = [record(number, dataset="seven") for number in range(7)]
    for item in items[:4]:
        del item["language"]  # told by their words
    two = data(items, "two.json")
    stats = count([one, two])
    assert stats.records == 47
    assert stats.by(1) == {"en": 14 + 3, "zh": 13 + 2, "tr": 13 + 2}
    assert list(stats.by(1)) == ["en", "zh", "tr"]  # the paper's order
    assert stats.by(0) == {"one": 40, "seven": 7}
    assert stats.told == 43
    written = as_data(stats)
    assert written["languages"] == {"en": 17, "zh": 15, "tr": 15}
    (cell,) = [cell for cell in written["cells"] if cell["dataset"] == "seven" and cell["language"] == "tr"]
    assert cell == {"dataset": "seven", "language": "tr", "records": 2, "with_image": 2}
    lines = "\n".join(describe(stats))
    assert "36.2 %" in lines  # 17 of 47
    assert "4 records state no language" in lines


def test_a_bad_record_is_refused(data):
    with pytest.raises(InputError, match=r"two.json\[0\].*`parrot-train data check`"):
        count([data([3], "two.json")])


def test_slices_have_both_names(data):
    assert list(slices(count([data()])))[1:] == [("中文", "Chinese", 13), ("Türkçe", "Turkish", 13)]


SLICES = [(language.native_name, language.english_name, 100 + number) for number, language in enumerate(LANGUAGES)]


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_pie_is_drawn_and_names_that_no_font_has_are_told(tmp_path, suffix):
    path = tmp_path / f"pie.{suffix}"
    unwritten = save_pie(path, SLICES, "615 records", font=None, force=False)
    assert set(unwritten) <= {"Chinese"}  # matplotlib brings letters for the others
    assert path.stat().st_size > 1000
    with pytest.raises(InputError, match="exists already"):
        save_pie(path, SLICES, "615 records", font=None, force=False)


def test_shares_are_those_of_the_slices(tmp_path):
    path = tmp_path / "pie.png"
    save_pie(path, [("English", "English", 3), ("Русский", "Russian", 1)], "4 records", font=None, force=False)
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    colours = [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in plotting.COLOURS[:2]]
    counts = [(pixels == colour).all(axis=1).sum() for colour in colours]
    # The legend's two patches are alike and small beside the pie.
    assert counts[0] / counts[1] == pytest.approx(3, rel=0.05)


def test_every_name_but_chinese_has_a_font_and_the_boxes_of_the_last_resort_are_none():
    families, missing = plotting.families([language.native_name for language in LANGUAGES], None)
    assert missing <= {BY_CODE["zh"].native_name}
    assert not [family for family in families if family.startswith("Last Resort")]
    assert plotting.families(["\U000f0000"], None)[1] == {"\U000f0000"}  # a private character that none has


def test_a_font_of_ones_own_is_used(tmp_path):
    folder = Path(str(resources.files("matplotlib"))) / "mpl-data" / "fonts" / "ttf"
    families, _ = plotting.families(["English"], folder / "STIXGeneral.ttf")
    assert "STIXGeneral" in families
    (tmp_path / "font.ttf").write_bytes(b"no font")
    with pytest.raises(InputError, match=r"--font .*font.ttf: not a font"):
        plotting.families(["English"], tmp_path / "font.ttf")


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"name a .png, .svg or .pdf"):
        save_pie(tmp_path / "pie.xyz", SLICES, "", font=None, force=False)
    assert not list(tmp_path.iterdir())


def test_arabic_is_shaped_from_right_to_left():
    """The width of a shaped word is not the sum of its letters' alone: they join."""
    from matplotlib.textpath import TextToPath

    measure = TextToPath().get_text_width_height_descent
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family="DejaVu Sans", size=40)
    name = BY_CODE["ar"].native_name
    whole = measure(name, font, ismath=False)[0]
    apart = sum(measure(letter, font, ismath=False)[0] for letter in name)
    assert whole < 0.95 * apart
