"""The gate's figures come from stored predictions alone, and an oracle that shares no code with ours agrees."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from probatum.adapters.importers import Options, read_files
from probatum.core.canonical import canonical_json, parse_json
from probatum.core.errors import IntegrityError, ParameterError
from probatum.market.quality import screen
from probatum.models.artifact import FixedModel, TreesModel
from probatum.pipeline import gate
from probatum.pipeline.gate import block_ns_of, run_gate
from probatum.pipeline.kinds import get_kind
from probatum.pipeline.predictions import encode, read_predictions
from probatum.pipeline.registry import move_alias
from probatum.pipeline.training import TrainingPlan, train
from probatum.pipeline.verify import implausible
from probatum.testing.fakes import MemoryLedger, MemorySources
from probatum.testing.models import toy_dataset

HOUR_NS = 3_600_000_000_000


@pytest.fixture(scope="module")
def judged() -> Any:
    """Train and judge one model on the toy market, with another as champion."""
    ledger, sources = MemoryLedger(), MemorySources([toy_dataset(days=8)])
    plan = TrainingPlan(symbols=("TOY",), set="robust", target="large_move@60s", model="logistic")
    champion = train(ledger, sources, msgspec.structs.replace(plan, set="v1.8.1"))
    trained = train(ledger, sources, plan)
    record = run_gate(ledger, sources, trained.digest, champion=champion.digest)
    return ledger, sources, trained, record


def oracle(data: bytes, block_ns: int, resamples: int = 400, seed: int = 99) -> tuple[float, float, float, float]:
    """Return AUC and precision in the top fifth with their 5 % bounds: rows are really repeated, ranks really counted."""
    frame = pl.read_parquet(io.BytesIO(data))
    score, label, ts = (frame[name].to_numpy() for name in ("score", "label", "ts"))

    def area(s: Any, y: Any) -> float:
        order = np.argsort(s, kind="stable")
        _, first, counts = np.unique(s[order], return_index=True, return_counts=True)
        ranks = np.empty(len(s))
        ranks[order] = np.repeat(first + (counts + 1) / 2, counts)
        positives = y.sum()
        return float((ranks[y == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives)))

    def precision(s: Any, y: Any) -> float:
        best = np.argsort(-s, kind="stable")[: round(0.2 * len(s))]
        return float(y[best].mean())

    starts = np.flatnonzero(np.diff(ts // block_ns, prepend=-1))
    blocks = np.split(np.arange(len(ts)), starts[1:])
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        rows = np.concatenate([blocks[i] for i in rng.integers(0, len(blocks), len(blocks))])
        drawn.append((area(score[rows], label[rows]), precision(score[rows], label[rows])))
    lower = np.quantile(np.array(drawn), 0.05, axis=0)
    return area(score, label), float(lower[0]), precision(score, label), float(lower[1])


def checks(record: Any) -> dict[str, Any]:
    return {check["name"]: check for check in record.body["figures"]["checks"]}


def test_an_independent_bootstrap_agrees(judged: Any) -> None:
    """AUC and precision agree with the oracle to rounding, their bounds within .01 on this short window."""
    _, sources, _, record = judged
    area, lower, precision, precision_lower = oracle(
        sources.blobs.get("predictions", record.body["inputs"]["predictions"]), HOUR_NS
    )
    found = checks(record)
    assert found["auc"]["value"] == pytest.approx(area, abs=1e-9)
    assert found["auc"]["lower"] == pytest.approx(lower, abs=0.01)
    assert found["precision_at_20"]["value"] == pytest.approx(precision, abs=0.002)
    assert found["precision_at_20"]["lower"] == pytest.approx(precision_lower, abs=0.015)


def test_figures_are_recomputed_from_what_is_stored(judged: Any) -> None:
    """The kind's registered derivation comes to exactly the recorded figures, which are JSON-safe and plausible."""
    _, sources, _, record = judged
    kind = get_kind("offline_report")
    again = kind.derive()(record.body["inputs"], sources)
    assert parse_json(canonical_json(again)) == record.body["figures"]
    assert list(implausible(kind, record.body["figures"])) == []


