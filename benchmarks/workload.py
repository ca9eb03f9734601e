"""One question as work of a fixed size, and what it costs: a bundle by the runtime, a checkpoint by transformers.

Pictures and words are drawn at random, so nothing depends on what a model says; answers never end early. Each
measurement is made in a process of its own, which alone makes its peak memory its own.
"""

import dataclasses
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from parrot_runtime.errors import ParrotError

TRANSFORMERS = "transformers"


@dataclass(frozen=True)
class Workload:
    """``images`` pictures and ``text`` words, then ``tokens`` of an answer; ``batch`` such questions side by side."""

    images: int = 1
    text: int = 43
    tokens: int = 64
    batch: int = 1
    threads: int | None = None


@dataclass(frozen=True)
class Cost:
    """Seconds: ``load``, per batch ``vision`` (experts included), ``prefill``, ``first`` (their sum) and ``total``;
    ``step_ms`` is the median of a decode step in milliseconds, ``memory`` the process's peak in MiB."""

    load: float
    vision: float
    prefill: float
    first: float
    step_ms: float
    total: float
    memory: float


def run(subject: str, workload: Workload) -> Cost:
    """``subject`` in a process of its own: a bundle's folder, or ``transformers:CHECKPOINT``. Raises ParrotError."""
    request = json.dumps({"subject": subject, "workload": dataclasses.asdict(workload)})
    done = subprocess.run(
        [sys.executable, "-m", "parrot_benchmarks.workload", request], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise ParrotError(f"{subject}: could not be measured ({last})")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def median(costs: Sequence[Cost]) -> Cost:
    """Field by field."""
    fields = [field.name for field in dataclasses.fields(Cost)]
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in fields))


class _Bundle:
    """The runtime's backend, as its engine loop drives it."""

    def __init__(self, folder: str, workload: Workload) -> None:
        from parrot_runtime.backends.choose import create_backend
        from parrot_runtime.embedding import Embedding
        from parrot_runtime.manifest import EMBEDDING_NAME, load_manifest, verify_files

        manifest = load_manifest(Path(folder))
        verify_files(Path(folder), manifest)
        dims = manifest.model
        self._dims, self._work = dims, workload
        self._backend = create_backend(Path(folder), manifest, None, threads=workload.threads)
        self._embedding = Embedding(
            Path(folder) / EMBEDDING_NAME, vocab_size=dims.vocab_size, hidden_size=dims.hidden_size
        )
        rng = np.random.default_rng(0)
        size = manifest.image.size
        self._pixels = rng.standard_normal((workload.images, 1, 3, size, size)).astype(np.float32)
        self._text = self._embedding.gather(rng.integers(0, dims.vocab_size, workload.text), self._backend.embeds_dtype)
        positions = workload.images * dims.image_tokens + workload.text + workload.tokens
        if positions > dims.max_len:
            raise ParrotError(f"{positions} positions, and the bundle has {dims.max_len}")
        self._cache = self._backend.new_cache(workload.batch, dims.max_len)

    def look(self) -> np.ndarray:
        """Prompts ``[T, C]`` with their pictures in them; one serves all of a batch."""
        features = [self._backend.encode_images(pixels)[0] for pixels in self._pixels]
        if features and self._dims.experts:
            text = np.broadcast_to(self._text, (len(features), *self._text.shape))
            features = list(self._backend.route(np.stack(features), text, np.ones(text.shape[:2], np.bool_))[0])
        return np.concatenate([*features, self._text])

    def prefill(self, prompt: np.ndarray) -> np.ndarray:
        """The first token of each, ``[batch]``."""
        self._lengths = np.full(self._work.batch, len(prompt), np.int32)
        logits = [self._backend.prefill(prompt, self._cache, slot=slot).argmax() for slot in range(self._work.batch)]
        return np.array(logits)

    def step(self, tokens: np.ndarray) -> np.ndarray:
        """The next of each."""
        embeds = self._embedding.gather(tokens, self._backend.embeds_dtype)
        logits = self._backend.decode(embeds, self._lengths, self._cache)
        self._lengths += 1
        return logits.argmax(axis=-1)


class _Transformers:
    """The checkpoint in torch, bfloat16, as its own class runs it."""

    def __init__(self, folder: str, workload: Workload) -> None:
        import torch

        from parrot_export.checkpoint import open_checkpoint

        if workload.threads:
            torch.set_num_threads(workload.threads)
        checkpoint = open_checkpoint(Path(folder))
        self._torch, self._model = torch, checkpoint.load_model().to(torch.bfloat16).eval()
        vision, rng = checkpoint.architecture.vision, np.random.default_rng(0)
        shape = workload.images * workload.batch, 3, vision.image_size, vision.image_size
        self._pixels = torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).to(torch.bfloat16)
        self._text = torch.from_numpy(rng.integers(0, checkpoint.architecture.decoder.vocabulary, workload.text))
        self._work = workload

    def look(self) -> object:
        """Prompts ``[batch, T, C]``."""
        torch, batch = self._torch, self._work.batch
        with torch.inference_mode():
            table = self._model.get_input_embeddings()
            words = table(self._text)[None].expand(batch, -1, -1)
            if not self._work.images:
                return words
            features = self._model.get_image_features(self._pixels)
            if self._model.model.moe is not None:
                text = table(self._text)[None].expand(len(features), -1, -1)
                features = self._model.model.moe(features, text, torch.ones(text.shape[:2], dtype=torch.bool))[0]
            return torch.cat([features.reshape(batch, -1, words.shape[-1]), words], dim=1)

    def prefill(self, prompt: object) -> object:
        """The first token of each."""
        with self._torch.inference_mode():
            output = self._model(inputs_embeds=prompt, use_cache=True, logits_to_keep=1)
        return self._keep(output)

    def step(self, tokens: object) -> object:
        """The next of each."""
        with self._torch.inference_mode():
            output = self._model(input_ids=tokens, past_key_values=self._past, use_cache=True, logits_to_keep=1)
        return self._keep(output)

    def _keep(self, output: object) -> object:
        self._past = output.past_key_values
        return output.logits[:, -1:].argmax(-1)


def _measure(subject: str, workload: Workload) -> Cost:
    kind, _, rest = subject.partition(":")
    start = time.perf_counter()
    work = _Transformers(rest, workload) if kind == TRANSFORMERS else _Bundle(subject, workload)
    load = time.perf_counter() - start
    _once(work, min(8, workload.tokens))  # kernels are chosen and memory is taken
    vision, prefill, steps = _once(work, workload.tokens)
    memory = _peak_memory()
    step_ms = 1e3 * statistics.median(steps) if steps else 0.0
    return Cost(load, vision, prefill, vision + prefill, step_ms, vision + prefill + sum(steps), memory)


def _peak_memory() -> float:
    """MiB this process has held at most. Not ``ru_maxrss``: that counts what the process it was forked from held."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def _once(work: _Bundle | _Transformers, tokens: int) -> tuple[float, float, list[float]]:
    """Seconds of the pictures and experts, of the prompt, and of each step after the first token."""
    start = time.perf_counter()
    prompt = work.look()
    looked = time.perf_counter()
    last = work.prefill(prompt)
    prefilled = time.perf_counter()
    steps = []
    for _ in range(tokens - 1):
        begun = time.perf_counter()
        last = work.step(last)
        steps.append(time.perf_counter() - begun)
    return looked - start, prefilled - looked, steps


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    try:
        click.echo(json.dumps(dataclasses.asdict(_measure(asked["subject"], Workload(**asked["workload"])))))
    except ParrotError as error:
        sys.exit(str(error))
