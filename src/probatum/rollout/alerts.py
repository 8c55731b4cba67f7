"""Declare the alerts: signals that are absent where too little is known, bounds from the criteria, and what each asks for.

A signal is a recorded rule. A ratio takes the shortest window that holds enough events, and "enough" is so many that one bad
event alone is within the bound; with fewer it is absent, and so is a drift snapshot that is too old. Each alert has a twin
that fires while its signal is absent: an alert that cannot see never looks like one that sees nothing.
"""

from __future__ import annotations

import math
import re
from typing import Literal

import msgspec

from probatum.core.clock import parse_utc
from probatum.core.errors import ParameterError
from probatum.monitoring.shadow import FAILED, SLOW_BOUNDS_MS, Outcome
from probatum.rollout import series
from probatum.rollout.criteria import DRIFT_CRITERIA, SHADOW_CRITERIA, SMOKE_CRITERIA, SMOKE_SLOW_MS
from probatum.rollout.policy import shipped_policy

EVERY_S = 30
"""How often rules are evaluated."""
WINDOWS_S = (300, 7_200)
"""Windows of a ratio, the shortest first: five minutes, or two hours where decisions come once a minute."""

Severity = Literal["abort", "critical", "warning", "info"]
Status = Literal["firing", "resolved"]
_MODEL = re.compile(r"[0-9a-f]{64}")


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

    def promql(self, scale: float = 1.0) -> str:
        """Return the expression, with the scaled seconds in place of ``$lasts``."""
        return self.expression.replace("$lasts", f"{self.lasts_s * scale:g}")


Signal = Ratio | Level


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Declare one alert: it fires when ``signal`` has been beyond ``bound`` for ``for_s``.

    ``during`` restricts it to a canary that is running. ``action`` is what a firing asks of the controller.
    """

    name: str
    file: Literal["ml", "ml-canary", "ml-automation"]
    severity: Severity
    for_s: int
    signal: Signal
    beyond: Literal[">", "<", "=="]
    bound: float
    summary: str
    during: bool = False
    action: Literal["", "retrain"] = ""

    @property
    def promql(self) -> str:
        """Return the condition."""
        return f"{_read(self.signal)} {self.beyond} {self.bound:g}" + (self._canary if self.during else "")

    @property
    def _canary(self) -> str:
        by = self.signal.by if isinstance(self.signal, Ratio) else ""
        return f" and on ({by}) group{f' by ({by})' if by else ''} ({CANARY.name})"

    @property
    def twin(self) -> str:
        """Return the name of the alert that fires while this one cannot see."""
        return f"{self.name}NoData"

    @property
    def labels(self) -> dict[str, str]:
        """Return what the alert is labelled with."""
        more = {"criterion": self.signal.criterion, "action": self.action}
        return {"severity": self.severity, **{name: value for name, value in more.items() if value}}

    @property
    def twin_labels(self) -> dict[str, str]:
        """Return the twin's labels, one grade lower: not to know is less than the thing itself, and not nothing."""
        severity = "warning" if self.severity in ("abort", "critical") else "info"
        about = {"criterion": self.signal.criterion} if self.signal.criterion else {}
        return {"severity": severity, **about, "twin_of": self.name}

    @property
    def twin_summary(self) -> str:
        """Return what the twin says."""
        return f"{self.name} cannot see: too little data, or none that is fresh."

    @property
    def twin_promql(self) -> str:
        """Return the condition under which nothing is known."""
        read, signal = _read(self.signal), self.signal
        unseen = f"absent({read})"
        if isinstance(signal, Ratio) and signal.by:
            unseen = f"{CANARY.name} unless on ({signal.by}) {read}"
        elif self.during:
            unseen = f"{unseen}{self._canary}"
        elif signal in (PSI_OVERALL, PSI_WORST):
            unseen = f"{unseen} or ({_PSI_TIME} unless on (model) {read})"
        return f"{unseen} or absent({_LEADS})" if self.during else unseen


def _read(signal: Signal) -> str:
    return signal.name or signal.promql()


# --- signals ----------------------------------------------------------------------------------------------------------

_BOUNDS = {item.name: item.bound for item in (*SHADOW_CRITERIA, *DRIFT_CRITERIA, *SMOKE_CRITERIA)}
_SEED = shipped_policy("seed-v1.8")
_RATES = {item.name: item for item in _SEED.criteria}
_FAST = 1.0 - _BOUNDS["slow_rate"]
"""P95 within a bound is the claim that 95 % are."""


