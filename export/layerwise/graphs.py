"""The graphs that are looked into: float32 arithmetic on the checkpoint's own numbers, and every position's."""

from collections.abc import Iterable

import onnx_ir as ir

from parrot_export.architecture import EMBEDDING, MOE, PROJECTOR, VISION
from parrot_export.author import Authored, author
from parrot_export.checkpoint import Checkpoint
from parrot_export.dialects.base import EXACT, KVCache
from parrot_export.dialects.tensorrt_classic import ClassicDialect
from parrot_export.plan import ComponentPlan, Dtype, Plan

_TYPES = ("float32", "float16", "bfloat16")


class EveryPosition(ClassicDialect):
    """The classic dialect without the cut before the last MLP: an answer's every token passes it in its turn, and a
    calibration sees them all at once."""

    def last_positions(self, cache: KVCache, *rows: ir.Value) -> list[ir.Value]:
        return list(rows)


def plan_graphs(checkpoint: Checkpoint, max_len: int) -> Authored:
    """The graphs of ``checkpoint``, to be written; weights will stand in them as the checkpoint has them."""
    names = list(checkpoint.tensors)
    mixture = [name for name in names if name.startswith(MOE)]
    vision = [name for name in names if name.startswith((VISION, PROJECTOR))]
    language = [name for name in names if name not in {*mixture, *vision}]
    parts = {"encoder": vision, "experts": mixture, "decoder": language, "lm_head": language}
    components = {role: ComponentPlan(_stored(checkpoint, part), "float32") for role, part in parts.items()}
    plan = Plan("fp32", "tensorrt", "tensorrt-classic", components, _stored(checkpoint, [f"{EMBEDDING}.weight"]))
    return author(checkpoint, plan, max_len, dialect=EveryPosition)


def _stored(checkpoint: Checkpoint, names: Iterable[str]) -> Dtype:
    """The one type of these tensors, float32 where they are of several: nothing may be rounded."""
    types = {str(checkpoint.tensors[name].dtype) for name in names}
    (only,) = types if len(types) == 1 else {"float32"}
    return only if only in _TYPES else "float32"


def looked_at(products: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Values of a graph that enter products which a plan may round, and the modules that read each."""
    modules: dict[str, tuple[str, ...]] = {}
    for module, value in products.items():
        if module not in EXACT:
            modules[value] = (*modules.get(value, ()), module)
    return modules
