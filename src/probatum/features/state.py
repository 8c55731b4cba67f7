"""Hold the running features of one instrument: what serving updates event by event."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probatum.core.canonical import sha256_hex
from probatum.core.errors import DataError, IntegrityError, ParameterError
from probatum.features import kernels
from probatum.features.jit import freeze
from probatum.features.sets import FeatureSet, get_feature_set

_KINDS = ("quote", "trade", "bar", "timer")
_MAGIC = b"probatum.features/1\n"


def refusal(code: int, ts: int, kind: int, values: tuple[float, ...], row: int | None = None) -> DataError:
    """Return the error for an event that a kernel refused."""
    name = _KINDS[kind] if 0 <= kind < len(_KINDS) else f"event of unknown kind {kind}"
    if code == kernels.REFUSED_TIME:
        return DataError(f"{name} is not later than what came before it", row=row, field="ts", value=ts)
    return DataError(f"{name} has an impossible price, size or spread", row=row, field="values", value=values)


def new_state(feature_set: FeatureSet, tick_size: float | None) -> NDArray[np.float64]:
    """Return the state of a set before its first event; a set that counts in ticks needs to know the tick."""
    needs = feature_set.needs
    if "tick" in needs and not (tick_size is not None and 0.0 < tick_size < np.inf):
        raise ParameterError("tick_size", f"a number > 0 for feature set {feature_set.name!r}", tick_size)
    return kernels.new_state(
        kernels.CODES[feature_set.name],
        spread="spread" in needs,
        volume="volume" in needs,
        sizes="sizes" in needs,
        tick_size=tick_size if tick_size is not None else float("nan"),
    )


def columns(feature_set: FeatureSet) -> NDArray[np.int64]:
    """Return where the columns of a variant stand in the full set that the kernel computes."""
    full = get_feature_set(feature_set.name).names
    return np.array([full.index(name) for name in feature_set.names], dtype=np.int64)


class FeatureState:
    """Update the features of one instrument, one event at a time, with the kernel that :func:`fold` loops over.

    >>> from probatum.market.events import BAR
    >>> state = FeatureState(get_feature_set("v1.8-b0", frozenset({"volume"})), tick_size=None)
    >>> for minute in range(1, 17):
    ...     ready = state.update(minute * 60_000_000_000, BAR, 100.0 + minute % 2, float("nan"), 5.0, 0.0)
    >>> ready, dict(zip(state.feature_set.names, state.values.round(3).tolist()))
    (True, {'bias': 1.0, 'mid': 100.0, 'vol1m': 5.0, 'rsi14': 46.429, 'log_vol1m': 1.792})
    """

    def __init__(self, feature_set: FeatureSet, tick_size: float | None) -> None:
        self.feature_set = feature_set
        self._state = new_state(feature_set, tick_size)
        self._start = self._state.copy()
        self._out = np.full(kernels.WIDTHS[kernels.CODES[feature_set.name]], np.nan)
        self._columns = columns(feature_set)
        self._step = kernels.step
        # The first call compiles; it changes nothing, since the time is impossible. Later an int price is converted.
        self._step(self._state, self._out, 0, 0, 0.0, 0.0, 0.0, 0.0)
        freeze(self._step)

    def update(self, ts: int, kind: int, a: float, b: float, c: float, d: float) -> bool:
        """Take one event (``market.events`` says what a, b, c, d are) and return whether the vector is ready.

        Raises DataError, and changes nothing, when time goes back or a value is impossible.
        """
        code = self._step(self._state, self._out, ts, kind, a, b, c, d)
        if code < 0:
            raise refusal(code, ts, kind, (a, b, c, d))
        return code == kernels.READY

    @property
    def values(self) -> NDArray[np.float64]:
        """Return the columns of the set after the last event, float64[k]; all NaN while it is not ready."""
        return self._out.take(self._columns)

    @property
    def mid(self) -> float:
        """Return the mid in force after the last event; NaN where none is."""
        return self._state.item(kernels.MID)

    @property
    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the state and the full vector themselves, for the compiled loop to move."""
        return self._state, self._out

    def save(self) -> bytes:
        """Return everything that :meth:`restore` needs to go on with the very next event."""
        body = self.feature_set.fingerprint.encode() + self._state.tobytes() + self._out.tobytes()
        return _MAGIC + sha256_hex(body).encode() + body

    def restore(self, data: bytes) -> None:
        """Go on from saved bytes; IntegrityError when they are damaged or belong to another set or tick size."""
        state_end = 64 + self._state.nbytes
        body = data[len(_MAGIC) + 64 :]
        if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : len(_MAGIC) + 64] != sha256_hex(body).encode():
            raise IntegrityError("feature state", "the bytes are not what was saved")
        if body[:64] != self.feature_set.fingerprint.encode() or len(body) != state_end + self._out.nbytes:
            raise IntegrityError("feature state", f"saved by another feature set than {self.feature_set.name!r}")
        state = np.frombuffer(body[64:state_end]).copy()
        if state[: kernels.CONFIG].tobytes() != self._start[: kernels.CONFIG].tobytes():
            raise IntegrityError("feature state", "saved with another tick size")
        self._state, self._out = state, np.frombuffer(body[state_end:]).copy()

    def fingerprint(self) -> str:
        """Return the digest of the state: equal after equal events, in any process."""
        return sha256_hex(self.save())
