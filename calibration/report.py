"""From a calibration's record to the lines a person reads."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from parrot_export.scales import Record


def as_data(output: Path, record: Record) -> dict[str, Any]:
    """The result for a program."""
    return {
        "scales": str(output),
        "checkpoint": record.checkpoint,
        "samples": len(record.samples),
        "products": len(record.products),
        "matrices": len(record.matrices),
        "errors": {name: dict(rows) for name, rows in _tables(record)},
    }


def describe(output: Path, record: Record) -> Iterator[str]:
    """The result for a person: how many of what, then what rounding costs each language before and after."""
    yield (
        f"{output}: {len(record.samples)} samples in {len(record.languages)} languages, "
        f"{len(record.products)} inputs of products, {len(record.matrices)} matrices in 4 bits ({record.settings.int4})"
    )
    for name, rows in _tables(record):
        yield f"  {name}"
        for label, numbers in rows:
            yield f"    {label:<28}" + "  ".join(f"{code} {numbers[code]:.2e}" for code in numbers)


def _tables(record: Record) -> Iterator[tuple[str, list[tuple[str, dict[str, float]]]]]:
    """Mean errors by language over all products, of plain rounding and of what was chosen."""
    searches = [one.searches["int8"] for one in record.products.values() if "int8" in one.searches]
    if searches:
        rows = [("rounded to nearest", _means(one.plain for one in searches))]
        rows.append(("with factors", _means(one.chosen for one in searches)))
        yield f"int8, mean squared error of {len(searches)} inputs' products, as a share", rows
    matrices = list(record.matrices.values())
    if matrices:
        rows = [("rounded to nearest", _means(one.plain for one in matrices))]
        rows.append((record.settings.int4, _means(one.chosen for one in matrices)))
        yield f"int4, mean squared error of {len(matrices)} products, as a share", rows
    beyond = _means(one.clipped for one in record.products.values())
    yield f"clipped by {record.settings.ranges}, mean share of values", [("beyond the threshold", beyond)]


def _means(errors: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """By language, over those that have it."""
    sums: dict[str, list[float]] = {}
    for one in errors:
        for code, number in one.items():
            sums.setdefault(code, []).append(number)
    return {code: sum(numbers) / len(numbers) for code, numbers in sums.items()}
