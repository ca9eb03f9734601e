"""The names that commands, plans and manifests share: what a bundle is for, what is in it, and what runs it."""

from typing import Literal, get_args

Target = Literal["cpu", "tensorrt", "tensorrt-rtx"]
# ``mixed``: unit by unit, as the manifest's ``units`` say.
Precision = Literal["fp32", "fp16", "bf16", "int8", "int4", "fp8", "mixed"]
TensorRTDialect = Literal["tensorrt-modern", "tensorrt-classic"]

BackendName = Literal["auto", "onnxruntime", "tensorrt"]
# When a conversation's pictures are routed anew.
Reroute = Literal["auto", "always", "never"]

TARGETS: tuple[str, ...] = get_args(Target)
TENSORRT_DIALECTS: tuple[str, ...] = get_args(TensorRTDialect)
BACKENDS: tuple[str, ...] = get_args(BackendName)
REROUTES: tuple[str, ...] = get_args(Reroute)
