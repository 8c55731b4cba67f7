"""Hold what a report says in words and tables against its own figures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from probatum.pipeline.evidence_figures import TOTALS
from probatum.pipeline.evidence_reading import Array, Finding, Leaf, Object, Report, Section, leaf, numeric

_OF = re.compile(r"^(\d+)\s*\((\d+(?:\.\d+)?)\s*%")
_FRACTION = re.compile(r"(\d[\d,]*)/(\d[\d,]*)\D{0,40}\((100(?:\.0+)?)\s*%\)")
_ERRORS = re.compile(r"(?:.*_)?errors?")
_BUCKET = re.compile(r'_bucket\{.*?le="(\d+(?:\.\d+)?)"')
_QUANTILE = re.compile(r"(?:.*_)?p\d\d(?:_.*)?")
_SUM = re.compile(r"(.*(?:score|prob\w*))_sum(\{.*\})?")
_DONE = re.compile(
    r"\ball\b.{0,30}\b(?:thresholds?|slos?|systems|gates|checks)\b.{0,20}\b(?:met|go|pass(?:ed)?|ok)\b", re.I
)
_GREEN = re.compile(r"🟢\W*(?:green|complete|ready)", re.I)
_CRITICAL = re.compile(r"(?:❌|🔴)\W*critical|\bcritical\W*(?:❌|🔴)|status\W*(?:❌|🔴)?\s*(?:critical|blocked)", re.I)
_NO_BLOCKER = re.compile(r"\bblockers?\b\W*none\b\W*(.*)", re.I)
_OPEN = re.compile(r"\b(?:to be|pending|not yet|required|unresolved|optional|missing|todo|later)\b", re.I)
_TESTED = re.compile(r"\b(?:tested|exercised|drilled)\b", re.I)
_NOT_TESTED = re.compile(
    r"\b(?:not needed|never (?:used|run|triggered|exercised)|not (?:exercised|run|tested)|untested)\b", re.I
)
_START = re.compile(r"\b(?:start|begin)\s+(\d+)(?:\s*\.\.\s*(\d+))?\s*%", re.I)
_STEP = re.compile(r"(\d+)\s*%\s*(?:→|->|for|:)\s*(\d+)\s*(min|minutes|m|h|hours)\b", re.I)
_TOTAL = re.compile(r"total duration\W*(\d+)\s*min\w*(?:\s*\((\d+(?:\.\d+)?)\s*h)?", re.I)
_CLOCK = re.compile(r"^\W*(\d{1,2}):(\d{2})(?::(\d{2}))?\W*$")
_RUN = re.compile(r"\b(?:canary|rollout|deployment)\b", re.I)
_REHEARSAL = re.compile(r"dry|pre-?flight|plan|config", re.I)
_DAYS_FROM_TO = re.compile(r"\b([A-Z][a-z]{2}) (\d{1,2})\s*[-–]\s*(?:\1 )?(\d{1,2})\b")
_DAYS = re.compile(r"\((\d+)\s*days?\b")
_WEEKS = re.compile(r"\**timeline\W*(?:\d+\s*[-–]\s*)?(\d+)\s*weeks?", re.I)
_WEEK = re.compile(r"^\W*week (\d+)\b", re.I)
_METRIC = re.compile(r"\b(psi|p95|match|errors?)\b", re.I)
_WHOSE = re.compile(r"(?<![A-Za-z])(shadow|model|baseline|champion)(?![a-z])", re.I)
_BOUND = re.compile(r"([<>])\s*=?\s*(\d+(?:\.\d+)?)\s*(%|ms)?")
_LEVEL = re.compile(r"\b(warning|critical)\b", re.I)
_TIMEOUT = re.compile(r"timeout\D{0,30}?(\d+)\s*ms|(\d+)\s*ms\s+\w*\s*(?:budget|timeout)", re.I)
_CLAIM = re.compile(r"\b(p95|error rate|match(?: rate)?|psi)\b[^|\d]{0,40}?(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)", re.I)
_TARGET = re.compile(r"^\W*(<=|>=|<|>|≤|≥)\s*(\d+(?:\.\d+)?)\s*(%?)")


def _chapters(report: Report) -> Iterator[list[Section]]:
    numbers = sorted({section.chapter for section in report.sections})
    for number in numbers:
        yield [section for section in report.sections if section.chapter == number]


def _lines(sections: list[Section]) -> list[tuple[int, str]]:
    return [line for section in sections for line in section.lines]


def _tables(section: Section) -> Iterator[list[Object]]:
    for value in section.values:
        if isinstance(value, Array) and value.objects:
            yield value.objects


def counted_shares(report: Report) -> Iterator[Finding]:
    """``k (p %)`` beside a total is k over that total."""
    for section in report.sections:
        for item in (value for value in section.values if isinstance(value, Object)):
            total = item.number(*TOTALS)
            for name, value in item.items.items():
                match = _OF.match(value.text) if isinstance(value, Leaf) else None
                if match is None or total is None or not total.number or not isinstance(value, Leaf):
                    continue
                written = leaf(f"{match[2]}%", value.line)
                exact = float(match[1]) / total.number
                if abs(written.value - exact) > written.share_half + 1e-9:
                    problem = f"{name} {match[1]} of {total.text} is {100 * exact:.4g} %, not {match[2]} %"
                    yield Finding(value.line, "share-of-count", problem)


def excluded_failures(report: Report) -> Iterator[Finding]:
    """A share of 100 % beside failures left them out of its denominator."""
    for section in report.sections:
        for item in (value for value in section.values if isinstance(value, Object)):
            errors = next(
                (leaf for name in item.items if _ERRORS.fullmatch(name) and (leaf := item.number(name))), None
            )
            total = item.number(*TOTALS)
            if errors is None or errors.percent or not errors.number or total is None:
                continue
            for name in ("success_rate", "match_rate", "coverage"):
                share = item.number(name)
                if share and share.percent and share.value == 1.0:
                    problem = (
                        f"{name} 100 % with {errors.number:g} errors in {total.text}: failures left the denominator"
                    )
                    yield Finding(share.line, "excluded-failures", problem)
            for line, text in section.lines:
                match = _FRACTION.search(text)
                if match and float(match[2].replace(",", "")) < total.value:
                    yield Finding(
                        line, "excluded-failures", f"{match[1]} of {match[2]} called 100 %, of {total.text} in all"
                    )


def tables_against_totals(report: Report) -> Iterator[Finding]:
    """Rows add up to the total stated beside them, and the whole's rate lies among the rates of its parts."""
    for section in report.sections:
        stated = next((v for v in section.values if isinstance(v, Object) and v.number("total_requests")), None)
        for rows in _tables(section):
            counts = [row.number("requests", "samples", "n") for row in rows]
            rates = [row.number("error_rate") for row in rows]
            if stated is None or len(rows) < 2:
                continue
            known = [(n, rate) for n, rate in zip(counts, rates, strict=True) if n is not None and rate is not None]
            total = stated.number("total_requests")
            if total and len(known) == len(rows) and sum(n.value for n, _ in known) != total.value:
                added = sum(n.value for n, _ in known)
                yield Finding(total.line, "sum", f"total {total.text}, but the rows add up to {added:g}")
            yield from _errors_of_rows(stated, known if len(known) == len(rows) else [])


