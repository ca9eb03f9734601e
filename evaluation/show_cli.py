"""The commands that look at what ``parrot-eval`` measured: tables, compare, plot and report."""

from pathlib import Path

import click

from parrot_runtime.command import verbose_option

_PATH = click.Path(path_type=Path)
_results = click.argument("results", metavar="RESULT...", nargs=-1, required=True)


@click.command(epilog="Example: parrot-eval tables results/MMMB/mine-0123456789ab --table 1,6-12 --format latex")
@_results
@click.option("--table", "numbers", multiple=True, metavar="NUMBERS", help="1, 4, 6 to 12 or 14, as 1,6-8. [all]")
@click.option(
    "--measure", "measures", multiple=True, metavar="NAME", help="The scoring to show; may be given several times."
)
@click.option(
    "--format", "kind", type=click.Choice(["markdown", "csv", "latex"]), default="markdown", show_default=True
)
@click.option("-o", "--output", metavar="FILE", type=_PATH, help="Write there instead of on the screen.")
@click.option("--force", is_flag=True, help="Replace FILE.")
@verbose_option
def tables(results, numbers, measures, kind, output, force) -> None:
    """The paper's tables with your rows under theirs.

    RESULT is the folder of a run, as results/nano/…; LABEL=FOLDER gives it a name of your own.

    The paper's figures are digit for digit as printed, without intervals, since it has none; yours come with n and a
    95 % interval.
    """
    from parrot_evaluation.beside import paper_beside
    from parrot_evaluation.paper_tables import parse_numbers
    from parrot_evaluation.results import read_results

    text = paper_beside(read_results(results), parse_numbers(numbers), measures, kind)
    if output is None:
        click.echo(text, nl=False)
    else:
        from parrot_runtime.publish import publish_file

        with publish_file(output, force=force) as file:
            file.write(text.encode("utf-8", "backslashreplace"))


@click.command(epilog="Example: parrot-eval compare fp16=results/nano/a int4=results/nano/b --measure choice")
@click.argument("first", metavar="RESULT_A")
@click.argument("second", metavar="RESULT_B")
@click.option("--measure", "measures", multiple=True, metavar="NAME", help="Only that; may be given several times.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
@verbose_option
def compare(first, second, measures, as_json) -> None:
    """Whether run B is better or worse than run A, language by language.

    RESULT is the folder of a run, as results/nano/…; LABEL=FOLDER gives it a name of your own.

    Over the questions that both answered: McNemar's exact test, corrected over languages as Holm does, and the
    difference in points with Tango's 95 % interval. Runs over other data or prompts are refused.
    """
    from parrot_evaluation.compare import compare_runs
    from parrot_evaluation.results import read_results

    click.echo(compare_runs(*read_results([first, second]), measures, as_json=as_json), nl=False)
