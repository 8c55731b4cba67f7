"""Impossible figures are found, in the seed's document and in reports of ours that were spoilt on purpose; true ones are left alone."""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probatum.core.errors import DataError
from probatum.pipeline.evidence_lint import lint_report
from probatum.rollout.bounds import clopper_pearson
from probatum.rollout.criteria import (
    DRIFT_CRITERIA,
    GATE_CRITERIA,
    SHADOW_CRITERIA,
    SMOKE_CRITERIA,
    Criterion,
    Measurement,
    assess,
)
from probatum.rollout.measurement import Stream
from probatum.rollout.measurement import assess as assess_rates
from probatum.rollout.policy import shipped_policy

Document = dict[str, Any]


def judged(criteria: tuple[Criterion, ...], **measured: Measurement) -> Document:
    result: Document = msgspec.to_builtins(assess(criteria, measured))
    return result


def share(count: int, n: int) -> Measurement:
    lower, upper = clopper_pearson(n, count)
    return Measurement(count / n, lower, upper, n)


def split(rng: random.Random, total: int, parts: int) -> list[int]:
    cuts = sorted(rng.randint(0, total) for _ in range(parts - 1))
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]


def smoke(rng: random.Random) -> Document:
    n, errors = rng.choice([500, 1000, 1440]), rng.randint(0, 12)
    slow = errors + rng.randint(0, 20)
    p50 = rng.uniform(0.2, 3)
    checks = judged(
        SMOKE_CRITERIA,
        success_rate=share(n - errors, n),
        slow_rate=share(slow, n),
        uncounted_requests=Measurement.counted(0.0, n),
    )
    return {
        "evidence": {
            "inputs": {"rate_per_s": 500, "started": "2026-11-23T06:43:08.951867034Z"},
            "ts": "2026-11-23T06:43:13Z",
        },
        "total_requests": n,
        "success": n - errors,
        "errors": errors,
        "success_rate": (n - errors) / n,
        "distinct_scores": n - 3,
        "slow": slow,
        "latency_p50_ms": p50,
        "latency_p95_ms": p50 * 2.5,
        "latency_p99_ms": p50 * 3.1,
        "latency_max_ms": p50 * 5,
        "duration_s": n / 500 + 0.01,
        **checks,
    }


