"""What this machine can do at most: reading memory, and the products that Parrot's graphs are made of.

Nothing of a model is in it, so its figures say how far an answer is from what the hardware allows.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from parrot_runtime.backends.onnxruntime import import_onnxruntime
from parrot_runtime.errors import InputError
from parrot_runtime.rates import Limits

MICROSOFT = "com.microsoft"
# Far more than any cache holds, so that it comes from memory; and the shape of a feed-forward layer at 0.5B.
_READ_BYTES = 512 << 20
_ROWS, _IN, _OUT = 620, 896, 4864
_BLOCK = 128


def measure(threads: int, rounds: int = 7) -> Limits:
    """Measure all of it; ``rounds`` of each, in turn, of which the median counts. Raises InputError."""
    timed = {
        "read": _reader(threads),
        "fp32": _product("MatMul", threads),
        "int8": _product("DynamicQuantizeMatMul", threads),
        "int4_row": _row_product(threads),
    }
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds + 1):
        for name, (run, _) in timed.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    # The first round is where memory is taken and kernels are chosen.
    rates = {name: work / statistics.median(seconds[name][1:]) / 1e9 for name, (_, work) in timed.items()}
    return Limits(threads, **rates)


def _reader(threads: int) -> tuple[Callable[[], object], float]:
    """Look for the largest number, in as many parts as threads: numpy lets go of the interpreter while it does."""
    parts = np.array_split(np.ones(_READ_BYTES // 8, np.int64), threads)
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(np.max, parts)), float(_READ_BYTES)


def _product(kind: str, threads: int) -> tuple[Callable[[], object], float]:
    rng = np.random.default_rng(0)
    if kind == "MatMul":
        weights, domain = {"w": rng.standard_normal((_IN, _OUT)).astype(np.float32)}, ""
    else:
        codes = rng.integers(-127, 127, (_IN, _OUT)).astype(np.int8)
        weights, domain = {"w": codes, "s": np.full(_OUT, 0.01, np.float32)}, MICROSOFT
    run = _session(kind, domain, {}, weights, (_ROWS, _IN), threads)
    return run, 2.0 * _ROWS * _IN * _OUT


def _row_product(threads: int) -> tuple[Callable[[], object], float]:
    # Sixteen layers in a row, or the weights would stay in the cache, where no model's do.
    outputs, groups = 16 * _OUT, _IN // _BLOCK
    codes = np.random.default_rng(0).integers(0, 255, (outputs, groups, _BLOCK // 2)).astype(np.uint8)
    scales = np.full(outputs * groups, 0.01, np.float32)
    attributes = {"K": _IN, "N": outputs, "bits": 4, "block_size": _BLOCK, "accuracy_level": 4}
    run = _session("MatMulNBits", MICROSOFT, attributes, {"w": codes, "s": scales}, (1, _IN), threads)
    return run, float(codes.nbytes + scales.nbytes)


def _session(
    kind: str, domain: str, attributes: dict, weights: dict[str, np.ndarray], shape: tuple[int, int], threads: int
) -> Callable[[], object]:
    """A graph of one product, ready to be run on fixed rows."""
    ort = import_onnxruntime()
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise InputError("onnx is not installed; run `pip install 'parrot-edge[export]'`") from error

    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *weights], ["y"], domain=domain, **attributes)],
        kind,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # The threads of one graph must not spin into the next one's time.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rows = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    return lambda: session.run(None, {"x": rows})
