"""The charts of ``parrot-eval plot``: what stands in them, and what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from saved_runs import row_of, save_run
from tsv_files import choice, open_row

from parrot_evaluation import charts
from parrot_evaluation.cli import main
from parrot_evaluation.results import read_results
from parrot_evaluation.runner import Response
from parrot_runtime import plotting
from parrot_runtime.errors import InputError
from parrot_runtime.languages import BY_CODE

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

CODES = ("en", "zh", "ar", "ru")
ROWS = [*(choice("B") for _ in range(4)), open_row("the red one")]
RIGHT = {"en": 4, "zh": 3, "ar": 2, "ru": 1}


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def runs(make_tsv, tmp_path) -> tuple[Path, Path]:
    """Two runs; in the first, RIGHT rows of four are right and a language's expert gets 0.7, in the second none is."""
    files = [make_tsv(f"nano_{'cn' if code == 'zh' else code}.tsv", ROWS) for code in CODES]

    def answer(question):
        place = CODES.index(question.language)
        routing = tuple(0.7 if expert == place else 0.1 for expert in range(4))
        if row_of(question) == "4":
            return Response("This one here is the red one of them", routing=routing)
        return Response("B" if int(row_of(question)) < RIGHT[question.language] else "C", routing=routing)

    save_run(tmp_path / "a", files, answer)
    save_run(tmp_path / "b", files, lambda question: "C", model="قرد")
    return tmp_path / "a", tmp_path / "b"


@pytest.fixture
def results(runs):
    yield read_results([str(each) for each in runs])
    plotting.import_pyplot().close("all")


def test_a_radar_has_a_corner_per_language_and_a_closed_line_per_run(results) -> None:
    axes = charts.radar(results, "choice").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["English", "中文", "العربية", "Русский"]
    first, second = axes.lines
    assert first.get_ydata().tolist() == [100, 75, 50, 25, 100]
    assert second.get_ydata().tolist() == [0] * 5
    assert first.get_xdata()[:4] == pytest.approx(np.arange(4) * np.pi / 2)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["tiny fp16", "قرد"]


def test_a_label_with_an_underscore_in_front_and_dollars_is_written_as_it_is(runs, tmp_path) -> None:
    results = read_results([f"_x $a$={runs[0]}", f"$={runs[1]}"])
    with plotting.fonts(charts.texts(results), None):
        figure = charts.bars(results, "choice")
        named = [text.get_text().strip("\u200e") for text in figure.axes[0].get_legend().get_texts()]
        plotting.save(figure, tmp_path / "x.png", force=False)
    assert named == ["_x $a$", "$"]


def test_a_radar_refuses_two_languages_and_a_floor_above_a_value(results, make_tsv, tmp_path) -> None:
    with pytest.raises(InputError, match=r"above the lowest value, 0\.0"):
        charts.radar(results, "choice", floor=30)
    assert charts.radar(results[:1], "choice", floor=20).axes[0].get_ylim() == (20, 100)
    save_run(tmp_path / "c", [make_tsv("nano_pt.tsv", ROWS)], lambda question: "B")
    with pytest.raises(InputError, match="three languages or more"):
        charts.radar(read_results([str(tmp_path / "c")]), "choice")


def test_a_language_that_a_run_lacks_leaves_its_line_open(results, make_tsv, tmp_path) -> None:
    save_run(tmp_path / "c", [make_tsv("nano_en.tsv", ROWS)], lambda question: "B", model="other")
    axes = charts.radar([*results, *read_results([str(tmp_path / "c")])], "choice").axes[0]
    assert axes.lines[2].get_ydata().tolist() == [100]


def test_bars_have_wilsons_intervals(results) -> None:
    axes = charts.bars(results, "choice").axes[0]
    bars, _, other, _ = axes.containers
    assert [bar.get_height() for bar in bars] == [100, 75, 50, 25]
    assert [bar.get_height() for bar in other] == [0] * 4
    all_right, _, half, _ = (segment[:, 1].tolist() for segment in axes.containers[1].lines[2][0].get_segments())
    # Wilson: 4 of 4 and 2 of 4.
    assert all_right == pytest.approx([51.01, 100], abs=0.01)
    assert half == pytest.approx([15.00, 85.00], abs=0.01)
    assert "n = 4" in axes.get_title(loc="left")


def test_a_number_stands_where_it_can_be_read(results) -> None:
    axes = charts.bars(results, "choice").axes[0]
    placed = {(round(text.get_position()[0], 2), text.get_text()): text for text in axes.texts}
    foot, above = placed[-0.2, "100"], placed[0.2, "0"]
    assert (foot.get_position()[1], foot.get_color()) == (2, "white")
    # Of none right of four, Wilson's interval ends at 49 per cent: the number is above it, not white on white.
    assert above.get_position()[1] == pytest.approx(48.99 + 1.5, abs=0.01)
    assert above.get_color() != "white"
    assert [charts._ink(each) for each in ("#edae49", "#3d5a80", (1, 1, 1))] == [charts._DARK, "white", charts._DARK]