def shadow(rng: random.Random) -> Document:
    attempts = rng.choice([997, 1440, 5000])
    failed = [rng.randint(0, 5) for _ in range(6)]
    ok = attempts - sum(failed)
    matches = rng.randint(ok // 3, ok)
    names = ("error", "timeout", "nan", "breaker_open", "shed")
    later = sorted((rng.randint(0, 30) for _ in range(3)), reverse=True)
    called = attempts - failed[5]
    checks = judged(
        SHADOW_CRITERIA,
        unanswered_decisions=Measurement.counted(0.0, attempts),
        uncounted_requests=Measurement.counted(0.0, attempts),
        shadow_error_rate=share(sum(failed[:5]), called),
        slow_rate=share(later[1], called),
        match_rate=share(matches, ok),
    )
    return {
        "total_requests": attempts,
        "attempts": attempts,
        "ok": ok,
        **dict(zip(names, failed, strict=False)),
        "skipped": failed[5],
        "failures": sum(failed[:5]),
        "coverage": ok / attempts,
        "matches": matches,
        "mismatches": ok - matches,
        "match_rate": matches / ok,
        "agreements": rng.randint(0, ok),
        "delta_histogram": {"edges": [0.01, 0.05, 0.1], "counts": split(rng, ok, 4)},
        "slower_than_ms": dict(zip(("60", "80", "120"), later, strict=True)),
        "shadow_latency_ms": {"p50": 1.1, "p95": 2.2, "p99": 3.3},
        **checks,
    }


def column(rng: random.Random, name: str, rows: int, reference: int) -> Document:
    terms = [rng.uniform(0, 0.02) for _ in range(4)]
    bins = [
        {"window": w, "reference": r, "term": t, "nan": False}
        for w, r, t in zip(split(rng, rows, 4), split(rng, reference, 4), terms, strict=True)
    ]
    psi = sum(terms)
    check = {"name": name, "psi": psi, "bound": 0.3, "verdict": "PASS", "enforced": True}
    return {"bins": bins, "check": check, "raw": True, "constant": False}


def drift(rng: random.Random) -> Document:
    rows, reference = rng.randint(1_000, 9_000), 26_507
    features = [column(rng, f"f{i}", rows, reference) for i in range(rng.randint(2, 6))]
    psis = [feature["check"]["psi"] for feature in features]
    overall = sum(psis) / len(psis)
    bare = {
        name: Measurement(x, None, None, rows) for name, x in (("psi_overall", overall), ("psi_feature", max(psis)))
    }
    checks = judged(DRIFT_CRITERIA, **{k: Measurement(m.value, m.value, m.value, m.n) for k, m in bare.items()})
    return {
        "rows": rows,
        "reference_rows": reference,
        "features": features,
        "score": column(rng, "score", rows, reference),
        "overall_psi": overall,
        "max_psi": max(psis),
        "window": {"start": "2024-01-25T20:25:00Z", "end": "2024-02-01T00:00:00Z"},
        **checks,
    }


def gate(rng: random.Random) -> Document:
    rows = rng.randint(3_000, 9_000)
    positives = rng.randint(rows // 3, rows // 2)
    auc, precision = rng.uniform(0.5, 0.75), rng.uniform(0.5, 0.8)
    checks = judged(
        GATE_CRITERIA,
        auc=Measurement(auc, auc - 0.02, auc + 0.02, rows),
        precision_at_20=Measurement(precision, precision - 0.02, precision + 0.02, rows),
        constant_score=Measurement.counted(1 / rows, rows),
        saturation=Measurement.counted(0.0, rows),
        level_features=Measurement.counted(0.0, rows),
        calibration_ece=Measurement.counted(0.02, rows),
    )
    return {
        "auc": round(auc, 10),
        "precision_at_20": round(precision, 10),
        "rows": rows,
        "positives": positives,
        "base_rate": round(positives / rows, 10),
        "lift_at_20": round(precision * rows / positives, 10),
        "calibration": [{"n": n, "mean_score": 0.1} for n in split(rng, rows, 6)],
        "slices": {"day": [{"name": f"d{i}", "n": n} for i, n in enumerate(split(rng, rows, 4))]},
        "score_histogram": {"edges": [0, 0.25, 0.5, 0.75, 1], "counts": split(rng, rows, 4)},
        "window": {"start": "2024-01-25T20:25:00Z", "end": "2024-02-01T00:00:00Z", "block_s": 3600, "blocks": 148},
        **checks,
    }


def canary(rng: random.Random) -> Document:
    policy = shipped_policy("seed-v1.8")
    phases = []
    n, bad = 0, 0
    for index, percent in enumerate((5, 10, 25, 50, 100)):
        n += rng.randint(400, 900)
        bad += rng.random() < 0.3
        stream = {item.measure: Stream(((n, bad),)) for item in policy.criteria}
        judgement = assess_rates(policy.criteria, stream, alpha=0.05, share_next=1.0, phases=6, with_bounds=True)
        hour = f"2024-01-25T{10 + index:02d}"
        phases.append({
            "share_percent": percent, "phase_s": 1800, "start": f"{hour}:00:00Z", "end": f"{hour}:30:05Z",
            **msgspec.to_builtins(judgement),
        })  # fmt: skip
    verdict = "PASS" if all(phase["verdict"] == "PASS" for phase in phases) else "INCONCLUSIVE"
    return {"phases": phases, "verdict": verdict, "blockers": [] if verdict == "PASS" else ["canary"]}


def set_to(path: str, change: Callable[[Any, random.Random], Any]) -> Callable[[Document, random.Random], None]:
    """Return what spoils the value at a path; ``*`` stands for any entry."""

    def spoil(document: Document, rng: random.Random) -> None:
        node: Any = document
        *parents, last = path.split(".")
        for part in parents:
            node = rng.choice(node) if part == "*" else node[int(part) if part.isdigit() else part]
        key: Any = rng.randrange(len(node)) if last == "*" else last
        node[key] = change(node[key], rng)

    return spoil


def add(low: float, high: float) -> Callable[[Any, random.Random], Any]:
    return lambda value, rng: (
        value + (rng.randint(int(low), int(high)) if isinstance(value, int) else rng.uniform(low, high))
    )


def put(*values: Any) -> Callable[[Any, random.Random], Any]:
    return lambda value, rng: rng.choice([other for other in values if other != value])


def scale(factor: float) -> Callable[[Any, random.Random], Any]:
    return lambda value, rng: value * factor * rng.uniform(1.1, 1.5)


MORE = add(1, 60)
SPOILERS: list[tuple[Callable[[random.Random], Document], str, Callable[[Any, random.Random], Any]]] = [
    (smoke, "total_requests", MORE),
    (smoke, "success", MORE),
    (smoke, "errors", MORE),
    (smoke, "success_rate", add(-0.09, -0.002)),
    (smoke, "success_rate", put(1.2, -0.1)),
    (smoke, "slow", add(2_000, 9_000)),
    (smoke, "latency_p50_ms", scale(10)),
    (smoke, "latency_p99_ms", scale(0.1)),
    (smoke, "latency_max_ms", scale(0.1)),
    (smoke, "latency_p95_ms", put(-3.0)),
    (smoke, "duration_s", put(0.02, 77.0)),
    (smoke, "checks.0.value", add(-0.3, -0.1)),
    (smoke, "checks.1.verdict", put("FAIL")),
    (smoke, "verdict", put("FAIL", "INCONCLUSIVE", "PASS")),
    (shadow, "attempts", MORE),
    (shadow, "ok", MORE),
    (shadow, "timeout", MORE),
    (shadow, "failures", MORE),
    (shadow, "mismatches", MORE),
    (shadow, "match_rate", add(-0.2, -0.01)),
    (shadow, "coverage", put(1.07, 0.5)),
    (shadow, "agreements", add(6_000, 9_000)),
    (shadow, "delta_histogram.counts.*", MORE),
    (shadow, "slower_than_ms.120", add(40, 90)),
    (shadow, "shadow_latency_ms.p95", put(9.9, 0.3)),
    (shadow, "error", put(-4, 2.5)),
    (drift, "overall_psi", add(0.005, 0.2)),
    (drift, "overall_psi", put(-0.02)),
    (drift, "max_psi", scale(0.3)),
    (drift, "rows", MORE),
    (drift, "reference_rows", MORE),
    (drift, "features.*.bins.*.window", MORE),
    (drift, "features.*.check.psi", add(0.01, 0.1)),
    (drift, "score.bins.*.term", add(0.01, 0.1)),
    (drift, "window.end", put("2023-12-31T00:00:00Z")),
    (drift, "checks.0.verdict", put("FAIL")),
    (gate, "base_rate", add(0.02, 0.2)),
    (gate, "lift_at_20", add(0.05, 0.5)),
    (gate, "positives", add(1_000, 9_000)),
    (gate, "rows", MORE),
    (gate, "calibration.*.n", MORE),
    (gate, "slices.day.*.n", MORE),
    (gate, "score_histogram.counts.*", MORE),
    (gate, "window.blocks", add(10, 90)),
    (gate, "checks.0.lower", add(0.1, 0.3)),
    (gate, "auc", put(1.3, -0.2)),
    (canary, "phases.*.phase_s", put(9_000)),
    (canary, "phases.*.end", put("2024-01-25T01:00:00Z", "2024-01-25T10:09:00Z")),
    (canary, "phases.*.checks.*.bad", add(5, 60)),
    (canary, "phases.*.checks.0.value", add(0.01, 0.2)),
    (canary, "phases.*.checks.0.lower", put(0.9)),
    (canary, "phases.*.verdict", put("FAIL")),
    (canary, "phases.*.checks.*.n", put(-5, 41.5)),
]  # fmt: skip


def text_of(document: Document) -> str:
    return json.dumps(document, indent=2)


# A canary report in the seed's own form, with figures that go together.
MARKDOWN = """# Canary report

## Canary run

**Confirmation:** `ONAY: Canary START 5..100%/30m observe-only`

```
Phase 1: 5%   → 30 minutes
Phase 2: 10%  → 30 minutes
Phase 3: 100% → 30 minutes

Total Duration: 90 minutes (1.5 hours)
```

### Results

| Phase | P95 (ms) | Error Rate | Match Rate | Requests | Status |
|---|---|---|---|---|---|
| **5%** | 2.74 | 2.0% | 98.0% | 50 | ✅ |
| **10%** | 2.66 | 1.0% | 97.0% | 100 | ✅ |
| **100%** | 3.00 | 0.4% | 97.6% | 1000 | ✅ |

- **Total Requests**: 1150
- **Shadow Errors**: 6 (0.52% - within threshold)
- P95 2.66-3.00ms over all phases

### SLO

| Metric | Target | Achieved | Status |
|---|---|---|---|
| **P95** | < 80ms | 2.66-3.00ms | ✅ |
| **Errors** | < 1% | 0.52% | ✅ |
| **Match** | >= 95% | 97.0% | ✅ |

## Drift

| Feature | PSI Score | Status |
|---|---|---|
| mid | 0.12 | ✅ |
| spread | 0.06 | ✅ |
| rsi | 0.09 | ✅ |
| **Overall** | 0.09 | ✅ |

- PSI > 0.2: warning
- PSI > 0.3: critical

## Smoke

| Metric | Value |
|---|---|
| Total Requests | 1000 |
| Success Rate | 99.2% |
| Latency P50 | 0.31ms |
| Latency P95 | 0.64ms |
| Errors | 8 (0.8%) |

```
ml_predict_requests_total{status="success"} 1000
ml_predict_latency_ms_bucket{le="1"} 1000
ml_prediction_score_sum 512.3
ml_prediction_score_count 1000
```

## Log

| Time | Action | Status |
|---|---|---|
| 11:17:42 | Canary dry-run | ✅ |
| 11:30:33 | Canary live | ✅ |
| 13:02:10 | Daily report | ✅ |

**Timeline:** 1-2 weeks

### Week 1 (Oct 8-14)
- Data (7 days)

**Blocker:** None
"""
PROSE_SPOILERS: list[tuple[str, str]] = [
    ("START 5..100%", "START 5%"),
    ("Total Duration: 90", "Total Duration: 150"),
    ("(1.5 hours)", "(2.5 hours)"),
    ("2.0% | 98.0% | 50", "0.35% | 98.0% | 50"),
    ("1.0% | 97.0% | 100 ", "1.0% | 97.3% | 100 "),
    ("0.4% | 97.6% | 1000", "0.37% | 97.6% | 1000"),
    ("Requests**: 1150", "Requests**: 1900"),
    ("Errors**: 6 (0.52%", "Errors**: 18 (1.57%"),
    ("Errors**: 6 (0.52%", "Errors**: 6 (0.95%"),
    ("P95 2.66-3.00ms over", "P95 2.10-3.00ms over"),
    ("| 2.66-3.00ms | ✅", "| 2.66-93.00ms | ✅"),
    ("| 97.0% | ✅ |\n\n## Drift", "| 92.0% | ✅ |\n\n## Drift"),
    ("| **Overall** | 0.09", "| **Overall** | 0.31"),
    ("| **Overall** | 0.09", "| **Overall** | 0.07"),
    ("PSI > 0.3: critical", "PSI > 0.2: critical"),
    ("| Success Rate | 99.2%", "| Success Rate | 100%"),
    ("| Success Rate | 99.2%", "| Success Rate | 99.25%"),
    ("| Latency P95 | 0.64ms", "| Latency P95 | 2.64ms"),
    ("| Latency P50 | 0.31ms", "| Latency P50 | 0.91ms"),
    ("8 (0.8%)", "8 (1.1%)"),
    ("sum 512.3", "sum 999.999"),
    ("13:02:10", "11:39:24"),
    ("### Week 1 (Oct 8-14)", "### Plan\n\nWeek 5: promote\n\n### Week 1 (Oct 8-14)"),
    ("(7 days)", "(14 days)"),
    ("**Blocker:** None", "**Blocker:** None (runtime cycle to be resolved)"),
    ("| mid | 0.12 | ✅", "| mid | 0.12 | ❌ Critical\nAll thresholds met.\n| mid | 0.12 | ✅"),
    ("### SLO\n", "**Rollback:** TESTED\n- ready but not needed\n\n### SLO\n"),
]


def test_untouched_reports_have_no_finding() -> None:
    """Consistent reports of every kind, two hundred of them, give none, nor does one in the seed's own form."""
    rng = random.Random(1)
    for make in (smoke, shadow, drift, gate, canary):
        for _ in range(40):
            document = text_of(make(rng))
            assert lint_report(document) == [], document
    assert lint_report(MARKDOWN) == []


def test_injected_impossibilities_are_found() -> None:
    """Of two hundred impossibilities put at random into reports like ours, at least 95 % are found."""
    rng = random.Random(2)
    missed = []
    for index in range(200):
        if index % 4 == 3:
            old, new = rng.choice(PROSE_SPOILERS)
            assert old in MARKDOWN
            found, name = lint_report(MARKDOWN.replace(old, new, 1)), new
        else:
            make, path, change = rng.choice(SPOILERS)
            document = json.loads(text_of(make(rng)))
            set_to(path, change)(document, rng)
            found, name = lint_report(text_of(document)), f"{make.__name__}.{path}"
        if not found:
            missed.append(name)
    assert len(missed) <= 10, missed


@pytest.mark.parametrize(("old", "new"), PROSE_SPOILERS)
def test_each_spoilt_sentence_is_found_in_its_place(old: str, new: str) -> None:
    """Each contradiction in the Markdown report is found within the lines that make it."""
    spoilt = MARKDOWN.replace(old, new, 1)
    findings = lint_report(spoilt)
    assert findings
    assert all(1 <= finding.line <= spoilt.count("\n") for finding in findings)


def test_lines_are_those_of_the_figures() -> None:
    """A finding in JSON names the line of the figure, and one in Markdown that of the row."""
    document = text_of({"total_requests": 10, "nested": {"total_requests": 50, "error_rate": 0.0035}})
    assert [finding.line for finding in lint_report(document)] == [5]
    spoilt = MARKDOWN.replace("2.0% | 98.0% | 50", "0.35% | 98.0% | 50")
    row = next(i for i, line in enumerate(spoilt.splitlines(), 1) if "0.35%" in line)
    assert row in {finding.line for finding in lint_report(spoilt)}


# What the seed's document gets wrong, line by line, as a reader finds it; facts §5 lists most of them.
SEED = {
    (177, "green-over-red"), (240, "quantile-and-bucket"), (243, "saturation"), (348, "green-over-red"), (393, "mock"),
    (401, "excluded-failures"), (405, "excluded-failures"), (413, "excluded-failures"), (446, "unobservable"),
    (448, "thresholds"), (576, "green-over-red"), (795, "green-over-red"), (821, "absent-yet-measured"),
    (876, "calendar"), (905, "duration"), (958, "confirmation"), (967, "share-of-count"), (968, "share-of-count"),
    (969, "share-of-count"), (970, "share-of-count"), (971, "share-of-count"), (978, "sum"), (978, "mean"),
    (1023, "tested-but-unused"),
}  # fmt: skip


def test_seed_document(shared_data: Path) -> None:
    """The seed's document yields its known contradictions, each with its line."""
    path = shared_data.parent / "reference" / "seed-evidence-v1.8.md"
    if not path.is_file():
        pytest.skip(f"the seed's document is not at {path}")
    found = {(finding.line, finding.rule) for finding in lint_report(path.read_text(encoding="utf-8"))}
    assert found >= SEED
    assert len({line for line, _ in found}) >= 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,', "line 1: not JSON"),
        ('{"a": 1\n"b": 2}', "line 2: ',' or '}' expected"),
        ('{"a": ]}', "line 1: unexpected ']'"),
        ("[1] 2", "line 1: text after the end"),
        ("{1: 2}", "line 1: a key and a colon expected"),
        ("[" * 100 + "]" * 100, "nested too deeply"),
        (" " * 5_000_001, "longer than 5,000,000 characters"),
    ],
)
def test_bad_input(text: str, message: str) -> None:
    """Broken, deep and huge reports are refused with their line, and crash nothing."""
    with pytest.raises(DataError, match=re.escape(message)):
        lint_report(text, place="r.json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no figures",
        "| a |\n",
        "|",
        "# \n|a|b|\n|-|-|\n|1|",
        "```json\n{broken\n```",
        '{"n": null, "rate": NaN}',
        "[]",
    ],
)
def test_odd_documents(text: str) -> None:
    """Empty, ragged and cut documents are read, and contradict nothing."""
    assert lint_report(text) == []


