"""Name the series that executors and engines expose for a rollout: what telemetry declares and measurements read."""

SAMPLES = "ml_rollout_samples_total"
BAD = "ml_rollout_bad_total"
FIRST = "ml_rollout_first_decision_time_seconds"
LAST = "ml_rollout_last_decision_time_seconds"
START = "process_start_time_seconds"
MODEL = "ml_model_info"
NAMES = frozenset({SAMPLES, BAD, FIRST, LAST, START, MODEL})
"""What a scrape is read for."""
