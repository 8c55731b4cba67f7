"""Name the series that more than telemetry reads: measurements, alert rules and dashboards name them from here."""

# What a rollout's measurements are made of.
SAMPLES = "ml_rollout_samples_total"
BAD = "ml_rollout_bad_total"
FIRST = "ml_rollout_first_decision_time_seconds"
LAST = "ml_rollout_last_decision_time_seconds"
START = "process_start_time_seconds"
MODEL = "ml_model_info"
NAMES = frozenset({SAMPLES, BAD, FIRST, LAST, START, MODEL})
"""What a scrape is read for."""

# What alert rules and dashboards are made of.
PREDICT_REQUESTS = "ml_predict_requests_total"
PREDICT_LATENCY = "ml_predict_latency_ms"
MODEL_VERSION = "ml_model_version"
SHADOW_MATCH = "ml_shadow_match_total"
SHADOW_MISMATCH = "ml_shadow_mismatch_total"
SHADOW_OUTCOMES = "ml_shadow_outcomes_total"
SHADOW_ABS_DELTA = "ml_shadow_abs_delta"
SHADOW_LATENCY = "ml_shadow_latency_ms"
BASELINE_LATENCY = "ml_baseline_latency_ms"
PSI = "ml_psi_score"
PSI_TIME = "ml_psi_snapshot_time_seconds"
CANARY_SHARE = "ml_canary_share_percent"
CONTROLLER_LEADS = "ml_controller_leads"

# The jobs of deploy/prometheus/prometheus.yml.
EXECUTORS = "probatum-executor"
ENGINES = "probatum-engine"
