"""The alerts are the seed's, their files are fresh, and promtool proves each of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard
from tests.conftest import require_service

from probatum.core.errors import ParameterError
from probatum.rollout.alert_files import TESTS, alert_table, rule_files
from probatum.rollout.alerts import ALERTS
from probatum.rollout.criteria import DRIFT_CRITERIA
from probatum.rollout.dashboard import dashboard, queries
from probatum.rollout.notices import Notice
from probatum.rollout.policy import POLICY_NAMES, shipped_policy
from probatum.rollout.signals import SIGNALS, duration
from probatum.services.telemetry.metrics import METRICS

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules"
SEED = {
    "ml": {
        "MLShadowMatchLow": ("10m", "warning"), "MLShadowErrorRateHigh": ("5m", "warning"),
        "MLPredictLatencyP95High": ("10m", "warning"), "MLShadowLatencyP95High": ("10m", "warning"),
        "MLPSIWarning": ("1h", "warning"), "MLPSICritical": ("1h", "critical"), "MLModelErrorsHigh": ("5m", "warning"),
        "MLEngineDown": ("2m", "critical"),
    },
    "ml-canary": {
        "MLCanaryPredictLatencyP95High": ("10m", "warning"), "MLCanaryShadowMatchLow": ("10m", "warning"),
        "MLCanaryShadowErrorRateHigh": ("5m", "abort"), "MLCanaryModelErrorsHigh": ("5m", "warning"),
        "MLCanaryPSIWarning": ("1h", "info"), "MLCanaryPSICritical": ("1h", "info"),
    },
    "ml-automation": {
        "ML_PSI_Critical": ("1h", "critical"), "ML_Shadow_MatchRate_Low": ("10m", "warning"),
        "ML_Predict_P95_High": ("10m", "critical"),
    },
}  # fmt: skip


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    require_service("promtool", shutil.which("promtool"))
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)


def rules_of(text: str) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def test_every_alert_of_the_seed_is_there_with_a_twin() -> None:
    """Names, files, severities and durations are the seed's; each alert has a twin of the same time, and none is left over."""
    for file, alerts in SEED.items():
        rules = {rule["alert"]: rule for rule in rules_of(rule_files()[f"{file}.yml"])}
        assert {name: (r["for"], r["labels"]["severity"]) for name, r in rules.items() if name in alerts} == alerts
        assert {name: r["labels"]["twin_of"] for name, r in rules.items() if name not in alerts} == {
            f"{name}NoData": name for name in alerts
        }
        assert all(rules[f"{name}NoData"]["for"] == held for name, (held, _) in alerts.items())


def test_an_alert_names_the_criterion_behind_it() -> None:
    """Alert and twin carry the name that a policy knows, so that one that only watches it is not stopped by it."""
    known = {item.name for name in POLICY_NAMES for item in shipped_policy(name).criteria}
    known |= {item.name for item in DRIFT_CRITERIA}
    for alert in ALERTS:
        criterion = alert.labels.get("criterion", "")
        assert criterion == alert.twin_labels.get("criterion", "")
        assert criterion in known or alert.name in ("MLEngineDown", "MLShadowLatencyP95High"), alert.name


def test_the_files_in_deploy_are_what_the_criteria_give() -> None:
    """The committed rules, tests and dashboard are a fresh build, byte for byte, and nothing lies beside them."""
    found = {str(path.relative_to(RULES)): path.read_text() for path in RULES.rglob("*.yml")}
    assert found == rule_files()
    assert (ROOT / "deploy" / "grafana" / "grafana-ml-dashboard.json").read_text() == dashboard()


def test_the_reference_lists_the_alerts() -> None:
    """docs/reference/alerts.md holds the table that the declaration gives."""
    assert alert_table() in (ROOT / "docs" / "reference" / "alerts.md").read_text(encoding="utf-8")


def test_rules_read_series_that_are_declared() -> None:
    """No rule or panel names a series of ours that nothing exposes or records."""
    exposed = {metric.name for metric in METRICS} | {signal.name for signal in SIGNALS}
    exposed |= {f"{metric.name}_{part}" for metric in METRICS if metric.buckets for part in ("bucket", "count", "sum")}
    expressions = [rule["expr"] for text in rule_files().values() if "groups" in text for rule in rules_of(text)]
    named = {
        name for text in (*expressions, *(q for _, q in queries())) for name in re.findall(r"\bml[_:][\w:]+", text)
    }
    assert len(named) > 20
    assert named - exposed == set()


