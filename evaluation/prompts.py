"""What the model is asked: hint, question, options and the sentence that wants a letter.

The wording is :func:`parrot_runtime.choices.multiple_choice`, the copy training uses too. VLMEvalKit, run on a group of
languages at once, loses the language and sends Portuguese, Arabic, Turkish and Russian the English sentence; published
numbers may come from such runs, so ``"kit-group"`` asks that way and ``"own"``, the default, in the row's language.
"""

from typing import Literal

from parrot_evaluation.benchmarks import Benchmark
from parrot_evaluation.tsv import Row
from parrot_runtime.choices import multiple_choice

Instruction = Literal["own", "kit-group"]


def prompt(row: Row, benchmark: Benchmark, instruction: Instruction = "own") -> str:
    """The text of the user's turn for ``row``, without the picture."""
    if row.kind == "open" or (row.kind == "yes_no" and benchmark.yes_no == "plain"):
        return f"{row.hint}\n{row.question}" if row.hint else row.question
    language = row.language if instruction == "own" or row.language == "zh" else "en"
    return multiple_choice(
        row.question, tuple(row.options.values()), language, hint=row.hint, letters="".join(row.options)
    )
