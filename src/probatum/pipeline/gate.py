"""Judge an artifact on rows it never saw, by bounds rather than estimates, from stored predictions that anyone can check.

Figures of ``offline_report``: ``verdict``, ``checks``; the seed's ``version``, ``auc``, ``precision_at_20``,
``recall_at_20``, ``timestamp`` (of the last judged row: the record's own time is in the ledger); ``rows``, ``positives``,
``base_rate``, ``lift_at_20``, ``precision_top_20_rows`` (information only: a coin passes it one time in four); ``window``;
``roc`` {false_positive_rate, true_positive_rate, lower, upper}; ``calibration``, ``brier``, ``ece``; ``score_histogram`` {edges, counts}; ``slices`` {symbol, day};
``correlations``; ``baseline`` and ``champion`` {name, auc, difference, reason}; ``returns`` or ``moves`` by target.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from probatum.core.clock import NS_PER_MINUTE, NS_PER_MS, NS_PER_S, format_utc, utc_day
from probatum.core.errors import IntegrityError, ParameterError
from probatum.features.labels import parse_target
from probatum.features.sets import FEATURE_SETS
from probatum.models import metrics
from probatum.models.artifact import Artifact
from probatum.models.baseline import get_baseline
from probatum.models.metrics import Bootstrap, Estimate, Floats
from probatum.models.scoring import score_rows
from probatum.pipeline.evidence import prove_once, same_inputs
from probatum.pipeline.ports import Ledger, Progress, Record, Sources
from probatum.pipeline.predictions import Predictions, predict_test, read_predictions
from probatum.pipeline.registry import load_artifact as load_artifact
from probatum.rollout.criteria import ALPHA, GATE_CRITERIA, Measurement, assess

SEED = 7
_ROC_POINTS = 101
_HISTOGRAM_BINS = 20
_PAIRS_SHOWN = 10
_BP = 1e4
_TAIL = 10  # resamples beyond a bound: fewer and the bound is that of chance


def block_ns_of(target: str) -> int:
    """Return the length of a bootstrap block: sixty horizons, an hour for 60 s; ten minutes for a target without one."""
    return 60 * parse_target(target).horizon_ns or 10 * NS_PER_MINUTE


def run_gate(
    ledger: Ledger,
    sources: Sources,
    digest: str,
    *,
    champion: str | None = None,
    cost_bp: float | None = None,
    alpha: float = ALPHA,
    progress: Progress | None = None,
) -> Record:
    """Score the artifact's test rows, store the predictions, and append ``offline_report`` with the verdict.

    ``alpha`` is the one-sided error of the bounds; judged again, an artifact is held to the least that it was judged at.
    The same judgement twice is one record.
    ``champion`` is the digest of the artifact to compare with, where it has the same target. ``cost_bp`` is what a
    change of position by one costs; without it, half the spread where the features hold one.
    """
    if cost_bp is not None and not 0.0 <= cost_bp < _BP:
        raise ParameterError("cost_bp", "a number of basis points in [0, 10000)", cost_bp)
    if not 0.0 < alpha <= ALPHA:
        raise ParameterError("alpha", f"a number in (0, {ALPHA}]", alpha)
    artifact = load_artifact(sources, digest)
    rival = None if champion in (None, digest) else load_artifact(sources, str(champion))
    rival = rival if rival is not None and rival.target == artifact.target else None
    pairs = zip(artifact.data.symbols, artifact.data.sha256, strict=True)
    datasets = [sources.datasets.load(symbol, sha256) for symbol, sha256 in pairs]
    earlier = [r.body["inputs"] for r in ledger.records(kind="offline_report", subject=artifact.name)]
    alpha = min([alpha, *(given["alpha"] for given in earlier if given["artifact"] == digest)])
    inputs = {
        "artifact": digest,
        "predictions": sources.blobs.put("predictions", predict_test(artifact, datasets, rival, progress)),
        "champion": None if rival is None else {"name": rival.name, "artifact": champion},
        "cost_bp": cost_bp,
        "block_ms": block_ns_of(artifact.target) // NS_PER_MS,
        "alpha": alpha,
        "resamples": max(metrics.RESAMPLES, ceil(_TAIL / alpha)),
        "seed": SEED,
    }
    return prove_once(
        ledger,
        sources,
        kind="offline_report",
        subject=artifact.name,
        provenance=artifact.data.provenance,
        inputs=inputs,
        derive=figures,
        standing=same_inputs(inputs),
    )


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Compute every figure of the gate from the artifact and the stored predictions alone.

    Raises IntegrityError where a stored score is not, bit for bit, what the artifact gives for the stored features.
    """
    artifact = load_artifact(sources, inputs["artifact"])
    place = f"predictions {inputs['predictions'][:12]}…"
    rows = read_predictions(sources.blobs.get("predictions", inputs["predictions"]), place)
    _same_scores(artifact, rows, place)
    block = metrics.blocks_of(rows.ts, inputs["block_ms"] * NS_PER_MS)
    boot = Bootstrap.draw(block, seed=inputs["seed"], resamples=inputs["resamples"])
    measured, curve, areas = _rank_metrics(rows.score, rows.label, boot, inputs["alpha"])
    levels = _level_features(artifact)
    judged = assess(GATE_CRITERIA, _measurements(rows, measured, levels))
    champion = inputs["champion"]
    found = {
        "verdict": judged.verdict,
        "checks": msgspec.to_builtins(judged.checks),
        "version": artifact.name,
        "target": artifact.target,
        "timestamp": format_utc(int(rows.ts[-1])),
        **{name: estimate.value for name, estimate in measured.items()},
        **_counts(rows),
        "window": _window(rows, block, inputs),
        "roc": curve,
        **_shape(rows),
        "level_features": levels,
        "slices": {"symbol": _slices(rows, rows.symbol), "day": _slices(rows, _days(rows.ts))},
        "baseline": _compare(get_baseline(artifact.target).name, rows.baseline, rows, boot, areas),
        "champion": champion and _compare(champion["name"], rows.champion, rows, boot, areas),
        **_economics(artifact, rows, boot, inputs["cost_bp"]),
    }
    return {name: rounded(value) for name, value in found.items()}


