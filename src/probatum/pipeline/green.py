"""Write GREEN_EVIDENCE.md: the seed document's chapters, from the chain alone. It holds no figure that was not measured."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from probatum import __version__
from probatum.pipeline.evidence import GENESIS
from probatum.pipeline.page import Chart, Item, Table, Text, number
from probatum.pipeline.ports import Record
from probatum.pipeline.report import checks_table, flat, reasons, verdict_table
from probatum.pipeline.rollout_report import rollout_tables
from probatum.pipeline.summary import JUDGED, NOT_MEASURED, newest, provenance_banner, summarise

HEAD_FILE = "GREEN_EVIDENCE.md"
_HEAD = re.compile(rb"^Head: record (\d{1,15}), SHA-256 `([0-9a-f]{64})`, rendered by probatum ([\w.+-]{1,40})$", re.M)
# Kinds with a chapter of their own, each a table of the figures that a person asks for first.
CHAPTERS = {"data_import": "Data", "train": "Training", "alias": "Registry"}


def find_head(document: bytes) -> tuple[int, str, str] | None:
    """Return (seq, hash, version) that a rendered document says it was made from."""
    match = _HEAD.search(document)
    return (int(match[1]), match[2].decode(), match[3].decode()) if match else None


def green(records: Sequence[Record], digests: Mapping[str, str]) -> str:
    """Return the document; ``digests`` are those of the files exported beside it. The same chain gives the same bytes."""
    return "\n".join(_lines(records, digests)) + "\n"


def _lines(records: Sequence[Record], digests: Mapping[str, str]) -> Iterator[str]:
    models = summarise(records)
    head = records[-1].hash if records else GENESIS
    yield from ("# GREEN EVIDENCE", "", f"**{provenance_banner(records)}**", "")
    yield from (f"Head: record {len(records)}, SHA-256 `{head}`, rendered by probatum {__version__}", "")
    yield "Every figure below is recomputed from stored data by `probatum evidence verify`."
    yield from ("", "## Executive summary", "")
    yield from markdown(verdict_table(models)) if models else [f"No model: {NOT_MEASURED}."]
    for table in reasons(models):
        yield from ("", "### What is no PASS", "", *markdown(table))
    for kind, title in (*JUDGED.items(), ("promote_check", "Promote blockers")):
        yield from ("", f"## {title}")
        chosen = newest(records, kind)
        for record in chosen:
            yield from ("", f"### {_text(record.subject)}", "", _origin(record), "")
            yield from markdown(checks_table("Checks", record.body["figures"]))
            for shown in _rollout(kind, record.body["figures"]):
                yield from ("", f"**{_text(shown.title)}**", "", *markdown(shown))
        if not chosen:
            yield from ("", f"{NOT_MEASURED.capitalize()}.")
    for kind, title in CHAPTERS.items():
        for record in newest(records, kind):
            yield from ("", f"## {title}: {_text(record.subject)}", "", _origin(record), "")
            yield from markdown(Table("", ("figure", "value"), tuple(flat(record.body["figures"]))))
    yield from ("", "## Evidence files", "")
    yield from markdown(Table("", ("file", "SHA-256"), tuple(digests.items())))


def _rollout(kind: str, figures: Mapping[str, Any]) -> list[Table]:
    try:
        return list(rollout_tables(kind, figures))
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return []  # a forged record is still listed, with its checks


def _origin(record: Record) -> str:
    return f"Record {record.seq}, {record.ts}, data {record.provenance.upper()}, SHA-256 `{record.hash}`."


def markdown(item: Item) -> Iterator[str]:
    """Yield an item as lines of Markdown; of a chart its title, what there is to see, and its numbers."""
    if isinstance(item, Text):
        yield _text(item.text)
    elif isinstance(item, Chart):
        yield from (f"### {_text(item.title)}", "", _text(item.summary), "", *markdown(item.table))
    else:
        yield _row(item.columns)
        yield _row(["---"] * len(item.columns), raw=True)
        yield from (_row(row) for row in item.rows)


def _row(cells: Iterable[object], *, raw: bool = False) -> str:
    return f"| {' | '.join(str(c) if raw else _text(c) for c in cells)} |"


def _text(value: Any) -> str:
    """Write text from outside so that Markdown shows it as it is, on one line."""
    text = " ".join(number(value).split())
    return re.sub(r"([\\`*\[\]<>|#]|\b_|_\b)", r"\\\1", text)
