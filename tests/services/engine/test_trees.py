"""Trees through the running engine: what is served is LightGBM's own answer, to the last bit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from probatum.adapters.importers import read_files
from probatum.features.labels import parse_target
from probatum.features.samples import build_samples
from probatum.features.splits import split
from probatum.market.quality import screen
from probatum.models.trees import TreesTrainer
from probatum.services.engine.schema import ROWS_MAX


@pytest.mark.real_data
def test_every_row_of_a_real_test_set_is_served_as_lightgbm_predicts_it(
    kit: SimpleNamespace, tmp_path: Path, shared_data: Path
) -> None:
    """LightGBM runs here and not in the engine, which scores some 9,000 rows of a month of ETHUSDT over HTTP: no bit differs."""
    lightgbm = pytest.importorskip("lightgbm", exc_type=OSError)
    recording = read_files("binance-klines", [shared_data / "binance_klines" / "ETHUSDT_1min_sample.csv"])
    samples = build_samples([screen(recording).dataset], "robust", parse_target("large_move@60s"), grid_ns=None)
    parts = split(samples, embargo_ns=3_600 * 10**9)
    values = np.ascontiguousarray(samples.values)
    model = TreesTrainer().fit(values[parts.train], samples.label[parts.train], names=samples.feature_set.names, seed=7)
    artifact = kit.with_features(
        msgspec.structs.replace(kit.seed_artifact(), name="trees", model=model),
        set="robust", names=samples.feature_set.names, fingerprint=samples.feature_set.fingerprint,
    )  # fmt: skip
    rows = values[parts.test]
    served: list[float] = []
    with kit.running(tmp_path, {"champion": artifact}) as engine:
        for start in range(0, len(rows), ROWS_MAX):
            body = {"rows": rows[start : start + ROWS_MAX].tolist(), "fingerprint": artifact.features.fingerprint}
            status, reply = engine.ask("POST", "/ml/predict", body)
            assert status == 200, reply
            served += reply["scores"]
    booster = lightgbm.Booster(model_str=model.text)
    assert len(served) == len(rows) > 8_000
    assert len(set(served)) > 1_000
    assert np.array(served).tobytes() == booster.predict(rows).tobytes()