def _measurements(rows: Predictions, ranked: dict[str, Estimate], levels: list[str]) -> dict[str, Measurement]:
    n = len(rows)
    counted = {
        "constant_score": metrics.commonest_share(rows.score),
        "saturation": metrics.saturated_share(rows.score),
        "level_features": float(len(levels)),
        "calibration_ece": metrics.ece(rows.score, rows.label),
    }
    return {
        **{name: Measurement(item.value, item.lower, item.upper, n) for name, item in ranked.items()},
        **{name: Measurement.counted(value, n) for name, value in counted.items()},
    }


def _shape(rows: Predictions) -> dict[str, Any]:
    pairs = metrics.correlations(rows.values, rows.names)[:_PAIRS_SHOWN]
    return {
        "brier": metrics.brier(rows.score, rows.label),
        "ece": metrics.ece(rows.score, rows.label),
        "calibration": metrics.calibration(rows.score, rows.label),
        "score_histogram": _histogram(rows.score),
        "correlations": [{"a": a, "b": b, "r": r} for a, b, r in pairs],
    }


def _same_scores(artifact: Artifact, rows: Predictions, place: str) -> None:
    if rows.names != artifact.features.names:
        raise IntegrityError(place, f"features are not those of artifact {artifact.name}")
    differs = np.flatnonzero(score_rows(artifact, rows.values) != rows.score)
    if len(differs):
        raise IntegrityError(place, f"row {differs[0] + 1}, score: the artifact gives another score for these features")


def _rank_metrics(
    score: Floats, label: NDArray[np.int8], boot: Bootstrap, alpha: float
) -> tuple[dict[str, Estimate], dict[str, list[float]], Floats]:
    """Return AUC and precision with bounds, the ROC with its band, and the resampled AUCs for paired differences."""
    grid = np.linspace(0.0, 1.0, _ROC_POINTS)
    ranked = metrics.rank(score, label)
    statistics: tuple[Callable[[Floats, Floats], Floats], ...] = (
        metrics.auc_of,
        metrics.precision_of,
        lambda rows, positives: metrics.roc_points(rows, positives, grid),
    )
    whole = metrics.curves(ranked, np.ones((1, len(score))))
    areas, precisions, band = boot.ranked(ranked, *statistics)
    estimates = {
        "auc": boot.estimate(float(metrics.auc_of(*whole)[0]), areas, alpha),
        "precision_at_20": boot.estimate(float(metrics.precision_of(*whole)[0]), precisions, alpha),
    }
    return estimates, _roc(grid, metrics.roc_points(*whole, grid)[0], band), areas


def _roc(grid: Floats, tpr: Floats, band: Floats) -> dict[str, list[float]]:
    defined = band[~np.isnan(band).any(axis=1)]
    if np.isnan(tpr).any() or not len(defined):
        return {}
    lower, upper = np.quantile(defined, (ALPHA, 1.0 - ALPHA), axis=0)
    return {
        "false_positive_rate": grid.tolist(),
        "true_positive_rate": tpr.tolist(),
        "lower": lower.tolist(),
        "upper": upper.tolist(),
    }


def _counts(rows: Predictions) -> dict[str, Any]:
    n, positives = len(rows), int(rows.label.sum())
    cumulated = metrics.curves(metrics.rank(rows.score, rows.label), np.ones((1, n)))
    precision = float(metrics.precision_of(*cumulated)[0])
    recall = float(metrics.recall_of(*cumulated)[0])
    return {
        "rows": n,
        "positives": positives,
        "base_rate": positives / n,
        "recall_at_20": recall if positives else None,
        "lift_at_20": precision * n / positives if positives else None,
        "precision_top_20_rows": float(metrics.precision_of(*cumulated, min(20 / n, 1.0))[0]),
    }