def _errors_of_rows(stated: Object, known: list[tuple[Leaf, Leaf]]) -> Iterator[Finding]:
    for name, value in stated.items.items():
        errors = numeric(value) if _ERRORS.fullmatch(name) else None
        if errors is None or errors.percent or not known:
            continue
        expected = sum(n.value * rate.value for n, rate in known)
        slack = sum(n.value * rate.share_half for n, rate in known)
        if abs(errors.value - expected) > slack + 1e-9:
            problem = f"{name} {errors.number:g}, but the rows' rates make {expected:.1f} (± {slack:.1f})"
            yield Finding(errors.line, "sum", problem)
        match = _OF.match(errors.text)
        top = max(rate.value + rate.share_half for _, rate in known)
        if match and float(match[2]) / 100 > top:
            yield Finding(errors.line, "mean", f"{match[2]} % over all, but no part has more than {100 * top:.3g} %")


def means(report: Report) -> Iterator[Finding]:
    """A row called overall, mean or average lies between the other rows."""
    for section in report.sections:
        for rows in _tables(section):
            labels = [str(label.text) if (label := row.text("#label")) else "" for row in rows]
            whole = [i for i, label in enumerate(labels) if re.search(r"\b(?:overall|mean|average)\b", label, re.I)]
            if len(whole) != 1 or len(rows) < 3:
                continue
            for name in rows[whole[0]].items:
                parts = [row.number(name) for i, row in enumerate(rows) if i != whole[0]]
                figure = rows[whole[0]].number(name)
                given = [part for part in parts if part is not None]
                if figure is None or name.startswith("#") or len(given) < len(parts):
                    continue
                low, high = min(p.value for p in given), max(p.value for p in given)
                if not low - figure.half <= figure.value <= high + figure.half:
                    yield Finding(figure.line, "mean", f"{name} {figure.text} over all, its parts {low:g} to {high:g}")
                mean = sum(p.value for p in given) / len(given)
                slack = figure.half + max(p.half for p in given)
                if "psi" in name and abs(figure.value - mean) > slack + 1e-9:
                    yield Finding(
                        figure.line, "mean", f"{name} {figure.text} over all, the mean of its parts {mean:.4g}"
                    )


