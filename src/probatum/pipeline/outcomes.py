"""Judge what a model said live against what then happened: AUC, Brier, calibration, and how often it lost where it differed.

Figures of ``outcomes``: ``verdict``, ``checks``; ``version``, ``target``; ``logged`` = ``unheard`` + ``other_scores`` (another model's) +
``no_data`` + ``off_grid`` + ``unlabelled`` + ``joined``; ``start``, ``end`` of the joined decisions; ``model`` and ``baseline`` {auc, lower,
upper, brier, ece}; ``calibration``; ``losses`` to the baseline, and to the champion where one was compared: {n, losses, rate, lower,
upper, n_needed, missing}, over outcomes that do not overlap.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from probatum.core.clock import NS_PER_DAY, NS_PER_MINUTE, NS_PER_MS, format_utc
from probatum.core.errors import InconclusiveError
from probatum.core.verdict import Provenance
from probatum.features.labels import parse_target
from probatum.features.samples import labelled
from probatum.market.dataset import Dataset
from probatum.models import metrics
from probatum.models.artifact import Artifact, served_set
from probatum.models.metrics import Bootstrap, Estimate, Floats
from probatum.models.scoring import score_rows
from probatum.monitoring.outcomes import apart, differs, is_right, labels_at
from probatum.monitoring.shadow import MODEL_CHARS, Outcome
from probatum.pipeline import logged
from probatum.pipeline.evidence import prove
from probatum.pipeline.gate import SEED, block_ns_of, rounded
from probatum.pipeline.ports import Decisions, Ledger, Record, Sources
from probatum.pipeline.registry import load_artifact
from probatum.rollout.bounds import sequence_lower, sequence_upper
from probatum.rollout.criteria import ALPHA, GATE_CRITERIA, Criterion, Measurement, assess
from probatum.rollout.eprocess import n_needed
from probatum.rollout.policy import shipped_policy

KIND = "outcomes"
_HISTORY_NS = 7 * NS_PER_DAY
"""So much before the first decision is folded: warm-up and the trailing median, over a week-end too."""

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def judge_outcomes(
    ledger: Ledger,
    sources: Sources,
    decisions: Decisions,
    model: str,
    *,
    start_ns: int,
    end_ns: int,
    champion: str | None = None,
    dataset: str | None = None,
) -> Record:
    """Join the decisions logged of a model (digest) in [start, end) with their labels and append ``outcomes``.

    ``champion`` (digest) is scored on the same logged features, where it has the same ones and the same target. ``dataset``
    names the market data where they are not stored under the symbol that was logged. Raises InconclusiveError where no
    decision of the model was logged.
    """
    artifact = load_artifact(sources, model)
    frame = decisions.read(start_ns, end_ns)
    mine = frame.filter(
        (pl.col("model") == model[:MODEL_CHARS]) & (pl.col("fingerprint") == artifact.features.fingerprint)
    )
    if mine.is_empty():
        others = sorted(set(frame["model"].drop_nulls()) - {""})
        raise InconclusiveError(
            f"no decision of {artifact.name} ({model[:MODEL_CHARS]}) was logged in this time; "
            f"{frame.height:,} of other models: {', '.join(others) or 'none named'}"
        )
    datasets = logged.datasets_of(sources, mine, dataset)
    inputs = {
        "artifact": model,
        "decisions": sources.blobs.put("decisions", logged.encode(mine)),
        **logged.inputs_of(datasets),
        "champion": _rival(sources, artifact, model, champion),
        "block_ms": block_ns_of(artifact.target) // NS_PER_MS,
        "resamples": metrics.RESAMPLES,
        "seed": SEED,
    }
    return prove(
        ledger,
        sources,
        kind=KIND,
        subject=artifact.name,
        provenance=Provenance.weakest([artifact.data.provenance, logged.class_of(mine, datasets)]),
        inputs=inputs,
        derive=figures,
    )


def _rival(sources: Sources, artifact: Artifact, model: str, champion: str | None) -> dict[str, str] | None:
    if champion in (None, model):
        return None
    rival = load_artifact(sources, str(champion))
    same = (rival.target, rival.features.fingerprint) == (artifact.target, artifact.features.fingerprint)
    return {"name": rival.name, "artifact": str(champion)} if same else None


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Join and judge the stored decisions: scores are recomputed by the artifact, labels from the named datasets."""
    artifact, frame = load_artifact(sources, inputs["artifact"]), logged.decode(sources, inputs["decisions"])
    datasets = logged.load(sources, inputs)
    counts, rows = _join(artifact, frame, datasets)
    rival = inputs["champion"]
    others = {"baseline": rows.frame["baseline"].to_numpy()}
    if rival:
        others["champion"] = score_rows(load_artifact(sources, rival["artifact"]), rows.values)
    losses = {name: _losses(rows, score) for name, score in others.items()}
    boot = _bootstrap(rows, inputs)
    model = _quality(rows.score, rows.hit, boot)
    measured = {f"losses_to_{name}": found for name, (found, _) in losses.items()}
    measured["auc"] = Measurement(model["auc"], model["lower"], model["upper"], len(rows.hit))
    measured["calibration_ece"] = Measurement(model["ece"], model["ece"], model["ece"], len(rows.hit))
    judged = assess(_criteria(others), measured)
    return {
        "verdict": judged.verdict,
        "checks": rounded(msgspec.to_builtins(judged.checks)),
        "version": artifact.name,
        "target": artifact.target,
        "provenance": logged.class_of(frame, datasets),
        "logged": frame.height,
        **counts,
        "joined": len(rows.hit),
        "positives": int(rows.hit.sum()),
        "start": format_utc(int(rows.as_of.min())) if len(rows.hit) else None,
        "end": format_utc(int(rows.as_of.max())) if len(rows.hit) else None,
        "model": rounded(model),
        "baseline": rounded(_quality(others["baseline"], rows.hit, boot)),
        "champion": rival and {"name": rival["name"], **rounded(_quality(others["champion"], rows.hit, boot))},
        "calibration": rounded(metrics.calibration(rows.score, rows.hit)) if len(rows.hit) else [],
        "losses": {name: rounded(shown) for name, (_, shown) in losses.items()},
    }


