"""A drift snapshot: which rows it judges, what it records, and that a verifier rebuilds it from the datasets."""

from __future__ import annotations

import io
from dataclasses import replace

import msgspec
import numpy as np
import polars as pl
import pytest

from probatum.core.clock import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE, NS_PER_S, parse_utc
from probatum.core.errors import DataError, IntegrityError, ParameterError, UnknownNameError
from probatum.core.verdict import Provenance
from probatum.market.calendar import Calendar
from probatum.market.dataset import BAR_SCHEMA, Dataset
from probatum.monitoring.drift import DriftSettings
from probatum.pipeline import drift
from probatum.pipeline.drift import default_settings, drift_page, snapshot
from probatum.pipeline.gate import load_artifact
from probatum.pipeline.ports import Record
from probatum.pipeline.training import TrainingPlan, train
from probatum.testing.fakes import MemoryLedger, MemorySources

START_NS = 1_704_067_200 * NS_PER_S
MINUTES = 12_000


def _dataset(
    symbol: str = "BTCUSDT", minutes: int = MINUTES, spread: bool = False, quiet_from: int | None = None
) -> Dataset:
    """Return a random walk of bars; from ``quiet_from`` on, volume falls to a hundredth."""
    rng = np.random.default_rng(5)
    close = 40_000.0 * np.exp(np.cumsum(rng.normal(0, 5e-4, minutes)))
    volume = rng.lognormal(3, 1, minutes)
    if quiet_from is not None:
        volume[quiet_from:] *= 0.01
    ts = START_NS + NS_PER_MINUTE * np.arange(1, minutes + 1)
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    spreads = rng.uniform(1.0, 2.0, minutes) if spread else [None] * minutes
    bars = pl.DataFrame(
        {"ts_event": ts, "ts_recv": ts, **prices, "volume": volume, "spread": spreads}, schema=BAR_SCHEMA
    )
    name = f"{symbol}{minutes}{spread}{quiet_from}".encode().hex().ljust(64, "0")[:64]
    return Dataset(symbol, Provenance.REPLAY, name, Calendar(), None, bars=bars)


@pytest.fixture(scope="module")
def trained() -> tuple[MemorySources, str]:
    """Train once on an unchanged market; tests add later versions of it."""
    sources = MemorySources([_dataset()])
    plan = TrainingPlan(symbols=("BTCUSDT",), set="v1.8.1", target="direction@60s", model="logistic", name="m")
    return sources, train(MemoryLedger(), sources, plan).digest


def _with(trained: tuple[MemorySources, str], *datasets: Dataset) -> tuple[MemoryLedger, MemorySources, str]:
    sources = MemorySources([_dataset(), *datasets])
    sources.blobs = trained[0].blobs
    return MemoryLedger(), sources, trained[1]


def _figures(record: Record) -> dict:  # type: ignore[type-arg]
    return record.body["figures"]  # type: ignore[no-any-return]


def test_test_window_is_the_test_part(trained: tuple[MemorySources, str]) -> None:
    """Window "test" judges exactly the rows from the artifact's test start on, of the version it was trained on."""
    ledger, sources, digest = _with(trained, _dataset(quiet_from=9000))
    artifact = load_artifact(sources, digest)
    record = snapshot(ledger, sources, digest, window="test")
    found = _figures(record)
    assert record.body["inputs"]["datasets"] == list(artifact.data.sha256)
    assert found["rows"] == artifact.split["rows"]["test"]
    assert found["window"]["start"] == artifact.split["test_start"]
    assert [f["check"]["name"] for f in found["features"]] == list(artifact.features.names)
    assert found["score"]["check"]["enforced"] is False
    assert found["verdict"] != "FAIL"


def test_rolling_window_is_the_newest_span_of_the_newest_version(trained: tuple[MemorySources, str]) -> None:
    """A rolling window ends at the newest row, spans what it says, and finds that the market has gone quiet."""
    ledger, sources, digest = _with(trained, _dataset(quiet_from=9000))
    record = snapshot(ledger, sources, digest, window="1d")
    found = _figures(record)
    window = found["window"]
    assert 0 <= parse_utc(window["end"]) - parse_utc(window["start"]) < NS_PER_DAY
    assert parse_utc(window["slot"]) == parse_utc(window["end"]) // NS_PER_HOUR * NS_PER_HOUR
    assert found["rows"] == 1440
    checks = {check["name"]: check for check in found["checks"]}
    assert list(checks) == ["psi_overall", "psi_feature", "psi_score"]
    assert checks["psi_feature"]["verdict"] == found["verdict"] == "FAIL"
    assert checks["psi_feature"]["reason"].startswith("vol1m_log: PSI ")
    assert found["status"] == "critical"
    assert found["overall_psi"] == found["overall"]["psi"]
    assert record.provenance is Provenance.REPLAY


def test_training_rows_never_judge_themselves(trained: tuple[MemorySources, str]) -> None:
    """A window that reaches into the training part leaves it out; where nothing else is left, it is refused."""
    ledger, sources, digest = _with(trained, _dataset(minutes=5000))
    artifact = load_artifact(sources, digest)
    found = _figures(snapshot(*_with(trained), window="30d"))
    assert parse_utc(found["window"]["start"]) > parse_utc(artifact.data.end)
    with pytest.raises(DataError, match="holds no row: the model was trained on data until"):
        snapshot(ledger, sources, digest, window="30d")


def test_same_snapshot_twice_is_one_record(trained: tuple[MemorySources, str]) -> None:
    """Taking a snapshot again on unchanged data appends nothing; other settings are another snapshot."""
    ledger, sources, digest = _with(trained)
    first = snapshot(ledger, sources, digest)
    assert snapshot(ledger, sources, digest) == first
    assert snapshot(ledger, sources, digest, settings=DriftSettings(overall_max=0.5)) != first
    assert len(list(ledger.records(kind="psi_snapshot"))) == 2