def _window(rows: Predictions, block: NDArray[np.int64], inputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "start": format_utc(int(rows.ts[0])),
        "end": format_utc(int(rows.ts[-1])),
        "blocks": int(block.max()) + 1,
        "block_s": inputs["block_ms"] * NS_PER_MS / NS_PER_S,
    }


def _level_features(artifact: Artifact) -> list[str]:
    declared = FEATURE_SETS[artifact.features.set].features if artifact.features.set in FEATURE_SETS else ()
    return [feature.name for feature in declared if feature.level and feature.name in artifact.features.names]


def _histogram(score: Floats) -> dict[str, Any]:
    counts, edges = np.histogram(score, bins=_HISTOGRAM_BINS, range=(0.0, 1.0))
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _days(ts: NDArray[np.int64]) -> NDArray[np.str_]:
    days, index = np.unique(ts // (24 * 60 * NS_PER_MINUTE), return_inverse=True)
    return np.array([utc_day(int(day) * 24 * 60 * NS_PER_MINUTE) for day in days])[index]


def _slices(rows: Predictions, by: NDArray[np.str_]) -> list[dict[str, Any]]:
    found = []
    for name in np.unique(by):
        score, label = rows.score[by == name], rows.label[by == name]
        area = metrics.auc(score, label)
        found.append(
            {
                "name": str(name),
                "n": len(label),
                "positives": int(label.sum()),
                "auc": None if np.isnan(area) else area,
                "precision_at_20": metrics.precision_at(score, label),
            }
        )
    return found


def _compare(name: str, score: Floats | None, rows: Predictions, boot: Bootstrap, areas: Floats) -> dict[str, Any]:
    """Return another rule's AUC and how much better the model is, on the same resamples."""
    if score is None:
        return {"name": name, "auc": None, "difference": None, "reason": "these features do not hold what it needs"}
    ranked = metrics.rank(score, rows.label)
    (others,) = boot.ranked(ranked, metrics.auc_of)
    area, other = metrics.auc(rows.score, rows.label), metrics.auc(score, rows.label)
    difference = boot.estimate(area - other, areas - others, ALPHA)
    return {"name": name, "auc": None if np.isnan(other) else other, "difference": vars(difference), "reason": ""}


def _economics(artifact: Artifact, rows: Predictions, boot: Bootstrap, cost_bp: float | None) -> dict[str, Any]:
    target = parse_target(artifact.target)
    if target.kind == "large_move":
        return {"moves": _moves(rows)}
    if target.kind != "direction":
        return {}
    note = "only rows whose price moved, known afterwards: nobody can earn this" if target.drop_unchanged else ""
    return {"returns": {**_returns(rows, boot, cost_bp), "note": note}}


def _moves(rows: Predictions) -> dict[str, Any]:
    """Compare the size of returns in the chosen fifth with the rest: a filter for risk, not a signal to buy."""
    chosen, size = metrics.in_top(rows.score), np.abs(rows.fwd_return) * _BP
    inside, outside = float(np.average(size, weights=chosen)), float(np.average(size, weights=1.0 - chosen))
    return {
        "mean_abs_return_chosen_bp": inside,
        "mean_abs_return_rest_bp": outside,
        "ratio": inside / outside if outside else None,
    }


def _returns(rows: Predictions, boot: Bootstrap, cost_bp: float | None) -> dict[str, Any]:
    """Trade every decision by one unit, long above 0.5 and short below, and pay for each change of position."""
    position = metrics.positions(rows.score)
    change = np.empty(len(rows))
    for symbol in np.unique(rows.symbol):
        own = rows.symbol == symbol
        change[own] = np.abs(np.diff(position[own], prepend=0.0))
    cost, source = _cost(rows, cost_bp)
    gross = position * rows.fwd_return * _BP
    found = {"gross_bp": _mean(gross, boot), "turnover": float(change.mean()), "cost": source}
    return {**found, "net_bp": None if cost is None else _mean(gross - cost * change, boot)}


def _cost(rows: Predictions, cost_bp: float | None) -> tuple[Floats | float | None, str]:
    if cost_bp is not None:
        return cost_bp, f"{cost_bp:g} bp for a change of position by one"
    if "spread_bp" in rows.names:
        return rows.values[:, rows.names.index("spread_bp")] / 2.0, "half the spread for a change of position by one"
    return None, "unknown: the features hold no spread and no cost was given"


def _mean(values: Floats, boot: Bootstrap) -> dict[str, float | None]:
    return vars(boot.estimate(float(values.mean()), boot.mean(values), ALPHA))


def rounded(value: Any) -> Any:
    """Keep ten decimals of every float: sums may differ in the last bits between machines, and evidence may not."""
    if isinstance(value, float):
        return round(value, 10) + 0.0
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value