class _Rows(msgspec.Struct):
    """Hold the joined decisions in the order in which their outcomes were known."""

    frame: pl.DataFrame
    values: Floats
    score: Floats
    hit: Flags
    known: Ints

    @property
    def as_of(self) -> Ints:
        return self.frame["as_of"].to_numpy()


def _join(artifact: Artifact, frame: pl.DataFrame, datasets: dict[str, Dataset]) -> tuple[dict[str, int], _Rows]:
    """Return what became of the decisions that were not joined, and those that were."""
    gated = frame["champion_outcome"] != ""
    outcome = pl.select(pl.when(gated).then(frame["champion_outcome"]).otherwise(frame["outcome"])).to_series()
    told = pl.select(pl.when(gated).then(frame["champion"]).otherwise(frame["challenger"])).to_series()
    values, score = logged.values_of(frame, artifact.features.names), told.fill_null(float("nan")).to_numpy()
    heard = (outcome == Outcome.OK.value).to_numpy() & ~np.isnan(score)
    own = heard & (score_rows(artifact, values) == score)
    hit, known, found, has_data = _labels(artifact, frame, datasets)
    counts = {
        "unheard": ~heard,
        "other_scores": heard & ~own,
        "no_data": own & ~has_data,
        "off_grid": own & has_data & ~found,
        "unlabelled": own & found & (known < 0),
    }
    joined = np.flatnonzero(own & (known >= 0))
    names = np.unique(frame["symbol"].to_numpy().astype(np.str_), return_inverse=True)[1]
    keys = (frame["seq"].to_numpy(), frame["ts"].to_numpy(), names, frame["as_of"].to_numpy(), known)
    order = joined[np.lexsort([key[joined] for key in keys])]
    rows = _Rows(frame[order.tolist()], values[order], score[order], hit[order], known[order])
    return {name: int(mask.sum()) for name, mask in counts.items()}, rows


