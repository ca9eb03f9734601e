"""What the model is asked at each step of Figure 3. The wording is ours; the paper does not print its own."""

import json
from collections.abc import Mapping, Sequence

from parrot_runtime.languages import BY_CODE

Messages = list[dict[str, str]]

# The written standard that nano's data has too.
_VARIETIES = {"zh": "Simplified Chinese", "pt": "Brazilian Portuguese", "ar": "Modern Standard Arabic"}

_RULES = """\
The texts are the turns of one conversation about a picture that you cannot see, as a JSON object of numbered texts.
- Write what an educated native speaker would write: natural, complete, and in the same tone; translate nothing word by
  word, add nothing, leave nothing out, and answer no question.
- Use the same word for the same thing in all texts.
- Marks such as ⟦0⟧ stand for things that must not change. Each one must appear exactly once in the text it comes from,
  where the grammar puts it.
- Keep the number of lines of each text.
- Keep digits as they are."""
_JSON = "Reply with nothing but a JSON object with the same keys, whose values are the texts in {target}."
_OK = "OK"


def name(code: str) -> str:
    """How a language is named to the model."""
    return _VARIETIES.get(code, BY_CODE[code].english_name)


def translate(texts: Mapping[str, str], source: str, target: str) -> Messages:
    """Step 1: the first version."""
    system = f"You translate from {name(source)} into {name(target)}.\n{_RULES}\n{_JSON.format(target=name(target))}"
    return _messages(system, _show(texts))


def recheck(texts: Mapping[str, str], version: Mapping[str, str], source: str, target: str) -> Messages:
    """Step 2: what is wrong with a version."""
    system = (
        f"You check translations from {name(source)} into {name(target)} that were made by these rules:\n{_RULES}\n"
        "Look for wrong meaning, omissions, additions, grammar, agreement, unnatural wording, wrong script, and "
        f"breaches of the rules. If nothing at all needs a change, reply with {_OK} alone. Otherwise reply with a "
        "short list of faults, each with the number of its text and what it should be."
    )
    return _messages(system, f"Source:\n{_show(texts)}\n\nTranslation:\n{_show(version)}")


def refine(texts: Mapping[str, str], version: Mapping[str, str], faults: str, source: str, target: str) -> Messages:
    """Step 3: a version without those faults."""
    system = (
        f"You correct translations from {name(source)} into {name(target)}.\n{_RULES}\n"
        f"Correct the faults that a reader found, unless the reader is mistaken, and any other you see. "
        f"{_JSON.format(target=name(target))}"
    )
    content = f"Source:\n{_show(texts)}\n\nTranslation:\n{_show(version)}\n\nFaults found:\n{faults}"
    return _messages(system, content)


def vote(texts: Mapping[str, str], versions: Sequence[Mapping[str, str]], source: str, target: str) -> Messages:
    """Step 4: which of the versions is best; they are called A, B, C in the order given."""
    letters = [chr(ord("A") + number) for number in range(len(versions))]
    system = (
        f"You compare translations from {name(source)} into {name(target)}. The best one has the meaning of the "
        "source, correct grammar, and reads as if a native speaker had written it. "
        f"Reply with one letter alone: {', '.join(letters)}."
    )
    shown = "\n\n".join(f"{letter}:\n{_show(version)}" for letter, version in zip(letters, versions, strict=True))
    return _messages(system, f"Source:\n{_show(texts)}\n\n{shown}")


def again(messages: Messages, reply: str, reason: str) -> Messages:
    """The same once more after a ``reply`` that could not be used."""
    complaint = f"This reply cannot be used: {reason}. Reply again, exactly as asked."
    return [*messages, {"role": "assistant", "content": reply}, {"role": "user", "content": complaint}]


def nothing_wrong(reply: str) -> bool:
    """Whether a re-check found no fault."""
    return reply.strip().strip(".!\"'`*").upper() == _OK


def _messages(system: str, user: str) -> Messages:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _show(texts: Mapping[str, str]) -> str:
    return json.dumps(texts, ensure_ascii=False, indent=0)
