"""``parrot-eval report``: runs of one benchmark as one HTML file that needs neither network nor other files."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from parrot_evaluation.html_samples import samples_of
from parrot_evaluation.markup import Markup, apart, element, isolated, join
from parrot_evaluation.report import conditions
from parrot_evaluation.results import Figure, Result, shared_languages
from parrot_evaluation.worst import Shown
from parrot_runtime.languages import BY_CODE

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
        element("h1", f"{results[0].benchmark}: ", *apart(labels, ", ")),
        element("p", "Per cent right [95 % interval, Wilson] (n).", class_="soft"),
        _runs(results),
        _charts(charts),
        _figures(results),
        samples_of(results, samples, side),
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
            *_conditions(results),
            element(
                "details",
                element("summary", "The files asked, with their SHA-256"),
                _table(["file", "SHA-256"], sorted(files), class_="text"),
            ),
        )
    )


def _conditions(results: Sequence[Result]) -> list[Markup]:
    """A line for each run that is not as one where nothing is said."""
    special = [(result, conditions(result.settings, result.report["data"])) for result in results]
    return [
        element("p", element("bdi", result.label), f": {'; '.join(said)}.", class_="soft")
        for result, said in special
        if said
    ]


def _setting(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_setting(each)}" for name, each in value.items() if each)
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
    wanted = (*column, group)
    for each in result.report["scores"]:
        if (each["language"], each["measure"], each["group"]) == wanted and each["value"] is not None:
            most = f" of {each['maximum']:g}" if each["maximum"] else ""
            return element("td", f"{each['value']:.1f}{most}", element("small", f"({each['total']})"))
    return element("td", "–")


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