def buckets(report: Report) -> Iterator[Finding]:
    """Where a histogram holds every event below an edge, no quantile lies above it."""
    for chapter in _chapters(report):
        objects = [value for section in chapter for value in section.values if isinstance(value, Object)]
        totals = {leaf.number for item in objects for name in TOTALS if (leaf := item.number(name))}
        edges = [
            (float(match[1]), leaf)
            for item in objects
            for name in item.items
            if (match := _BUCKET.search(name)) and (leaf := item.number(name)) and leaf.number in totals
        ]
        edge, bucket = min(edges, key=lambda entry: entry[0], default=(0.0, None))
        for item in objects if bucket else ():
            for name in item.items:
                figure = item.number(name) if _QUANTILE.fullmatch(name) else None
                if bucket and figure and figure.value - figure.half > edge:
                    problem = (
                        f"all {bucket.text} events are below {edge:g}, but {name} is {figure.text} (line {figure.line})"
                    )
                    yield Finding(bucket.line, "quantile-and-bucket", problem)


def saturation(report: Report) -> Iterator[Finding]:
    """A mean score at 0 or 1 is that of a constant, whatever ranking is claimed for it."""
    for item in report.objects:
        for name in item.items:
            match = _SUM.fullmatch(name)
            added = item.number(name)
            count = item.number(f"{match[1]}_count{match[2] or ''}") if match else None
            if match and added and count and count.value >= 100 and not 0.001 < added.value / count.value < 0.999:
                mean = added.value / count.value
                yield Finding(added.line, "saturation", f"mean {match[1]} is {mean:.6f}: these scores rank nothing")


def thresholds(report: Report) -> Iterator[Finding]:
    """One measure has one warning and one critical bound, and no bound is both."""
    by_level: dict[tuple[str, str], tuple[str, int]] = {}
    by_bound: dict[tuple[str, str], tuple[str, int]] = {}
    for line, metric, bound, level in _thresholds(report):
        seen, at = by_level.setdefault((metric, level), (bound, line))
        if seen != bound:
            yield Finding(line, "thresholds", f"{metric} is {level} at {bound} here and at {seen} in line {at}")
        seen, at = by_bound.setdefault((metric, bound), (level, line))
        if seen != level:
            yield Finding(line, "thresholds", f"{metric} {bound} is {level} here and {seen} in line {at}")


def _thresholds(report: Report) -> Iterator[tuple[int, str, str, str]]:
    for section in report.sections:
        heading = ""
        for line, text in section.lines:
            if re.match(r"\s*(?:\*\*|#)", text) and "threshold" in text.lower():
                heading = text
            levels = {found.lower() for found in _LEVEL.findall(text)}
            bounds = _BOUND.findall(text.replace("\\", ""))
            metric = _METRIC.search(text) or _METRIC.search(heading)
            if len(levels) == 1 and len(bounds) == 1 and metric and "|" not in text and "feature" not in text.lower():
                sign, number, unit = bounds[0]
                whose = {word.lower() for word in _WHOSE.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))}
                name = " ".join([*sorted(whose), metric[1].lower().rstrip("s")])
                yield line, name, f"{sign} {float(number):g}{unit}", levels.pop()


def unobservable(report: Report) -> Iterator[Finding]:
    """A call that ends at its timeout is never seen to last longer."""
    lines = [line for section in report.sections for line in section.lines]
    timeouts = [
        (float(m[1] or m[2]), at) for at, text in lines if (m := _TIMEOUT.search(text)) and "shadow" in text.lower()
    ]
    limit, at = min(timeouts, default=(0.0, 0))
    for line, text in lines if timeouts else ():
        match = re.search(r"shadow.{0,30}p\d\d\D{0,5}>\s*(\d+)\s*ms", text, re.I)
        if match and float(match[1]) >= limit:
            yield Finding(
                line, "unobservable", f"P95 > {match[1]} ms cannot be seen: calls end at {limit:g} ms (line {at})"
            )


