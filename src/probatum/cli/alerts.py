"""Record what Prometheus knows of alerts."""

from __future__ import annotations

from pathlib import Path

import click

from probatum.cli.common import output_option, workspace_option
from probatum.cli.live import prometheus_option


@click.command()
@click.argument("model")
@prometheus_option(required=True)
@click.option("--policy", default="default", show_default=True, help="A shipped policy, or a TOML file.")
@workspace_option
@output_option
def alerts(model: str, prometheus: str, policy: str, workspace: Path, output: str) -> None:
    """Ask Prometheus which alerts fired in the policy's window, and record its answer whole. Writes alert_history.json.

    Silence counts only where the rules were loaded, and executors and engines were up, all that time. Exits 1 otherwise.

    \b
    Examples:
      probatum alerts robust --prometheus http://127.0.0.1:9090
    """
    from probatum.adapters.alerts import PrometheusAlerts
    from probatum.cli.canary import end, plan_for, read_policy
    from probatum.cli.evidence import export_evidence
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.alerts import record_alerts

    space = Workspace(workspace)
    plan = plan_for(space, model, read_policy(policy), 1.0, None)
    history = PrometheusAlerts(prometheus, timeout_s=30.0)
    record = record_alerts(space.ledger, space, plan, history, now_ns=space.clock.now_ns())
    export_evidence(space)
    end(record, output)
