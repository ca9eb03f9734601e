"""``parrot-train data translate``, ``sheet`` and ``import-sheet``."""

import json
from pathlib import Path
from typing import Any

import click

from parrot_runtime.command import ParrotCommand, verbose_option
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES

_PATH = click.Path(path_type=Path)
_FORCE = click.option("--force", is_flag=True, help="Replace what has the name.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_FEW = click.IntRange(min=0, max=25)
_RATE = click.FloatRange(min=0, min_open=True)


@click.command(cls=ParrotCommand)
@click.argument("source", type=_PATH)
@click.option("--to", "target", required=True, type=click.Choice(CODES), help="Language of the result.")
@click.option("--from", "origin", default="en", show_default=True, type=click.Choice(CODES), help="Of the source.")
@click.option("--endpoint", required=True, metavar="URL", help="OpenAI-compatible server, such as …/v1.")
@click.option("--model", required=True, metavar="NAME", help="The server's name of the model.")
@click.option("--api-key-env", metavar="NAME", help="Variable that holds the key; without it none is sent.")
@click.option("-o", "--output", required=True, metavar="FILE", type=_PATH, help="The translated file.")
@click.option("--images", metavar="DIR", type=_PATH, help="Folder of the pictures [that of the source].")
@click.option("--rounds", default=3, show_default=True, type=_FEW, help="Times to re-check and refine.")
@click.option("--voters", default=3, show_default=True, type=click.IntRange(min=1), help="Votes on the versions.")
@click.option("--attempts", default=3, show_default=True, type=click.IntRange(min=1), help="Asked for a usable reply.")
@click.option("--body", metavar="JSON", help='Merged into each request: {"temperature": null} leaves it out.')
@click.option("--concurrency", default=8, show_default=True, type=click.IntRange(1, 256), help="Requests at a time.")
@click.option("--requests-per-minute", type=_RATE, metavar="N", help="At most.")
@click.option("--tokens-per-minute", type=_RATE, metavar="N", help="At most, in and out, on average.")
@click.option("--timeout", default=120.0, show_default=True, type=_RATE, metavar="S", help="For a whole answer.")
@click.option("--retries", default=8, show_default=True, type=click.IntRange(min=0), help="Where no answer comes.")
@click.option("--price-in", type=click.FloatRange(min=0), metavar="P", help="Of a million tokens of prompts.")
@click.option("--price-out", type=click.FloatRange(min=0), metavar="P", help="Of a million tokens of replies.")
@click.option("--max-cost", type=_RATE, metavar="C", help="Ask nothing more once this is spent.")
@click.option("--max-failed-fraction", default=0.0, show_default=True, type=click.FloatRange(0, 1), help="Left out.")
@click.option("--cache", metavar="FILE", type=_PATH, help="Keeps the replies [OUTPUT.replies.jsonl].")
@_FORCE
@_JSON
@verbose_option
def translate(
    source: Path,
    target: str,
    origin: str,
    endpoint: str,
    model: str,
    output: Path,
    rounds: int,
    voters: int,
    attempts: int,
    body: str | None,
    timeout: float,
    retries: int,
    price_in: float | None,
    price_out: float | None,
    max_cost: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Translate SOURCE with a model: translate, re-check and refine three times, vote (Figure 3 of the paper).

    Replies are kept as they come: the same command goes on where it was cut, and asks nothing twice.

    Example: parrot-train data translate part.json --to tr --endpoint http://localhost:8000/v1 --model NAME -o tr.json
    """
    from parrot_runtime.endpoint import Settings, read_fields
    from parrot_train.translation.pipeline import Plan
    from parrot_train.translation.run import Request, as_data, run

    if origin == target:
        raise InputError(f"--from {origin} --to {target}: there is nothing to translate")
    priced = price_in is not None and price_out is not None
    if (max_cost is not None or price_in is not None or price_out is not None) and not priced:
        raise InputError("--max-cost and what is spent need both --price-in and --price-out, of a million tokens")
    plan = Plan(
        model, origin, target, rounds, voters, attempts, read_fields(body), price_in or 0.0, price_out or 0.0, max_cost
    )
    result = run(Request(source, output, plan, Settings(endpoint, timeout, retries), **options))
    if as_json:
        click.echo(json.dumps(as_data(result), ensure_ascii=False))
        return
    usage = result.usage
    click.echo(
        f"{result.output}: {result.records:,} conversations, {result.flagged:,} flagged, {result.failed:,} failed"
    )
    spent = f", cost {result.cost:.4f}" if priced else ""
    click.echo(
        f"{result.asked:,} requests in this run; {usage.replies:,} replies in all, {usage.prompt_tokens:,} tokens in, "
        f"{usage.completion_tokens:,} out{spent}"
    )
    if usage.uncounted:
        click.echo(f"parrot-train: the server counted no tokens for {usage.uncounted:,} replies; cost more", err=True)


@click.command(cls=ParrotCommand)
@click.argument("translated", type=_PATH)
@click.option("-o", "--output", required=True, metavar="FILE", type=_PATH, help="The sheet: .csv or .tsv.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="That many conversations [all].")
@click.option("--flagged", is_flag=True, help="Only conversations with something flagged.")
@click.option("--seed", default=0, show_default=True, help="Of the sample.")
@_FORCE
@_JSON
@verbose_option
def sheet(
    translated: Path, output: Path, sample: int | None, flagged: bool, seed: int, force: bool, as_json: bool
) -> None:
    """Write a sheet in which people judge and correct what `data translate` made.

    Example: parrot-train data sheet tr.json -o tr.csv --sample 200
    """
    from parrot_train.translation.sheet import write_sheet

    records, rows = write_sheet(translated, output, sample=sample, flagged=flagged, seed=seed, force=force)
    if as_json:
        click.echo(json.dumps({"file": str(output), "records": records, "rows": rows}, ensure_ascii=False))
        return
    click.echo(f"{output}: {rows:,} turns of {records:,} conversations; verdicts are ok, corrected or reject")


@click.command("import-sheet", cls=ParrotCommand)
@click.argument("sheet", type=_PATH)
@click.option("--into", "translated", required=True, metavar="FILE", type=_PATH, help="The file it was made from.")
@click.option("-o", "--output", required=True, metavar="FILE", type=_PATH, help="The calibrated file.")
@_FORCE
@_JSON
@verbose_option
def import_sheet(sheet: Path, translated: Path, output: Path, force: bool, as_json: bool) -> None:
    """Take a filled sheet back: corrections are checked and applied, rejected conversations left out.

    Example: parrot-train data import-sheet tr.csv --into tr.json -o tr-calibrated.json
    """
    from parrot_train.translation.sheet import import_sheet as take

    change, records = take(sheet, translated, output, force=force)
    done = {"records": records, "rejected": len(change.rejected), "verdicts": dict(change.verdicts)}
    if as_json:
        click.echo(json.dumps({"file": str(output), **done}, ensure_ascii=False))
        return
    verdicts = ", ".join(f"{count:,} {name}" for name, count in sorted(change.verdicts.items())) or "none"
    click.echo(f"{output}: {records:,} conversations, {len(change.rejected):,} left out; verdicts: {verdicts}")
