"""GPUs by name: memory, and what the vendor says they reach at most in dense bfloat16 products."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One device: memory in GiB, operations per second."""

    memory: float
    flops: float


# NVIDIA's data sheets of each, Tensor Core bfloat16 without sparsity; for GeForce, Ada's white paper with float32 sums.
GPUS = {
    "a100": Gpu(80, 312e12),
    "a100-40g": Gpu(40, 312e12),
    "a10": Gpu(24, 125e12),
    "l40s": Gpu(48, 362e12),
    "h100": Gpu(80, 989e12),
    "h100-pcie": Gpu(80, 756e12),
    "h200": Gpu(141, 989e12),
    "rtx-4090": Gpu(24, 165e12),
}
