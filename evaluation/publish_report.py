"""Reads runs and their data, draws the charts, and writes the page of ``parrot-eval report``."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from parrot_evaluation import charts
from parrot_evaluation.benchmarks import find_benchmark
from parrot_evaluation.html_report import Chart, page
from parrot_evaluation.measure import read_tables
from parrot_evaluation.results import Result, choose_measure, read_results, shared_languages
from parrot_evaluation.worst import data_uri, worst
from parrot_runtime.errors import InputError
from parrot_runtime.publish import check_output, publish_file

_MOST_RUNS_ON_A_RADAR = 6


def publish_report(
    named: Sequence[str],
    output: Path,
    *,
    data: Path | None,
    samples: int,
    side: int,
    plots: bool,
    font: Path | None,
    force: bool,
    note: Callable[[str], None],
) -> None:
    """Write ``output``: figures, charts and up to ``samples`` samples of each language. Raises InputError.

    ``data`` is the folder of the benchmark's files, where the pictures are; it is not needed for no samples.
    """
    check_output(output.parent)
    results = read_results(named)
    benchmarks = list(dict.fromkeys(result.benchmark for result in results))
    if len(benchmarks) > 1:
        raise InputError(f"one report shows one benchmark, these results are of {' and '.join(benchmarks)}")
    with publish_file(output, force=force) as file:
        shown = []
        if samples:
            benchmark = find_benchmark(benchmarks[0])
            if benchmark.form == "judged":
                raise InputError(f"a judge scores {benchmark.title}, so no answer is right or wrong; give --samples 0")
            tables = read_tables(benchmark, data, tuple(shared_languages(results)), skip_missing_images=True)
            shown = worst(results, tables, samples)
        drawn = draw(results, font, note) if plots else []
        # Half a surrogate pair is escaped already; nothing else cannot be written.
        text = page(results, shown, drawn, side=side).encode("utf-8")
        file.write(text)
    note(f"{output}: {len(text) / 2**20:.1f} MiB, {len(drawn)} charts, {len(shown)} samples")


def draw(results: Sequence[Result], font: Path | None, note: Callable[[str], None]) -> list[Chart]:
    """The charts that these runs can have, as SVG with letters as outlines."""
    from parrot_runtime.plotting import fonts, import_pyplot, write

    first = choose_measure(results, None)
    planned: list[tuple[str, Callable]] = []
    if first != "language":
        planned.append((f"{first}: per cent right by language", lambda **u: charts.bars(results, first, **u)))
    told = [result for result in results if "language" in result.measures]
    if told:
        planned.append(("answers in the language asked, per cent", lambda **u: charts.bars(told, "language", **u)))
    if len(results) > 1:
        planned.append((f"{first} from run to run", lambda **u: charts.erosion(results, first, **u)))
    if len(shared_languages(results)) > 2 and len(results) <= _MOST_RUNS_ON_A_RADAR:
        planned.append((f"{first} over languages", lambda **u: charts.radar(results, first, **u)))
    routed = [result for result in results if any(entry.get("routing") for entry in result.answers.values())]
    if routed:
        planned.append(("mean share of each expert by language", lambda **u: charts.experts(routed, **u)))
    drawn = []
    with fonts(charts.texts(results), font) as unwritten:
        for caption, make in planned:
            figure, buffer = make(unwritten=unwritten), io.BytesIO()
            write(figure, buffer, "svg")
            import_pyplot().close(figure)
            drawn.append(Chart(data_uri(buffer.getvalue(), "image/svg+xml"), caption))
    for text in sorted(unwritten):
        note(f"no font here can write {text} in the charts; give one with --font")
    return drawn