def test_the_seeds_fields_are_there(judged: Any) -> None:
    """version, auc, precision_at_20, recall_at_20, timestamp: the fields of the seed's offline_report.json."""
    figures = judged[3].body["figures"]
    assert {"version", "auc", "precision_at_20", "recall_at_20", "timestamp", "verdict", "checks"} <= set(figures)
    assert figures["precision_at_20"] == pytest.approx(figures["lift_at_20"] * figures["base_rate"])
    assert sum(figures["score_histogram"]["counts"]) == figures["rows"]
    assert sum(row["n"] for row in figures["calibration"]) == figures["rows"]
    assert sum(row["n"] for row in figures["slices"]["day"]) == figures["rows"]
    roc = figures["roc"]
    assert all(
        low <= rate <= high
        for low, rate, high in zip(roc["lower"], roc["true_positive_rate"], roc["upper"], strict=True)
    )
    assert figures["moves"]["ratio"] > 1.0


def test_champion_and_baseline_are_compared_on_the_same_resamples(judged: Any) -> None:
    """The paired difference is the difference of the AUCs, and its bounds are tighter than those of unpaired ones."""
    figures = judged[3].body["figures"]
    for rival in (figures["champion"], figures["baseline"]):
        difference = rival["difference"]
        assert difference["value"] == pytest.approx(figures["auc"] - rival["auc"], abs=1e-9)
        assert difference["lower"] <= difference["value"] <= difference["upper"]
    own = checks(judged[3])["auc"]
    paired = figures["champion"]["difference"]
    assert paired["upper"] - paired["lower"] < own["upper"] - own["lower"]


def test_the_seeds_model_is_refused_for_the_right_reasons() -> None:
    """v1.8-b0 fails for saturation, constant score and AUC; its levels are shown, and block at promotion."""
    dataset = toy_dataset(days=8)
    bars = dataset.bars
    assert bars is not None
    scaled = bars.with_columns(pl.col("open", "high", "low", "close") * 420.0, pl.col("volume") * 1e4)
    ledger, sources = MemoryLedger(), MemorySources([replace(dataset, bars=scaled)])
    plan = TrainingPlan(symbols=("TOY",), set="v1.8-b0", target="large_move@60s", model="fixed", name="v1.8-b0")
    record = run_gate(ledger, sources, train(ledger, sources, plan).digest)
    found = checks(record)
    assert record.body["figures"]["verdict"] == "FAIL"
    assert found["saturation"]["verdict"] == found["constant_score"]["verdict"] == found["auc"]["verdict"] == "FAIL"
    assert found["level_features"]["verdict"] == "FAIL"
    assert not found["level_features"]["enforced"]
    assert record.body["figures"]["level_features"] == ["mid", "vol1m"]


def test_direction_is_judged_net_of_cost() -> None:
    """A direction model on a market without direction fails; its return per decision falls by turnover times the cost."""
    ledger, sources = MemoryLedger(), MemorySources([toy_dataset(days=8)])
    plan = TrainingPlan(symbols=("TOY",), set="v1.8.1", target="direction@60s", model="logistic")
    digest = train(ledger, sources, plan).digest
    figures = run_gate(ledger, sources, digest, cost_bp=2.0).body["figures"]
    returns = figures["returns"]
    assert figures["verdict"] == "FAIL"
    assert returns["net_bp"]["value"] == pytest.approx(returns["gross_bp"]["value"] - 2.0 * returns["turnover"])
    assert returns["net_bp"]["upper"] < 0.0
    free = run_gate(ledger, sources, digest).body["figures"]["returns"]
    assert free["net_bp"] is None
    assert "no spread" in free["cost"]


@pytest.mark.parametrize("cost_bp", [-1.0, float("nan"), 1e4])
def test_an_impossible_cost_is_refused(cost_bp: float) -> None:
    """A negative or absurd cost is refused before anything is read."""
    with pytest.raises(ParameterError, match="cost_bp"):
        run_gate(MemoryLedger(), MemorySources([]), "0" * 64, cost_bp=cost_bp)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda f: f.with_columns(score=pl.col("score") + 1e-12), "row 1, score"),
        (lambda f: f.with_columns(f_rsi14_z=pl.col("f_rsi14_z").reverse()), "score"),
        (lambda f: f.drop("f_rsi14_z"), "features"),
        (lambda f: f.drop("label"), "columns"),
        (lambda f: f.with_columns(label=pl.lit(2, pl.Int8)), "label"),
        (lambda f: f.with_columns(label=pl.lit(None, pl.Int8)), "missing"),
        (lambda f: f.with_columns(score=pl.lit(1.5)), "outside"),
        (lambda f: f.with_columns(score=pl.lit(float("nan"))), "outside"),
        (lambda f: f.reverse(), "time order"),
        (lambda f: f.head(0), "no rows"),
    ],
)
def test_changed_predictions_are_found(judged: Any, change: Any, problem: str) -> None:
    """Predictions that were edited, and stored again under their new digest, do not survive the recomputation."""
    _, sources, _, record = judged
    frame = pl.read_parquet(io.BytesIO(sources.blobs.get("predictions", record.body["inputs"]["predictions"])))
    forged = sources.blobs.put("predictions", encode(change(frame)))
    with pytest.raises(IntegrityError, match=problem):
        gate.figures({**record.body["inputs"], "predictions": forged}, sources)


