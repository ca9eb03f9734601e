"""The search on tables that are made up, where the best plan is known; and the table and the plot of what it found."""

import itertools
import sys

import pytest

from parrot_export.gate import Cost
from parrot_export.mixed.frontier import Measured, as_data, plot, table
from parrot_export.mixed.search import frontier, ladders, make_step
from parrot_export.mixed.units import Unit

# Bytes more than float16: halves and quarters of 100 and 400.
SIZES = {
    "small": {"int4": -75, "int8": -50, "float16": 0},
    "large": {"int4": -300, "int8": -200, "float16": 0},
}
FIXED = 1000
# Turkish pays for the small unit, English for the large one.
COSTS = {
    "small": {"int4": {"en": 1.0, "tr": 8.0}, "int8": {"en": 0.1, "tr": 0.5}, "float16": {"en": 0.0, "tr": 0.0}},
    "large": {"int4": {"en": 6.0, "tr": 1.0}, "int8": {"en": 0.2, "tr": 0.2}, "float16": {"en": 0.0, "tr": 0.0}},
}
UNITS = [Unit(name, (name,)) for name in SIZES]


def test_the_worst_language_decides_what_is_raised_first():
    steps = frontier(ladders(UNITS, SIZES), COSTS, SIZES, FIXED)
    assert [(one.stored["small"], one.stored["large"]) for one in steps] == [
        ("int4", "int4"),
        ("int8", "int4"),  # Turkish, at 9, is worst: 7.5 for 25 bytes
        ("int8", "int8"),  # English, at 6.1, is worst: 5.8 for 100 bytes
        ("float16", "int8"),
        ("float16", "float16"),
    ]
    assert [one.size for one in steps] == [625, 650, 750, 800, 1000]
    assert steps[0].predicted == {"en": 7.0, "tr": 9.0}
    assert steps[2].worst == pytest.approx(0.7)


@pytest.mark.parametrize("limit", [10.0, 6.5, 1.0, 0.3, 0.0])
def test_the_first_step_within_a_limit_has_the_fewest_bytes_of_all_plans(limit):
    """By trying every plan; greedy is exact on this table."""
    steps = frontier(ladders(UNITS, SIZES), COSTS, SIZES, FIXED)
    found = next(one for one in steps if one.worst <= limit)
    every = (
        make_step({"small": small, "large": large}, COSTS, SIZES, FIXED)
        for small, large in itertools.product(SIZES["small"], SIZES["large"])
    )
    assert found.size == min(one.size for one in every if one.worst <= limit)


def test_what_a_finer_choice_takes_no_more_bytes_than_is_left_out():
    sizes = {"small": {"int4": 0, "int8": -50, "float16": 0}, "large": {"int4": -1, "int8": -1, "float16": 0}}
    assert ladders(UNITS, sizes) == {"small": ("int8", "float16"), "large": ("int8", "float16")}


def cost(kl, accuracy, own=100.0):
    return Cost(10, kl, 99.0, 1.1, 1.1, 100, accuracy, 90.0, 10, own, 100.0)


@pytest.fixture
def data():
    steps = frontier(ladders(UNITS, SIZES), COSTS, SIZES, FIXED)
    measured = [
        Measured("fewest bytes", steps[0], {"en": cost(0.2, 90.0), "tr": cost(0.4, 86.0)}),
        Measured("chosen", steps[2], {"en": cost(0.01, 91.0), "tr": cost(0.02, 90.0, own=97.5)}),
    ]
    return as_data(steps, measured, COSTS)


def test_the_table_shows_what_was_measured_among_what_was_predicted(data):
    lines = table(data)
    assert len(lines) == 1 + 5
    assert lines[1].split()[-5:] == ["tr", "0.40000", "4.0", "fewest", "bytes"]
    assert lines[3].split()[-3:] == ["0.02000", "2.5", "chosen"]  # answers in another language count
    assert data["steps"][1]["raised"] == {"small": "int8"}
    assert data["measured"][1]["stored"] == {"small": "int8", "large": "int8"}


def test_the_plot_is_the_same_every_time_and_left_out_without_matplotlib(data, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    paths = [tmp_path / f"{number}.svg" for number in range(2)]
    assert all(plot(data, path) for path in paths)
    first, second = (path.read_text("utf-8") for path in paths)
    assert first == second
    assert "fewest bytes" in first or "<path" in first
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not plot(data, tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()
