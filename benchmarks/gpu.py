"""A bundle's TensorRT engines on the GPU here, against onnxruntime on its CPU, in one run.

    parrot-export CHECKPOINT --fp16 -o bundles/mine      # graphs for both
    python benchmarks/gpu.py bundles/mine

builds the engines for this GPU, answers the same questions on both, and prints what it found as Markdown: the GPU and
the versions, seconds to build and to load, milliseconds per stage and per decode step of 1, 4 and 8 slots, the memory
taken on the GPU, and how many greedy tokens agree. Rounds of the two take turns; figures are medians. Without a
GPU it says so and measures onnxruntime alone.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np

from parrot_runtime.backends.base import Backend
from parrot_runtime.backends.choose import create_backend, find_engines
from parrot_runtime.command import ParrotCommand
from parrot_runtime.errors import InputError
from parrot_runtime.gpu import present_gpu
from parrot_runtime.manifest import Manifest, load_manifest
from parrot_runtime.parrot import Parrot

SLOTS = (1, 4, 8)
QUESTION_TOKENS = 43


def _build(bundle: Path) -> Iterator[str]:
    """Build what is missing, and say how long each engine took."""
    from parrot_export.engines.cache import EngineRequest, build_engines

    for engines in build_engines(EngineRequest(bundle=bundle), note=click.echo):
        yield from engines.describe()


def _used() -> int:
    """Bytes of the GPU's memory that anybody uses."""
    from cuda.bindings import runtime

    _, free, total = runtime.cudaMemGetInfo()
    return total - free


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def _round(backend: Backend, manifest: Manifest, steps: int) -> dict[str, float]:
    """Milliseconds of every stage, once; random pictures and embeddings, for speed does not ask what they show."""
    dims, side, rng = manifest.model, manifest.image.size, np.random.default_rng(0)
    pixels = rng.standard_normal((1, 3, side, side)).astype(np.float32)
    text = (rng.standard_normal((1, QUESTION_TOKENS, dims.hidden_size)) * 0.02).astype(np.float32)
    prompt = (rng.standard_normal((dims.image_tokens + QUESTION_TOKENS, dims.hidden_size)) * 0.02).astype(np.float32)
    prompt = prompt.astype(backend.embeds_dtype)
    features = backend.encode_images(pixels)
    took = {"vision": _timed(lambda: backend.encode_images(pixels))}
    if dims.experts:
        mask = np.ones(text.shape[:2], bool)
        took["experts"] = _timed(lambda: backend.route(features, text, mask))
    for slots in SLOTS:
        if backend.max_slots is not None and slots > backend.max_slots:
            continue
        cache = backend.new_cache(slots, backend.max_len)
        for slot in range(slots):
            prefill = _timed(lambda slot=slot, cache=cache: backend.prefill(prompt, cache, slot=slot))
        took.setdefault("prefill", prefill)
        rows, lengths = np.repeat(prompt[-1:], slots, axis=0), np.full(slots, len(prompt), np.int32)
        for step in range(3):  # the first are slower: kernels are chosen and graphs recorded
            backend.decode(rows, lengths + step, cache)
        whole = _timed(lambda rows=rows, n=lengths, c=cache: [backend.decode(rows, n + k, c) for k in range(3, steps)])
        took[f"decode, {slots} slot{'s' * (slots > 1)}"] = whole / (steps - 3)
    return took


@click.command(cls=ParrotCommand, help=__doc__.splitlines()[0])
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--rounds", default=3, show_default=True, help="How often each is measured, in turn.")
@click.option("--steps", default=64, show_default=True, help="Tokens decoded per measurement, 8 or more.")
@click.option("--trust-engines", is_flag=True, help="Take engines that another machine built, and build none.")
def main(bundle: Path, rounds: int, steps: int, trust_engines: bool) -> None:
    if steps < 8:
        raise click.UsageError(f"--steps is {steps}; expected 8 or more")
    manifest, gpu, backends = load_manifest(bundle), present_gpu(), {}
    click.echo(f"{manifest.name}, {manifest.precision}, {bundle}; {gpu or 'no GPU here: onnxruntime alone'}\n")
    if gpu:
        for line in () if trust_engines else _build(bundle):
            click.echo(line)
        engines, before = find_engines(bundle, manifest, trust_engines=trust_engines), _used()
        seconds = 1e-3 * _timed(lambda: backends.update(tensorrt=create_backend(bundle, manifest, engines)))
        click.echo(f"\n{engines.flavour}: loaded in {seconds:.2f} s")
    if manifest.graphs:
        backends["onnxruntime"] = create_backend(bundle, manifest, None)
    if not backends:
        raise InputError(f"{bundle}: nothing in it runs here")
    found: dict[str, dict[str, list[float]]] = {name: {} for name in backends}
    for _ in range(rounds):
        for name, backend in backends.items():
            for stage, took in _round(backend, manifest, steps).items():
                found[name].setdefault(stage, []).append(took)
    click.echo(f"\n| ms, median of {rounds} | {' | '.join(backends)} |\n|---|{'---:|' * len(backends)}")
    for stage in next(iter(found.values())):
        cells = (f"{statistics.median(found[name][stage]):.3f}" if stage in found[name] else "" for name in backends)
        click.echo(f"| {stage} | {' | '.join(cells)} |")
    if gpu:
        click.echo(f"\nmemory taken on the GPU: {(_used() - before) / 2**20:,.0f} MiB")
    if len(backends) > 1:
        agree, count = _agreement(bundle, trust_engines, steps)
        click.echo(f"greedy tokens that agree with onnxruntime's: {agree} of {count}")


def _agreement(bundle: Path, trust_engines: bool, steps: int) -> tuple[int, int]:
    """Over the verification's questions, how many tokens come out the same, up to the first that does not."""
    from parrot_export.samples import verification_samples

    ours, theirs = (
        Parrot.load(bundle, backend=name, trust_engines=trust_engines) for name in ("tensorrt", "onnxruntime")
    )
    agree = count = 0
    for sample in verification_samples():
        pairs = [p.ask(sample.image, sample.question, max_new_tokens=steps).token_ids for p in (ours, theirs)]
        count += len(pairs[1])
        agree += next((n for n, (a, b) in enumerate(zip(*pairs, strict=False)) if a != b), min(map(len, pairs)))
    return agree, count


if __name__ == "__main__":
    main()