def green_over_red(report: Report) -> Iterator[Finding]:
    """Nothing is green, all met or without a blocker where the same part of the report shows something critical or open.

    What a chapter's head claims, it claims for the whole chapter; further down a claim is for its own section.
    """
    for chapter in _chapters(report):
        for index, section in enumerate(chapter):
            covered = _lines(chapter) if index == 0 else section.lines
            critical = [line for line, text in covered if _CRITICAL.search(text)]
            for line, text in section.lines:
                if critical and (_DONE.search(text) or (line == section.line and _GREEN.search(text))):
                    yield Finding(line, "green-over-red", f"all is well here, critical in line {critical[0]}")
                none = _NO_BLOCKER.search(text.replace("*", ""))
                if none and (critical or _OPEN.search(none[1])):
                    why = f"critical in line {critical[0]}" if critical else none[1].strip("() ")[:60]
                    yield Finding(line, "green-over-red", f"no blocker, yet {why}")


def tested_but_unused(report: Report) -> Iterator[Finding]:
    """What was not needed was not tested by it."""
    for section in report.sections:
        head: int | None = None
        for line, text in section.lines:
            if re.match(r"\s*(?:\*\*|#)", text) or not text.strip():
                head = line if _TESTED.search(text) else None
            elif head is not None and _NOT_TESTED.search(text):
                yield Finding(head, "tested-but-unused", f"tested, yet line {line} says: {text.strip(' -*')[:60]}")


def confirmation(report: Report) -> Iterator[Finding]:
    """A run goes no further than the confirmation before it allows."""
    confirmed: tuple[int, int] | None = None
    for section in report.sections:
        events = [(line, text) for line, text in section.lines if _START.search(text)]
        for line, text in events:
            match = _START.search(text)
            confirmed = (int(match[2] or match[1]), line) if match else confirmed
        for rows in _tables(section):
            shares = [leaf(label.text, row.line) for row in rows if (label := row.text("#label"))]
            reached = max((share.number for share in shares if share.percent and share.number), default=0.0)
            ran = all(row.number("requests", "samples", "n") for row in rows)
            if confirmed and ran and reached > confirmed[0] and rows[0].line > confirmed[1]:
                problem = f"confirmed up to {confirmed[0]} %, the run in line {rows[-1].line} went to {reached:g} %"
                yield Finding(confirmed[1], "confirmation", problem)


def durations(report: Report) -> Iterator[Finding]:
    """Steps add up to their total, and a log leaves a run the time that its plan takes."""
    planned = 0.0
    for section in report.sections:
        steps = [match for _, text in section.lines if (match := _STEP.search(text))]
        minutes = sum(float(m[2]) * (60 if m[3].lower().startswith("h") else 1) for m in steps)
        for line, text in section.lines:
            total = _TOTAL.search(text)
            if total and steps and float(total[1]) != minutes:
                yield Finding(line, "sum", f"total {total[1]} minutes, but the steps add up to {minutes:g}")
            if total and total[2] and abs(float(total[2]) - float(total[1]) / 60) > 0.051:
                yield Finding(line, "sum", f"{total[1]} minutes are not {total[2]} hours")
        planned = max(planned, minutes if len(steps) > 1 else 0.0)
    for section in report.sections:
        for rows in _tables(section) if planned else ():
            yield from _log_against_plan(rows, planned)


def _log_against_plan(rows: list[Object], planned: float) -> Iterator[Finding]:
    timed = [(seconds, row) for row in rows if (seconds := _clock(row)) is not None]
    for index, (began, row) in enumerate(timed[:-1]):
        words = " ".join(value.text for value in row.items.values() if isinstance(value, Leaf))
        gap = (timed[index + 1][0] - began) / 60
        if _RUN.search(words) and not _REHEARSAL.search(words) and 0 <= gap < 0.95 * planned:
            problem = f"a run planned for {planned:g} minutes, the next entry (line {timed[index + 1][1].line}) {gap:.1f} minutes on"
            yield Finding(row.line, "duration", problem)


def _clock(row: Object) -> int | None:
    label = row.text("#label")
    match = _CLOCK.match(label.text) if label else None
    return int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3] or 0) if match else None


def calendars(report: Report) -> Iterator[Finding]:
    """A span of dates holds as many days as it has, and a timeline the weeks it lists."""
    for section in report.sections:
        span = 0
        for line, text in section.lines:
            if match := _DAYS_FROM_TO.search(text):
                span = int(match[3]) - int(match[2]) + 1
            days = _DAYS.search(text)
            if days and 0 < span < int(days[1]):
                yield Finding(line, "calendar", f"{days[1]} days within a span of {span}")
    for chapter in _chapters(report):
        stated = next(((int(m[1]), line) for line, text in chapter[0].lines if (m := _WEEKS.match(text))), None)
        weeks = [int(match[1]) for _, text in _lines(chapter) if (match := _WEEK.match(text))]
        if stated and weeks and max(weeks) > stated[0]:
            yield Finding(stated[1], "calendar", f"{stated[0]} weeks at most, but week {max(weeks)} is planned")