def test_more_runs_than_colours_differ_in_their_lines(results) -> None:
    many = [results[0]] * 9
    lines = charts.radar(many, "choice").axes[0].lines
    assert (lines[0].get_color(), lines[0].get_linestyle()) != (lines[8].get_color(), lines[8].get_linestyle())
    bars = charts.bars(many, "choice").axes[0].containers[::2]
    assert [bar[0].get_hatch() or "" for bar in (bars[0], bars[8])] == ["", "////"]


def test_two_benchmarks_of_one_model_are_told_apart(make_tsv, tmp_path) -> None:
    for name, file in {"MMMB": "mmmb_en.tsv", "MMStar": "MMStar.tsv"}.items():
        save_run(tmp_path / name, [make_tsv(file, ROWS)], lambda question: "B", benchmark=name, model="mine")
    read = read_results([str(tmp_path / name) for name in ("MMMB", "MMStar")])
    legend = charts.bars(read, "all").axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["mine, MMMB", "mine, MMStar"]


def test_the_legend_of_experts_has_all_of_every_run(runs, make_tsv, tmp_path) -> None:
    save_run(tmp_path / "c", [make_tsv("nano_en.tsv", ROWS)], lambda q: Response("B", routing=(0.1,) * 10))
    figure = charts.experts(read_results([str(runs[0]), str(tmp_path / "c")]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [str(number) for number in range(1, 11)]
    assert figure.get_suptitle() == "nano: mean share of each expert, per cent"


def test_the_share_of_answers_in_the_language_asked(results) -> None:
    axes = charts.bars(results[:1], "language").axes[0]
    # The one open answer is English, whatever was asked in; letters are of no language.
    assert [bar.get_height() for bar in axes.containers[0]] == [100, 0, 0, 0]


def test_erosion_is_a_line_per_language_over_the_runs(results) -> None:
    axes = charts.erosion(results, "choice").axes[0]
    lines = [container.lines[0] for container in axes.containers]
    assert [line.get_ydata().tolist() for line in lines] == [[100, 0], [75, 0], [50, 0], [25, 0]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [BY_CODE[code].native_name for code in CODES]
    with pytest.raises(InputError, match="two results or more"):
        charts.erosion(results[:1], "choice")


def test_experts_shares(results) -> None:
    shares = charts.routing_shares(results[0])
    assert shares["ar"] == pytest.approx([0.1, 0.1, 0.7, 0.1])
    axes = charts.experts(results[:1]).axes[0]
    expected = 100 * np.array([shares[code] for code in CODES])
    widths = np.array([[bar.get_width() for bar in container] for container in axes.containers])
    np.testing.assert_allclose(widths.T, expected)
    np.testing.assert_allclose(charts.routing(results[:1]).axes[0].images[0].get_array(), expected)
    with pytest.raises(InputError, match="no answer says how it was routed"):
        charts.routing(results)


def test_routing_counts_only_what_the_report_counts(runs) -> None:
    samples = runs[0] / "samples.jsonl"
    kept = [line for line in samples.read_text("utf-8").splitlines() if json.loads(line)["language"] != "ar"]
    samples.write_text("".join(f"{line}\n" for line in kept), "utf-8")
    assert list(charts.routing_shares(read_results([str(runs[0])])[0])) == ["en", "zh", "ru"]


def test_routing_is_that_of_the_answers_reported(runs) -> None:
    """A report that was set aside shares its journal with the one that took its place."""
    journal = runs[0] / "answers.jsonl"
    entries = [json.loads(line) | {"routing": [0.0, 0.0, 0.0, 1.0]} for line in journal.read_text("utf-8").splitlines()]
    journal.write_text("".join(json.dumps(entry) + "\n" for entry in entries), "utf-8")
    assert charts.routing_shares(read_results([str(runs[0])])[0])["ar"] == pytest.approx([0.1, 0.1, 0.7, 0.1])


@pytest.mark.parametrize("kind", ["radar", "bars", "erosion", "experts", "routing"])
def test_every_kind_from_the_command_line(runs, tmp_path, kind) -> None:
    given = [runs[0]] if kind in ("experts", "routing") else [f"عربي={runs[0]}", f"b={runs[1]}"]
    out = tmp_path / f"{kind}.png"
    result = run("plot", kind, *given, "-o", out)
    assert result.exit_code == 0, result.output
    # A machine without a Chinese font writes that name in English, and says so.
    assert set(result.stderr.splitlines()) <= {"parrot-eval: no font here can write 中文; give one with --font"}
    with Image.open(out) as picture:
        assert min(picture.size) > 250
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20
    before = out.read_bytes()
    again = run("plot", kind, *given, "-o", out)
    assert (again.exit_code, out.read_bytes()) == (2, before)
    assert run("plot", kind, *given, "-o", tmp_path / "x.txt").exit_code == 2


def test_a_measure_that_is_not_there(runs, tmp_path) -> None:
    result = run("plot", "bars", runs[0], "--measure", "chioce", "-o", tmp_path / "x.png")
    assert result.exit_code == 2
    assert "there is no measure 'chioce' in it; it has choice" in result.stderr
    assert not (tmp_path / "x.png").exists()
