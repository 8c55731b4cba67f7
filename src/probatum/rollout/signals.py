"""Declare what alerts judge: recorded numbers that are absent where too little is known.

A ratio takes the shortest window that holds enough events, and "enough" is so many that one bad event alone is within the
bound; with fewer it is absent, and so are a process that is gone and a drift snapshot that is too old.
"""

from __future__ import annotations

import math

import msgspec

from probatum.monitoring.shadow import FAILED, SLOW_BOUNDS_MS, Outcome
from probatum.rollout import series
from probatum.rollout.criteria import DRIFT_CRITERIA, SHADOW_CRITERIA, SMOKE_CRITERIA, SMOKE_SLOW_MS
from probatum.rollout.policy import shipped_policy

WINDOWS_S = (300, 7_200)
"""Windows of a ratio, the shortest first: five minutes, or two hours where decisions come once a minute."""


def duration(seconds: float, scale: float = 1.0) -> str:
    """Return a Prometheus duration, scaled; never below a millisecond.

    >>> duration(300), duration(7_200), duration(300, 0.005)
    ('5m', '2h', '1500ms')
    """
    ms = max(1, round(seconds * scale * 1_000))
    units = (("h", 3_600_000), ("m", 60_000), ("s", 1_000))
    return next((f"{ms // size}{unit}" for unit, size in units if ms % size == 0), f"{ms}ms")


class Selector(msgspec.Struct, frozen=True):
    """Name the series of one metric whose label has one of some values (all of them without a label)."""

    metric: str
    label: str = ""
    values: tuple[str, ...] = ()

    @property
    def promql(self) -> str:
        """Return what selects them."""
        operator = "=" if len(self.values) == 1 else "=~"
        return f'{self.metric}{{{self.label}{operator}"{"|".join(self.values)}"}}' if self.label else self.metric


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Record ``part`` over the whole. ``rest`` is the remainder, or with ``within`` the whole that holds the part.

    ``n_min`` events are needed in a window. ``by`` is the label that tells apart what is judged on its own. ``criterion``
    is the name of what a plan asks for in this: where it only watches that, the alert stops no promotion.
    """

    name: str
    criterion: str = ""
    part: Selector
    rest: tuple[Selector, ...]
    within: bool = False
    n_min: int
    by: str = ""

    @property
    def read(self) -> str:
        """Return what reads the signal."""
        return self.name

    def promql(self, scale: float = 1.0) -> str:
        """Return the expression, whose windows are scaled."""
        ratio = " or ".join(self._over(duration(window_s, scale)) for window_s in WINDOWS_S)
        return f"({ratio}) and on ({self.by}) group{self._by} ({self.rest[0].promql})"

    @property
    def _by(self) -> str:
        return f" by ({self.by})" if self.by else ""

    def _over(self, window: str) -> str:
        part, *rest = (f"sum{self._by} (increase({item.promql}[{window}]))" for item in (self.part, *self.rest))
        whole = " + ".join(rest if self.within else [part, *rest])
        return f"{part} / ({whole} >= {self.n_min})"


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """Record the value of a gauge, which counts for ``lasts_s``; a level without a name is read as it is."""

    name: str = ""
    criterion: str = ""
    expression: str
    lasts_s: int = 0

    @property
    def read(self) -> str:
        """Return what reads the signal."""
        return self.name or self.expression

    def promql(self, scale: float = 1.0) -> str:
        """Return the expression, with the scaled seconds in place of ``$lasts``."""
        return self.expression.replace("$lasts", f"{self.lasts_s * scale:g}")


Signal = Ratio | Level

BOUNDS = {item.name: item.bound for item in (*SHADOW_CRITERIA, *DRIFT_CRITERIA, *SMOKE_CRITERIA)}
_SEED = shipped_policy("seed-v1.8")
_RATES = {item.name: item for item in _SEED.criteria}
FAST = 1.0 - BOUNDS["slow_rate"]
"""P95 within a bound is the claim that 95 % are."""


def _needed(bad_bound: float) -> int:
    """Return how many events make one bad one stay within the bound.

    >>> _needed(0.02), _needed(1.0 - 0.95)
    (50, 20)
    """
    return math.ceil(round(1.0 / bad_bound, 6))


def slo(name: str) -> float:
    """Return the SLO of a criterion of the seed's policy."""
    found = _RATES[name].slo
    assert found is not None
    return found


def abort(name: str) -> float:
    """Return the abort bound of a criterion of the seed's policy."""
    found = _RATES[name].abort
    assert found is not None
    return found


