"""Declare every metric once: name, kind, labels, bucket edges, and the conventional twin of a name the seed gave.

Rules, dashboards and docs read these declarations. A twin shares its cells with the metric and is only scaled when it
is exposed, so the two can never disagree.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from probatum.core.errors import ParameterError
from probatum.rollout import series

Kind = Literal["counter", "gauge", "histogram"]

# Edges at every bound that a criterion uses (60, 80, 120 ms; 0.05) and below 1 ms, where the engine answers.
LATENCY_MS = (
    0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 40.0, 60.0, 80.0, 100.0, 120.0, 250.0, 500.0, 1000.0, 2500.0,
)  # fmt: skip
LATENCY_DELTA_MS = (-120.0, -80.0, -60.0, -10.0, -1.0, 0.0, *(edge for edge in LATENCY_MS if edge >= 0.25))
SCORE = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
DELTA = (0.001, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


class Twin(msgspec.Struct, frozen=True):
    """Name the conventional form of a metric; its values are the metric's times ``scale``."""

    name: str
    scale: float = 1.0


class Metric(msgspec.Struct, frozen=True):
    """Describe one metric. ``labels`` are names in order; ``buckets`` are upper edges, without +Inf."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    twin: Twin | None = None

    def __post_init__(self) -> None:
        if (self.kind == "histogram") != bool(self.buckets):
            raise ParameterError(f"{self.name}.buckets", "given for histograms and only for them", self.buckets)
        if list(self.buckets) != sorted(set(self.buckets)):
            raise ParameterError(f"{self.name}.buckets", "ascending", self.buckets)


def _latency(name: str, text: str, labels: tuple[str, ...] = (), edges: tuple[float, ...] = LATENCY_MS) -> Metric:
    return Metric(name, "histogram", text, labels, edges, Twin(name.removesuffix("_ms") + "_seconds", 0.001))


# The engine.
PREDICT_REQUESTS = Metric(
    series.PREDICT_REQUESTS,
    "counter",
    "Predict requests by outcome: success, rejected (the request was at fault), error (the model was).",
    ("model_version", "status"),
)
PREDICT_LATENCY = _latency(series.PREDICT_LATENCY, "Time to answer a predict request.", ("model_version",))
MODEL_VERSION = Metric(series.MODEL_VERSION, "gauge", "1 for the version that is served.", ("version",))
MODEL_INFO = Metric(
    series.MODEL, "gauge", "1 for the model that is served.", ("version", "digest", "alias", "feature_set")
)
FEATURE_EXTRACTIONS = Metric("ml_feature_extractions_total", "counter", "Vectors computed from market state.")
PREDICTION_SCORE = Metric("ml_prediction_score", "histogram", "Scores that were served.", (), SCORE)
MODEL_ERRORS = Metric("ml_model_errors_total", "counter", "Model failures, never served as a score.", ("error_type",))
FINGERPRINT_MISSING = Metric(
    "ml_fingerprint_missing_total", "counter", "Predict requests without a feature-set fingerprint."
)
WORKERS = Metric("ml_engine_workers", "gauge", "Worker processes that serve.")
MODEL_SWAPS = Metric("ml_model_swaps_total", "counter", "Model swaps by outcome: done, refused.", ("outcome",))
REQUESTS_ABANDONED = Metric(
    "ml_requests_abandoned_total", "counter", "Requests whose client left, or sent too slowly, before the body was in."
)

# The executor.
SHADOW_SUCCESS = Metric("ml_shadow_success_total", "counter", "Shadow calls that returned a score.")
SHADOW_ERROR = Metric("ml_shadow_error_total", "counter", "Shadow calls that did not, by cause.", ("error_type",))
SHADOW_MATCH = Metric(series.SHADOW_MATCH, "counter", "Comparisons with |baseline - model| < 0.05.")
SHADOW_MISMATCH = Metric(series.SHADOW_MISMATCH, "counter", "Comparisons with |baseline - model| >= 0.05.")
SHADOW_ABS_DELTA = Metric(series.SHADOW_ABS_DELTA, "histogram", "|baseline - model|.", (), DELTA)
SHADOW_LATENCY = _latency(series.SHADOW_LATENCY, "Time of a shadow call.")
SHADOW_LATENCY_DELTA = _latency("ml_shadow_latency_delta_ms", "Shadow minus baseline time.", edges=LATENCY_DELTA_MS)
SHADOW_MATCH_RATE = Metric(
    "ml_shadow_match_rate", "gauge", "Matches over comparisons; absent before the first.", twin=Twin("ml_shadow_match_ratio")
)  # fmt: skip
SHADOW_OUTCOMES = Metric(
    series.SHADOW_OUTCOMES, "counter", "Decisions by what came of hearing the challenger; their sum is the attempts.", ("outcome",)
)  # fmt: skip
DECISIONS = Metric("ml_executor_decisions_total", "counter", "Decisions by whose score was acted on.", ("route",))
CHAMPION_OUTCOMES = Metric(
    "ml_champion_outcomes_total", "counter", "Gated decisions by why the champion did or did not answer.", ("outcome",)
)
EXECUTOR_REJECTED = Metric("ml_executor_rejected_total", "counter", "Requests refused with a 4xx, the field named.")
BREAKER_OPEN = Metric(
    "ml_breaker_open", "gauge", "1 while the breaker lets no ordinary call through, else 0.", ("engine",)
)
BREAKER_TRIPS = Metric("ml_breaker_trips_total", "counter", "Times the breaker opened from closed.", ("engine",))
DECISION_LOG_ROWS = Metric(
    "ml_decision_log_rows_total",
    "counter",
    "Decision log rows: offered = written + shed + failed + waiting.",
    ("state",),
)
ROLLOUT_SEQUENCE = Metric(
    "ml_rollout_sequence", "gauge", "Ledger number of the rollout document that is applied; 0 before the first."
)
ROLLOUT_SHARE = Metric("ml_rollout_share", "gauge", "Share served now; 0 while the lease on the document has lapsed.")
OUTCOME_DECISIONS = Metric(
    "ml_outcome_decisions_total",
    "counter",
    "Decisions with a model's score, by what their join with a label came to.",
    ("state",),
)
OUTCOME_ROWS_LOST = Metric("ml_outcome_rows_lost_total", "counter", "Rows that overload kept from being labelled.")
OUTCOME_PAIRS = Metric(
    "ml_outcome_pairs_total", "counter", "Outcomes apart on which model and baseline differ.", ("model",)
)
OUTCOME_LOSSES = Metric("ml_outcome_losses_total", "counter", "Those that the model got wrong.", ("model",))
LIVE_AUC = Metric(
    "ml_live_auc", "gauge", "AUC over the newest outcomes; absent before 100 of them, and of one kind.", ("scorer",)
)
LIVE_BRIER = Metric("ml_live_brier", "gauge", "Brier score over the newest outcomes.", ("scorer",))
LIVE_ECE = Metric(
    "ml_live_calibration_error", "gauge", "Expected calibration error over the newest outcomes.", ("scorer",)
)
BASELINE_LATENCY = _latency(series.BASELINE_LATENCY, "Time to compute the baseline.")

# The executor's feed.
FEED_MESSAGES = Metric("ml_feed_messages_total", "counter", "Ticks that came, as they came.", ("symbol",))
FEED_LAST = Metric(
    "ml_feed_last_event_time_seconds", "gauge", "Newest event of the feed, seconds since the epoch.", ("symbol",)
)
FEED_CONNECTIONS = Metric("ml_feed_connections_total", "counter", "Connections: made, lost.", ("outcome",))
FEED_FINDINGS = Metric(
    "ml_feed_findings_total", "counter", "What the feed's monitor found; missing counts trades.", ("symbol", "finding")
)
FEED_MISSING = Metric(
    "ml_feed_trades_missing", "gauge", "Trades that the numbering says there were, and that have not come.", ("symbol",)
)
FEED_DROPPED = Metric(
    "ml_feed_dropped_total",
    "counter",
    "Ticks not recorded (no_room, disk), or recorded and not used by features (late, refused, full, stranger).",
    ("reason",),
)
FEED_ABSTAINED = Metric("ml_feed_abstained_total", "counter", "Decisions not taken, by why.", ("symbol", "reason"))

# The rollout that the executor follows: what its controller judges.
_RUN = ("run", "mode", "model", "provenance", "measure")
ROLLOUT_SAMPLES = Metric(series.SAMPLES, "counter", "Samples of the attempt's decisions, by measure.", _RUN)
ROLLOUT_BAD = Metric(series.BAD, "counter", "Bad ones among them.", _RUN)
ROLLOUT_FIRST = Metric(
    series.FIRST, "gauge", "First decision counted for the attempt, seconds since the epoch.", ("run",)
)
ROLLOUT_LAST = Metric(
    series.LAST, "gauge", "Newest decision counted for the attempt, seconds since the epoch.", ("run",)
)

# The controller.
CONTROLLER_LEADS = Metric(series.CONTROLLER_LEADS, "gauge", "1 while this controller leads, 0 while it waits.")
CONTROLLER_TICKS = Metric("ml_controller_ticks_total", "counter", "Looks at the rollouts: ok, failed.", ("outcome",))
CONTROLLER_TICK = Metric("ml_controller_last_tick_time_seconds", "gauge", "Last look, seconds since the epoch.")
CANARY_SHARE = Metric(
    series.CANARY_SHARE,
    "gauge",
    "Share that the ledger allows, in per cent, by rollout and attempt.",
    ("rollout", "run"),
)

# Jobs of the controller.
JOB_LAST = Metric("ml_job_last_success_time_seconds", "gauge", "Last slot done, seconds since the epoch.", ("job",))
JOB_RUNS = Metric("ml_job_runs_total", "counter", "Attempts at a job's slots: done, failed.", ("job", "outcome"))

# Drift.
PSI_SCORE = Metric(
    series.PSI,
    "gauge",
    "Population stability index against the reference bins, by feature and overall; absent where rows are too few.",
    ("model", "feature", "enforced"),
    twin=Twin("ml_psi"),
)
PSI_TIME = Metric(series.PSI_TIME, "gauge", "Newest drift snapshot, seconds since the epoch; 0 for none.", ("model",))

# Alerts.
ALERTS_RECEIVED = Metric(
    "ml_alerts_received_total", "counter", "Alerts told by Alertmanager: taken, or refused.", ("outcome",)
)

# The process. A counter is only comparable with itself since the same start.
PROCESS_START = Metric(series.START, "gauge", "Start of the service, seconds since the epoch.")

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
