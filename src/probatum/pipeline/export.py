"""Turn the chain into the files of ``evidence/ml``: a pure function, so that a verifier can ask for the same bytes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from probatum.core.canonical import sha256_hex
from probatum.models.artifact import parse_artifact
from probatum.pipeline.green import HEAD_FILE, green
from probatum.pipeline.kinds import KINDS
from probatum.pipeline.periodic import CSV_COLUMNS, DAILY, WEEKLY, csv_row, date_of
from probatum.pipeline.ports import Blobs, Record
from probatum.pipeline.report import html_report
from probatum.pipeline.retrain_prose import model_card, strategy
from probatum.pipeline.summary import checks_of, columns_of, mapping

RENDERED = (HEAD_FILE, "report.html", "retrain_strategy.md", "model_card.md")
"""Files made for people: their wording belongs to the version that rendered them."""

PERIODIC = ("ml_daily_reports.csv", "ml_weekly_summaries.csv", "action_log.csv")
"""Series of what is made by the clock, in ``daily/`` and ``weekly/``."""

_ROUTINE = frozenset({"job_run", "rollout_event", "rollout_document", "psi_snapshot", "drill_reminder", "match_report"})
"""Kinds that are no action of the log's: too frequent, or told by another record."""

_RESERVED = re.compile(r"(?i)(daily|weekly|con|nul|aux|prn|.*\.(json|txt|csv|html|md))")


def export(records: Sequence[Record], blobs: Blobs) -> dict[str, bytes]:
    """Return {relative path: bytes}: the newest record of each kind, and of each kind and subject in the subject's folder.

    Files whose name holds a time, and series, cover all records. Raises IntegrityError when a blob that is exported as
    a file is damaged.
    """
    files: dict[str, bytes] = {}
    for record in records:
        if record.kind in KINDS and KINDS[record.kind].file:
            for name, data in _files(record, blobs).items():
                files[name] = files[f"{safe_part(record.subject)}/{name}"] = data
    for folder, chosen in _by_folder(records, "psi_snapshot"):
        files[f"{folder}psi_series.csv"] = psi_series(chosen)
    files |= _periodic(records)
    files["report.html"] = html_report(records).encode()
    digests = {name: sha256_hex(data) for name, data in sorted(files.items())}
    files[HEAD_FILE] = green(records, digests).encode()
    return dict(sorted(files.items()))


def is_export_name(name: str) -> bool:
    """Return whether a path is one that some chain could export: a file there claims to be evidence."""
    base = name.rsplit("/", 1)[-1]
    known = {kind.file for kind in KINDS.values()} | {
        "eval_result.json",
        "eval_result.txt",
        "psi_series.csv",
        *PERIODIC,
        *RENDERED,
    }
    return base in known or base.startswith(("metrics_baseline_", "canary_run_", "root_cause_", "report_", "summary_"))


def safe_part(subject: str) -> str:
    """Return a folder name for a subject: itself where it is plain, else cleaned and told apart by its digest.

    >>> safe_part("robust-large_move"), safe_part("../../etc/passwd")
    ('robust-large_move', '_.._etc_passwd-3754d6cb')
    """
    part = re.sub(r"[^A-Za-z0-9._+=@-]+", "_", subject)[:80].lstrip(".-")
    if part and part == subject and not _RESERVED.fullmatch(part):
        return part
    return f"{part or '_'}-{sha256_hex(subject.encode(errors='surrogatepass'))[:8]}"


def document(record: Record) -> dict[str, Any]:
    """Return what a record's JSON file holds: its figures, and ``evidence``, its place in the chain and its inputs."""
    evidence = {name: getattr(record, name) for name in ("seq", "ts", "kind", "subject", "provenance", "prev", "hash")}
    return {**record.body["figures"], "evidence": {**evidence, "inputs": record.body["inputs"]}}