def test_bytes_that_are_no_parquet_are_named() -> None:
    """Damaged bytes are an IntegrityError that names the blob."""
    with pytest.raises(IntegrityError, match=r"here.*not Parquet"):
        read_predictions(b"PAR1 but not really", "here")


def test_predictions_of_another_model_are_found(judged: Any) -> None:
    """Predictions presented with an artifact that did not make them are refused."""
    _, sources, trained, record = judged
    other = msgspec.structs.replace(trained.artifact, model=FixedModel((0.1,) * len(trained.artifact.features.names)))
    digest = sources.blobs.put("artifact", other.to_bytes())
    with pytest.raises(IntegrityError, match="another score"):
        gate.figures({**record.body["inputs"], "artifact": digest}, sources)


def test_one_class_is_an_error_and_not_a_crash(judged: Any) -> None:
    """Where all test labels are equal the AUC cannot be measured, and that is an ERROR."""
    _, sources, _, record = judged
    frame = pl.read_parquet(io.BytesIO(sources.blobs.get("predictions", record.body["inputs"]["predictions"])))
    for value in (0, 1):
        single = sources.blobs.put("predictions", encode(frame.with_columns(label=pl.lit(value, pl.Int8))))
        found = gate.figures({**record.body["inputs"], "predictions": single}, sources)
        assert found["verdict"] == "ERROR"
        assert found["auc"] is None
        canonical_json(found)


def test_few_blocks_are_inconclusive(judged: Any) -> None:
    """A window of fewer than twenty blocks cannot pass, however good it looks."""
    _, sources, _, record = judged
    found = gate.figures({**record.body["inputs"], "block_ms": 6 * 3_600_000}, sources)
    auc = next(check for check in found["checks"] if check["name"] == "auc")
    assert auc["verdict"] == "INCONCLUSIVE"
    assert auc["lower"] is None


def test_blocks_are_sixty_horizons() -> None:
    """An hour for 60 s, ten minutes for 10 s, ten minutes for the next move."""
    targets = ("large_move@60s", "direction@10s:drop-unchanged", "next_move")
    assert [block_ns_of(target) for target in targets] == [HOUR_NS, HOUR_NS // 6, HOUR_NS // 6]


def test_a_champion_of_another_target_is_not_compared(judged: Any) -> None:
    """A champion that foretells something else says nothing about this target."""
    ledger, sources, trained, _ = judged
    plan = TrainingPlan(symbols=("TOY",), set="v1.8.1", target="direction@60s", model="logistic")
    other = train(ledger, sources, plan)
    move_alias(ledger, sources, "champion", other.digest)
    assert run_gate(ledger, sources, trained.digest, champion=other.digest).body["figures"]["champion"] is None


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("symbol", "set_name", "auc", "lower", "verdict"),
    [
        ("BTCUSDT", "v1.8.1", 0.633, 0.617, "INCONCLUSIVE"),
        ("BTCUSDT", "robust", 0.674, 0.658, "PASS"),
        ("ETHUSDT", "v1.8.1", 0.609, None, None),
        ("ETHUSDT", "robust", 0.657, None, "PASS"),
        ("GBPUSD", "v1.8.1", 0.593, None, None),
        ("GBPUSD", "robust", 0.690, None, "PASS"),
    ],
)
def test_real_markets_give_the_known_figures(
    shared_data: Path, symbol: str, set_name: str, auc: float, lower: float | None, verdict: str | None
) -> None:
    """Done-when 2: AUC within .02 of facts §3, the bound near the one stated, and an independent bootstrap within .005."""
    sources, ledger = MemorySources([real(shared_data, symbol)]), MemoryLedger()
    plan = TrainingPlan(symbols=(symbol,), set=set_name, target="large_move@60s", model="logistic")
    record = run_gate(ledger, sources, train(ledger, sources, plan).digest)
    found = checks(record)["auc"]
    assert found["value"] == pytest.approx(auc, abs=0.02)
    assert verdict is None or record.body["figures"]["verdict"] == verdict
    if lower is not None:
        data = sources.blobs.get("predictions", record.body["inputs"]["predictions"])
        area, bound, _, _ = oracle(data, HOUR_NS, resamples=1000)
        assert found["lower"] == pytest.approx(lower, abs=0.005)
        assert found["value"] == pytest.approx(area, abs=0.005)
        assert found["lower"] == pytest.approx(bound, abs=0.005)


