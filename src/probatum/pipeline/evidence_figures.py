"""Hold the figures of an object against each other: quotients, sums, orders, ranges, times, verdicts, drift."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil, floor

from probatum.core.clock import NS_PER_S, parse_utc
from probatum.core.errors import ParameterError
from probatum.pipeline.evidence_reading import Finding, Leaf, Object, Report, name_of, numeric
from probatum.rollout import criteria
from probatum.rollout.blockers import REQUIREMENTS
from probatum.rollout.policy import POLICY_NAMES, shipped_policy

_EPS = 1e-9
_VERDICTS = ("PASS", "INCONCLUSIVE", "FAIL", "ERROR")
_RANK = re.compile(r"p(\d{2})(?=_|$)|(max)(?=_|$)|(avg|mean)(?=_|$)")
_NOT_NEGATIVE = re.compile(r"(?:^|_)(?:psi|latency|p\d\d)(?:_|$)")

TOTALS = ("total_requests", "requests", "attempts", "total", "samples", "total_predictions", "rows", "n")
_EVENTS = r"(?:.*_)?(?:errors?|failures|bad|mismatches)"
_RATE = re.compile(
    r"(?:.*_)?(?:(?:error|success|match|mismatch|slow|failure|coverage|hit)_rate|base_rate|positive_share)"
)
_SHARE = re.compile(
    r"(?:.*_)?(?:rate|auc|precision_at_\d+|recall_at_\d+|coverage|positive_share|p_value|brier|ece|saturation)"
)
_COUNT = re.compile(rf"(?:{'|'.join(TOTALS)}|success|matches|positives|agreements|slow|blocks|{_EVENTS})")
# A quotient: what it is called, what it divides, by what. The first pair that the report holds is used.
RATIOS = (
    ("success_rate", "success", "total_requests"),
    ("error_rate", "errors", "total_requests"),
    ("error_rate", "errors", "requests"),
    ("coverage", "ok", "attempts"),
    ("match_rate", "matches", "ok"),
    ("base_rate", "positives", "rows"),
    ("lift_at_20", "precision_at_20", "base_rate"),
)
# A total and its parts; all parts must be there.
SUMS = (
    ("total_requests", ("success", "errors")),
    ("attempts", ("ok", "error", "timeout", "nan", "breaker_open", "shed", "skipped")),
    ("failures", ("error", "timeout", "nan", "breaker_open", "shed")),
    ("ok", ("matches", "mismatches")),
    ("rows_in", ("rows_stored", "rows_quarantined", "rows_merged", "rows_ignored")),
)
# A part and a whole that it cannot exceed.
PARTS = (
    ("success", "total_requests"), ("errors", "total_requests"), ("slow", "total_requests"), ("matches", "ok"),
    ("agreements", "ok"), ("ok", "attempts"), ("positives", "rows"), ("positives", "n"), ("bad", "n"),
    ("rows_stored", "rows_in"), ("distinct_scores", "total_requests"), ("minutes_with_data", "minutes_in_sessions"),
)  # fmt: skip
_BEGIN = ("start", "started", "began", "first_sample", "first_ts", "started_at", "from")
_END = ("end", "ended", "finished", "last_sample", "last_ts", "ended_at", "to")
_LASTS = ("duration_s", "phase_s", "elapsed_s", "seconds")
_TABLES = (criteria.GATE_CRITERIA, criteria.DRIFT_CRITERIA, criteria.SMOKE_CRITERIA, criteria.SHADOW_CRITERIA)
_DIRECTED = {(item.name, item.direction) for table in _TABLES for item in table}
_DIRECTED |= {(item.name, "at_least") for item in REQUIREMENTS}
_DIRECTED |= {(item.name, item.direction) for name in POLICY_NAMES for item in shipped_policy(name).criteria}
# Which side of its bound a check of ours wants; a name that is used both ways, or is not ours, may want either.
DIRECTIONS = {name: side for name, side in _DIRECTED if sum(other == name for other, _ in _DIRECTED) == 1}


def _is_whole(share: Leaf, total: float) -> bool:
    """Say whether some whole number of ``total`` events gives this share as it was written."""
    slack = _EPS * max(total, 1.0)
    return floor((share.value + share.share_half) * total + slack) >= ceil(
        (share.value - share.share_half) * total - slack
    )


def _apart(left: float, right: float, half: float) -> bool:
    return abs(left - right) > half + 1e-6 * max(abs(left), abs(right)) + 1e-12


def shares_of_counts(report: Report) -> Iterator[Finding]:
    """A rate times its count must be a whole number of events; a matched share may leave out what failed."""
    for item in report.objects:
        total = item.number(*TOTALS)
        if total is None or not total.number or total.percent:
            continue
        label = item.text("name")
        for key, leaf in item.items.items():
            name = name_of(label.text) if label and key == "value" else key
            rate = numeric(leaf)
            own = any(item.number(above) and item.number(below) for named, above, below in RATIOS if named == name)
            if rate is None or own or not _RATE.fullmatch(name) or not 0 <= rate.value <= 1:
                continue
            errors = item.number("error_rate") if "match" in name else None
            failed = min(ceil(errors.value * total.number), 1_000) if errors else 0
            if not any(_is_whole(rate, total.number - k) for k in range(failed + 1)):
                yield Finding(
                    rate.line, "share-of-count", f"{name} {rate.text} of {total.text} is no whole number of events"
                )


def quotients(report: Report) -> Iterator[Finding]:
    """A rate beside its counts is their quotient."""
    for item in report.objects:
        for name, above, below in RATIOS:
            rate, top, whole = item.number(name), item.number(above), item.number(below)
            if rate is None or top is None or whole is None or not whole.value:
                continue
            exact = top.value / whole.value
            half = rate.share_half + (top.share_half + exact * whole.share_half) / whole.value
            if _apart(rate.value, exact, half):
                yield Finding(rate.line, "quotient", f"{name} {rate.text}, but {above}/{below} is {exact:.6g}")
        yield from _checks_against_report(item)
        value, n, bad = item.number("value"), item.number("n"), item.number("bad")
        if value and n and bad and n.value:
            exact = bad.value / n.value
            if all(_apart(value.value, rate, value.share_half) for rate in (exact, 1.0 - exact)):
                yield Finding(value.line, "quotient", f"value {value.text}, but bad/n is {exact:.6g}")


def _checks_against_report(item: Object) -> Iterator[Finding]:
    """A check repeats the report's own figure of its name, over no more events than the report has."""
    rows, total = item.number("rows"), item.number("rows", "total_requests", "attempts")
    for check in item.array("checks").objects:
        name, value, n = check.text("name"), check.number("value"), check.number("n")
        same = item.number(name.text) if name else None
        if same and value and _apart(same.value, value.value, same.share_half + value.share_half):
            yield Finding(
                value.line,
                "check",
                f"{name_of(name.text) if name else ''} {value.text}, but the report says {same.text}",
            )
        if n and total and (n.value > total.value or (rows and n.value != rows.value)):
            yield Finding(n.line, "check", f"a check over {n.text} of {total.text}")


