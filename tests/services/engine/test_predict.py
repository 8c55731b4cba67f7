"""The predict path: every form, every refusal."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probatum.core.clock import NS_PER_S, format_utc
from probatum.core.errors import IntegrityError, UnknownNameError
from probatum.models.artifact import FixedModel, PluginModel
from probatum.models.scoring import compile_scorer
from probatum.services.engine.model import Model
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

SNAPSHOT = {"ts": 1_700_000_000_000, "mid": 45_000.0, "spreadBp": 2.0, "vol1m": 1e6, "rsi14": 55.0}
VECTOR = [1.0, 45_000.0, 2.0, 1e6, 55.0, math.log1p(1e6)]
NAMES = ("bias", "mid", "spread_bp", "vol1m", "rsi14", "log_vol1m")


@pytest.fixture(scope="module")
def seed(kit: SimpleNamespace) -> Any:
    """Return an engine over the seed's model."""
    return kit.application()[0]


def ask(kit: SimpleNamespace, app: Any, body: Any) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = kit.call(app, "POST", "/ml/predict", data)
    return reply.status, json.loads(reply.body)


def oracle(vector: list[float]) -> float:
    """Return the seed's score, written out."""
    z = (
        -3.0 * vector[0]
        + 0.0004 * vector[1]
        - 0.02 * vector[2]
        + 0.00003 * vector[3]
        + 0.01 * vector[4]
        + 0.0002 * vector[5]
    )
    return min(max(1 / (1 + math.exp(-z)), 1e-6), 1 - 1e-6)


@pytest.mark.parametrize(
    "body",
    [
        {"snapshot": SNAPSHOT},
        {"features": VECTOR},
        {"features": dict(zip(NAMES, VECTOR, strict=True))},
        {"features": dict(reversed(list(zip(NAMES, VECTOR, strict=True))))},
        {"symbol": "BTC:USDT", "features": VECTOR, "snapshot": {**SNAPSHOT, "mid": 1.0}},
    ],
    ids=["snapshot", "vector", "named", "named in another order", "features win over snapshot"],
)
def test_the_seeds_request_gets_the_seeds_fields(kit: SimpleNamespace, seed: Any, body: dict[str, Any]):
    """Each form of the same market gives the same score, its version, and the time it took."""
    status, reply = ask(kit, seed, body)
    assert status == 200
    assert list(reply) == ["score", "version", "latency_ms"]
    assert reply["score"] == pytest.approx(oracle(VECTOR), abs=1e-12)
    assert reply["version"] == "v1.8-b0"
    assert 0 < reply["latency_ms"] < 1_000


@settings(max_examples=50)
@given(st.lists(st.lists(st.floats(-100, 100), min_size=7, max_size=7), min_size=1, max_size=5))
def test_a_batch_and_single_rows_and_the_offline_scorer_agree_bitwise(kit: SimpleNamespace, rows: list[list[float]]):
    """What is served is exactly what the artifact's own scorer computes offline."""
    artifact = kit.logistic_artifact()
    app, _ = _cached(kit)
    scorer = compile_scorer(artifact)
    status, reply = ask(kit, app, {"rows": rows, "fingerprint": artifact.features.fingerprint})
    assert status == 200
    assert reply["scores"] == [scorer(row) for row in rows]
    named = [dict(zip(artifact.features.names, row, strict=True)) for row in rows]
    assert ask(kit, app, {"rows": named})[1]["scores"] == reply["scores"]
    assert ask(kit, app, {"features": rows[0]})[1]["score"] == reply["scores"][0]


_apps: list[Any] = []


def _cached(kit: SimpleNamespace) -> Any:
    if not _apps:
        _apps.append(kit.application(kit.logistic_artifact()))
    return _apps[0]


