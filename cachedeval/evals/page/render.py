"""The page: scores and intervals, differences, criteria, and every question with its answers.

One file of HTML with its style and script inside it. It asks the network for nothing, which its
content security policy enforces, and the same reports give the same bytes. The questions are rows
of a plain table; the script sorts and filters them, and builds the answers of a row when it is
opened, from data that is in the file as JSON.
"""

import base64
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from cachedeval.engine.errors import InputError
from cachedeval.evals.page.charts import Estimate, differences, estimates
from cachedeval.evals.report import Comparison, ItemResult, Report, compare
from cachedeval.evals.text import clean, html

__all__ = ["name_reports", "render_page", "write_page"]

_CELL = 160
"""Characters of a question in the table; the rest is in the row's answers."""


def write_page(
    path: str | os.PathLike[str], reports: Sequence[Report], names: Sequence[str] | None = None
) -> None:
    """Write the page to a file.

    Args:
        path: the file; one that is there is replaced.
        reports: as in `render_page`.
        names: as in `render_page`.

    Raises:
        InputError: the file cannot be written.
    """
    page = render_page(reports, names)
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--html {path}: cannot be written: {error.strerror}") from None


def render_page(reports: Sequence[Report], names: Sequence[str] | None = None) -> str:
    """Return the page that shows some reports side by side.

    Args:
        reports: one or more; the others are compared with the first.
        names: what to call each of them; by default `name_reports` decides.

    Raises:
        ValueError: there is no report, or not a name for each.

    Example:
        >>> item = ItemResult(id="0001", question="2 < 3?", score=80.0, criteria={})
        >>> page = render_page([Report(judge="f1", items=[item], score=80.0, questions=1)])
        >>> "2 &lt; 3?" in page, "2 < 3?" in page
        (True, False)
    """
    if not reports:
        raise ValueError("a page of no reports")
    names = list(names or name_reports(reports))
    compared = [_compared(reports[0], report) for report in reports[1:]]
    rows = _rows(reports)
    script, style = _asset("page.js"), _asset("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    title = " and ".join(names) if len(names) <= 2 else f"{len(names)} evaluations"  # noqa: PLR2004
    sections = [
        f"<h1>{html(title)}</h1>",
        f'<p class="soft">{html(_summary(reports))}</p>',
        _scores(reports, names),
        _differences(names, compared),
        _criteria(reports, names),
        _questions(names, rows),
        _about(reports, names),
    ]
    data = {"subjects": [clean(name) for name in names], "rows": rows}
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + f'\n<script type="application/json" id="data">{_json(data)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def name_reports(reports: Sequence[Report]) -> list[str]:
    """Return a name for each report: its adapter, with model or judge where adapters are the same.

    Example:
        >>> name_reports([Report(judge="f1", items=[]), Report(judge="exact", items=[])])
        ['base, f1', 'base, exact']
    """
    parts = [[report.adapter or "base", report.model or "", report.judge] for report in reports]
    differing = [at for at in (1, 2) if len({part[at] for part in parts}) > 1]
    names = [part[0] for part in parts]
    if len(set(names)) < len(names):
        names = [", ".join([part[0], *(part[at] for at in differing)]) for part in parts]
    used: dict[str, int] = {}
    for at, name in enumerate(names):
        count = used[name] = used.get(name, 0) + 1
        names[at] = name if count == 1 else f"{name} ({count})"
    return names


def _summary(reports: Sequence[Report]) -> str:
    counts = sorted({report.questions for report in reports})
    count = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    judges = dict.fromkeys(judge for report in reports for judge in report.judges or [report.judge])
    plural = "question" if counts == [1] else "questions"
    return f"{count} {plural}, scored by {', '.join(judges)}"


def _compared(first: Report, other: Report) -> Comparison | str:
    try:
        return compare(first, other)
    except InputError as error:
        return str(error).removeprefix("compare: ")


def _scores(reports: Sequence[Report], names: Sequence[str]) -> str:
    """Return the leaderboard: a picture of the intervals, and the figures as a table."""
    ranked = sorted(
        range(len(reports)), key=lambda at: (-_or_least(reports[at].score), names[at], at)
    )
    picture = estimates(
        [
            Estimate(names[at], reports[at].score, *(reports[at].interval or (None, None)))
            for at in ranked
        ],
        0.0,
        100.0,
    )
    judges = list(
        dict.fromkeys(
            judge for report in reports for judge in report.judges if judge != report.judge
        )
    )
    heads = ["Score", *judges, "Scored", "Failed", "Truncated"]
    body = ""
    for at in ranked:
        report = reports[at]
        cells = [
            _figure(report.score),
            *(_figure(_mean_of(report, judge)) for judge in judges),
            f"{report.scored:,}",
            f"{report.failed:,}" + _kinds(report),
            f"{report.truncated:,}",
        ]
        columns = "".join(f'<td class="n">{cell}</td>' for cell in cells)
        body += f'<tr><th scope="row"><bdi>{html(names[at])}</bdi></th>{columns}</tr>'
    head = "".join(f'<th scope="col" class="n">{html(name)}</th>' for name in heads)
    return (
        f"<h2>Scores</h2><figure><figcaption>Mean score, 0 to 100, with its 95% interval"
        f"</figcaption>{picture}</figure>"
        f'<div class="scroll"><table><thead><tr><th scope="col">Evaluation</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _differences(names: Sequence[str], compared: Sequence[Comparison | str]) -> str:
    """Return how each further report differs from the first, and on how many questions."""
    if not compared:
        return ""
    rows, pictures = [], ""
    for name, found in zip(names[1:], compared, strict=True):
        if isinstance(found, str):
            rows.append(Estimate(name, None, note="not comparable"))
            pictures += f'<p class="soft"><bdi>{html(name)}</bdi>: {html(found)}</p>'
            continue
        test = found.paired
        rows.append(Estimate(name, test.difference, test.low, test.high))
        says = (
            f"{name}: {found.verdict}; better on {test.better}, worse on {test.worse}, the same "
            f"on {test.same} of {test.n} questions, p = {test.p_value:.2g}"
        )
        drawn = differences(says, [change.b - change.a for change in found.changes])
        pictures += f"<figure><figcaption><bdi>{html(says)}</bdi></figcaption>{drawn}</figure>"
    ends = [abs(end) for row in rows for end in (row.low, row.high) if end is not None]
    reach = min(100.0, 10.0 * math.ceil(max(ends, default=10.0) / 10.0) or 10.0)
    return (
        f"<h2>Compared with <bdi>{html(names[0])}</bdi></h2><figure><figcaption>Mean difference on the "
        "questions that both answered, with its 95% interval</figcaption>"
        f"{estimates(rows, -reach, reach, signed=True)}</figure>{pictures}"
    )


def _criteria(reports: Sequence[Report], names: Sequence[str]) -> str:
    """Return the heat map of the criteria, dark where a mean is high among those in its row."""
    criteria = list(dict.fromkeys(name for report in reports for name in report.criteria))
    if len(criteria) < 2:  # noqa: PLR2004  one criterion is the score
        return ""
    most = max((score for report in reports for score in report.criteria.values()), default=0.0)
    body = ""
    for criterion in criteria:
        cells = ""
        for report in reports:
            mean = report.criteria.get(criterion)
            shade = 0.0 if mean is None or most <= 0 else 0.55 * max(mean, 0.0) / most
            cells += f'<td class="n" style="--v:{shade:.3f}">{_figure(mean, 2)}</td>'
        body += f'<tr><th scope="row"><bdi>{html(criterion)}</bdi></th>{cells}</tr>'
    head = "".join(f'<th scope="col" class="n"><bdi>{html(name)}</bdi></th>' for name in names)
    return (
        '<h2>Criteria</h2><div class="scroll"><table class="heat"><thead><tr>'
        f'<th scope="col">Mean of each criterion</th>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )


def _questions(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    heads = ["Question", *names]
    if len(names) > 1:
        heads.append("Difference" if len(names) == 2 else "Range")  # noqa: PLR2004
    head = "".join(
        f'<th scope="col"{" class=n" if at else ""}><button type="button"><bdi>{html(name)}</bdi>'
        "</button></th>"
        for at, name in enumerate(heads)
    )
    body = ""
    for at, row in enumerate(rows):
        cells = "".join(f'<td class="n">{_score_cell(cell)}</td>' for cell in row["cells"])
        if len(names) > 1:
            cells += _change_cell(row["difference"], signed=len(names) == 2)  # noqa: PLR2004
        line = " ".join(row["question"].split())
        line = line if len(line) <= _CELL else line[: _CELL - 1] + "…"
        body += (
            f'<tr><td><button type="button" aria-expanded="false" aria-controls="detail-{at}">'
            f"<bdi>{html(line)}</bdi></button></td>{cells}</tr>"
        )
    return (
        '<h2>Questions</h2><noscript><p class="bad">Answers are opened, sorted and filtered by the '
        "script in this file, which this browser does not run.</p></noscript>"
        '<div class="controls"><label>Show<select id="which"><option value="all">all</option>'
        '<option value="failed">failed</option><option value="truncated">truncated</option>'
        '<option value="different">with different scores</option></select></label>'
        '<label>Find in questions and answers<input id="search" type="search"></label>'
        '<span class="soft" id="shown" role="status"></span></div>'
        f'<div class="scroll"><table id="questions"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _about(reports: Sequence[Report], names: Sequence[str]) -> str:
    parts = ""
    for report, name in zip(reports, names, strict=True):
        facts = {
            "model": report.model,
            "adapter": report.adapter or "none",
            "judges": ", ".join(report.judges or [report.judge]),
            "rubric": report.rubric,
            "seed": report.seed,
        }
        listed = "".join(
            f"<dt>{html(what)}</dt><dd><bdi>{html(str(fact))}</bdi></dd>"
            for what, fact in facts.items()
            if fact is not None
        )
        parts += f"<details><summary><bdi>{html(name)}</bdi></summary><dl>{listed}</dl></details>"
    return f"<h2>What was evaluated</h2>{parts}{_run(reports[0].run)}"


def _run(run: Mapping[str, Any]) -> str:
    """Return what the run computed and cost, where the reports come from one."""
    if not run:
        return ""
    facts = {
        name: f"{counts['computed']:,} computed, {counts['hits']:,} from the cache"
        for name, counts in run["nodes"].items()
    }
    for what, cost in (("judge, paid", run["judge_spent"]), ("judge, saved", run["judge_saved"])):
        money = "" if cost["usd"] is None else f", ${cost['usd']:.4f} at list price"
        facts[what] = (
            f"{cost['prompt_tokens']:,} tokens in, {cost['completion_tokens']:,} out{money}"
        )
    listed = "".join(f"<dt>{html(what)}</dt><dd>{html(fact)}</dd>" for what, fact in facts.items())
    return f"<details><summary>What the run computed</summary><dl>{listed}</dl></details>"


def _rows(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """Return each question with its answer in every report, None where a report lacks it."""
    items = [{item.id: item for item in report.items} for report in reports]
    rows = []
    for key in dict.fromkeys(key for found in items for key in found):
        cells = [found.get(key) for found in items]
        known = next(cell for cell in cells if cell is not None)
        rows.append(
            {
                "question": clean(known.question),
                "reference": None if known.reference is None else clean(known.reference),
                "difference": _change([None if cell is None else cell.score for cell in cells]),
                "cells": [None if cell is None else _cell(cell) for cell in cells],
            }
        )
    return rows


def _change(scores: Sequence[float | None]) -> float | None:
    """Return the second score less the first, or of more than two how far they are apart."""
    known = [score for score in scores if score is not None]
    if len(scores) == 2:  # noqa: PLR2004
        return None if len(known) < len(scores) else round(known[1] - known[0], 6)
    return None if len(known) <= 1 else round(max(known) - min(known), 6)


def _cell(item: ItemResult) -> dict[str, Any]:
    texts = {
        "response": item.response,
        "reasoning": item.reasoning,
        "rationale": item.rationale,
        "error": item.error,
    }
    return {
        "score": item.score,
        "scores": {clean(name): score for name, score in item.scores.items()}
        if len(item.scores) > 1
        else {},
        "criteria": {clean(name): score for name, score in item.criteria.items()},
        "truncated": item.truncated,
        **{name: None if text is None else clean(text) for name, text in texts.items()},
    }


def _score_cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "—"
    if cell["score"] is None:
        return '<span class="bad">failed</span>'
    return _figure(cell["score"]) + (
        "<br><span class=soft>truncated</span>" if cell["truncated"] else ""
    )


def _change_cell(change: float | None, *, signed: bool) -> str:
    if change is None:
        return '<td class="n">—</td>'
    if not signed:
        return f'<td class="n">{change:.1f}</td>'
    kind = " good" if change > 0 else " bad" if change < 0 else ""
    return f'<td class="n{kind}">{change:+.1f}</td>'


def _mean_of(report: Report, judge: str) -> float | None:
    scores = [item.scores.get(judge) for item in report.items]
    known = [score for score in scores if score is not None]
    return math.fsum(known) / len(known) if known else None


def _kinds(report: Report) -> str:
    if not report.failures:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.failures.items())
    return f'<br><span class="soft">{html(kinds)}</span>'


def _figure(value: float | None, digits: int = 1) -> str:
    return "—" if value is None else f"{value:.{digits}f}"


def _or_least(score: float | None) -> float:
    return -1.0 if score is None else score


def _json(value: object) -> str:
    # `<` could end the element that holds it; the rest that HTML or a script might take for markup
    # is ASCII or escaped.
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return files("cachedeval.evals.page").joinpath(name).read_text(encoding="utf-8")
