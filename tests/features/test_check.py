"""The check finds what it promises to find."""

from __future__ import annotations

import numpy as np
import pytest
from feature_streams import bars, head, ticks

from probatum.core.errors import ParameterError
from probatum.features import check as module
from probatum.features.check import check_features
from probatum.features.fold import FeatureFrame, fold
from probatum.features.sets import FEATURE_SETS, FeatureSet
from probatum.features.state import FeatureState
from probatum.market.events import Events

SETS = sorted(FEATURE_SETS)


def verdicts(name: str, events: Events) -> dict[str, bool]:
    return {check.name: check.ok for check in check_features(FEATURE_SETS[name], events, 0.01)}


@pytest.mark.parametrize("name", SETS)
def test_the_shipped_sets_keep_every_promise(name: str) -> None:
    """All checks pass on a stream with holes, each on some rows."""
    events = ticks(200) if name == "book" else bars(900, holes=((500, 3), (700, 9)))
    checks = check_features(FEATURE_SETS[name], events, 0.01)
    assert [check.name for check in checks] == [
        "ready",
        "online equals batch",
        "compiled equals plain",
        "no look ahead",
    ]
    assert all(check.ok and check.rows > 0 for check in checks), checks


def test_no_ready_row_fails() -> None:
    """Nothing compared is nothing proven; nothing given is an error."""
    assert verdicts("robust", bars(100)) == {"ready": False}
    with pytest.raises(ParameterError):
        check_features(FEATURE_SETS["robust"], head(bars(5), 0), None)


def test_an_online_path_of_its_own_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A last bit of difference in one online value fails the check that names row and column."""

    class Other(FeatureState):
        @property
        def values(self) -> np.ndarray:
            found = super().values
            found[4] = np.nextafter(found[4], np.inf)
            return found

    monkeypatch.setattr(module, "FeatureState", Other)
    checks = {c.name: c for c in check_features(FEATURE_SETS["v1.8-b0"], bars(60), None)}
    assert not checks["online equals batch"].ok
    assert "row 14, rsi14" in checks["online equals batch"].detail


def test_a_look_ahead_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that takes its mean over the whole file fails the truncation check."""

    def leaky(feature_set: FeatureSet, events: Events, **options: object) -> FeatureFrame:
        frame = fold(feature_set, events, **options)  # type: ignore[arg-type]
        frame.values[frame.ready, 1] -= frame.mid.sum()
        return frame

    monkeypatch.setattr(module, "fold", leaky)
    checks = {c.name: c for c in check_features(FEATURE_SETS["v1.8-b0"], bars(300), None)}
    assert not checks["no look ahead"].ok
    assert "mid" in checks["no look ahead"].detail


def test_a_compiled_kernel_that_differs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One state entry that the plain kernel has otherwise fails the check."""
    plain = module.load_plain("probatum.features.kernels")
    original = plain.step

    def step(state: np.ndarray, out: np.ndarray, *event: float) -> int:
        answer: int = original(state, out, *event)
        state[21] = np.nextafter(state[21], np.inf)
        return answer

    monkeypatch.setattr(plain, "step", step)
    monkeypatch.setattr(module, "load_plain", lambda _: plain)
    assert not verdicts("v1.8-b0", bars(60))["compiled equals plain"]