def sums(report: Report) -> Iterator[Finding]:
    """A total is the sum of its parts, and no part exceeds its whole."""
    for item in report.objects:
        for name, parts in SUMS:
            total = item.number(name)
            given = [leaf for part in parts if (leaf := item.number(part)) is not None]
            if total is not None and len(given) == len(parts):
                added = sum(leaf.value for leaf in given)
                if _apart(total.value, added, 0.0):
                    yield Finding(total.line, "sum", f"{name} {total.text}, but {' + '.join(parts)} is {added:g}")
        for name, whole in PARTS:
            part, limit = item.number(name), item.number(whole)
            if part is not None and limit is not None and not part.percent and part.value > limit.value:
                yield Finding(part.line, "part-of-whole", f"{name} {part.text} of only {limit.text} {whole}")


def nested_counts(report: Report) -> Iterator[Finding]:
    """Counts of bins, slices and histograms add up to the count above them."""
    for item in report.objects:
        rows, ok, reference = (item.number(name) for name in ("rows", "ok", "reference_rows"))
        for name, total in (("score_histogram", rows), ("delta_histogram", ok)):
            counts = item.child(name).array("counts")
            yield from _add_up([leaf for value in counts.items if (leaf := numeric(value))], total, name, counts.line)
        slices = item.child("slices")
        groups = {"calibration": item.array("calibration"), **{name: slices.array(name) for name in slices.items}}
        for name, group in groups.items():
            yield from _add_up(group.column("n"), rows, name, group.line)
        for column in _drift_columns(item):
            bins = column.array("bins")
            yield from _add_up(bins.column("window"), rows, "bins of the window", bins.line)
            yield from _add_up(bins.column("reference"), reference, "bins of the reference", bins.line)


def _add_up(parts: Sequence[Leaf], total: Leaf | None, name: str, line: int) -> Iterator[Finding]:
    added = sum(part.value for part in parts)
    if parts and total is not None and _apart(added, total.value, 0.0):
        yield Finding(line, "sum", f"{name} add up to {added:g}, not to {total.text}")


