"""The parts of a model that a mixed plan rounds as one, and what each may be stored as.

A part is what shares its rounding: the attention or the MLP of a layer, the projector, the experts, the word
embeddings, the output layer. Inside one, factors and codes of a calibration belong together (``v_proj`` is divided by
what ``o_proj`` is multiplied with, ``up_proj`` by what ``down_proj`` is); between two they do not meet.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from parrot_export.architecture import EMBEDDING, HEAD, LLM, MOE, PROJECTOR, VISION, Architecture
from parrot_export.plan import ORT_CHOICES
from parrot_runtime.errors import InputError

# From the fewest bits on.
CHOICES: tuple[str, ...] = tuple(ORT_CHOICES)
_WORDS, _OUTPUT = "embedding", "lm_head"


@dataclass(frozen=True)
class Unit:
    """One part: its ``name`` as a plan has it, the ``modules`` of its products, what it may be stored as."""

    name: str
    modules: tuple[str, ...]
    choices: tuple[str, ...] = CHOICES


def model_units(model: Architecture, embedding_bits: int | None = None, head_bits: int | None = None) -> list[Unit]:
    """Every unit of ``model``, in the order of its graphs; bits that are given are the only choice.

    A tied output layer is the word embeddings' table, and one unit with it. Raises InputError for bits of its own.
    """
    units = []
    for number in range(model.vision.layers_used):
        layer, name = f"{VISION}.encoder.layers.{number}", f"encoder.layers.{number}"
        units.append(Unit(f"{name}.attn", _named(f"{layer}.self_attn", "q_proj", "k_proj", "v_proj", "out_proj")))
        units.append(Unit(f"{name}.mlp", _named(f"{layer}.mlp", "fc1", "fc2")))
    units.append(Unit("encoder.projector", _named(PROJECTOR, "linear_1", "linear_2")))
    if model.experts:
        parts = ("fc1", "fc2") if model.experts.kind == "mlp" else ("gate_proj", "up_proj", "down_proj")
        units.append(Unit("experts", _named(f"{MOE}.experts", *parts)))
    for number in range(model.decoder.layers):
        layer, name = f"{LLM}.layers.{number}", f"decoder.layers.{number}"
        units.append(Unit(f"{name}.attn", _named(f"{layer}.self_attn", "q_proj", "k_proj", "v_proj", "o_proj")))
        units.append(Unit(f"{name}.mlp", _named(f"{layer}.mlp", "gate_proj", "up_proj", "down_proj")))
    units.append(Unit(_WORDS, (EMBEDDING,), _of_bits(CHOICES[1:], embedding_bits)))
    if not model.decoder.tied:
        units.append(Unit(_OUTPUT, (HEAD,), _of_bits(CHOICES, head_bits)))
    elif head_bits is not None:
        raise InputError(
            "--lm-head-bits with --auto: this model's output layer is its word embeddings, one table; give "
            "--embedding-bits instead"
        )
    return units


def fits(units: list[Unit], stored: Mapping[str, str]) -> dict[str, str]:
    """To what the factors of each product are fitted, ``int8`` or ``int4``, by its module; none for the others."""
    rounded = [unit for unit in units if stored[unit.name] != "float16"]
    return {module: stored[unit.name] for unit in rounded for module in unit.modules}


def _named(parent: str, *parts: str) -> tuple[str, ...]:
    return tuple(f"{parent}.{part}" for part in parts)


def _of_bits(choices: tuple[str, ...], bits: int | None) -> tuple[str, ...]:
    return choices if bits is None else ({8: "int8", 16: "float16"}[bits],)
