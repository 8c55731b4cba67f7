"""Take a drift snapshot: recent rows through the artifact's own features and scorer, counted into its frozen bins.

Figures of ``psi_snapshot``: ``verdict``, ``checks``; the seed's ``timestamp`` (of the last row), ``overall_psi``, ``status`` and
``thresholds`` (stable, warning, critical, as the seed named them: information, the verdict follows the checks); ``window``
{span, slot, start, end, symbols}; ``rows``, ``reference_rows``; ``overall``, ``features`` and ``score`` as in
:class:`probatum.monitoring.drift.DriftReport`, bins among them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
import polars as pl

from probatum.core.canonical import canonical_json, parse_json
from probatum.core.clock import NS_PER_DAY, NS_PER_HOUR, format_utc, parse_utc
from probatum.core.errors import DataError, IntegrityError, ParameterError
from probatum.core.verdict import Provenance, Verdict
from probatum.features.labels import parse_target
from probatum.features.samples import Samples, build_samples
from probatum.market.dataset import Dataset
from probatum.models.artifact import Artifact, ReferenceBins
from probatum.models.scoring import score_rows
from probatum.monitoring.drift import DriftCheck, DriftReport, DriftSettings, assess_drift
from probatum.monitoring.psi import SCORE
from probatum.monitoring.windows import WindowCounts, count_window
from probatum.pipeline.evidence import prove
from probatum.pipeline.gate import load_artifact
from probatum.pipeline.page import Section, Table, Text, page
from probatum.pipeline.ports import Ledger, Mapper, OneProcess, Progress, Record, Sources
from probatum.pipeline.report import distribution_chart, psi_chart
from probatum.pipeline.summary import provenance_banner
from probatum.rollout.criteria import ALPHA, DRIFT_CRITERIA, Check

KIND = "psi_snapshot"
TEST = "test"
ROLLING = "7d"
SEED_THRESHOLDS = {"stable": 0.1, "warning": 0.2, "critical": 0.3}
_UNITS = {"h": NS_PER_HOUR, "d": NS_PER_DAY}
_PREFIX = "f_"
_TABLE = (
    "column",
    "PSI",
    "bound",
    "unchanged, mean",
    "critical",
    "p-value",
    "verdict",
    "",
    "why, and what would settle it",
)


def span_ns(window: str) -> int | None:
    """Return the length of a window such as 7d or 12h; None for "test", the artifact's own test part.

    >>> span_ns("7d") // NS_PER_HOUR
    168
    """
    if window == TEST:
        return None
    match = re.fullmatch(r"([1-9]\d{0,3})([hd])", window)
    if match is None:
        raise ParameterError("window", 'like 7d or 12h, or "test"', window)
    return int(match[1]) * _UNITS[match[2]]


def default_settings() -> DriftSettings:
    """Return the settings that the product's table of criteria declares."""
    overall, feature = DRIFT_CRITERIA
    return DriftSettings(overall_max=overall.bound, feature_max=feature.bound, rows_min=overall.count_min, alpha=ALPHA)


def snapshot(
    ledger: Ledger,
    sources: Sources,
    digest: str,
    symbols: Sequence[str] = (),
    *,
    window: str = ROLLING,
    settings: DriftSettings | None = None,
    progress: Progress | None = None,
) -> Record:
    """Judge the newest ``window`` of ``symbols`` (the artifact's own where none are named) and append ``psi_snapshot``.

    Rows are those that training would take, so that like is compared with like; what the artifact was trained on is left
    out. "test" judges the test part of the data it was trained on. The same snapshot twice is one record. Raises DataError
    where the data cannot feed the artifact's columns, or no row is left.
    """
    return _recorded(ledger, sources, measure(sources, digest, symbols, window, settings, progress))


def snapshot_each(
    ledger: Ledger,
    sources: Sources,
    digests: Sequence[str],
    *,
    window: str = ROLLING,
    mapper: Mapper | None = None,
    progress: Progress | None = None,
) -> Iterator[Record]:
    """Judge many models, each over its own symbols, wherever the mapper does it; append in the order given."""
    span_ns(window)
    found = (mapper or OneProcess()).map(partial(measure, sources, window=window), digests)
    for done, measured in enumerate(found, 1):
        if progress is not None:
            progress.step("drift", done, len(digests))
        yield _recorded(ledger, sources, measured)


class Measured(msgspec.Struct, frozen=True):
    """Hold a snapshot that is not in the ledger yet; its window is stored."""

    name: str
    provenance: Provenance
    inputs: dict[str, Any]
    figures: dict[str, Any]