BAD = [
    ("nothing to predict from", {}, 400, "features"),
    ("all null", {"features": None, "snapshot": None, "rows": None}, 400, "features"),
    ("only a symbol", {"symbol": "BTCUSDT"}, 400, "features"),
    ("empty body", b"", 400, "body"),
    ("cut JSON", b'{"features":[1,2', 400, "body"),
    ("two documents", b'{"features":[1,2,3,4,5,6]}{}', 400, "body"),
    ("bytes that are not UTF-8", b'{"symbol":"\xff"}', 400, "body"),
    ("NaN", b'{"features":[1,2,3,4,5,NaN]}', 400, "body"),
    ("Infinity", b'{"features":[1,2,3,4,5,-Infinity]}', 400, "body"),
    ("a number beyond double", b'{"features":[1,2,3,4,5,1e400]}', 422, "features[5]"),
    ("an integer beyond double", b'{"features":[1,2,3,4,5,1' + b"0" * 400 + b"]}", 422, "features[5]"),
    ("not an object", [1, 2], 422, "body"),
    ("too few", {"features": [1, 2, 3]}, 422, "features"),
    ("too many", {"features": [1] * 7}, 422, "features"),
    ("none", {"features": []}, 422, "features"),
    ("text for a number", {"features": [1, 2, 3, 4, 5, "6"]}, 422, "features[5]"),
    ("true for a number", {"features": [1, 2, 3, 4, 5, True]}, 422, "features[5]"),
    ("null for a number", {"features": [1, 2, 3, 4, 5, None]}, 422, "features[5]"),
    ("nested", {"features": [[1, 2, 3, 4, 5, 6]]}, 422, "features[0]"),
    ("deeply nested", b'{"features":' + b"[" * 100_000, 422, "features[0]"),
    ("deeply nested elsewhere", b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 422, "x"),
    ("a text", {"features": "123456"}, 422, "features"),
    ("missing name", {"features": dict(zip(NAMES[:5], VECTOR, strict=False))}, 422, "features.log_vol1m"),
    ("unknown name", {"features": {**dict(zip(NAMES, VECTOR, strict=True)), "rsi": 1}}, 422, "features.rsi"),
    ("a name mistaken", {"features": dict(zip((*NAMES[:5], "log"), VECTOR, strict=True))}, 422, "features.log"),
    ("named text", {"features": {**dict(zip(NAMES, VECTOR, strict=True)), "mid": "x"}}, 422, "features.mid"),
    ("a name twice", b'{"features":{"bias":1,"mid":2,"spread_bp":1,"vol1m":1,"rsi14":5,"log_vol1m":1,"mid":3}}', 422, "mid"),
    ("a field twice", b'{"features":[1,2,3,4,5,6],"features":[1,2,3,4,5,7]}', 422, "features"),
    ("a snapshot's field twice", b'{"snapshot":{"ts":1,"mid":1,"mid":2,"spreadBp":1,"vol1m":1,"rsi14":5}}', 422, "mid"),
    ("unknown field", {"features": VECTOR, "feature": 1}, 422, "feature"),
    ("snapshot without rsi14", {"snapshot": {k: v for k, v in SNAPSHOT.items() if k != "rsi14"}}, 422, "snapshot.rsi14"),
    ("snapshot with more", {"snapshot": {**SNAPSHOT, "ask": 1}}, 422, "snapshot.ask"),
    ("a price below zero", {"snapshot": {**SNAPSHOT, "mid": -1}}, 422, "snapshot.mid"),
    ("a volume below zero", {"snapshot": {**SNAPSHOT, "vol1m": -2}}, 422, "snapshot.vol1m"),
    ("an rsi of 101", {"snapshot": {**SNAPSHOT, "rsi14": 101}}, 422, "snapshot.rsi14"),
    ("crossed", {"snapshot": {**SNAPSHOT, "spreadBp": -0.1}}, 422, "snapshot.spreadBp"),
    ("no rows", {"rows": []}, 422, "rows"),
    ("too many rows", {"rows": [VECTOR] * 1025}, 422, "rows"),
    ("the second row is short", {"rows": [VECTOR, VECTOR[:5]]}, 422, "rows[1]"),
    ("a name in a row", {"rows": [dict.fromkeys(NAMES, 1.0), dict.fromkeys(NAMES[1:], 1.0)]}, 422, "rows[1].bias"),
    ("a text in a row", {"rows": [dict.fromkeys(NAMES, 1.0), {**dict.fromkeys(NAMES, 1.0), "mid": "x"}]}, 422, "rows[1].mid"),
    ("rows and features", {"rows": [VECTOR], "features": VECTOR}, 422, "rows"),
    ("another feature set", {"features": VECTOR, "fingerprint": "0" * 64}, 422, "fingerprint"),
    ("a fingerprint that is a number", {"features": VECTOR, "fingerprint": 5}, 422, "fingerprint"),
    ("a long symbol", {"features": VECTOR, "symbol": "x" * 1000}, 422, "symbol"),
    ("as_of without a zone", {"features": VECTOR, "as_of": "2024-01-01T00:00:00"}, 422, "as_of"),
    ("as_of in ms", {"features": VECTOR, "as_of": 1_704_067_200_000}, 422, "as_of"),
    ("as_of as a fraction", {"features": VECTOR, "as_of": 1.5}, 422, "as_of"),
    ("as_of without end", b'{"features":[1,2,3,4,5,6],"as_of":' + b"9" * 5000 + b"}", 422, "as_of"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "field"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_is_refused_and_the_field_is_named(
    kit: SimpleNamespace, seed: Any, body: Any, status: int, field: str
):
    """A request that is not exactly right gets a 4xx that says where, in a short reply, and never a score."""
    got, reply = ask(kit, seed, body)
    assert got == status
    assert reply["field"] == field
    assert field.split(".")[-1].split("[")[0] in reply["error"]
    assert len(json.dumps(reply)) < 1_000


def test_stale_and_future_times_are_refused_and_present_ones_accepted(kit: SimpleNamespace, seed: Any):
    """as_of may be five minutes old and two seconds ahead, as ns or as text, and not a second more."""
    for offset_s, status in ((0, 200), (-299, 200), (2, 200), (-301, 422), (3, 422)):
        ns = kit.NOW_NS + offset_s * NS_PER_S
        for as_of in (ns, format_utc(ns)):
            got, reply = ask(kit, seed, {"features": VECTOR, "as_of": as_of})
            assert got == status
            assert status == 200 or ("stale" if offset_s < 0 else "future") in reply["error"]


def test_only_the_seeds_set_can_be_computed_from_a_snapshot(kit: SimpleNamespace):
    """Any other model refuses a bare snapshot and says which features it needs."""
    status, reply = ask(kit, kit.application(kit.logistic_artifact())[0], {"snapshot": SNAPSHOT})
    assert status == 422
    assert reply["field"] == "snapshot"
    assert "zscore_mid_24h" in reply["allowed"]


def test_every_request_is_counted_once_by_how_it_ended(kit: SimpleNamespace):
    """Successes, refusals and requests without a fingerprint add up; refused ones leave no score and no latency."""
    artifact = kit.seed_artifact()
    app, _ = kit.application(artifact)
    ask(kit, app, {"snapshot": SNAPSHOT})
    ask(kit, app, {"rows": [VECTOR, VECTOR], "fingerprint": artifact.features.fingerprint})
    for _, body, *_ in BAD:
        ask(kit, app, body)
    kit.call(app, "POST", "/ml/predict", b"{}", content_type="text/csv")
    text = kit.call(app, "GET", "/ml/metrics").body.decode()
    for line in (
        'ml_predict_requests_total{model_version="v1.8-b0",status="success"} 2',
        f'ml_predict_requests_total{{model_version="v1.8-b0",status="rejected"}} {len(BAD) + 1}',
        'ml_predict_requests_total{model_version="v1.8-b0",status="error"} 0',
        'ml_predict_latency_ms_count{model_version="v1.8-b0"} 2',
        "ml_prediction_score_count 3",
        "ml_feature_extractions_total 1",
        'ml_model_version{version="v1.8-b0"} 1',
    ):
        assert line in text.splitlines()


def test_a_score_that_is_no_number_is_counted_and_never_served(kit: SimpleNamespace):
    """Finite features that overflow a model are a 422 and a model error."""
    artifact = kit.seed_artifact()
    weights = (1e308, 1e308, -1e308, 0.0, 0.0, 0.0)
    artifact = type(artifact)(
        **{**{f: getattr(artifact, f) for f in artifact.__struct_fields__}, "model": FixedModel(weights)}
    )
    app, _ = kit.application(artifact)
    status, reply = ask(kit, app, {"features": [10.0, 10.0, 10.0, 1, 1, 1]})
    assert status == 422
    assert reply["field"] == "features"
    text = kit.call(app, "GET", "/ml/metrics").body.decode().splitlines()
    assert 'ml_model_errors_total{error_type="not_a_number"} 1' in text
    assert 'ml_predict_requests_total{model_version="v1.8-b0",status="error"} 1' in text
    assert "ml_prediction_score_count 0" in text


def open_artifact(artifact: Any, digest: str | None = None) -> Model:
    return Model(artifact.to_bytes(), digest or artifact.digest, "champion", Registry())


def test_a_model_that_is_not_what_it_says_is_refused_at_load(kit: SimpleNamespace):
    """Wrong digest, unknown set, foreign columns, an old fingerprint, NaN weights or an absent plugin: not one is loaded."""
    good = kit.seed_artifact()
    assert open_artifact(good).version == "v1.8-b0"
    with pytest.raises(IntegrityError, match="digest"):
        open_artifact(good, "0" * 64)
    with pytest.raises(UnknownNameError, match=r"v1\.8-b0"):
        open_artifact(kit.with_features(good, set="v1.9"))
    with pytest.raises(IntegrityError, match="columns"):
        open_artifact(kit.with_features(good, names=(*good.features.names[:5], "x")))
    with pytest.raises(IntegrityError, match="columns"):
        open_artifact(kit.with_features(good, names=tuple(reversed(good.features.names))))
    with pytest.raises(IntegrityError, match="fingerprint"):
        open_artifact(kit.with_features(good, fingerprint="0" * 64))
    fields = {f: getattr(good, f) for f in good.__struct_fields__}
    with pytest.raises(UnknownNameError, match="nobody"):
        open_artifact(type(good)(**{**fields, "model": PluginModel("nobody", {})}))


def test_a_plugin_that_raises_is_a_counted_error_and_the_cause_stays_inside(
    kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
):
    """A user's model that breaks on a row is a 500 that tells the client the kind of error and nothing else."""
    app, swapper = kit.application()

    def broken(_: Any) -> float:
        raise KeyError("secret path")

    monkeypatch.setattr(swapper.predictor.model, "_score", broken)
    status, reply = ask(kit, app, {"features": VECTOR})
    assert status == 500
    assert "secret" not in json.dumps(reply)
    assert b'ml_model_errors_total{error_type="exception"} 1' in kit.call(app, "GET", "/ml/metrics").body


def test_our_own_mistake_is_a_counted_500_on_both_ways_in(kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch):
    """An exception that nobody foresaw is the one shape of error and an error in the counts, never a broken connection."""
    app, swapper = kit.application()

    def broken(*_: Any) -> None:
        raise ValueError("secret path")

    monkeypatch.setattr(swapper.predictor, "check", broken)
    for way in (app, app.cold):
        assert ask(kit, way, {"features": VECTOR}) == (500, {"error": "internal error"})
    assert b'status="error"} 2' in kit.call(app, "GET", "/ml/metrics").body


def test_registry_children_of_two_models_are_apart(kit: SimpleNamespace):
    """Requests are counted under the version that answered them."""
    registry = Registry()
    for name in ("a", "b"):
        artifact = kit.logistic_artifact(name)
        Model(artifact.to_bytes(), artifact.digest, name, registry).succeeded()
    assert registry.value(metrics.PREDICT_REQUESTS, "a", "success") == 1
    assert registry.value(metrics.PREDICT_REQUESTS, "b", "success") == 1