@pytest.mark.parametrize(
    "text",
    [
        '{"n": 1e999, "error_rate": 0e300, "p95": 1e-99999}',
        '{"n": ' + "9" * 400 + ', "error_rate": 0.5, "match_rate": 0.1}',
        '{"n": 1e18, "error_rate": 1, "match_rate": 0.3333}',
        '{"name": "' + "(" * 100_000 + '", "value": 0.5, "n": 3, "verdict": "PASS", "bound": 1}',
        "| figure | value |\n|---|---|\n| " + "a." * 900 + " | 1 |\n",
        "| figure | value |\n|---|---|\n" + "| a | 1 |\n| a.b | 2 |\n| a[0].b | 3 |\n",
        "1" * 400_000 + "/1 (100%)",
        "- P95: " + "9" * 3_000 + "\n- START " + "9" * 1_900 + "%",
    ],
)
def test_hostile_documents(text: str) -> None:
    """Huge numbers, deep names and long lines end in findings or none, at once, and crash nothing."""
    lint_report(text)


@settings(deadline=None)
@given(st.text(alphabet='|-*#`{}[]",: .%<>0123456789eE/()ampPstl_\n✅❌→', max_size=400))
def test_any_text_is_read(text: str) -> None:
    """No text crashes the reader: it is read, or refused with its line."""
    with contextlib.suppress(DataError):
        lint_report(text)
