"""What numbers an export is written in: precision, target and dialect as plain data.

A ``Plan`` says, per component, how the weights stand on disk and in what type the graph computes. Graph code and
dialects read it; nothing else decides a type. A new precision is a new entry of ``PRESETS``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, get_args

from parrot_runtime.errors import InputError
from parrot_runtime.names import TARGETS, TENSORRT_DIALECTS, Precision, Target, TensorRTDialect

DialectName = Literal["ort", TensorRTDialect]
Dtype = Literal["float32", "float16", "bfloat16"]
Stored = Literal["float32", "float16", "bfloat16", "int8", "int4", "float8_e4m3fn"]
# Three graphs, and the decoder's output layer, which is a quarter of a small model and the last to be quantised.
# ``prefill`` is the decoder's layers once more, for prompts alone, where one kernel is not the best for both.
Component = Literal["encoder", "experts", "decoder", "lm_head", "prefill"]

ROLES: tuple[str, ...] = get_args(Component)[:4]


@dataclass(frozen=True)
class ComponentPlan:
    """One component's types.

    weights: how its matrices are stored. Vectors (norms, biases) and small tables stay float32: they are a thousandth
        of the bytes and the most sensitive numbers of the model.
    compute: the type of products. What else computes in it is the dialect's: everything in ``ort``, nothing but the KV
        cache and the attention over it in TensorRT's two. Softmax, routing and logits are float32 in all.
    activations: what the inputs of products are rounded to before, by scales fixed at export; ``dynamic`` for int8 by
        scales that the kernels find at every call, ``blocks`` for one of these per row and block along K, as weights
        of int8 then have too; None for not at all.
    """

    weights: Stored
    compute: Dtype
    activations: Literal["int8", "float8_e4m3fn", "dynamic", "blocks"] | None = None

    @property
    def quantised(self) -> bool:
        """Whether matrices are codes and scales."""
        return self.weights not in get_args(Dtype)

    @property
    def stored(self) -> Dtype:
        """How those matrices are stored that are not quantised; nobody rounds to 4 bits to keep others in 32."""
        if not self.quantised:
            return self.weights
        return "float16" if self.compute == "float32" else self.compute


@dataclass(frozen=True)
class Plan:
    """A whole export: its precision, one ``ComponentPlan`` per component, and how the embeddings are stored.

    ``components`` may hold parts of a component as well, by the names of ``GraphWriter.unit``
    (``decoder.layers.0.attn``): these have types of their own, all else has the component's. ``embedding`` is int8 for
    codes and scales, see ``parrot_export.words``. ``units`` say how parts are stored that the precision's name does not
    tell, for the manifest.
    """

    precision: Precision
    target: Target
    dialect: DialectName
    components: Mapping[str, ComponentPlan]
    embedding: Dtype | Literal["int8"]
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def rounds_activations(self) -> bool:
        """Whether what enters products is rounded, by scales that must be known when the graphs are written."""
        return any(part.activations in ("int8", "float8_e4m3fn") for part in self.components.values())

    @property
    def kv_dtype(self) -> Dtype:
        """The KV cache holds what the decoder computes."""
        return self.components["decoder"].compute


def _everywhere(plan: ComponentPlan) -> Mapping[str, ComponentPlan]:
    return MappingProxyType(dict.fromkeys(ROLES, plan))


_HALF = ComponentPlan("float16", "float16")
_INT8 = ComponentPlan("int8", "float16", "int8")
_INT4 = ComponentPlan("int4", "float16")
_DYNAMIC_INT8 = ComponentPlan("int8", "float32", "dynamic")
_DYNAMIC_INT4 = ComponentPlan("int4", "float32", "dynamic")
_FP8 = ComponentPlan("float8_e4m3fn", "float16", "float8_e4m3fn")
# What a part of a cpu's graphs may be stored as, from the fewest bytes on.
ORT_CHOICES: Mapping[str, ComponentPlan] = MappingProxyType(
    {"int4": _DYNAMIC_INT4, "int8": _DYNAMIC_INT8, "float16": ComponentPlan("float16", "float32")}
)
# The output layer's kernel for 8 bits takes few rows at a time, and can read the table of the word embeddings.
ORT_HEAD_CHOICES: Mapping[str, ComponentPlan] = MappingProxyType(
    {**ORT_CHOICES, "int8": ComponentPlan("int8", "float32", "blocks")}
)

# fp16 on a CPU means fp16 on disk and float32 arithmetic: onnxruntime has no half-precision products on x86 and wraps
# every product on fp16 activations in casts. Measured on two busy Zen 4 cores with onnxruntime 1.31, a decoder of six
# layers 896 wide, float32 against fp16 activations: session 0.35 against 1.90 s, 620 positions in 525 against 565 ms,
# a decode step in 24.4 against 24.9 ms, largest error against float32 weights 7e-4 against 1.5e-3.
_ORT: Mapping[str, Mapping[str, ComponentPlan]] = MappingProxyType(
    {
        "fp32": _everywhere(ComponentPlan("float32", "float32")),
        "fp16": _everywhere(ComponentPlan("float16", "float32")),
        # Before a search has said how each part is stored; see ``mixed_plan``.
        "mixed": _everywhere(ComponentPlan("float16", "float32")),
        "int8": _everywhere(_DYNAMIC_INT8),
        "int4": MappingProxyType(
            {
                "encoder": _DYNAMIC_INT8,
                "experts": _DYNAMIC_INT8,
                "prefill": _DYNAMIC_INT8,
                "decoder": _DYNAMIC_INT4,
                "lm_head": _DYNAMIC_INT4,
            }
        ),
    }
)
# The output layer stays at float16 where the rest is quantised: its errors are those of the tokens, with nothing after
# it to even them out. int4 saves memory and memory traffic, of which a picture's encoder, run once, has little.
_TENSORRT: Mapping[str, Mapping[str, ComponentPlan]] = MappingProxyType(
    {
        "fp32": _everywhere(ComponentPlan("float32", "float32")),
        "fp16": _everywhere(_HALF),
        "bf16": _everywhere(ComponentPlan("bfloat16", "bfloat16")),
        "int8": MappingProxyType({"encoder": _INT8, "experts": _INT8, "decoder": _INT8, "lm_head": _HALF}),
        "int4": MappingProxyType({"encoder": _HALF, "experts": _INT4, "decoder": _INT4, "lm_head": _HALF}),
        "fp8": MappingProxyType({"encoder": _FP8, "experts": _FP8, "decoder": _FP8, "lm_head": _HALF}),
    }
)
PRESETS: Mapping[DialectName, Mapping[str, Mapping[str, ComponentPlan]]] = MappingProxyType(
    {"ort": _ORT} | dict.fromkeys(TENSORRT_DIALECTS, _TENSORRT)
)
# The dialects a target reads, the preferred one first.
_READS: Mapping[str, tuple[DialectName, ...]] = MappingProxyType(
    {target: ("ort",) if target == "cpu" else TENSORRT_DIALECTS for target in TARGETS}
)
_FIRST_WITH_FP8 = 89


def plan(precision: str = "fp16", target: str = "cpu", dialect: str | None = None) -> Plan:
    """The plan called ``precision`` for ``target``, in ``dialect`` or the one the target likes best.

    Raises InputError for a name that is not offered, and for a dialect that the target does not read.
    """
    _offered("target", target, TARGETS)
    chosen = dialect or _READS[target][0]
    _offered("dialect", chosen, _READS[target])
    presets = PRESETS[chosen]
    _offered("precision", precision, presets)
    components = presets[precision]
    return Plan(precision, target, chosen, components, embedding=components["lm_head"].stored)


def with_bits(chosen: Plan, embedding: int | None, head: int | None, *, tied: bool) -> Plan:
    """``chosen`` with word embeddings and output layer of 8 bits or of 16, each as before where it is None.

    On a cpu a tied output layer of more than 4 bits reads the embeddings' table, and so has its bits unless told.
    Raises InputError for 16 bits of an output layer whose table stays at others.
    """
    if embedding is None and head is None:
        return chosen
    components, cpu = dict(chosen.components), chosen.dialect == "ort"
    if embedding == 8 and head is None and tied and cpu and components["lm_head"].weights != "int4":
        head = 8
    if head == 8:
        rounded = replace(components["lm_head"], weights="int8", activations="int8")
        components["lm_head"] = ORT_HEAD_CHOICES["int8"] if cpu else rounded
    elif head == 16:
        plain = ComponentPlan("float16", components["lm_head"].compute)
        components["lm_head"] = ORT_HEAD_CHOICES["float16"] if cpu else plain
    table = {None: chosen.embedding, 8: "int8", 16: "float16"}[embedding]
    if head == 16 and tied and table not in ("float16", "int8"):
        raise InputError(
            f"--lm-head-bits is 16, and the output layer reads the word embeddings, which stay {table}; "
            "add --embedding-bits 16, or leave it out"
        )
    units = {"embedding": table} if embedding else {}
    units |= {"lm_head": components["lm_head"].weights} if head else {}
    return replace(chosen, components=MappingProxyType(components), embedding=table, units=units)


def mixed_plan(stored: Mapping[str, str], *, tied: bool) -> Plan:
    """For the cpu, every unit of ``stored`` as it says: ``int4``, ``int8`` or ``float16``; what is in none, float16.

    ``embedding`` is one of the units; where the output layer is ``tied`` to it, it has its bits. There is no second
    decoder for prompts: with its copy in 8 bits, a unit of 4 would take more bytes than one of 8.
    """
    components = dict.fromkeys(ROLES, ORT_CHOICES["float16"])
    components |= {name: ORT_CHOICES[kind] for name, kind in stored.items() if name not in ("embedding", "lm_head")}
    units = {**stored, "lm_head": stored["embedding" if tied else "lm_head"]}
    components["lm_head"] = ORT_HEAD_CHOICES[units["lm_head"]]
    return Plan("mixed", "cpu", "ort", MappingProxyType(components), stored["embedding"], units)


def _offered(what: str, name: str, names: Iterable[str]) -> None:
    if name not in names:
        raise InputError(f"the {what} '{name}' is not offered; choose {' or '.join(names)}")


def require_compute_capabilities(chosen: Plan, capabilities: Iterable[int]) -> None:
    """Raise InputError when a GPU of one of ``capabilities`` (80 for SM80) cannot compute what ``chosen`` says."""
    fp8 = any(component.weights == "float8_e4m3fn" for component in chosen.components.values())
    lacking = [number for number in sorted(capabilities) if number < _FIRST_WITH_FP8]
    if fp8 and lacking:
        raise InputError(
            f"--fp8 needs SM{_FIRST_WITH_FP8} or newer, and SM{lacking[0]} has no fp8 arithmetic; "
            f"export with --int8, or leave SM{lacking[0]} out"
        )
