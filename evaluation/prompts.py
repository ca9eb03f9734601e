"""What the model is asked: hint, question, options and the sentence that wants a letter.

The wording is :func:`parrot_runtime.choices.multiple_choice`, the copy training uses too. VLMEvalKit, run on a group of
languages at once, loses the language and sends Portuguese, Arabic, Turkish and Russian the English sentence; published
numbers may come from such runs, so ``"kit-group"`` asks that way and ``"own"``, the default, in the row's language.
Questions without options stand as their file has them; ``"released"`` adds the sentences that the adapter published
with the released Parrot (``VLMEvalKit/vlmeval/vlm/parrot.py``) adds to them, presumably for the paper's Table 4.
"""

from typing import Literal

from parrot_evaluation.benchmarks import Benchmark
from parrot_evaluation.tsv import Row
from parrot_runtime.choices import multiple_choice

Instruction = Literal["own", "kit-group", "released"]

# The adapter has English and Chinese sentences, and takes these endings away before it adds one to a Yes/No question.
_YES_NO_ENDINGS = (" Please answer yes or no.", " Yes or No", " Answer in one sentence.")
_YES_NO = {
    "en": "\nPlease strictly answer Yes or No. Answer the question using a single word or phrase.",
    "zh": "\n请直接回答Yes或No。请用单个词或短语回答问题。",
}
_SHORT = {"en": "\nAnswer the question using a single word or phrase.", "zh": "\n请用单个词或短语回答问题。"}
_DETAIL = "\nAnswer the question in detail."


def prompt(row: Row, benchmark: Benchmark, instruction: Instruction = "own") -> str:
    """The text of the user's turn for ``row``, without the picture."""
    if row.kind == "open" or (row.kind == "yes_no" and benchmark.yes_no == "plain"):
        text = f"{row.hint}\n{row.question}" if row.hint else row.question
        return _released(text, row, benchmark) if instruction == "released" and benchmark.source else text
    language = "en" if instruction == "kit-group" and row.language != "zh" else row.language
    return multiple_choice(
        row.question, tuple(row.options.values()), language, hint=row.hint, letters="".join(row.options)
    )


def _released(text: str, row: Row, benchmark: Benchmark) -> str:
    if benchmark.form == "judged":
        return text + _DETAIL
    language = "zh" if row.language == "zh" else "en"
    if row.kind == "open":
        return text + _SHORT[language]
    ending = next((ending for ending in _YES_NO_ENDINGS if text.endswith(ending)), "")
    return text.removesuffix(ending) + _YES_NO[language]
