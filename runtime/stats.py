"""What an answer cost: the time of each stage, the tokens, and where the router sent the picture."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

STAGES = ("load", "image", "experts", "prefill", "decode")


@dataclass
class Stats:
    """Seconds per stage, and counts, of one answer.

    ``load``: opening the bundle (once). ``image``: reading the pictures and the vision encoder. ``experts``: embedding
    the prompt and the mixture of experts. ``prefill``: the prompt through the LLM. ``decode``: every step after the
    first token; steps shared with other answers count in full. ``decoded_tokens`` came from ``decode_steps`` steps, the
    token that ends an answer among them: more tokens than steps where drafts were right. ``cached_images``: pictures
    whose features were known. ``kept_tokens``: positions at the start of the prompt that the KV cache held from the
    question before.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    prompt_tokens: int = 0
    image_tokens: int = 0
    new_tokens: int = 0
    decode_steps: int = 0
    decoded_tokens: int = 0
    cached_images: int = 0
    kept_tokens: int = 0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to ``stage``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    def add_step(self, seconds: float, *, tokens: int) -> None:
        """One decode step, which chose ``tokens`` of this answer."""
        self.seconds["decode"] += seconds
        self.decode_steps += 1
        self.decoded_tokens += tokens

    @property
    def first_token_seconds(self) -> float:
        """From the question to the first token; loading the bundle is not part of it."""
        return sum(self.seconds[stage] for stage in ("image", "experts", "prefill"))

    @property
    def tokens_per_second(self) -> float:
        """Speed of decoding, 0 where nothing was decoded: the first token comes from the prefill and is not counted."""
        return self.decoded_tokens / self.seconds["decode"] if self.decode_steps else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON: ``tokens`` counts, and ``timings`` in milliseconds and tokens per second."""
        return {
            "tokens": {
                "prompt": self.prompt_tokens,
                "image": self.image_tokens,
                "kept": self.kept_tokens,
                "new": self.new_tokens,
                "steps": self.decode_steps,
            },
            "timings": {
                **{f"{stage}_ms": round(1e3 * seconds, 3) for stage, seconds in self.seconds.items()},
                "first_token_ms": round(1e3 * self.first_token_seconds, 3),
                "tokens_per_second": round(self.tokens_per_second, 2),
            },
        }