def claimed_ranges(report: Report) -> Iterator[Finding]:
    """A range claimed for a measure is that of the table above it."""
    columns = {
        "p95": "p95",
        "error rate": "error_rate",
        "match": "match_rate",
        "match rate": "match_rate",
        "psi": "psi",
    }
    for chapter in _chapters(report):
        for section in chapter:
            tables = [rows for rows in _tables(section) if len(rows) >= 3]
            for line, text in section.lines:
                claim = _CLAIM.search(text.replace("*", ""))
                above = [rows for rows in tables if rows[-1].line < line] if claim else []
                if claim is None or not above:
                    continue
                figures = [row.number(columns[claim[1].lower()]) for row in above[-1]]
                given = [figure.number for figure in figures if figure and figure.number is not None]
                low, high = float(claim[2]), float(claim[3])
                if (
                    given
                    and len(given) == len(figures)
                    and (abs(low - min(given)) > 1e-9 or abs(high - max(given)) > 1e-9)
                ):
                    problem = f"{claim[1]} {claim[2]}-{claim[3]}, but the table has {min(given):g} to {max(given):g}"
                    yield Finding(line, "range-of-table", problem)


def ticks(report: Report) -> Iterator[Finding]:
    """A tick stands by a figure that meets its target, a cross by one that does not."""
    for section in report.sections:
        raw = dict(section.lines)
        for row in (row for rows in _tables(section) for row in rows):
            target, line = row.text("target", "slo_target", "threshold", "slo"), raw.get(row.line, "")
            value = row.text("value", "achieved", "result", "score")
            wanted = _TARGET.match(target.text.replace("≤", "<=").replace("≥", ">=")) if target else None
            marks = {mark for mark in "✅❌🔴" if mark in line}
            if wanted is None or value is None or value.number is None or len(marks) != 1:
                continue
            yield from _tick(row.line, wanted, value, good="✅" in marks)


def _tick(line: int, wanted: re.Match[str], value: Leaf, *, good: bool) -> Iterator[Finding]:
    share = _OF.match(value.text)
    shown = leaf(f"{share[2]}%", line) if share and wanted[3] else value
    bound = float(wanted[2])
    figures = [shown.number or 0.0] if shown.high is None else [shown.number or 0.0, shown.high]
    if bool(wanted[3]) != shown.percent:
        return
    met = {
        "<": max(figures) < bound,
        "<=": max(figures) <= bound,
        ">": min(figures) > bound,
        ">=": min(figures) >= bound,
    }
    if met[wanted[1]] is not good:
        yield Finding(line, "tick", f"{shown.text} marked as {'met' if good else 'missed'} against {wanted[0].strip()}")


def absent_yet_measured(report: Report) -> Iterator[Finding]:
    """What was not deployed was not measured either."""
    measured: dict[str, int] = {}
    for rows in (rows for section in report.sections for rows in _tables(section)):
        for row in rows:
            for name, value in row.items.items():
                if name in ("match_rate", "error_rate") and numeric(value):
                    measured.setdefault(name, row.line)
    for item in (row for section in report.sections for rows in _tables(section) for row in rows):
        words = " ".join(value.text for value in item.items.values() if isinstance(value, Leaf))
        if re.search(r"\bN/A\b", words) and (found := re.search(r"\bnot (?:deployed|running|connected)\b", words)):
            name = re.sub(r"\W+", "_", str(label.text).lower()).strip("_") if (label := item.text("#label")) else ""
            if name in measured:
                yield Finding(
                    item.line, "absent-yet-measured", f"{name}: {found[0]}, yet measured in line {measured[name]}"
                )


def mocks(report: Report) -> Iterator[Finding]:
    """A mock proves that the script ran; it passes nothing."""
    for section in report.sections:
        passed: Mapping[int, str] = {line: text for line, text in section.lines if re.search(r"\bPASS\b|✅", text)}
        if re.search(r"\bmock(?:ed)?\b", section.title, re.I) and passed:
            yield Finding(section.line, "mock", f"figures of a mock pass thresholds (line {min(passed)})")


PROSE_RULES = (
    counted_shares, excluded_failures, tables_against_totals, means, buckets, saturation, thresholds, unobservable,
    green_over_red, tested_but_unused, confirmation, durations, calendars, claimed_ranges, ticks, absent_yet_measured, mocks,
)  # fmt: skip
"""Rules that read tables and sentences."""
