"""What TensorRT says, in one line: the cause it names, and what to do next.

TensorRT reports through a log whose wording is its own. What is matched here are the few phrases that decide what a
person can do; anything else is passed on as it stands.
"""

import re

_NODE = re.compile(r"Could not find any implementation for node (?P<node>\{[^}]*\}|\S+?)[.)]*(?:\s|$)")
_LIMIT = "give the builder more with --workspace"
# A phrase in the log; what it means and what to do. The first that occurs counts.
_CAUSES = (
    (r"no tactics to implement the operation within workspace limit", f"a kernel needs more workspace; {_LIMIT}"),
    (
        r"Cannot compile for target\(s\) (?P<what>\S+), because .+ HW-specific datatypes: (?P<types>.+?)\.",
        "{what} has no {types}; export in another precision, or name a newer GPU with --sm",
    ),
    (
        r"driver version is insufficient|no CUDA-capable device|cudaError 35|CHECK\(status == CUDA_SUCCESS\)",
        "this build needs a GPU with a current driver; run it on such a machine",
    ),
    (r"[Oo]ut ?[Oo]f ?[Mm]emory|Insufficient memory", "not enough memory; close what else uses it, or lower --max-len"),
)


def parse_error(*, name: str, operator: str, code: str, description: str, log: list[str]) -> str:
    """Why the parser refused a graph. ``log`` are the errors logged meanwhile; ``code`` is ErrorCode's name."""
    said = " ".join(description.split())
    if not operator:
        missing = next((line for line in log if "Failed to open file" in line), None)
        if missing:
            return f"{_tail(missing)}; copy the bundle again, with its weights"
        return f"{said}; export the bundle again"
    node = f"node '{name}' ({operator})"
    if "Plugin not found" in said:
        return f"{node}: there is no such operator; export the bundle again for this target"
    # An assertion that failed is quoted as its source code; one that reads "false" says nothing.
    reason = code.lower().replace("_", " ") if said in ("", "false") else said
    return f"{node}: {reason}; export the bundle again for this target, or take a newer TensorRT"


def build_error(log: list[str]) -> str:
    """Why a build gave no engine, from the errors logged."""
    text = "\n".join(log)
    found = _NODE.search(text)
    if found:
        return (
            f"it has no kernel for {_short(found['node'])} on this GPU in this type and workspace; {_LIMIT}, "
            "export in another precision, or take a newer TensorRT"
        )
    for pattern, meaning in _CAUSES:
        found = re.search(pattern, text)
        if found:
            return meaning.format(**found.groupdict())
    if not log:
        return "it gave no engine and no reason; run again with -v, and report this"
    return f"{_short(' '.join(log[0].split()))}; run again with -v, and report this"


def _tail(line: str) -> str:
    """A log line without the place in TensorRT's source that it starts with."""
    return re.sub(r"^\S+\.(?:cpp|h):\d+: ", "", line)


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:299]}…"
