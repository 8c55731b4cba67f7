"""Declare the alerts: a signal, its bound from the criteria, how long, and what follows.

Each has a twin that fires while its signal is absent: an alert that cannot see never looks like one that sees nothing.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from probatum.monitoring.shadow import SLOW_BOUNDS_MS
from probatum.rollout.criteria import SMOKE_SLOW_MS
from probatum.rollout.signals import (
    BOUNDS,
    CANARY,
    CANARY_ERRORS,
    CANARY_MISMATCHES,
    CANARY_SLOW,
    ENGINE_UP,
    FAST,
    LEADS,
    MODEL_ERRORS,
    PREDICT_FAST,
    PSI_OVERALL,
    PSI_TIME,
    PSI_WORST,
    SHADOW_ERRORS,
    SHADOW_FAST,
    SHADOW_MATCH,
    Ratio,
    Signal,
    abort,
    slo,
)

EVERY_S = 30
"""How often rules are evaluated."""

Severity = Literal["abort", "critical", "warning", "info"]


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
        return f"{self.signal.read} {self.beyond} {self.bound:g}" + (self._canary if self.during else "")

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
        read, signal = self.signal.read, self.signal
        unseen = f"absent({read})"
        if isinstance(signal, Ratio) and signal.by:
            unseen = f"{CANARY.name} unless on ({signal.by}) {read}"
        elif self.during:
            unseen = f"{unseen}{self._canary}"
        elif signal in (PSI_OVERALL, PSI_WORST):
            unseen = f"{unseen} or ({PSI_TIME} unless on (model) {read})"
        return f"{unseen} or absent({LEADS})" if self.during else unseen


_5M, _10M, _1H = 300, 600, 3_600
_PSI_WARNING, _PSI_CRITICAL = BOUNDS["psi_overall"], BOUNDS["psi_feature"]


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
    _alert("MLShadowMatchLow", "warning", _10M, SHADOW_MATCH, "<", BOUNDS["match_rate"],
           "Challenger and baseline agree too seldom."),
    _alert("MLShadowErrorRateHigh", "warning", _5M, SHADOW_ERRORS, ">", BOUNDS["shadow_error_rate"],
           "Too many decisions went by without the challenger's answer."),
    _alert("MLPredictLatencyP95High", "warning", _10M, PREDICT_FAST, "<", FAST,
           f"The engine's P95 is beyond {SMOKE_SLOW_MS:g} ms."),
    _alert("MLShadowLatencyP95High", "warning", _10M, SHADOW_FAST, "<", FAST,
           f"The P95 of shadow calls is beyond {SLOW_BOUNDS_MS[0]} ms; a timeout is slow."),
    _alert("MLPSIWarning", "warning", _1H, PSI_OVERALL, ">", _PSI_WARNING, "The market has drifted from the training window."),
    _alert("MLPSICritical", "critical", _1H, PSI_OVERALL, ">", _PSI_CRITICAL,
           "The market has drifted far from the training window: a retrain proposal is opened."),
    _alert("MLModelErrorsHigh", "warning", _5M, MODEL_ERRORS, ">", slo("error_rate"),
           "The model fails on too many valid requests."),
    _alert("MLEngineDown", "critical", 120, ENGINE_UP, "==", 0.0, "An engine cannot be scraped."),
    _alert("MLCanaryPredictLatencyP95High", "warning", _10M, CANARY_SLOW, ">", slo("latency_p95_80ms"),
           "The canary's P95 is beyond 80 ms."),
    _alert("MLCanaryShadowMatchLow", "warning", _10M, CANARY_MISMATCHES, ">", 1.0 - slo("match_rate"),
           "The canary agrees with the baseline too seldom."),
    _alert("MLCanaryShadowErrorRateHigh", "abort", _5M, CANARY_ERRORS, ">", abort("error_rate"),
           "The canary's errors are beyond its abort bound."),
    _alert("MLCanaryModelErrorsHigh", "warning", _5M, MODEL_ERRORS, ">", slo("error_rate"),
           "The model fails on too many valid requests while a canary runs."),
    _alert("MLCanaryPSIWarning", "info", _1H, PSI_OVERALL, ">", _PSI_WARNING, "Drift while a canary runs."),
    _alert("MLCanaryPSICritical", "info", _1H, PSI_OVERALL, ">", _PSI_CRITICAL, "Much drift while a canary runs."),
    _alert("ML_PSI_Critical", "critical", _1H, PSI_WORST, ">", _PSI_CRITICAL,
           "A feature has drifted far from the training window: a retrain proposal is opened."),
    _alert("ML_Shadow_MatchRate_Low", "warning", _10M, SHADOW_MATCH, "<", BOUNDS["match_rate"],
           "Challenger and baseline agree too seldom."),
    _alert("ML_Predict_P95_High", "critical", _10M, PREDICT_FAST, "<", FAST,
           f"The engine's P95 is beyond {SMOKE_SLOW_MS:g} ms."),
)  # fmt: skip
