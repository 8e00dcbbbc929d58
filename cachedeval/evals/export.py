"""Reports as files for other programs: CSV, JSON Lines, Parquet and JUnit, by extension.

The rows are those of `Report.to_dicts`: one for each subject, question and judge.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachedeval.engine.errors import InputError
from cachedeval.evals.text import cell, xml

if TYPE_CHECKING:
    from cachedeval.evals.report import Report

__all__ = ["EXTENSIONS", "check_export", "export"]


def export(reports: "Sequence[Report]", path: str | os.PathLike[str]) -> None:
    """Write reports to a file whose extension says how: `.csv`, `.jsonl`, `.parquet` or `.xml`.

    `.xml` is JUnit: a suite for each subject and judge, a case for each question. A question that
    has no score is an error there, and no score is a failure; its number is a property.

    Args:
        reports: one or more.
        path: the file; one that is there is replaced.

    Raises:
        InputError: the extension is unknown, a package is missing, or the file cannot be written.

    Example:
        >>> from cachedeval.evals.report import ItemResult, build_report
        >>> item = ItemResult(id="1", question="=1+1", score=50.0, criteria={})
        >>> report = build_report([item], failures_count_zero=False, judge="f1")
        >>> export([report], "report.csv")
        >>> "'=1+1" in Path("report.csv").read_text()
        True
    """
    write = check_export(path)
    data = write([row for report in reports for row in report.to_dicts()])
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise InputError(f"--export {path}: cannot be written: {error.strerror}") from None


def check_export(path: str | os.PathLike[str]) -> Callable[[list[dict[str, Any]]], bytes]:
    """Return what writes rows for a file's extension.

    Raises:
        InputError: the extension is unknown, or a package that it needs is not installed.
    """
    extension = Path(path).suffix.lower()
    if extension not in EXTENSIONS:
        raise InputError(
            f"--export {path}: its extension is none of {', '.join(EXTENSIONS)}, which say how it "
            "is written"
        )
    if extension == ".parquet":
        _pyarrow()
    return EXTENSIONS[extension]


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\r\n")
        writer.writeheader()
        writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode("utf-8")


def _plain(value: object) -> object:
    """Return a value as it stands in a cell."""
    if isinstance(value, str):
        return cell(value)
    if isinstance(value, dict | list):
        return json.dumps(value)
    return value


def _json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode("ascii")


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    arrow, parquet = _pyarrow()
    numbers, flags, maps = {"score", "spread"}, {"truncated"}, {"criteria"}
    columns = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        if name in numbers:
            kind = arrow.float64()
        elif name in flags:
            kind = arrow.bool_()
        elif name in maps:
            kind = arrow.map_(arrow.string(), arrow.float64())
            values = [list(value.items()) for value in values]
        else:
            kind = arrow.string()
            # Parquet's strings are UTF-8, which has no halves of surrogate pairs.
            values = [
                value if value is None else str(value).encode("utf-8", "replace").decode("utf-8")
                for value in values
            ]
        columns[name] = arrow.array(values, kind)
    out = io.BytesIO()
    parquet.write_table(arrow.table(columns), out)
    return out.getvalue()


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise InputError(
            "--export to .parquet needs the package pyarrow: pip install pyarrow"
        ) from None


def _junit(rows: list[dict[str, Any]]) -> bytes:
    suites: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        suites.setdefault((row["adapter"] or "base", row["judge"]), []).append(row)
    failed = sum(row["score"] is None for row in rows)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuites name="cachedeval" tests="{len(rows)}" errors="{failed}" failures="0">',
    ]
    for (subject, judge), cases in suites.items():
        errors = sum(row["score"] is None for row in cases)
        lines.append(
            f'  <testsuite name="{xml(f"{subject}, {judge}")}" tests="{len(cases)}" '
            f'errors="{errors}" failures="0">'
        )
        for row in cases:
            head = f'    <testcase classname="{xml(subject)}" name="{xml(row["question"])}"'
            parts = [f'<property name="id" value="{xml(row["id"])}"/>']
            if row["score"] is not None:
                parts.append(f'<property name="score" value="{row["score"]}"/>')
            lines += [f"{head}>", f"      <properties>{''.join(parts)}</properties>"]
            if row["score"] is None:
                error = row["error"] or "no score"
                kind = error.partition(":")[0]
                lines.append(f'      <error type="{xml(kind)}" message="{xml(error)}"/>')
            if row["response"] is not None:
                lines.append(f"      <system-out>{xml(row['response'])}</system-out>")
            lines.append("    </testcase>")
        lines.append("  </testsuite>")
    return ("\n".join([*lines, "</testsuites>"]) + "\n").encode("utf-8")


EXTENSIONS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
    ".xml": _junit,
}
"""What writes rows, by extension."""
