"""Check data before a model is trained on them again: is there enough, whole, on one clock, and are its columns usable?

Figures of ``retrain_data``: ``verdict``, ``checks``; ``span`` {start, end}; ``symbols`` (each symbol's measures); ``columns``, for each
candidate set the tests of each column (:class:`probatum.monitoring.stationarity.Stationarity`) and ``correlated`` pairs.
Columns are tested on the training part only: the part that the gate will judge stays unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import polars as pl

from probatum.core.clock import NS_PER_DAY, NS_PER_MINUTE, NS_PER_MS, format_utc
from probatum.core.verdict import Provenance, Verdict
from probatum.features.samples import Samples
from probatum.features.splits import Split
from probatum.market.dataset import Dataset
from probatum.market.quality import covered_minutes, gaps
from probatum.models.metrics import correlations
from probatum.monitoring.stationarity import Reading, load_statsmodels, stationarity
from probatum.pipeline.evidence import prove_once, same_inputs
from probatum.pipeline.ports import Ledger, Progress, Record, Sources
from probatum.pipeline.registry import load_artifact
from probatum.pipeline.training import TrainingPlan, samples_of, training_inputs
from probatum.rollout.criteria import (
    ALPHA,
    CORRELATED,
    RETRAIN_DATA_CRITERIA,
    RETRAIN_FEATURE_CRITERIA,
    Check,
    Measurement,
    assess,
)

KIND = "retrain_data"
_MENDS = {
    "incomplete": "import the missing rows",
    "gaps_unexplained": "import the missing rows, or import again with --explain-gap",
    "clock_skew_ms": "a host clock that is synchronised, and data recorded with it",
    "unit_roots": "a stationary form of the column (return, ratio, z-score); the promote gate will ask",
    "correlated": "leaving one of each pair out",
}


def check_data(
    ledger: Ledger, sources: Sources, model: str, plans: Sequence[TrainingPlan], progress: Progress | None = None
) -> Record:
    """Check the newest data of ``plans`` (all of the same symbols) and append ``retrain_data``, once for the same data.

    ``model`` is the digest of the artifact to be replaced. Raises MissingExtraError without statsmodels.
    """
    load_statsmodels()
    datasets = [sources.datasets.load(symbol) for symbol in sorted(plans[0].symbols)]
    artifact = load_artifact(sources, model)
    inputs = {
        "artifact": model,
        "symbols": [dataset.symbol for dataset in datasets],
        "datasets": [dataset.sha256 for dataset in datasets],
        "trainings": [training_inputs(plan, datasets) for plan in plans],
    }
    return prove_once(
        ledger,
        sources,
        kind=KIND,
        subject=artifact.name,
        provenance=Provenance.weakest([artifact.data.provenance, *(dataset.provenance for dataset in datasets)]),
        inputs=inputs,
        derive=lambda seen, _sources: measure(seen["trainings"], datasets, progress),
        standing=same_inputs(inputs),
    )


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Measure the recorded datasets again."""
    pairs = zip(inputs["symbols"], inputs["datasets"], strict=True)
    return measure(inputs["trainings"], [sources.datasets.load(symbol, sha256) for symbol, sha256 in pairs])


def measure(
    trainings: Sequence[dict[str, Any]], datasets: Sequence[Dataset], progress: Progress | None = None
) -> dict[str, Any]:
    """Return every figure of the checks: a pure function of datasets and of the inputs of the trainings to come.

    Columns are looked at only where the data themselves pass.
    """
    symbols = {dataset.symbol: _measure(dataset) for dataset in datasets}
    worst = _worst(list(symbols.values()))
    judged = assess([item for item in RETRAIN_DATA_CRITERIA if item.name in worst], worst)
    checks, columns, verdict = [_worded(item) for item in judged.checks], list[dict[str, Any]](), judged.verdict
    if verdict is Verdict.PASS:
        columns = [_columns(inputs, *samples_of(inputs, datasets, progress)) for inputs in trainings]
        further = assess(RETRAIN_FEATURE_CRITERIA, _of_columns(columns))
        checks += [_worded(item, _names(item.name, columns)) for item in further.checks]
        verdict = further.verdict
    ends = [frame["ts_event"] for dataset in datasets for frame in (dataset.frames[dataset.spine],)]
    return {
        "verdict": verdict,
        "checks": msgspec.to_builtins(checks),
        "span": {
            "start": format_utc(min(int(ts[0]) for ts in ends)),
            "end": format_utc(max(int(ts[-1]) for ts in ends)),
        },
        "symbols": {symbol: {name: item.value for name, item in found.items()} for symbol, found in symbols.items()},
        "columns": columns,
    }