def json_bytes(value: Any) -> bytes:
    """Return JSON for people: sorted keys, indented, newline at the end."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return CSV whose text cells no spreadsheet takes for a formula.

    >>> csv_bytes(["a", "b"], [["=1+1", -1.5], ["x,y", None]]).decode().splitlines()
    ['a,b', "'=1+1,-1.5", '"x,y",']
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([f"'{c}" if isinstance(c, str) and c[:1] in tuple("=+-@\t\r") and c else c for c in row])
    return out.getvalue().encode()


def psi_series(snapshots: Iterable[Record]) -> bytes:
    """Return one row a snapshot and feature: time, subject, provenance, verdict, feature, PSI, critical value, p-value."""
    rows: list[tuple[object, ...]] = []
    for record in snapshots:
        figures = record.body["figures"]
        start = (record.seq, record.ts, record.subject, record.provenance.value)
        checks = [mapping(figures.get("overall")), *(column["check"] for column in columns_of(figures))]
        columns = ("verdict", "name", "psi", "critical", "p_value")
        rows += [(*start, *(check.get(name) for name in columns)) for check in checks]
    return csv_bytes(["seq", "ts", "subject", "provenance", "verdict", "feature", "psi", "critical", "p_value"], rows)


def _periodic(records: Sequence[Record]) -> dict[str, bytes]:
    """Return ``daily/`` and ``weekly/``: one JSON and one CSV of each day and week, their series, and the action log.

    A day that was reported twice, as after a slot was given up and done by hand, stands in its newest form.
    """
    files: dict[str, bytes] = {}
    days = {date_of(record): record for record in records if record.kind == DAILY}
    weeks = {date_of(record): record for record in records if record.kind == WEEKLY}
    for folder, chosen in ((f"daily/report_{date}", record) for date, record in sorted(days.items())):
        files[f"{folder}.json"] = json_bytes(document(chosen))
        files[f"{folder}.csv"] = csv_bytes(CSV_COLUMNS, [csv_row(chosen.body["figures"])])
    rows = [csv_row(record.body["figures"]) for _, record in sorted(days.items())]
    ended = [(date, record.body["figures"]) for date, record in sorted(weeks.items())]
    files |= {f"weekly/summary_{date}.json": json_bytes(document(record)) for date, record in sorted(weeks.items())}
    if rows:
        files["daily/ml_daily_reports.csv"] = csv_bytes(CSV_COLUMNS, rows)
        files["daily/action_log.csv"] = csv_bytes(ACTION_COLUMNS, map(_action, _actions(records)))
    if ended:
        columns = ("week_ending", *CSV_COLUMNS[1:])
        weekly = [(date, *csv_row({**found, "date": date})[1:]) for date, found in ended]
        files["weekly/ml_weekly_summaries.csv"] = csv_bytes(columns, weekly)
    return files


ACTION_COLUMNS = ("ts", "record", "action", "subject", "provenance", "result")


def _actions(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.kind not in _ROUTINE]


def _action(record: Record) -> tuple[object, ...]:
    found = record.body["figures"]
    result = found.get("verdict") or found.get("overall_status") or "recorded"
    return (record.ts, record.seq, record.kind, record.subject, record.provenance.value, str(result))


def _files(record: Record, blobs: Blobs) -> dict[str, bytes]:
    files = {KINDS[record.kind].file: json_bytes(document(record))}
    extra = _EXTRA.get(record.kind)
    return files | extra(record, blobs) if extra else files


def _eval_result(record: Record, blobs: Blobs) -> dict[str, bytes]:  # noqa: ARG001
    figures = record.body["figures"]
    checks = [check for check in checks_of(figures) if check.get("enforced")]
    result = {name: document(record).get(name) for name in ("evidence", "verdict", "checks")}
    lines = [_check_line(check) for check in checks]
    marks = f"model: {record.subject!r}\ndata: {record.provenance.upper()}\nrecord: {record.seq} {record.hash}\n"
    text = f"{figures.get('verdict')}\n{marks}" + "".join(f"{line}\n" for line in lines)
    return {"eval_result.json": json_bytes(result), "eval_result.txt": text.encode()}


def _check_line(check: dict[str, Any]) -> str:
    reason = f": {check['reason']}" if check.get("reason") else ""
    text = (
        f"{check.get('verdict')!s:<12} {check.get('name')}: {check.get('value')} (bound {check.get('bound')}){reason}"
    )
    return " ".join(text.splitlines())


def _metrics_baseline(record: Record, blobs: Blobs) -> dict[str, bytes]:
    return {f"metrics_baseline_{_stamp(record)}.txt": blobs.get("metrics", record.body["inputs"]["after"]["metrics"])}


def _canary_run(record: Record, blobs: Blobs) -> dict[str, bytes]:  # noqa: ARG001
    files = {f"canary_run_{_stamp(record)}.json": json_bytes(document(record))}
    if cause := mapping(record.body["figures"].get("root_cause")):
        said = {**cause, "subject": record.subject, "provenance": record.provenance, "record": record.hash}
        files[f"root_cause_{_stamp(record)}.json"] = json_bytes(said)
    return files


def _retrain(record: Record, blobs: Blobs) -> dict[str, bytes]:
    digest = record.body["inputs"]["artifact"]
    artifact = parse_artifact(blobs.get("artifact", digest), expected_digest=digest, place=f"artifact {digest[:12]}…")
    return {
        "retrain_strategy.md": strategy(record).encode(),
        "model_card.md": model_card(record, artifact).encode(),
    }


def _stamp(record: Record) -> str:
    return re.sub(r"[-:]", "", record.ts[:19]).replace("T", "_")


_EXTRA: dict[str, Callable[[Record, Blobs], dict[str, bytes]]] = {
    "offline_report": _eval_result,
    "smoke_1k": _metrics_baseline,
    "canary_run": _canary_run,
    "retrain_attempt": _retrain,
}


def _by_folder(records: Sequence[Record], kind: str) -> list[tuple[str, list[Record]]]:
    """Return the records of a kind, together for the top folder and apart for each subject's."""
    chosen = [record for record in records if record.kind == kind]
    groups = {"": chosen} if chosen else {}
    for record in chosen:
        groups.setdefault(f"{safe_part(record.subject)}/", []).append(record)
    return list(groups.items())
