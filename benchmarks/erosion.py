"""What ways of rounding cost each language of models that differ only in their seed: the erosion study.

    python benchmarks/erosion.py runs/seed1/stage2 runs/seed2/stage2 runs/seed3/stage2 -o results/erosion

calibrates every checkpoint in all languages and in English alone, on as many samples, exports it in every way below,
and has the exporter's gate measure each bundle against float32 in torch. Checkpoint number n is calibrated with seed n;
all ways answer the same held-out questions. What is measured is kept: a run that was cut goes on, and one that is
repeated prints the tables again. Bundles are removed once they are measured.
"""

import json
import math
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import click

from parrot_calibration.request import CalibrationRequest
from parrot_calibration.run import calibrate
from parrot_export.bundle import export
from parrot_export.float32 import Float32
from parrot_export.gate import Budget, Cost, measure_gate
from parrot_export.request import ExportRequest
from parrot_export.samples import graded_samples
from parrot_export.scales import Settings
from parrot_runtime.command import ParrotCommand
from parrot_runtime.languages import CODES
from parrot_runtime.publish import write_file
from parrot_train.checkpoint import load_checkpoint

_SAMPLES = 192
# What --auto may spend: less than int4 costs nano, more than int8 does; by how many questions of each language.
_AUTO_KL, _AUTO_QUESTIONS = 0.003, 30


@dataclass(frozen=True)
class Way:
    """One way of rounding: precision and target, and what the calibration was drawn from and how, if there was one."""

    name: str
    precision: str
    target: str
    int4: str | None = None
    languages: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A file name."""
        parts = (self.precision, self.target, self.int4, "+".join(self.languages))
        return "_".join(part for part in parts if part)


def _ways() -> Iterator[Way]:
    drawn = {"English": ("en",), "all languages": CODES}
    yield Way("rounded to nearest", "int8", "cpu")
    for name, codes in drawn.items():
        yield Way(f"SmoothQuant, {name}", "int8", "cpu", "rtn", codes)
    yield Way("min-max of 24 pictures", "int8", "tensorrt")
    for name, codes in drawn.items():
        yield Way(f"SmoothQuant and MSE, {name}", "int8", "tensorrt", "rtn", codes)
    yield Way("rounded to nearest", "int4", "cpu")
    for method, (name, codes) in product(("awq", "gptq", "awq+gptq"), drawn.items()):
        yield Way(f"{method}, {name}", "int4", "cpu", method, codes)
    yield Way(f"auto within {_AUTO_KL:g} nats, all languages", "mixed", "cpu", "awq+gptq", CODES)


@click.command(cls=ParrotCommand, help=__doc__.splitlines()[0])
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("results/erosion"), show_default=True)
@click.option("--gate-samples", default=480, show_default=True, help="Questions of each language and checkpoint.")
def main(checkpoints: tuple[Path, ...], output: Path, gate_samples: int) -> None:
    ways, found = list(_ways()), {}
    for seed, checkpoint in enumerate(checkpoints, 1):
        folder = output / f"seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        for way in ways:
            kept = folder / f"{way.key}.{gate_samples}.json"
            if not kept.is_file():
                click.echo(f"{checkpoint}: {way.precision} {way.target}, {way.name}", err=True)
                write_file(kept, json.dumps(_measured(checkpoint, seed, way, folder, gate_samples)).encode())
            costs = json.loads(kept.read_text(encoding="utf-8"))
            found.setdefault(way, []).append({code: Cost(**cost) for code, cost in costs.items()})
    for line in tables(found):
        click.echo(line)


def _measured(checkpoint: Path, seed: int, way: Way, folder: Path, gate_samples: int) -> dict[str, dict[str, float]]:
    """What the gate finds, by language; nothing else is verified, for ways that fail are wanted too."""
    scales = _calibrated(checkpoint, seed, way, folder) if way.int4 else None
    request = ExportRequest(
        checkpoint=checkpoint,
        output=folder / "bundle",
        precision=way.precision,
        target=way.target,
        calibration=scales,
        verify=False,
        force=True,
    )
    if request.mixed:  # which goes by its own gate; accuracy tells nothing on so few questions
        budget = {"max_kl": _AUTO_KL, "max_drop": 100.0, "gate_samples": _AUTO_QUESTIONS}
        request = replace(request, verify=True, **budget)
    bundle, manifest = export(request)
    exact, questions = Float32(load_checkpoint(checkpoint)), list(graded_samples(gate_samples))
    gate = measure_gate(bundle, manifest, exact, questions, Budget(math.inf, math.inf))
    shutil.rmtree(bundle)
    return gate[way.target]["languages"]


def _calibrated(checkpoint: Path, seed: int, way: Way, folder: Path) -> Path:
    """The scales of ``way``, which all ways with the same draw and method share."""
    scales = folder / "scales" / f"{way.int4}_{'+'.join(way.languages)}"
    if not scales.is_dir():
        settings = Settings(int4=way.int4, seed=seed, per_language=_SAMPLES // len(way.languages))
        calibrate(CalibrationRequest(checkpoint=checkpoint, output=scales, languages=way.languages, settings=settings))
    return scales


def tables(found: Mapping[Way, Sequence[Mapping[str, Cost]]]) -> Iterator[str]:
    """Markdown: per way and language the mean over checkpoints, and the spread of what the worst language pays."""
    count = len(next(iter(found.values())))
    for title, figure, worst in _FIGURES:
        yield f"{title}; mean of {count} checkpoints; worst language: mean (lowest to highest)"
        yield ""
        yield f"| | {' | '.join(CODES)} | worst |\n|---|{'---:|' * (len(CODES) + 1)}"
        for way, seeds in found.items():
            cells = [figure.show(statistics.fmean(figure.of(seed[code]) for seed in seeds)) for code in CODES]
            worsts = [worst(figure.of(seed[code]) for code in CODES) for seed in seeds]
            spread = (
                f"{figure.show(statistics.fmean(worsts))} ({figure.show(min(worsts))} to {figure.show(max(worsts))})"
            )
            yield f"| {way.precision} {way.target}, {way.name} | {' | '.join(cells)} | {spread} |"
        yield ""


@dataclass(frozen=True)
class _Figure:
    of: Callable[[Cost], float]
    show: Callable[[float], str]


_FIGURES = (
    ("KL divergence from float32, 1e-3 nats", _Figure(lambda cost: 1e3 * cost.kl, "{:.2f}".format), max),
    (
        "Points of multiple-choice accuracy lost",
        _Figure(lambda cost: cost.drop, "{:+.1f}".format),
        max,
    ),
    (
        "Answers in the language asked, %",
        _Figure(lambda cost: cost.own_language, "{:.1f}".format),
        min,
    ),
)


if __name__ == "__main__":
    main()