def _bucket(metric: str, bound_ms: float) -> Selector:
    return Selector(f"{metric}_bucket", "le", (str(float(bound_ms)),))


def _run(name: str, criterion: str, bad_bound: float) -> Ratio:
    part, whole = (Selector(metric, "measure", (_RATES[criterion].measure,)) for metric in (series.BAD, series.SAMPLES))
    return Ratio(
        name=name, criterion=criterion, part=part, rest=(whole,), within=True, n_min=_needed(bad_bound), by="run"
    )


SHADOW_MATCH = Ratio(
    name="ml:shadow_match:ratio",
    criterion="match_rate",
    part=Selector(series.SHADOW_MATCH),
    rest=(Selector(series.SHADOW_MISMATCH),),
    n_min=_needed(1.0 - BOUNDS["match_rate"]),
)
SHADOW_ERRORS = Ratio(
    name="ml:shadow_errors:ratio",
    criterion="error_rate",
    part=Selector(series.SHADOW_OUTCOMES, "outcome", tuple(item.value for item in FAILED)),
    rest=(Selector(series.SHADOW_OUTCOMES, "outcome", (Outcome.OK.value,)),),
    n_min=_needed(BOUNDS["shadow_error_rate"]),
)
PREDICT_FAST = Ratio(
    name=f"ml:predict_within_{SMOKE_SLOW_MS:g}ms:ratio",
    criterion="latency_p95_80ms",
    part=_bucket(series.PREDICT_LATENCY, SMOKE_SLOW_MS),
    rest=(Selector(f"{series.PREDICT_LATENCY}_count"),),
    within=True,
    n_min=_needed(1.0 - FAST),
)
SHADOW_FAST = Ratio(
    name=f"ml:shadow_within_{SLOW_BOUNDS_MS[0]}ms:ratio",
    part=_bucket(series.SHADOW_LATENCY, SLOW_BOUNDS_MS[0]),
    rest=(
        Selector(f"{series.SHADOW_LATENCY}_count"),
        Selector(series.SHADOW_OUTCOMES, "outcome", (Outcome.TIMEOUT.value,)),
    ),
    within=True,
    n_min=_needed(1.0 - FAST),
)
MODEL_ERRORS = Ratio(
    name="ml:model_errors:ratio",
    criterion="error_rate",
    part=Selector(series.PREDICT_REQUESTS, "status", ("error",)),
    rest=(Selector(series.PREDICT_REQUESTS, "status", ("success",)),),
    n_min=_needed(slo("error_rate")),
)
CANARY_ERRORS = _run("ml:canary_errors:ratio", "error_rate", abort("error_rate"))
CANARY_SLOW = _run("ml:canary_slow:ratio", "latency_p95_80ms", slo("latency_p95_80ms"))
CANARY_MISMATCHES = _run("ml:canary_mismatches:ratio", "match_rate", 1.0 - slo("match_rate"))

LEADS = f"{series.CONTROLLER_LEADS} == 1"
_LED = f"and on (job, instance) ({LEADS})"  # one that lost the lead shows what it last knew
PSI_TIME = f"max by (model) ({series.PSI_TIME} {_LED})"
_FRESH_PSI = f"max by (model) ({series.PSI}{{%s}} {_LED}) and on (model) (time() - {PSI_TIME} < $lasts)"
_PSI_AGE_S = _SEED.promotion.drift_age_max_s
PSI_OVERALL = Level(
    name="ml:psi_overall:max", criterion="psi_overall", expression=_FRESH_PSI % 'feature="overall"', lasts_s=_PSI_AGE_S
)
PSI_WORST = Level(
    name="ml:psi_worst:max", criterion="psi_feature", expression=_FRESH_PSI % 'enforced="true"', lasts_s=_PSI_AGE_S
)
ENGINE_UP = Level(expression=f'up{{job="{series.ENGINES}"}}')
CANARY = Level(
    name="ml:canary_share_percent:max",
    expression=f"max by (run) ({series.CANARY_SHARE} {_LED}) > 0",
)
"""Attempts that have a share now, as the controller that leads says."""

SIGNALS: tuple[Signal, ...] = (
    SHADOW_MATCH, SHADOW_ERRORS, PREDICT_FAST, SHADOW_FAST, MODEL_ERRORS, CANARY_ERRORS, CANARY_SLOW, CANARY_MISMATCHES,
    PSI_OVERALL, PSI_WORST, CANARY,
)  # fmt: skip
"""What is recorded."""