def _needed(bad_bound: float) -> int:
    """Return how many events make one bad one stay within the bound.

    >>> _needed(0.02), _needed(1.0 - 0.95)
    (50, 20)
    """
    return math.ceil(round(1.0 / bad_bound, 6))


def _slo(name: str) -> float:
    found = _RATES[name].slo
    assert found is not None
    return found


def _abort(name: str) -> float:
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
    n_min=_needed(1.0 - _BOUNDS["match_rate"]),
)
SHADOW_ERRORS = Ratio(
    name="ml:shadow_errors:ratio",
    criterion="error_rate",
    part=Selector(series.SHADOW_OUTCOMES, "outcome", tuple(item.value for item in FAILED)),
    rest=(Selector(series.SHADOW_OUTCOMES, "outcome", (Outcome.OK.value,)),),
    n_min=_needed(_BOUNDS["shadow_error_rate"]),
)
PREDICT_FAST = Ratio(
    name=f"ml:predict_within_{SMOKE_SLOW_MS:g}ms:ratio",
    criterion="latency_p95_80ms",
    part=_bucket(series.PREDICT_LATENCY, SMOKE_SLOW_MS),
    rest=(Selector(f"{series.PREDICT_LATENCY}_count"),),
    within=True,
    n_min=_needed(1.0 - _FAST),
)
SHADOW_FAST = Ratio(
    name=f"ml:shadow_within_{SLOW_BOUNDS_MS[0]}ms:ratio",
    part=_bucket(series.SHADOW_LATENCY, SLOW_BOUNDS_MS[0]),
    rest=(
        Selector(f"{series.SHADOW_LATENCY}_count"),
        Selector(series.SHADOW_OUTCOMES, "outcome", (Outcome.TIMEOUT.value,)),
    ),
    within=True,
    n_min=_needed(1.0 - _FAST),
)
MODEL_ERRORS = Ratio(
    name="ml:model_errors:ratio",
    criterion="error_rate",
    part=Selector(series.PREDICT_REQUESTS, "status", ("error",)),
    rest=(Selector(series.PREDICT_REQUESTS, "status", ("success",)),),
    n_min=_needed(_slo("error_rate")),
)
CANARY_ERRORS = _run("ml:canary_errors:ratio", "error_rate", _abort("error_rate"))
CANARY_SLOW = _run("ml:canary_slow:ratio", "latency_p95_80ms", _slo("latency_p95_80ms"))
CANARY_MISMATCHES = _run("ml:canary_mismatches:ratio", "match_rate", 1.0 - _slo("match_rate"))

_LEADS = f"{series.CONTROLLER_LEADS} == 1"
_LED = f"and on (job, instance) ({_LEADS})"  # one that lost the lead shows what it last knew
_PSI_TIME = f"max by (model) ({series.PSI_TIME} {_LED})"
_FRESH_PSI = f"max by (model) ({series.PSI}{{%s}} {_LED}) and on (model) (time() - {_PSI_TIME} < $lasts)"
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

# --- alerts -----------------------------------------------------------------------------------------------------------

_5M, _10M, _1H = 300, 600, 3_600
_PSI_WARNING, _PSI_CRITICAL = _BOUNDS["psi_overall"], _BOUNDS["psi_feature"]


def _alert(
    name: str, severity: Severity, for_s: int, signal: Signal, beyond: Literal[">", "<", "=="], bound: float, says: str
) -> Alert:
    during = name.startswith("MLCanary")
    file: Literal["ml", "ml-canary", "ml-automation"] = (
        "ml-canary" if during else "ml-automation" if name.startswith("ML_") else "ml"
    )
    action: Literal["", "retrain"] = "retrain" if name in ("MLPSICritical", "ML_PSI_Critical") else ""
    return Alert(
        name=name, file=file, severity=severity, for_s=for_s, signal=signal, beyond=beyond, bound=bound, summary=says,
        during=during, action=action,
    )  # fmt: skip