def orders(report: Report) -> Iterator[Finding]:
    """Quantiles rise, a bound encloses its value, a mean is no larger than its maximum, thresholds thin out."""
    for item in report.objects:
        for family in _families(item).values():
            ranked = sorted(family, key=lambda entry: entry[0])
            yield from _rising([(name, leaf) for rank, name, leaf in ranked if rank >= 0], "quantiles")
            yield from _rising([(name, leaf) for rank, name, leaf in ranked if rank in (-1, 100)], "mean-and-maximum")
        ends = [(name, leaf) for name in ("lower", "value", "upper") if (leaf := item.number(name)) is not None]
        yield from _rising(ends, "bounds")
        slower = sorted(item.child("slower_than_ms").items.items(), key=lambda entry: entry[0].zfill(9), reverse=True)
        yield from _rising([(f"slower than {ms} ms", leaf) for ms, v in slower if (leaf := numeric(v))], "thresholds")
        for name in ("edges", "false_positive_rate", "true_positive_rate"):
            yield from _rising([(name, leaf) for v in item.array(name).items if (leaf := numeric(v))], "curve")
        for group in (item.array(name) for name in ("bins", "calibration")):
            yield from _contiguous(group.objects)
        pairs = zip(item.array("lower").items, item.array("upper").items, strict=False)
        for low, high in ((numeric(low), numeric(high)) for low, high in pairs):
            yield from _rising([("lower", low), ("upper", high)] if low and high else [], "bounds")


def _contiguous(bins: Sequence[Object]) -> Iterator[Finding]:
    for bin_, after in pairwise(bins):
        end, begin = bin_.number("upper", "to"), after.number("lower", "from")
        if end and begin and end.value > begin.value + end.half + begin.half:
            yield Finding(
                begin.line, "bins", f"begins at {begin.text}, within the one before, which ends at {end.text}"
            )
    for bin_ in bins:
        ends = [(name, leaf) for name in ("from", "mean_score", "to") if (leaf := bin_.number(name)) is not None]
        yield from _rising(ends, "bins")


def _families(item: Object) -> dict[str, list[tuple[int, str, Leaf]]]:
    """Gather (rank, name, figure) of quantiles (50, 95, 99), the maximum (100) and the mean (−1) by what they are of."""
    families: dict[str, list[tuple[int, str, Leaf]]] = {}
    for name, value in item.items.items():
        found, leaf = _RANK.search(name), numeric(value)
        if found and leaf is not None:
            rank = int(found[1]) if found[1] else 100 if found[2] else -1
            stem = re.sub(r"_(?:ms|s)$", "", name[: found.start()] + name[found.end() :]).strip("_")
            families.setdefault(stem, []).append((rank, name, leaf))
    return families


def _rising(items: Sequence[tuple[str, Leaf]], rule: str) -> Iterator[Finding]:
    for (low_name, low), (high_name, high) in pairwise(items):
        if low.value - low.share_half > high.value + high.share_half + _EPS * abs(high.value):
            yield Finding(high.line, rule, f"{low_name} {low.text} above {high_name} {high.text}")


def ranges(report: Report) -> Iterator[Finding]:
    """Shares lie in [0, 1], counts are whole and not negative, a PSI and a latency are not negative."""
    for item in report.objects:
        for name, value in item.items.items():
            leaf = numeric(value)
            if leaf is None:
                continue
            whole = leaf.number == floor(leaf.number or 0.0)
            if _SHARE.fullmatch(name) and not 0 <= leaf.value <= 1:
                yield Finding(leaf.line, "range", f"{name} {leaf.text} is no share")
            elif _COUNT.fullmatch(name) and not leaf.percent and (leaf.value < 0 or not whole):
                yield Finding(leaf.line, "range", f"{name} {leaf.text} is no count")
            elif _NOT_NEGATIVE.search(name) and leaf.value < 0:
                yield Finding(leaf.line, "range", f"{name} {leaf.text} is negative")


def times(report: Report) -> Iterator[Finding]:
    """What began ends later, and lasts as long as it says; requests at a rate take their time."""
    for item in report.objects:
        start, end = _instant(item, *_BEGIN), _instant(item, *_END)
        if start is not None and end is not None:
            yield from _span(item, (end - start) / NS_PER_S)
        inputs, took = item.child("evidence").child("inputs"), item.number("duration_s")
        if took is None:
            continue
        rate, total = inputs.number("rate_per_s"), item.number("total_requests")
        if rate and total and rate.value > 0 and (total.value - 1) / rate.value > took.value + took.half + 0.01:
            yield Finding(
                took.line, "duration", f"{total.text} requests at {rate.text}/s take longer than {took.text} s"
            )
        began, written = _instant(inputs, *_BEGIN), _instant(item.child("evidence"), "ts")
        if began is not None and written is not None and (written - began) / NS_PER_S < took.value - took.half - 0.01:
            yield Finding(took.line, "duration", f"lasts {took.text} s, but its record was written sooner than that")