def test_a_scale_shortens_durations_and_nothing_else() -> None:
    """At 0.01 every number of the rules that differs is a duration, and a hundredth of the true one."""
    units = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}

    def parts(text: str) -> tuple[list[str], list[int]]:
        lasting = r"\b(\d+)(ms|s|m|h)\b"
        text = re.sub(r"(?<= < )(7200|72)(?!\d)", lambda found: f"{found[1]}s", text)
        return re.split(lasting, text)[::3], [int(n) * units[unit] for n, unit in re.findall(lasting, text)]

    true, short = rule_files(), rule_files(0.01)
    assert set(short) == set(true) - {TESTS}
    for name, text in short.items():
        words, lasting = parts(text)
        true_words, true_lasting = parts(true[name])
        assert words == true_words
        assert [100 * ms for ms in lasting] == true_lasting


def test_promtool_accepts_rules_and_configuration() -> None:
    """`promtool check rules` and `check config` find nothing, and the configuration finds the rules."""
    done = promtool("check", "rules", *RULES.glob("*.yml"))
    assert done.returncode == 0, done.stderr
    done = promtool("check", "config", ROOT / "deploy" / "prometheus" / "prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("rules found") == len(list(RULES.glob("*.yml")))


def test_amtool_accepts_the_alertmanager_configuration(tmp_path: Path) -> None:
    """`amtool check-config` finds nothing once the token is beside the file."""
    require_service("amtool", shutil.which("amtool"))
    shutil.copy(ROOT / "deploy" / "alertmanager" / "alertmanager.yml", tmp_path)
    (tmp_path / "token").write_text("x")
    done = subprocess.run(["amtool", "check-config", tmp_path / "alertmanager.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_promtool_proves_every_alert() -> None:
    """Each alert fires just beyond its bound after its time, not within it, not a step early; its twin where it is blind."""
    done = promtool("test", "rules", RULES / TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_alert_can_be_deleted_unseen(tmp_path: Path) -> None:
    """Of every alert and twin: with the expression gone (a condition that is never true) its own tests fail, by its name."""
    proofs = yaml.safe_load(rule_files()[TESTS])
    recorded = {rule["record"]: rule for rule in rules_of(rule_files()["ml-recording.yml"])}
    for alert in ALERTS:
        for rule in rules_of(rule_files()[f"{alert.file}.yml"]):
            if (name := rule["alert"]) not in (alert.name, alert.twin):
                continue
            needed = [record for record in recorded.values() if record["record"] in rule["expr"]]
            own = [found for test in proofs["tests"] if (found := _only(test, name))]
            for gone in (False, True):
                rules = [*needed, {**rule, "expr": "vector(0) > 1"} if gone else rule]
                (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
                proof = {"rule_files": ["rules.yml"], "evaluation_interval": "30s", "tests": own}
                (tmp_path / "test.yml").write_text(json.dumps(proof))
                done = promtool("test", "rules", tmp_path / "test.yml")
                assert done.returncode == gone, (name, done.stdout)
                assert not gone or f"alertname: {name}," in done.stdout + done.stderr


def _only(test: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return a test with the checks of one alert alone, where they expect it to fire."""
    checks = [check for check in test["alert_rule_test"] if check["alertname"] == name]
    short = test["name"] in ("fires just beyond its bound, after its time", "is quiet on nothing, its twin is not")
    return {**test, "alert_rule_test": checks} if short and any(check["exp_alerts"] for check in checks) else None


def test_grafana_reads_the_dashboard() -> None:
    """Grafana's own models read it back as it was written: nine panels, a row, ten seconds, an hour."""
    found = json.loads(dashboard())
    model = Dashboard.from_json(found)
    again = json.loads(json.dumps(model.to_json(), default=lambda item: item.to_json()))
    assert [panel["title"] for panel in again["panels"]] == [panel["title"] for panel in found["panels"]]
    assert [panel["type"] for panel in found["panels"]].index("row") == 9
    assert (model.refresh, found["time"]["from"]) == ("10s", "now-1h")
    places = [tuple(panel["gridPos"].values()) for panel in found["panels"]]
    assert all(x + w <= 24 for x, _, w, _ in places)
    covered = [(x + i, y + j) for x, y, w, h in places for i in range(w) for j in range(h)]
    assert len(covered) == len(set(covered))


@pytest.mark.parametrize(("seconds", "scale", "text"), [(30, 1.0, "30s"), (5_400, 1.0, "90m"), (30, 0.00001, "1ms")])
def test_durations_are_prometheus_words(seconds: float, scale: float, text: str) -> None:
    """The largest unit that divides; never zero, which Prometheus would refuse."""
    assert duration(seconds, scale) == text


def test_a_notice_must_be_whole() -> None:
    """What is resolved has an end, what fires has none, and no end precedes its start."""
    fields = {"name": "x", "fingerprint": "a", "starts": "2026-01-02T00:00:00Z", "labels": {}}
    for status, ends in (("firing", "2026-01-03T00:00:00Z"), ("resolved", None), ("resolved", "2026-01-01T00:00:00Z")):
        with pytest.raises(ParameterError, match="ends"):
            Notice(status=status, ends=ends, **fields)  # type: ignore[arg-type]
