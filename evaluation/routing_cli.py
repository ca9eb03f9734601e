"""``parrot-eval routing``: the command and its tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parrot_evaluation.options import question_options, results_option
from parrot_runtime.command import ParrotCommand, verbose_option
from parrot_runtime.publish import check_output, write_file

if TYPE_CHECKING:
    from parrot_evaluation.routing import LanguageRouting


@click.command("routing", cls=ParrotCommand, epilog="Example: parrot-eval routing nano --languages tr,ar --limit 30")
@click.argument("benchmark")
@click.option(
    "--model", type=click.Path(path_type=Path), metavar="BUNDLE", help="The bundle. [default: the one parrot-run takes]"
)
@question_options(20, "; each takes an answer per expert")
@results_option
@click.option("--force", is_flag=True, help="Explain every question again.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@verbose_option
def routing(
    benchmark: str,
    model: Path | None,
    data: Path | None,
    languages: str | None,
    limit: int,
    output: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Which words draw the router in each language, where to, and what is lost without each expert.

    Every question is explained as parrot-run --explain does; the tables are means over a language's questions.
    """
    from parrot_evaluation.benchmarks import choose_languages, find_benchmark
    from parrot_evaluation.measure import default_bundle, note, progress_bar, read_tables
    from parrot_evaluation.models import identity
    from parrot_evaluation.routing import RoutingJournal, explain_rows, run_folder, summarise
    from parrot_runtime.parrot import Parrot

    chosen = find_benchmark(benchmark)
    check_output(output)
    tables = read_tables(chosen, data, choose_languages(chosen, languages, data))
    bundle = model or default_bundle()
    parrot = Parrot.load(bundle, note=note)
    name, fingerprint = identity(parrot, bundle)
    folder = output / chosen.name / run_folder(fingerprint, chosen)
    with RoutingJournal(folder / "routing.jsonl", anew=force) as journal, progress_bar() as progress:
        found = explain_rows(parrot, chosen, tables, journal, limit=limit, progress=progress)
    summaries = summarise(chosen, found)
    report = {
        "schema_version": 1,
        "benchmark": chosen.name,
        "model": name,
        "model_fingerprint": fingerprint,
        "limit": limit,
        "data": {table.language: table.sha256 for table in tables},
        "languages": [asdict(each) for each in summaries],
    }
    text = json.dumps(report, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    shown = markdown(f"{chosen.title}: routing of {name}", summaries)
    write_file(folder / "routing.json", text.encode())
    write_file(folder / "routing.md", shown.encode())
    note(f"kept in {folder}")
    click.echo(text if as_json else shown, nl=False)


def markdown(title: str, summaries: Sequence[LanguageRouting]) -> str:
    """The tables of ``summaries``."""
    from parrot_evaluation.routing import distance
    from parrot_evaluation.tables import language, table

    experts = [f"expert {number + 1}" for number in range(len(summaries[0].shares))]

    def rows(heading: Sequence[str], cells: Callable) -> str:
        return table(["language", *heading], [[language(each.language), *cells(each)] for each in summaries])

    parts = {
        "Mean share of each expert; entropy 1 is all alike:": rows(
            ["n", *experts, "entropy"], lambda s: [str(s.questions), *map(_percent, s.shares), f"{s.entropy:.3f}"]
        ),
        "How far the mean shares of two languages are apart (total variation):": rows(
            [each.language for each in summaries], lambda s: [_percent(distance(s, other)) for other in summaries]
        ),
        "Attention of the router on the question, and the words that drew most of it; the rest is on the system's text "
        "and the roles' marks:": rows(
            ["on the question", "words"],
            lambda s: [_percent(s.on_question), ", ".join(f"{text} {share:.1%}" for text, share in s.words)],
        ),
        **_without_each(summaries, rows),
        "How far the visual tokens move without an expert (root mean square, of their own):": rows(
            experts, lambda s: map(_percent, s.changes)
        ),
    }
    return "\n\n".join([f"## {title}", *(part for pair in parts.items() for part in pair)]) + "\n"


def _without_each(summaries: Sequence[LanguageRouting], rows: Callable) -> dict[str, str]:
    """What is lost without each expert; of answers that are left to a judge, only how many change."""
    heading = [f"without {number + 1}" for number in range(len(summaries[0].shares))]
    if summaries[0].right is None:
        title = "How many answers changed without one expert, whose part goes to the others:"
        return {title: rows(["n", *heading], lambda s: [str(s.questions), *map(str, s.changed_without)])}
    title = (
        "Right answers in per cent with all experts and without one, whose part goes to the others; in brackets, how "
        "many answers changed:"
    )

    def counts(each: LanguageRouting) -> list[str]:
        without = zip(each.right_without, each.changed_without, strict=True)
        shares = [_share(each.right, each), *(f"{_share(right, each)} ({changed})" for right, changed in without)]
        return [str(each.questions), *shares]

    return {title: rows(["n", "all", *heading], counts)}


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _share(part: int, each: LanguageRouting) -> str:
    return f"{100 * part / each.questions:.1f}"
