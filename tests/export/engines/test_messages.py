"""TensorRT's words in one line. The logs quoted here are its own."""

import pytest

from parrot_export.engines.messages import build_error, parse_error

LOGS = {
    "[optimizer.cpp::computeCosts::4115] Error Code 10: Internal Error (Could not find any implementation for node "
    "{ForeignNode[/llm/layers.0/attn/q_proj/weight.../llm/lm_head/Gemm]}.)": (
        "it has no kernel for {ForeignNode[/llm/layers.0/attn/q_proj/weight.../llm/lm_head/Gemm]} on this GPU in this "
        "type and workspace; give the builder more with --workspace, export in another precision, or take a newer "
        "TensorRT"
    ),
    "10: Could not find any implementation for node /net/Conv due to insufficient workspace. See verbose log.": (
        "it has no kernel for /net/Conv on this GPU in this type and workspace; give the builder more with "
        "--workspace, export in another precision, or take a newer TensorRT"
    ),
    "Error Code 1: Myelin ([tactic.cpp:1676: enumerate_tactics] Tactic Selection: no tactics to implement the "
    "operation within workspace limit. Consider increase the allowed workspace size if applicable.;": (
        "a kernel needs more workspace; give the builder more with --workspace"
    ),
    "Error Code 1: Myelin ([pass.cpp:1500: run_passes] Cannot compile for target(s) sm80, because the model contains "
    "HW-specific datatypes: fp8_e4m3. In compileGraph at": (
        "sm80 has no fp8_e4m3; export in another precision, or name a newer GPU with --sm"
    ),
    "Error Code 1: Cuda Runtime (In generateForCurrent at cudaDeviceProfile.cpp:221 (cudaError 35: CUDA driver version "
    "is insufficient for CUDA runtime version))": (
        "this build needs a GPU with a current driver; run it on such a machine"
    ),
    "Error Code 2: OutOfMemory (Requested size was 17179869184 bytes.)": (
        "not enough memory; close what else uses it, or lower --max-len"
    ),
    "Error Code 99: something\nnobody foresaw": (
        "Error Code 99: something nobody foresaw; run again with -v, and report this"
    ),
}


@pytest.mark.parametrize(("log", "line"), LOGS.items())
def test_a_failed_build(log, line):
    assert build_error(["an earlier line of no interest" if "99" not in log else log, log]) == line


def test_a_build_that_failed_in_silence():
    assert build_error([]) == "it gave no engine and no reason; run again with -v, and report this"


def test_a_long_log_is_cut():
    assert len(build_error(["x" * 5000])) < 400


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            {"name": "/a", "operator": "Attention", "code": "UNSUPPORTED_NODE", "description": "false", "log": []},
            "node '/a' (Attention): unsupported node; "
            "export the bundle again for this target, or take a newer TensorRT",
        ),
        (
            {
                "name": "/a",
                "operator": "Attention",
                "code": "UNSUPPORTED_NODE",
                "description": "node.output().size() == 1 &&\n TRT only supports Attention nodes with one output",
                "log": [],
            },
            "node '/a' (Attention): node.output().size() == 1 && TRT only supports Attention nodes with one output; "
            "export the bundle again for this target, or take a newer TensorRT",
        ),
        (
            {
                "name": "/a",
                "operator": "Gru2",
                "code": "INVALID_NODE",
                "description": 'creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
                "log": [],
            },
            "node '/a' (Gru2): there is no such operator; export the bundle again for this target",
        ),
        (
            {
                "name": "",
                "operator": "",
                "code": "INVALID_GRAPH",
                "description": "Failed to import initializer",
                "log": ["WeightsContext.cpp:203: Failed to open file: w.safetensors"],
            },
            "Failed to open file: w.safetensors; copy the bundle again, with its weights",
        ),
        (
            {"name": "", "operator": "", "code": "INVALID_GRAPH", "description": "odd", "log": []},
            "odd; export the bundle again",
        ),
    ],
)
def test_a_refused_graph(error, line):
    assert parse_error(**error) == line
