"""Label rows with what came after them. A label says when it became known; a horizon never crosses a break."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from probatum.core.clock import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE, NS_PER_MS, NS_PER_S
from probatum.core.errors import ParameterError

KINDS = ("direction", "large_move", "next_move")
_NAME = re.compile(r"(?P<kind>[a-z_]+)(@(?P<count>[1-9][0-9]{0,7})(?P<unit>ms|s|m|h))?(?P<drop>:drop-unchanged)?")
_UNITS = {"ms": NS_PER_MS, "s": NS_PER_S, "m": NS_PER_MINUTE, "h": NS_PER_HOUR}
_FORMS = "direction@H, direction@H:drop-unchanged, large_move@H (H like 10s, 1m, 1h, at most 24h) or next_move"
HOLE_NS = 6 * NS_PER_MINUTE  # five silent minutes between two stamps; the kernels carry no more either


class Target(msgspec.Struct, frozen=True):
    """Name what a model foretells. ``horizon_ns`` is 0 for ``next_move``, which has none.

    ``direction``: 1 where the forward log return of mid is above 0, unchanged rows are 0. With ``drop_unchanged`` these
    rows are dropped, which looks into the future: the figure says how well moves are told apart *given* that there is one.
    ``large_move``: 1 where the forward return is larger in size than the median of those of the last 24 hours of trading
    that were known by then (at least 6 hours). ``next_move``: 1 where the next change of mid is upward.
    """

    kind: str
    horizon_ns: int = 0
    drop_unchanged: bool = False

    def __post_init__(self) -> None:
        known = self.kind in KINDS and (not self.drop_unchanged or self.kind == "direction")
        timed = self.horizon_ns == 0 if self.kind == "next_move" else 0 < self.horizon_ns <= NS_PER_DAY
        if not (known and timed and self.horizon_ns % NS_PER_MS == 0):
            raise ParameterError("target", _FORMS, f"{self.kind}@{self.horizon_ns}ns")

    @property
    def name(self) -> str:
        """Return the one spelling of this target.

        >>> parse_target("direction@1m:drop-unchanged").name
        'direction@60s:drop-unchanged'
        """
        if self.kind == "next_move":
            return self.kind
        whole = self.horizon_ns % NS_PER_S == 0
        horizon = f"{self.horizon_ns // NS_PER_S}s" if whole else f"{self.horizon_ns // NS_PER_MS}ms"
        return f"{self.kind}@{horizon}" + (":drop-unchanged" if self.drop_unchanged else "")


def parse_target(name: str) -> Target:
    """Read a target's name.

    >>> parse_target("large_move@60s")
    Target(kind='large_move', horizon_ns=60000000000, drop_unchanged=False)
    """
    match = _NAME.fullmatch(name)
    if match is None or match["kind"] not in KINDS:
        raise ParameterError("target", _FORMS, name)
    horizon_ns = int(match["count"]) * _UNITS[match["unit"]] if match["count"] else 0
    try:
        return Target(match["kind"], horizon_ns, match["drop"] is not None)
    except ParameterError:
        raise ParameterError("target", _FORMS, name) from None


@dataclass(frozen=True)
class Labels:
    """Hold n labels; where not ``valid``, the other fields mean nothing.

    ``label`` int8[n], ``fwd_return`` float64[n] (log return of mid), ``label_end`` int64[n] (ns, when it became known).
    """

    label: NDArray[np.int8]
    fwd_return: NDArray[np.float64]
    label_end: NDArray[np.int64]
    valid: NDArray[np.bool_]


def segments(ts: NDArray[np.int64], mid: NDArray[np.float64], session: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each row the number of its unbroken stretch: one session, no hole over five minutes, mid known."""
    unknown = np.isnan(mid)
    breaks = (np.diff(ts) > HOLE_NS) | (np.diff(session) != 0) | unknown[1:] | unknown[:-1]
    return np.concatenate(([0], np.cumsum(breaks)))[: len(ts)].astype(np.int64)


def label(
    target: Target, ts: NDArray[np.int64], mid: NDArray[np.float64], segment: NDArray[np.int64], step_ns: int
) -> Labels:
    """Label rows ``step_ns`` apart (times ascend strictly); a row whose horizon leaves its segment is not valid.

    Raises ParameterError where the horizon is not a whole number of steps: the forward mid would be an old one.
    """
    if len(ts) > 1 and not bool((np.diff(ts) > 0).all()):
        raise ParameterError("ts", "ascending strictly", "equal or falling times")
    if target.horizon_ns % step_ns:
        raise ParameterError(
            "target", f"at a horizon of a whole number of rows ({step_ns / NS_PER_S:g} s)", target.name
        )
    later, end, valid = _next_change(ts, mid, segment) if target.kind == "next_move" else _ahead(target, ts, segment)
    valid &= ~np.isnan(mid)
    fwd_return = np.full(len(ts), np.nan)
    fwd_return[valid] = np.log(mid[later[valid]] / mid[valid])
    hit = fwd_return > 0.0
    if target.kind == "large_move":
        median = _known_median(np.abs(fwd_return[valid]), end[valid], ts, step_ns)
        valid &= ~np.isnan(median)
        hit = np.abs(fwd_return) > median
    if target.drop_unchanged:
        valid &= fwd_return != 0.0
    return Labels(hit.astype(np.int8), fwd_return, end, valid)


_Found = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]


def _ahead(target: Target, ts: NDArray[np.int64], segment: NDArray[np.int64]) -> _Found:
    """Return the row in force at the horizon; the segment must go on to it or beyond."""
    end = ts + target.horizon_ns
    later = np.searchsorted(ts, end, side="right") - 1
    beyond = np.minimum(later + 1, len(ts) - 1)
    reached = (ts[later] == end) | ((segment[beyond] == segment) & (beyond > later))
    return later, end, (segment[later] == segment) & reached


def _next_change(ts: NDArray[np.int64], mid: NDArray[np.float64], segment: NDArray[np.int64]) -> _Found:
    rows = np.arange(len(ts))
    changes = np.append(np.flatnonzero(np.diff(mid) != 0.0) + 1, -1)
    later = changes[np.searchsorted(changes[:-1], rows, side="right")]
    return later, ts[later], (later > rows) & (segment[later] == segment)


def _known_median(
    size: NDArray[np.float64], end: NDArray[np.int64], ts: NDArray[np.int64], step_ns: int
) -> NDArray[np.float64]:
    """Return for each time the median of the sizes that had ended by then, over the last 24 h of rows, at least 6 h."""
    window, least = max(NS_PER_DAY // step_ns, 1), max(6 * NS_PER_HOUR // step_ns, 1)
    medians = pl.Series(size).rolling_median(window, min_samples=least).fill_null(float("nan")).to_numpy()
    return np.append(medians, np.nan)[np.searchsorted(end, ts, side="right") - 1]
