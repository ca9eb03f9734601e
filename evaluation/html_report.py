"""``parrot-eval report``: runs of one benchmark as one HTML file that needs neither network nor other files."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from parrot_evaluation.markup import Markup, element, isolated, join
from parrot_evaluation.results import Figure, Result, shared_languages
from parrot_evaluation.tsv import Row
from parrot_evaluation.worst import Shown, thumbnail
from parrot_runtime.errors import ImageError
from parrot_runtime.languages import BY_CODE

# Nothing an answer holds is longer than this on the page; its length is told.
_LONGEST = 1200
_LEVELS = ("l2-category", "category")


@dataclass(frozen=True)
class Chart:
    """A picture as a data URI, and the words for who cannot see it."""

    uri: str
    caption: str


def page(results: Sequence[Result], samples: Sequence[Shown], charts: Sequence[Chart], *, side: int) -> str:
    """The whole page; ``samples`` are shown with pictures of at most ``side`` pixels."""
    labels = [result.label for result in results]
    title = f"{results[0].benchmark}: {', '.join(map(isolated, labels))}"
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    # Nothing runs or loads but what this file brings: a hostile answer could not, were it ever to become markup.
    policy = f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(style)),
    )
    body = element(
        "body",
        element("h1", f"{results[0].benchmark}: ", *_apart(labels, ", ")),
        element("p", "Per cent right [95 % interval, Wilson] (n).", class_="soft"),
        _runs(results),
        _charts(charts),
        _figures(results),
        _samples(results, samples, side),
        element("script", Markup(script)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _asset(name: str) -> str:
    return (resources.files("parrot_evaluation") / "page" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "", class_: str | None = None
) -> Markup:
    head = element("tr", *(element("th", cell) for cell in header))
    body = [element("tr", *(cell if _is_cell(cell) else element("td", cell) for cell in row)) for row in rows]
    parts = [element("caption", caption)] if caption else []
    return element(
        "div", element("table", *parts, element("thead", head), element("tbody", body), class_=class_), class_="wide"
    )


def _is_cell(cell: str) -> bool:
    return isinstance(cell, Markup) and cell.startswith(("<td", "<th"))


def _runs(results: Sequence[Result]) -> Markup:
    keys = list(dict.fromkeys(key for result in results for key in result.settings))
    rows = [
        [
            result.label,
            result.model,
            *(_setting(result.settings.get(key)) for key in keys),
            ", ".join(f"{code} {data['asked']}" for code, data in result.report["data"].items()),
        ]
        for result in results
    ]
    header = ["run", "model", *(key.replace("_", " ") for key in keys), "questions asked"]
    files = {(data["file"], data["sha256"]) for result in results for data in result.report["data"].values()}
    return join(
        (
            element("h2", "Runs"),
            _table(header, rows, class_="text"),
            element(
                "details",
                element("summary", "The files asked, with their SHA-256"),
                _table(["file", "SHA-256"], sorted(files), class_="text"),
            ),
        )
    )


def _setting(value: object) -> str:
    text = "" if value is None else str(value)
    return f"{text[:12]}…" if len(text) == 64 else text


def _charts(charts: Sequence[Chart]) -> Markup:
    if not charts:
        return Markup("")
    figures = [
        element("figure", element("img", src=chart.uri, alt=chart.caption), element("figcaption", chart.caption))
        for chart in charts
    ]
    return join((element("h2", "Charts"), element("div", figures, class_="charts")))


def _figures(results: Sequence[Result]) -> Markup:
    """A table per measure, a row per language, a column per run; below each, a table per run by category."""
    parts: list[Markup] = [element("h2", "Figures"), *_scores(results)]
    told = {name: each["explanation"] for result in results for name, each in result.measures.items()}
    codes = shared_languages(results)
    for measure, explanation in told.items():
        rows = [[_language(code), *(_cell(result.find(measure, code)) for result in results)] for code in codes]
        header = ["language", *(result.label for result in results)]
        parts += [element("h3", measure), _table(header, rows, caption=f"{explanation}.")]
        parts += [_groups(results, measure, level, codes) for level in _LEVELS]
    return join(parts)


def _scores(results: Sequence[Result]) -> list[Markup]:
    """Figures that are more than shares, such as a judge's, a table per run."""
    tables = []
    for result in results:
        scores = result.report.get("scores", ())
        columns = list(dict.fromkeys((score["language"], score["measure"]) for score in scores))
        rows = [[group, *(_score(result, column, group) for column in columns)] for group in _score_groups(scores)]
        if rows:
            header = ["score", *(f"{language} {measure}" for language, measure in columns)]
            notes = dict.fromkeys(note for score in scores for note in score["notes"])
            caption = "; ".join((f"{isolated(result.label)}: scores (n), which have no interval", *notes))
            tables.append(_table(header, rows, caption=f"{caption}."))
    return tables


def _score_groups(scores: Sequence[dict]) -> list[str]:
    return list(dict.fromkeys(score["group"] for score in scores))


def _score(result: Result, column: tuple[str, str], group: str) -> Markup:
    language, measure = column
    found = result.score(measure, language, group)
    return element("td", "–") if found is None else element("td", f"{found[0]:.1f}", element("small", f"({found[1]})"))


def _groups(results: Sequence[Result], measure: str, level: str, codes: Sequence[str]) -> Markup:
    tables = []
    for result in results:
        found = [
            [group, *(_cell(result.find(measure, code, level, group)) for code in codes)]
            for group in result.groups(level)
            if any(result.find(measure, code, level, group) for code in codes)
        ]
        if found:
            header = [_header(code) for code in codes]
            caption = f"{isolated(result.label)}: {measure} by {level}"
            tables.append(_table([level, *header], found, caption=caption))
    return element("details", element("summary", f"by {level}"), *tables) if tables else Markup("")


def _header(code: str) -> Markup:
    return element("span", BY_CODE[code].native_name, lang=code, dir="auto")


def _language(code: str) -> Markup:
    language = BY_CODE[code]
    english = "" if language.native_name == language.english_name else f" {language.english_name}"
    return element("th", _header(code), english, scope="row")


def _cell(figure: Figure | None) -> Markup:
    if figure is None:
        return element("td", "–")
    interval = element("small", f"[{figure.low:.1f}–{figure.high:.1f}] ({figure.total})")
    return element("td", f"{figure.value:.1f}", interval)


def _samples(results: Sequence[Result], samples: Sequence[Shown], side: int) -> Markup:
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
            element("p", *_apart(meta, " · "), class_="meta"),
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


def _apart(texts: Sequence[str], mark: str) -> list[str]:
    """``texts`` with ``mark`` between them, each by itself: Arabic ones side by side would else change places."""
    parts = [part for text in texts for part in (mark, element("bdi", text))]
    return parts[1:]


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