@pytest.mark.real_data
def test_trees_are_exact_on_a_real_test_set(shared_data: Path) -> None:
    """Every stored score of a LightGBM model on BTCUSDT's test rows is, bit for bit, what LightGBM itself predicts."""
    lightgbm = pytest.importorskip("lightgbm", exc_type=OSError)
    sources, ledger = MemorySources([real(shared_data, "BTCUSDT")]), MemoryLedger()
    plan = TrainingPlan(symbols=("BTCUSDT",), set="robust", target="large_move@60s", model="lightgbm")
    trained = train(ledger, sources, plan)
    record = run_gate(ledger, sources, trained.digest)
    rows = read_predictions(sources.blobs.get("predictions", record.body["inputs"]["predictions"]), "x")
    assert isinstance(trained.artifact.model, TreesModel)
    booster = lightgbm.Booster(model_str=trained.artifact.model.text)
    assert len(rows) > 8_000
    assert (booster.predict(rows.values) == rows.score).all()
    assert record.body["figures"]["auc"] == pytest.approx(0.674, abs=0.03)


@pytest.mark.real_data
def test_directions_of_bitcoin_are_not_foretold(shared_data: Path) -> None:
    """Done-when 2: v1.8-b0 is refused for its constant score, and direction@60s with AUC near .50 is no PASS."""
    sources, ledger = MemorySources([real(shared_data, "BTCUSDT")]), MemoryLedger()
    plan = TrainingPlan(symbols=("BTCUSDT",), set="v1.8.1", target="direction@60s", model="logistic")
    figures = run_gate(ledger, sources, train(ledger, sources, plan).digest).body["figures"]
    assert figures["verdict"] in ("FAIL", "INCONCLUSIVE")
    assert figures["auc"] == pytest.approx(0.5, abs=0.03)
    seeds = msgspec.structs.replace(plan, set="v1.8-b0", model="fixed")
    refused = run_gate(ledger, sources, train(ledger, sources, seeds).digest)
    assert checks(refused)["saturation"]["value"] == 1.0
    assert checks(refused)["constant_score"]["verdict"] == "FAIL"
    assert refused.body["figures"]["auc"] == pytest.approx(0.4985, abs=0.02)


@pytest.mark.real_data
def test_the_book_of_bac_foretells_ten_seconds(shared_data: Path) -> None:
    """Done-when 3: direction@10s with book on BAC, 1-s grid, days 1–3 / 4 / 5, AUC .88 ± .03; shuffled it is refused."""
    sources, ledger = MemorySources([real(shared_data, "BAC")]), MemoryLedger()
    plan = TrainingPlan(
        symbols=("BAC",),
        set="book",
        target="direction@10s:drop-unchanged",
        model="logistic",
        grid_ns=10**9,
        by="session",
    )
    record = run_gate(ledger, sources, train(ledger, sources, plan).digest)
    assert record.body["figures"]["auc"] == pytest.approx(0.88, abs=0.03)
    assert record.body["figures"]["window"]["start"].startswith("2013-10-11")
    assert "nobody can earn" in record.body["figures"]["returns"]["note"]
    with pytest.raises(ParameterError, match="shuffle"):
        train(ledger, sources, msgspec.structs.replace(plan, shuffle=True))


def real(shared_data: Path, symbol: str) -> Any:
    """Import one recorded market as the command line would."""
    formats = {"BAC": ("lean", "lean_tick"), "GBPUSD": ("bid-ask-bars", "fxcm_m1")}
    name, where = formats.get(symbol, ("binance-klines", f"binance_klines/{symbol}_1min_sample.csv"))
    dataset = screen(read_files(name, [shared_data / where], Options(symbol=symbol))).dataset
    return replace(dataset, sha256="0" * 64)