def _labels(artifact: Artifact, frame: pl.DataFrame, datasets: dict[str, Dataset]) -> tuple[Flags, Ints, Flags, Flags]:
    """Return label, when it was known (−1: never), whether there is a row at the decision's time, and whether there are data."""
    n, symbol, as_of = frame.height, frame["symbol"].to_numpy(), frame["as_of"].to_numpy()
    hit, known = np.zeros(n, dtype=np.bool_), np.full(n, -1, dtype=np.int64)
    found, has_data = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    feature_set, target = served_set(artifact.features, f"artifact {artifact.name}"), parse_target(artifact.target)
    for name, dataset in datasets.items():
        mine = symbol == name
        warm_ns = feature_set.memory_minutes * NS_PER_MINUTE + _HISTORY_NS
        cut = dataset.between(int(as_of[mine].min()) - warm_ns, np.iinfo(np.int64).max)
        has_data[mine] = True
        if any(not part.is_empty() for part in cut.frames.values()):
            batch, labels = labelled(cut, feature_set, target, artifact.grid_ns)
            hit[mine], known[mine], found[mine] = labels_at(batch.ts, labels, as_of[mine])
    return hit, known, found, has_data


def _losses(rows: _Rows, other: Floats) -> tuple[Measurement, dict[str, Any]]:
    """Count, over outcomes apart on which model and ``other`` differ, those that the model lost, with an anytime-valid bound."""
    pairs = np.flatnonzero(differs(rows.score, other))
    pairs = pairs[apart(rows.as_of[pairs], rows.known[pairs], pairs)]
    n, bad = len(pairs), int((~is_right(rows.score[pairs], rows.hit[pairs])).sum())
    measured = Measurement(
        bad / n if n else None,
        sequence_lower(n, bad, ALPHA) if n else None,
        sequence_upper(n, bad, ALPHA) if n else None,
        n,
    )
    needed = n_needed(bad, _bound(), ALPHA)
    shown = {"n": n, "losses": bad, "rate": measured.value, "lower": measured.lower, "upper": measured.upper}
    return measured, {**shown, "bound": _bound(), "n_needed": needed, "missing": max(needed - n, 0)}


def _bound() -> float:
    """Return the rate of losses that a canary is aborted at: the default policy declares it."""
    return next(item.abort for item in shipped_policy("default").criteria if item.name == "outcome") or 0.5


def _criteria(others: dict[str, Floats]) -> list[Criterion]:
    """Enforce the losses to each rival; AUC and calibration are watched, for the offline gate has judged them."""
    least = n_needed(0, _bound(), ALPHA)
    words = "the share of differing outcomes that the model lost to the {}"
    watched = [item for item in GATE_CRITERIA if item.name in ("auc", "calibration_ece")]
    return [
        *(Criterion(f"losses_to_{name}", "below", _bound(), True, least, words.format(name)) for name in others),
        *(msgspec.structs.replace(item, enforced=False, count_min=metrics.BLOCKS_MIN) for item in watched),
    ]


def _bootstrap(rows: _Rows, inputs: dict[str, Any]) -> Bootstrap | None:
    if not len(rows.hit):
        return None
    block = metrics.blocks_of(rows.as_of, inputs["block_ms"] * NS_PER_MS)
    return Bootstrap.draw(block, seed=inputs["seed"], resamples=inputs["resamples"])


def _quality(score: Floats, hit: Flags, boot: Bootstrap | None) -> dict[str, float | None]:
    if boot is None:
        return dict.fromkeys(("auc", "lower", "upper", "brier", "ece"))
    (resampled,) = boot.ranked(metrics.rank(score, hit), metrics.auc_of)
    found: Estimate = boot.estimate(metrics.auc(score, hit), resampled, ALPHA)
    quality = {"brier": metrics.brier(score, hit), "ece": metrics.ece(score, hit)}
    return {"auc": found.value, "lower": found.lower, "upper": found.upper, **quality}
