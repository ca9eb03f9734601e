"""The commands that look at what ``parrot-eval`` measured: tables, compare, plot and report."""

from pathlib import Path

import click

from parrot_evaluation.options import question_options
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
    from parrot_runtime.publish import check_output, publish_file

    if output is not None:
        check_output(output.parent)
    text = paper_beside(read_results(results), parse_numbers(numbers), measures, kind)
    if output is None:
        click.echo(text, nl=False)
    else:
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


@click.group()
def plot() -> None:
    """Draw what was measured: .png, .svg or .pdf.

    Languages are named in their own script; one that no font here can write is named in English, and stderr says so,
    unless --font has its characters. The share of each language in training data is `parrot-train data stats --plot`.
    """


_options_of_every_plot = (
    click.option("-o", "--output", metavar="FILE", type=_PATH, required=True, help="A .png, .svg or .pdf."),
    click.option("--font", metavar="FILE", type=_PATH, help="A font for names that those here cannot write."),
    click.option("--force", is_flag=True, help="Replace FILE."),
    verbose_option,
)
_measure = click.option("--measure", metavar="NAME", help="What to draw, as language. [default: the run's first]")


def _every_plot(function):
    for option in reversed(_options_of_every_plot):
        function = option(function)
    return function


@plot.command(epilog="Example: parrot-eval plot radar fp16=results/nano/a int4=results/nano/b -o radar.png")
@_results
@_measure
@click.option(
    "--floor", type=click.FloatRange(0, 99), default=0.0, show_default=True, help="The per cent in the centre."
)
@_every_plot
def radar(results, measure, floor, **output) -> None:
    """A language at each corner, a line per run (Figure 7b)."""
    _draw("radar", results, output, measure=measure, floor=floor)


@plot.command(epilog="Example: parrot-eval plot bars results/nano/a --measure language -o language.png")
@_results
@_measure
@_every_plot
def bars(results, measure, **output) -> None:
    """A group of bars per language, a bar per run, with intervals.

    With --measure language: the share of answers in the language asked.
    """
    _draw("bars", results, output, measure=measure)


@plot.command(epilog="Example: parrot-eval plot erosion fp16=results/a int8=results/b int4=results/c -o erosion.svg")
@_results
@_measure
@_every_plot
def erosion(results, measure, **output) -> None:
    """What each language loses from run to run: precisions, or variants of a training, in the order given."""
    _draw("erosion", results, output, measure=measure)


@plot.command(epilog="Example: parrot-eval plot experts results/nano/a -o experts.png")
@_results
@_every_plot
def experts(results, **output) -> None:
    """The mean share of each expert per language, as bars (Figure 7c)."""
    _draw("experts", results, output)


@plot.command(epilog="Example: parrot-eval plot routing results/nano/a -o routing.png")
@_results
@_every_plot
def routing(results, **output) -> None:
    """The mean share of each expert per language, as a map."""
    _draw("routing", results, output)


def _draw(kind, named, output, *, measure=None, **more) -> None:
    from parrot_evaluation import charts
    from parrot_evaluation.results import choose_measure, read_results
    from parrot_runtime.plotting import check_format, fonts, save
    from parrot_runtime.publish import check_output

    check_output(output["output"].parent)
    results = read_results(named)
    check_format(output["output"])
    if kind in ("radar", "bars", "erosion"):
        more["measure"] = choose_measure(results, measure)
    with fonts(charts.texts(results), output["font"]) as unwritten:
        figure = getattr(charts, kind)(results, unwritten=unwritten, **more)
        save(figure, output["output"], force=output["force"])
    _tell_unwritten(unwritten)


def _tell_unwritten(unwritten) -> None:
    for text in sorted(unwritten):
        click.echo(f"parrot-eval: no font here can write {text}; give one with --font", err=True)


@plot.command(epilog="Example: parrot-eval plot tsne bundles/nano-fp16 --limit 40 -o tsne.png")
@click.argument("model", type=_PATH)
@click.option("--benchmark", default="nano", show_default=True, help="Whose questions and pictures.")
@question_options(40, "")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of t-SNE.")
@click.option("--perplexity", type=click.FloatRange(1), default=30.0, show_default=True, help="Of t-SNE.")
@_every_plot
def tsne(model, benchmark, data, languages, limit, seed, perplexity, **output) -> None:
    """Words and pictures before and after the mixture (Figure 6).

    MODEL is a bundle or a checkpoint. Needs scikit-learn: pip install 'parrot-edge[tsne]'.
    """
    from parrot_evaluation.benchmarks import choose_languages, find_benchmark
    from parrot_evaluation.features import gather
    from parrot_evaluation.features import tsne as draw
    from parrot_evaluation.measure import read_tables
    from parrot_runtime.plotting import check_format, fonts, native_names, save
    from parrot_runtime.publish import check_output

    check_format(output["output"])
    check_output(output["output"].parent)
    chosen = find_benchmark(benchmark)
    codes = choose_languages(chosen, languages, data)
    points = gather(model, chosen, read_tables(chosen, data, codes), limit)
    title = model.resolve().name
    with fonts([*native_names(codes), title, "●▲"], output["font"]) as unwritten:
        figure = draw(points, title, seed=seed, perplexity=perplexity, unwritten=unwritten)
        save(figure, output["output"], force=output["force"])
    _tell_unwritten(unwritten)


@click.command(epilog="Example: parrot-eval report fp16=results/nano/a int4=results/nano/b -o report.html")
@_results
@click.option("-o", "--output", metavar="FILE", type=_PATH, required=True, help="The HTML file.")
@click.option("--data", type=_PATH, help="The folder with the benchmark's files, for the pictures. [nano: made]")
@click.option(
    "--samples",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Shown of each language; 0 needs no data.",
)
@click.option(
    "--thumbnail",
    type=click.IntRange(16, 1024),
    default=192,
    show_default=True,
    help="Pixels of a picture's longer side.",
)
@click.option("--no-plots", is_flag=True, help="Leave out the charts, and do without matplotlib.")
@click.option("--font", metavar="FILE", type=_PATH, help="A font for names that those here cannot write.")
@click.option("--force", is_flag=True, help="Replace FILE.")
@verbose_option
def report(results, output, data, samples, thumbnail, no_plots, font, force) -> None:
    """One HTML file with figures, charts and the samples that went wrong, several runs side by side.

    It opens from disk and loads nothing. RESULT is the folder of a run; LABEL=FOLDER gives it a name of your own.
    """
    from parrot_evaluation.publish_report import publish_report

    publish_report(
        results,
        output,
        data=data,
        samples=samples,
        side=thumbnail,
        plots=not no_plots,
        font=font,
        force=force,
        note=lambda line: click.echo(f"parrot-eval: {line}", err=True),
    )
