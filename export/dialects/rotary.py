"""The tables of the rotary embedding, the same in every dialect."""

import numpy as np

from parrot_export.architecture import Decoder


def rotary_tables(decoder: Decoder, max_len: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines ``[max_len, head_dim / 2]`` of the rotary embedding.

    In float32 throughout, as transformers computes them: at position 2000 the float32 angle is off by up to 1e-4 from
    the exact one, and the model was trained with that.
    """
    exponents = np.arange(0, decoder.head_dim, 2, dtype=np.float32) / np.float32(decoder.head_dim)
    frequencies = np.float32(1.0) / np.power(np.float32(decoder.rope_theta), exponents)
    angles = np.arange(max_len, dtype=np.float32)[:, None] * frequencies[None, :]
    return np.cos(angles), np.sin(angles)
