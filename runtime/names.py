"""The names that commands, plans and manifests share: where a bundle runs, its precision, and TensorRT's dialects."""

from typing import Literal, get_args

Target = Literal["cpu", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "int4", "fp8"]
TensorRTDialect = Literal["tensorrt-modern", "tensorrt-classic"]

TARGETS: tuple[str, ...] = get_args(Target)
TENSORRT_DIALECTS: tuple[str, ...] = get_args(TensorRTDialect)