def _span(item: Object, seconds: float) -> Iterator[Finding]:
    ends, lasts = item.text(*_END), item.number(*_LASTS)
    if seconds < 0 and ends:
        yield Finding(ends.line, "times", f"ends {-seconds:g} s before it begins")
    elif lasts and seconds < 0.98 * lasts.value - 1.0:
        yield Finding(lasts.line, "duration", f"lasts {lasts.text} s within {seconds:g} s of time")
    blocks, block_s = item.number("blocks"), item.number("block_s")
    if blocks and block_s and block_s.value > 0 and blocks.value > max(seconds, 0.0) / block_s.value + 2.0:
        yield Finding(blocks.line, "duration", f"{blocks.text} blocks of {block_s.text} s do not fit the window")


def _instant(item: Object, *names: str) -> int | None:
    found = item.text(*names)
    try:
        return None if found is None else parse_utc(found.text)
    except ParameterError:
        return None


def verdicts(report: Report) -> Iterator[Finding]:
    """A verdict follows from its bounds, the whole from its worst enforced check, and nothing passes over a blocker."""
    for item in report.objects:
        verdict = item.text("verdict")
        if verdict is None or verdict.text not in _VERDICTS:
            continue
        yield from _check_verdict(item, verdict)
        enforced = [check for check in item.array("checks").objects if check.says("enforced", "true")]
        states = [state.text for check in enforced if (state := check.text("verdict")) and state.text in _VERDICTS]
        worst = max(states, key=_VERDICTS.index, default=verdict.text)
        if worst != verdict.text:
            yield Finding(verdict.line, "verdict", f"verdict {verdict.text}, but its worst enforced check is {worst}")
        if verdict.text == "PASS" and item.array("blockers").items:
            yield Finding(verdict.line, "verdict", f"PASS with {len(item.array('blockers').items)} blockers")


def _check_verdict(item: Object, verdict: Leaf) -> Iterator[Finding]:
    """Hold PASS and FAIL against the bounds; INCONCLUSIVE may have other reasons, such as too few rows."""
    name, bound, value = item.text("name", "check"), item.number("bound"), item.number("value", "psi")
    if bound is None or value is None or verdict.text not in ("PASS", "FAIL"):
        return
    direction = DIRECTIONS.get(name_of(name.text), "") if name else ""
    low, high = item.number("lower") or value, item.number("upper") or value
    half = bound.share_half + max(low.share_half, high.share_half)
    above, below = low.value >= bound.value - half, high.value <= bound.value + half
    good, bad = {"at_least": (above, below), "below": (below, above)}.get(direction, (above or below, above or below))
    if not (good if verdict.text == "PASS" else bad):
        shown = name.text if name else "a check"
        yield Finding(
            verdict.line, "verdict", f"{shown} {verdict.text}: {low.text} to {high.text} against {bound.text}"
        )


def drift(report: Report) -> Iterator[Finding]:
    """A column's PSI is the sum of its bins' terms, the overall one the mean over raw columns, the maximum the largest."""
    for item in report.objects:
        counted = []
        for column in _drift_columns(item):
            psi, terms = column.child("check").number("psi"), column.array("bins").column("term")
            if psi is None:
                continue
            added = sum(term.value for term in terms)
            if terms and _apart(psi.value, added, psi.half):
                yield Finding(psi.line, "sum", f"psi {psi.text}, but its bins add up to {added:.6g}")
            if (
                column is not item.items.get("score")
                and column.says("raw", "true")
                and column.says("constant", "false")
            ):
                counted.append(psi.value)
        overall, largest = item.number("overall_psi"), item.number("max_psi")
        if overall and counted and _apart(overall.value, sum(counted) / len(counted), overall.half):
            mean = sum(counted) / len(counted)
            yield Finding(overall.line, "mean", f"overall {overall.text}, but the mean of its columns is {mean:.6g}")
        if largest and counted and _apart(max(largest.value, max(counted)), largest.value, largest.half):
            yield Finding(largest.line, "maximum", f"maximum {largest.text}, but a column has {max(counted):.6g}")


def _drift_columns(item: Object) -> Iterator[Object]:
    for column in [*item.array("features").objects, item.child("score")]:
        if column.array("bins").items:
            yield column


FIGURE_RULES = (shares_of_counts, quotients, sums, nested_counts, orders, ranges, times, verdicts, drift)
"""Rules that need no words beside the figures."""