def measure(
    sources: Sources,
    digest: str,
    symbols: Sequence[str] = (),
    window: str = ROLLING,
    settings: DriftSettings | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Judge as :func:`snapshot` does, and append nothing: the part that another process can do."""
    span_ns(window)
    artifact = load_artifact(sources, digest)
    trained_on = dict(zip(artifact.data.symbols, artifact.data.sha256, strict=True))
    datasets = [
        sources.datasets.load(symbol, trained_on.get(symbol) if window == TEST else None)
        for symbol in sorted(set(symbols) or trained_on)
    ]
    frame = window_rows(artifact, datasets, window, progress)
    out = io.BytesIO()
    frame.write_parquet(out, compression="zstd")
    inputs = {
        "artifact": digest,
        "window": sources.blobs.put("window", out.getvalue()),
        "span": window,
        "symbols": [dataset.symbol for dataset in datasets],
        "datasets": [dataset.sha256 for dataset in datasets],
        "settings": msgspec.to_builtins(settings or default_settings()),
    }
    inputs = parse_json(canonical_json(inputs))
    provenance = Provenance.weakest([artifact.data.provenance, *(dataset.provenance for dataset in datasets)])
    return Measured(artifact.name, provenance, inputs, _figures(inputs, artifact, frame))


def _recorded(ledger: Ledger, sources: Sources, measured: Measured) -> Record:
    for record in ledger.records(kind=KIND, subject=measured.name):
        if record.body["inputs"] == measured.inputs:
            return record
    return prove(
        ledger,
        sources,
        kind=KIND,
        subject=measured.name,
        provenance=measured.provenance,
        inputs=measured.inputs,
        derive=lambda _inputs, _sources: measured.figures,
    )


def window_rows(
    artifact: Artifact, datasets: Sequence[Dataset], window: str, progress: Progress | None = None
) -> pl.DataFrame:
    """Return the window's rows in time order: ts, symbol, score, and ``f_`` columns; a pure function of its arguments."""
    samples = build_samples(
        datasets, artifact.features.set, parse_target(artifact.target), grid_ns=artifact.grid_ns, progress=progress
    )
    columns = _columns_of(artifact, samples)
    span = span_ns(window)
    since = parse_utc(artifact.split["test_start"]) if span is None else int(samples.ts[-1]) - span + 1
    known = np.isin(samples.symbol, artifact.data.symbols) & (samples.ts <= parse_utc(artifact.data.end))
    rows = samples.take(np.flatnonzero((samples.ts >= since) & ~known))
    if not len(rows):
        until = f"the model was trained on data until {artifact.data.end}"
        raise DataError(f"window {window} of {', '.join(d.symbol for d in datasets)} holds no row: {until}")
    values = np.ascontiguousarray(rows.values[:, columns])
    features = {_PREFIX + name: values[:, i] for i, name in enumerate(artifact.features.names)}
    named = {"ts": rows.ts, "symbol": rows.symbol.tolist(), SCORE: score_rows(artifact, values)}
    return pl.DataFrame({**named, **features}, schema_overrides={"ts": pl.Int64, "symbol": pl.String})


def _columns_of(artifact: Artifact, samples: Samples) -> list[int]:
    """Return where the artifact's columns stand in the samples, whose data may support more of the set."""
    have = samples.feature_set
    missing = [name for name in artifact.features.names if name not in have.names]
    if missing:
        raise DataError(f"these data cannot feed the model: its column {missing[0]} needs what they do not have")
    kept = tuple(feature for feature in have.features if feature.name in artifact.features.names)
    if msgspec.structs.replace(have, features=kept).fingerprint != artifact.features.fingerprint:
        raise IntegrityError(f"artifact {artifact.name}", "its feature set is not the one that this version computes")
    return [have.names.index(name) for name in artifact.features.names]


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Compute every figure of the snapshot again, from the artifact and the datasets that the record names.

    Raises IntegrityError where the stored rows or scores are not, bit for bit, what these give.
    """
    artifact = load_artifact(sources, inputs["artifact"])
    pairs = zip(inputs["symbols"], inputs["datasets"], strict=True)
    frame = window_rows(artifact, [sources.datasets.load(*pair) for pair in pairs], inputs["span"])
    place = f"window {inputs['window'][:12]}…"
    try:
        stored = pl.read_parquet(io.BytesIO(sources.blobs.get("window", inputs["window"])))
    except pl.exceptions.PolarsError as error:
        raise IntegrityError(place, f"not Parquet: {error}") from None
    if stored.schema != frame.schema or not stored.equals(frame):
        raise IntegrityError(place, "its rows are not those that the datasets and the artifact give")
    return _figures(inputs, artifact, frame)


def _figures(inputs: Mapping[str, Any], artifact: Artifact, frame: pl.DataFrame) -> dict[str, Any]:
    columns = {name: frame[_PREFIX + name].to_numpy() for name in artifact.features.names} | {
        SCORE: frame[SCORE].to_numpy()
    }
    window = count_window(frozen(artifact), columns)
    return judge_window(inputs, artifact, window, inputs["symbols"], (int(frame["ts"][0]), int(frame["ts"][-1])))


def frozen(artifact: Artifact) -> dict[str, ReferenceBins]:
    """Return the reference bins of an artifact's columns and score, in that order; IntegrityError where they are others."""
    names = (*artifact.features.names, SCORE)
    if set(names) != artifact.reference.keys():
        raise IntegrityError(
            f"artifact {artifact.name}", "its reference bins are not those of its columns and its score"
        )
    return {name: artifact.reference[name] for name in names}


def judge_window(
    inputs: Mapping[str, Any],
    artifact: Artifact,
    window: WindowCounts,
    symbols: Sequence[str],
    ends: tuple[int, int],
) -> dict[str, Any]:
    """Return the figures of a snapshot: a window's counts against the frozen bins, under the settings in the inputs."""
    report = assess_drift(frozen(artifact), window, msgspec.convert(inputs["settings"], DriftSettings))
    start, end = ends
    found = {
        **msgspec.to_builtins(report),
        "checks": msgspec.to_builtins(list(checks_of(report))),
        "timestamp": format_utc(end),
        "overall_psi": report.overall.psi,
        "max_psi": report.largest.check.psi,
        "status": seed_status(report),
        "thresholds": SEED_THRESHOLDS,
        "target": artifact.target,
        "window": {
            "span": inputs["span"],
            "slot": format_utc(end - end % NS_PER_HOUR),
            "start": format_utc(start),
            "end": format_utc(end),
            "symbols": list(symbols),
        },
    }
    return {name: rounded(value) for name, value in found.items()}


def seed_status(report: DriftReport) -> str:
    """Return the seed's word for the overall PSI, whatever the verdict: stable, warning or critical; "n/a" for none."""
    if report.overall.psi is None:
        return "n/a"
    limits = SEED_THRESHOLDS
    return next((word for word in ("stable", "warning") if report.overall.psi < limits[word]), "critical")


def checks_of(report: DriftReport) -> Iterator[Check]:
    """Yield what the verdict rests on: overall, then of the enforced features the worst (by verdict, then PSI); then the score."""
    yield _as_check("psi_overall", report.overall, report.rows)
    features = [feature.check for feature in report.features if feature.check.enforced]
    order = list(Verdict)
    if features:
        worst = max(features, key=lambda check: (order.index(check.verdict), check.psi or 0.0))
        yield _as_check("psi_feature", worst, report.rows, worst.name)
    if report.score is not None:
        yield _as_check("psi_score", report.score.check, report.rows)


def _as_check(name: str, check: DriftCheck, n: int, about: str = "") -> Check:
    reason = f"{about}: {check.reason}" if about and check.reason else check.reason
    return Check(
        name=name,
        value=check.psi,
        bound=check.bound,
        lower=None,
        upper=None,
        n=n,
        verdict=check.verdict,
        enforced=check.enforced,
        reason=reason,
        settle=check.settle,
    )


def rounded(value: Any) -> Any:
    """Keep ten significant digits of every float: sums may differ in the last bits between machines, evidence may not."""
    if isinstance(value, float):
        return float(f"{value:.10g}") + 0.0
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def drift_page(record: Record) -> str:
    """Return a snapshot as a self-contained HTML page: PSI by feature with its null, every distribution then and now."""
    found = record.body["figures"]
    window = found["window"]
    subtitle = f"{', '.join(window['symbols'])}, {window['start']} to {window['end']}, record {record.seq}"
    return drift_html(f"Drift of {record.subject}", subtitle, found, banner=provenance_banner([record]))


def drift_html(title: str, subtitle: str, found: Mapping[str, Any], banner: str = "") -> str:
    """Return the page of a report given as plain data: the fields of DriftReport."""
    score = [found["score"]] if found.get("score") else []
    columns = [*found["features"], *score]
    rows = f"{found['rows']:,} rows against {found['reference_rows']:,} of the training window"
    judged = (Text(f"{found['verdict']}: {rows}."), psi_chart(found["features"]), _table([found["overall"], *columns]))
    charts = tuple(distribution_chart(column) for column in columns)
    return page(title, [Section("Verdict", judged), Section("Then and now", charts)], subtitle=subtitle, banner=banner)


def _table(columns: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for column in columns:
        check = column.get("check", column)
        shown = tuple(check[key] for key in ("name", "psi", "bound", "expected", "critical", "p_value", "verdict"))
        why = f"{check['reason']}. Would settle it: {check['settle']}." if check["reason"] else None
        rows.append((*shown, "enforced" if check["enforced"] else "shown only", why))
    return Table("", _TABLE, tuple(rows))
