"""How a multiple-choice question is put to the model: one copy for training, evaluation and the runtime.

The form is the one of the multilingual MMBench and MMMB benchmarks: the question, one line per option, and a sentence
in the question's language that asks for the letter alone.
"""

from collections.abc import Sequence

from parrot_runtime.errors import InputError

LETTERS = "ABCDEFGH"

INSTRUCTIONS: dict[str, str] = {
    "en": "Answer with the option's letter from the given choices directly.",
    "zh": "请直接用给定选项中的选项字母回答。",
    "pt": "Responda diretamente com a letra da opção das escolhas dadas.",
    "ar": "أجب مباشرةً بحرف الخيار من الاختيارات المعطاة.",
    "tr": "Verilen seçeneklerden doğrudan seçeneğin harfi ile cevap verin.",
    "ru": "Ответьте буквой варианта из предложенных вариантов напрямую.",
    "es": "Responde directamente con la letra de la opción correcta.",
    "de": "Antworte direkt mit dem Buchstaben der richtigen Option.",
}


def multiple_choice(
    question: str, options: Sequence[str], language: str, *, hint: str = "", letters: str = LETTERS
) -> str:
    """``[hint\\n]question\\nA. …\\nB. …\\ninstruction``; ``language`` picks the instruction.

    ``letters`` name the options in their order: some published questions go from A to C. Raises InputError for more
    options than letters.
    """
    if len(options) > len(letters):
        raise InputError(f"{len(options)} options were given, and there are letters for {len(letters)}: {letters}")
    lines = [hint] if hint else []
    lines.append(question)
    lines += [f"{letter}. {option}" for letter, option in zip(letters, options, strict=False)]
    lines.append(INSTRUCTIONS[language])
    return "\n".join(lines)


def check_options(options: Sequence[str]) -> Sequence[str]:
    """``options`` themselves. Raises InputError for fewer than two, and for empty ones."""
    if len(options) < 2:
        raise InputError(f"{len(options)} option was given; expected two or more, such as A,B,C,D")
    if not all(option.strip() for option in options):
        raise InputError("an option is empty; expected a letter or a few words in each")
    return options