def _measure(dataset: Dataset) -> dict[str, Measurement]:
    ts = dataset.frames[dataset.spine]["ts_event"]
    minutes = (int(ts[-1]) - 1) // NS_PER_MINUTE - (int(ts[0]) - 1) // NS_PER_MINUTE + 1
    have, expected = covered_minutes(dataset)
    unexplained = sum(gap.reason is None for gap in gaps(dataset))
    found = {
        "days": Measurement.counted(minutes / 1_440, minutes),
        "incomplete": Measurement.counted(1.0 - have / expected if expected else 1.0, expected),
        "gaps_unexplained": Measurement.counted(float(unexplained), expected),
    }
    skews = [skew for frame in dataset.frames.values() if (skew := clock_skew_ms(frame)) is not None]
    return found | ({"clock_skew_ms": Measurement.counted(max(skews), ts.len())} if skews else {})


def _worst(found: Sequence[dict[str, Measurement]]) -> dict[str, Measurement]:
    """Return each criterion's worst measurement over the symbols that have it: only one with two clocks has a skew."""
    worst = {}
    for item in RETRAIN_DATA_CRITERIA:
        pick = min if item.direction == "at_least" else max
        if measured := [one[item.name] for one in found if item.name in one]:
            worst[item.name] = pick(measured, key=lambda one: one.value or 0.0)
    return worst


def _columns(inputs: dict[str, Any], samples: Samples, parts: Split) -> dict[str, Any]:
    train = samples.take(parts.train)
    names = samples.feature_set.names
    tested = [
        {"symbol": symbol, **msgspec.to_builtins(stationarity(name, train.values[train.symbol == symbol, i], ALPHA))}
        for symbol in inputs["symbols"]
        for i, name in enumerate(names)
    ]
    pairs = [(a, b, r) for a, b, r in correlations(train.values, names) if abs(r) > CORRELATED]
    return {
        "set": inputs["set"],
        "rows": len(samples),
        "train_rows": len(parts.train),
        "columns": tested,
        "correlated": [{"a": a, "b": b, "r": float(f"{r:.10g}")} for a, b, r in pairs],
    }


def _of_columns(found: Sequence[dict[str, Any]]) -> dict[str, Measurement]:
    rows = min(item["rows"] for item in found)
    counts = {"rows": rows, **{name: len(_names(name, found)) for name in ("unit_roots", "correlated")}}
    return {name: Measurement.counted(float(count), rows) for name, count in counts.items()}


def _names(check: str, found: Sequence[dict[str, Any]]) -> list[str]:
    """Return which columns, or pairs of them, a check counts, each once whatever set holds it."""
    if check == "correlated":
        return list(dict.fromkeys(f"{pair['a']} and {pair['b']}" for item in found for pair in item["correlated"]))
    roots = [one["name"] for item in found for one in item["columns"] if one["reading"] == Reading.UNIT_ROOT]
    return list(dict.fromkeys(roots)) if check == "unit_roots" else []


def _worded(item: Check, names: Sequence[str] = ()) -> Check:
    """Say which columns a check is about and what would mend it, where it is no PASS for want of more rows."""
    if item.verdict is not Verdict.FAIL:
        return item
    reason = f"{item.reason}: {', '.join(names)}" if names else item.reason
    return msgspec.structs.replace(item, reason=reason, settle=_MENDS[item.name])


def clock_skew_ms(frame: pl.DataFrame) -> float | None:
    """Return the largest daily median of |received − event time| in ms; None where the source has one time only.

    A median, for a slow packet is no skew; by day, for a clock that was set right later was wrong before.
    """
    apart = frame.select(day=pl.col("ts_event") // NS_PER_DAY, apart=(pl.col("ts_recv") - pl.col("ts_event")).abs())
    if not (apart["apart"] > 0).any():
        return None
    medians = apart.group_by("day").agg(pl.col("apart").median())["apart"]
    return float(medians.max()) / NS_PER_MS  # type: ignore[arg-type]
