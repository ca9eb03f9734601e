"""The samples of a report's page: question, picture, options, and what each run answered."""

from collections.abc import Sequence

from parrot_evaluation.markup import Markup, apart, element, join
from parrot_evaluation.results import Result
from parrot_evaluation.tsv import Row
from parrot_evaluation.worst import Shown, thumbnail
from parrot_runtime.errors import ImageError
from parrot_runtime.languages import BY_CODE

# Nothing an answer holds is longer than this on the page; its length is told.
_LONGEST = 1200


def samples_of(results: Sequence[Result], samples: Sequence[Shown], side: int) -> Markup:
    if not samples:
        return Markup("")
    languages = {each.row.language: BY_CODE[each.row.language].native_name for each in samples}
    categories = {name: name or "without" for name in sorted({each.row.category for each in samples})}
    runs = {str(number): result.label for number, result in enumerate(results)}
    selects = [
        _select("language", languages),
        _select("category", {f"c{name}": shown for name, shown in categories.items()}),
        _select("wrong", runs, label="wrong in"),
    ]
    return join(
        (
            element("h2", "Samples that went wrong"),
            element(
                "p",
                "Of each language those that most runs got wrong, answered in another language, or of the categories "
                "that go worst.",
                class_="soft",
            ),
            # Shown by the script: without one, all samples stand below.
            element("div", *selects, element("output"), class_="filters", hidden=True),
            *(_sample(results, each, side) for each in samples),
        )
    )


def _select(name: str, values: dict[str, str], *, label: str | None = None) -> Markup:
    options = [element("option", "all", value="")]
    options += [element("option", shown, value=value) for value, shown in values.items()]
    return element("label", f"{label or name} ", element("select", options, name=name, autocomplete="off"))


def _sample(results: Sequence[Result], shown: Shown, side: int) -> Markup:
    row = shown.row
    spoken = {"lang": row.language, "dir": "auto"}
    meta = [text for text in (row.language, row.l2_category, row.category, f"row {row.index}") if text]
    question = "\n".join(filter(None, (row.hint, row.question)))
    answers = [
        element(
            "tr",
            element("th", result.label, scope="row"),
            element("td", _shortened(answer["response"]), class_="answer", **spoken),
            element("td", *_verdict(answer)),
        )
        for result, answer in zip(results, shown.answers, strict=True)
        if answer is not None
    ]
    return element(
        "article",
        _picture(row, side),
        element(
            "div",
            element("p", *apart(meta, " · "), class_="meta"),
            element("p", _shortened(question), class_="question", **spoken),
            _expected(row),
            element("table", element("tbody", answers), class_="answers"),
        ),
        class_="sample",
        data_language=row.language,
        data_category=f"c{row.category}",
        data_wrong=" ".join(map(str, shown.wrong)),
    )


def _picture(row: Row, side: int) -> Markup:
    """The picture, or why there is none: a run that counts such rows as wrong has them among the worst."""
    try:
        uri, width, height = thumbnail(row, side)
    except ImageError as error:
        return element("p", str(error), class_="meta unseen")
    return element("img", src=uri, width=width, height=height, alt=f"The picture of row {row.index}", loading="lazy")


def _expected(row: Row) -> Markup:
    spoken = {"lang": row.language, "dir": "auto"}
    if not row.options:
        return element("p", "right: ", element("span", _shortened(row.answer), class_="reference", **spoken))
    items = []
    for letter, text in row.options.items():
        right = letter == row.answer
        mark = " (right)" if right else ""
        item = (f"{letter}. ", element("bdi", _shortened(text), lang=row.language), mark)
        items.append(element("li", *item, class_="right" if right else None))
    return element("ul", items, class_="options")


def _verdict(answer) -> list[str]:
    right = bool(answer["right"])
    parts: list[str] = [
        element("span", "right" if right else "wrong", class_=f"verdict-{'right' if right else 'wrong'}")
    ]
    if answer.get("letter"):
        parts.append(f", read as {answer['letter']}")
    elif answer["kind"] != "open":
        parts.append(", no option read")
    if answer.get("in_language") is False:
        parts.append(", in another language")
    return parts


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text) - _LONGEST:,} characters more)"
