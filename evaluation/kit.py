"""What an answer says by the rules of VLMEvalKit, reported beside those that read all six languages.

They are those of the version the paper used (later ones differ in details): they miss ``答案是A``, ``A。``, ``a`` and a
Cyrillic ``А``, and take the article of "A cat" for an option.
"""

import re
from collections.abc import Mapping

from parrot_evaluation.yes_no import Polarity

_SPACES = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
# Phrases of refusal that end the kit's search, wherever they stand, and the mark of a failed call, which skips letters.
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_FAILED = "Failed to obtain answer via API"
# The kit reads Yes and No by the rules for short answers of VQA: these go, or become a space (see kit_yes_no).
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIODS = 32


def kit_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """VLMEvalKit's exact matching; ``options`` maps letters to texts.

    A phrase of refusal is no answer. The characters ``.()[],:;!*#{}`` become spaces. Exactly one option letter among
    the tokens is the answer (a token ``Z`` without any is a refusal); otherwise exactly one option text inside the
    lower-cased answer; otherwise None. Source: ``can_infer`` in ``vlmeval/utils/matching_util.py`` of mid-2024.
    """
    if _FAILED not in answer:
        if any(refusal in answer for refusal in _REFUSALS):
            return None
        tokens = set(answer.translate(_SPACES).split())
        letters = [letter for letter in options if letter in tokens]
        if len(letters) == 1:
            return letters[0]
        if not letters and "Z" in tokens:
            return None
    lowered = answer.lower()
    texts = [letter for letter, text in options.items() if text.lower() in lowered]
    return texts[0] if len(texts) == 1 else None


def kit_yes_no(answer: str) -> Polarity | None:
    """VLMEvalKit's reading of a plain Yes/No answer, which knows English only: one of the words, not both.

    A mark of punctuation that has a space on either side somewhere goes, any other becomes a space; all of them go
    where a comma stands between digits; then the first 32 periods that no digit follows go. Colons, asterisks and
    apostrophes stay, so ``**Yes**`` says nothing. Source: ``YOrN_Extraction`` in ``vlmeval/dataset/utils/yorn.py`` and
    ``process_punctuation``.
    """
    lowered = answer.lower()
    thousands = re.search(r"\d,\d", lowered) is not None
    text = lowered
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in lowered or f" {mark}" in lowered
        text = text.replace(mark, "" if beside_space or thousands else " ")
    words = re.sub(r"\.(?!\d)", "", text, count=_PERIODS).split()
    said: list[Polarity] = [word for word in ("yes", "no") if word in words]
    return said[0] if len(said) == 1 else None