def test_richer_data_feed_a_model_with_fewer_columns(trained: tuple[MemorySources, str]) -> None:
    """A dataset that has a spread feeds a model trained without one; one that lacks the volume does not."""
    ledger, sources, digest = _with(trained, _dataset("ETHUSDT", spread=True))
    found = _figures(snapshot(ledger, sources, digest, ["ETHUSDT"]))
    assert found["window"]["symbols"] == ["ETHUSDT"]
    poor = _dataset("XRPUSDT")
    assert poor.bars is not None
    poor = replace(poor, bars=poor.bars.with_columns(volume=pl.lit(None, pl.Float64)))
    with pytest.raises(DataError, match="vol1m_log"):
        snapshot(*_with(trained, poor), ["XRPUSDT"])


def test_figures_are_rebuilt_from_the_datasets(trained: tuple[MemorySources, str]) -> None:
    """The verifier's derivation gives the recorded figures, and a window with one changed score is found by name."""
    ledger, sources, digest = _with(trained)
    record = snapshot(ledger, sources, digest)
    assert drift.figures(record.body["inputs"], sources) == record.body["figures"]
    frame = pl.read_parquet(io.BytesIO(sources.blobs.get("window", record.body["inputs"]["window"])))
    out = io.BytesIO()
    frame.with_columns(score=pl.col("score") + 1e-12).write_parquet(out)
    forged = {**record.body["inputs"], "window": sources.blobs.put("window", out.getvalue())}
    with pytest.raises(IntegrityError, match=forged["window"][:12]):
        drift.figures(forged, sources)
    with pytest.raises(IntegrityError, match="not Parquet"):
        drift.figures({**forged, "window": sources.blobs.put("window", b"no")}, sources)


@pytest.mark.parametrize("window", ["7", "0d", "d", "7w", "99999d", ""])
def test_windows_that_cannot_be_read_are_refused(trained: tuple[MemorySources, str], window: str) -> None:
    """A window is hours, days or the test part."""
    with pytest.raises(ParameterError, match="window must be like 7d"):
        snapshot(*_with(trained), window=window)


def test_unknown_symbol_lists_the_known(trained: tuple[MemorySources, str]) -> None:
    """A symbol without data is refused by name."""
    with pytest.raises(UnknownNameError, match="BTCUSDT"):
        snapshot(*_with(trained), ["DOGE"])


def test_settings_are_those_of_the_table_of_criteria() -> None:
    """The defaults of the pure function and the product's table of criteria say the same."""
    assert default_settings() == DriftSettings()


def test_page_escapes_names_and_tells_every_verdict(trained: tuple[MemorySources, str]) -> None:
    """The page holds each column's verdict, states its provenance, and takes nothing from outside as markup."""
    record = snapshot(*_with(trained, _dataset(quiet_from=9000)), window="1d")
    hostile = msgspec.structs.replace(record, subject="<script>alert(1)</script>")
    html = drift_page(hostile)
    assert "<script>alert" not in html
    assert "REPLAY" in html
    assert html.count("vol1m_log") >= 2
    assert "Would settle it" in html


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("symbol", "set_name", "overall", "worst", "verdict"),
    [
        ("BTCUSDT", "v1.8-b0", 1.42, 4.07, "INCONCLUSIVE"),
        ("BTCUSDT", "v1.8.1", 0.119, 0.206, "PASS"),
        ("BTCUSDT", "robust", 0.026, 0.186, "PASS"),
        ("ETHUSDT", "v1.8-b0", 1.59, None, "INCONCLUSIVE"),
        ("ETHUSDT", "v1.8.1", 0.132, None, "PASS"),
        ("ETHUSDT", "robust", 0.016, 0.092, "PASS"),
    ],
)
def test_measured_on_a_real_month(
    real_bars: dict[str, Dataset], symbol: str, set_name: str, overall: float, worst: float | None, verdict: str
) -> None:
    """Test part against training part of one real month gives the PSI that was measured before the first line of code."""
    sources = MemorySources([real_bars[symbol]])
    plan = TrainingPlan(symbols=(symbol,), set=set_name, target="large_move@60s", model="logistic")
    digest = train(MemoryLedger(), sources, plan).digest
    found = _figures(snapshot(MemoryLedger(), sources, digest, window="test"))
    assert found["overall_psi"] == pytest.approx(overall, abs=0.02)
    assert worst is None or found["max_psi"] == pytest.approx(worst, abs=0.02)
    assert found["verdict"] == verdict


@pytest.fixture(scope="module")
def real_bars(shared_data) -> dict[str, Dataset]:  # type: ignore[no-untyped-def]
    """Read the recorded bars without our importers: headered, stamped at open."""
    found = {}
    for symbol in ("BTCUSDT", "ETHUSDT"):
        raw = pl.read_csv(shared_data / "binance_klines" / f"{symbol}_1min_sample.csv", try_parse_dates=True)
        ts = raw["datetime"].dt.epoch("ns") + NS_PER_MINUTE
        columns = {name: raw[name].cast(pl.Float64) for name in ("open", "high", "low", "close", "volume")}
        frame = pl.DataFrame({"ts_event": ts, "ts_recv": ts, **columns}).with_columns(spread=pl.lit(None, pl.Float64))
        bars = frame.select(list(BAR_SCHEMA)).cast(BAR_SCHEMA)  # type: ignore[arg-type]
        found[symbol] = Dataset(symbol, Provenance.REPLAY, "0" * 64, Calendar(), None, bars=bars)
    return found