ALERTS: tuple[Alert, ...] = (
    _alert("MLShadowMatchLow", "warning", _10M, SHADOW_MATCH, "<", _BOUNDS["match_rate"],
           "Challenger and baseline agree too seldom."),
    _alert("MLShadowErrorRateHigh", "warning", _5M, SHADOW_ERRORS, ">", _BOUNDS["shadow_error_rate"],
           "Too many decisions went by without the challenger's answer."),
    _alert("MLPredictLatencyP95High", "warning", _10M, PREDICT_FAST, "<", _FAST,
           f"The engine's P95 is beyond {SMOKE_SLOW_MS:g} ms."),
    _alert("MLShadowLatencyP95High", "warning", _10M, SHADOW_FAST, "<", _FAST,
           f"The P95 of shadow calls is beyond {SLOW_BOUNDS_MS[0]} ms; a timeout is slow."),
    _alert("MLPSIWarning", "warning", _1H, PSI_OVERALL, ">", _PSI_WARNING, "The market has drifted from the training window."),
    _alert("MLPSICritical", "critical", _1H, PSI_OVERALL, ">", _PSI_CRITICAL,
           "The market has drifted far from the training window: a retrain proposal is opened."),
    _alert("MLModelErrorsHigh", "warning", _5M, MODEL_ERRORS, ">", _slo("error_rate"),
           "The model fails on too many valid requests."),
    _alert("MLEngineDown", "critical", 120, ENGINE_UP, "==", 0.0, "An engine cannot be scraped."),
    _alert("MLCanaryPredictLatencyP95High", "warning", _10M, CANARY_SLOW, ">", _slo("latency_p95_80ms"),
           "The canary's P95 is beyond 80 ms."),
    _alert("MLCanaryShadowMatchLow", "warning", _10M, CANARY_MISMATCHES, ">", 1.0 - _slo("match_rate"),
           "The canary agrees with the baseline too seldom."),
    _alert("MLCanaryShadowErrorRateHigh", "abort", _5M, CANARY_ERRORS, ">", _abort("error_rate"),
           "The canary's errors are beyond its abort bound."),
    _alert("MLCanaryModelErrorsHigh", "warning", _5M, MODEL_ERRORS, ">", _slo("error_rate"),
           "The model fails on too many valid requests while a canary runs."),
    _alert("MLCanaryPSIWarning", "info", _1H, PSI_OVERALL, ">", _PSI_WARNING, "Drift while a canary runs."),
    _alert("MLCanaryPSICritical", "info", _1H, PSI_OVERALL, ">", _PSI_CRITICAL, "Much drift while a canary runs."),
    _alert("ML_PSI_Critical", "critical", _1H, PSI_WORST, ">", _PSI_CRITICAL,
           "A feature has drifted far from the training window: a retrain proposal is opened."),
    _alert("ML_Shadow_MatchRate_Low", "warning", _10M, SHADOW_MATCH, "<", _BOUNDS["match_rate"],
           "Challenger and baseline agree too seldom."),
    _alert("ML_Predict_P95_High", "critical", _10M, PREDICT_FAST, "<", _FAST,
           f"The engine's P95 is beyond {SMOKE_SLOW_MS:g} ms."),
)  # fmt: skip

# --- what comes back --------------------------------------------------------------------------------------------------


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what was told of one alert: it holds since ``starts``, or held until ``ends``. Times are ISO 8601."""

    name: str
    status: Status
    fingerprint: str
    starts: str
    ends: str | None
    labels: dict[str, str]

    def __post_init__(self) -> None:
        if (self.status == "resolved") != (self.ends is not None):
            raise ParameterError("ends", "given for what is resolved and only for it", self.ends)
        if self.ends is not None and parse_utc(self.ends) < parse_utc(self.starts):
            raise ParameterError("ends", f"no earlier than {self.starts}", self.ends)


def propose(notice: Notice) -> str | None:
    """Return the digest of the model that is to be retrained, where a notice asks for it.

    >>> notice = Notice(name="MLPSICritical", status="firing", fingerprint="a", starts="2026-01-01T00:00:00Z", ends=None,
    ...                 labels={"model": "ab" * 32})
    >>> propose(notice) == "ab" * 32, propose(msgspec.structs.replace(notice, name="MLPSIWarning"))
    (True, None)
    """
    model = notice.labels.get("model", "")
    asks = notice.status == "firing" and notice.name in {item.name for item in ALERTS if item.action == "retrain"}
    return model if asks and _MODEL.fullmatch(model) else None
