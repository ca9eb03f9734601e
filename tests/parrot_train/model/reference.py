"""Eq. 2–5 of the paper in float64 numpy, one image at a time, straight from the text."""

import numpy as np


def softmax(values: np.ndarray) -> np.ndarray:
    shifted = np.exp(values - values.max())
    return shifted / shifted.sum()


def silu(values: np.ndarray) -> np.ndarray:
    return values / (1 + np.exp(-values))


def expert(weights: dict[str, np.ndarray], number: int, features: np.ndarray) -> np.ndarray:
    """E_i(H): ``[P, C] → [P, C]``."""
    if "fc1.weight" in weights:
        hidden = silu(features @ weights["fc1.weight"][number].T + weights["fc1.bias"][number])
        return hidden @ weights["fc2.weight"][number].T + weights["fc2.bias"][number]
    gate, up = (features @ weights[f"{name}_proj.weight"][number].T for name in ("gate", "up"))
    return (silu(gate) * up) @ weights["down_proj.weight"][number].T


def mixture(
    weights: dict[str, np.ndarray],
    router: np.ndarray,
    features: np.ndarray,
    words: np.ndarray,
    *,
    residual: str,
    alpha: float,
) -> tuple[np.ndarray, np.ndarray]:
    """G and P for one image: features ``[P, C]``, its prompt's word embeddings ``[T, C]``."""
    attention = softmax(features[0] @ words.T / np.sqrt(features.shape[1]))  # Eq. 2
    routing = softmax(router @ (attention @ words))  # Eq. 3
    mixed = sum(routing[i] * expert(weights, i, features) for i in range(len(router)))  # Eq. 4
    tokens = features + alpha * mixed if residual == "paper" else mixed + alpha * features  # Eq. 5
    return tokens, routing
