"""How large the inputs of products get, where nobody calibrated: the largest values on a few of nano's pictures.

These are training pictures, so that what an export is verified on is not what its scales were fixed on.
"""

from pathlib import Path

import numpy as np

from parrot_export.checkpoint import Checkpoint
from parrot_export.conversations import draw_samples
from parrot_export.layerwise.feeds import encode_samples
from parrot_export.layerwise.walk import Walk
from parrot_export.progress import Progress, no_progress
from parrot_runtime.errors import ParrotError
from parrot_runtime.languages import CODES

# Samples of each language.
PER_LANGUAGE = 4


def sample_ranges(
    checkpoint: Checkpoint, work: Path, progress: Progress = no_progress, per_language: int = PER_LANGUAGE
) -> dict[str, float]:
    """The largest absolute value that entered each product, by module; ``work`` is a folder to work in.

    Raises ParrotError for NaN and infinity.
    """
    samples = draw_samples((), per_language, 0).samples
    encoded = encode_samples(checkpoint, samples, checkpoint.architecture.decoder.max_positions, CODES)
    walk, ranges = Walk(checkpoint, encoded, work), {}
    with progress("Collecting ranges", len(walk.steps) * len(encoded)) as advance:
        for step in walk.steps:
            peaks = dict.fromkeys(step.exposed, 0.0)
            for number, values in walk.open(step)():
                for value, array in values.items():
                    if not np.isfinite(peak := float(np.abs(array).max())):
                        name = encoded[number].sample.name
                        raise ParrotError(f"{name}: {step.exposed[value][0]} takes NaN or infinity; train again")
                    peaks[value] = max(peaks[value], peak)
                advance(1)
            walk.close(step)
            ranges |= {module: peaks[value] for value, modules in step.exposed.items() for module in modules}
    return ranges
