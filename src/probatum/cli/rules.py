"""Write alert rules and dashboard from the criteria."""

from __future__ import annotations

from pathlib import Path

import click

from probatum.cli.common import FiniteRange, output_option, print_json


@click.group()
def rules() -> None:
    """Write Prometheus rules, their unit tests, and the Grafana dashboard, all from the criteria.

    \b
    Examples:
      probatum rules build --out /etc/prometheus/rules
      probatum rules ls
    """


@rules.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("deploy/prometheus/rules"),
    show_default=True,
    help="Folder of the rules; promtool's tests go to tests/ in it.",
)
@click.option(
    "--grafana",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the dashboard to this file too.",
)
@click.option(
    "--time-scale",
    type=FiniteRange(0.0001, 1.0),
    default=1.0,
    show_default=True,
    help="Shorten every duration, for a rehearsal; no unit tests are written then.",
)
@output_option
def build(out: Path, grafana: Path | None, time_scale: float, output: str) -> None:
    """Write the rules, one file for each group, and promtool's unit test of every alert.

    \b
    Examples:
      probatum rules build --out rules --grafana grafana-ml-dashboard.json
      promtool test rules rules/tests/alerts.yml
      probatum rules build --out rehearsal --time-scale 0.01
    """
    from probatum.adapters.atomic import write_atomic
    from probatum.rollout.alert_files import rule_files
    from probatum.rollout.dashboard import dashboard

    files = {out / name: text for name, text in rule_files(time_scale).items()}
    if grafana is not None:
        files[grafana] = dashboard()
    for path, text in files.items():
        write_atomic(path, text.encode())
    written = [str(path) for path in files]
    print_json({"written": written}) if output == "json" else click.echo("\n".join(written))


@rules.command()
@output_option
def ls(output: str) -> None:
    """List the alerts: severity, time, condition, and the twin that fires where nothing is known.

    \b
    Examples:
      probatum rules ls
      probatum rules ls -o json
    """
    from probatum.cli.common import print_table
    from probatum.rollout.alerts import ALERTS
    from probatum.rollout.signals import duration

    columns = ("alert", "severity", "for", "condition", "twin")
    rows = [(a.name, a.severity, duration(a.for_s), a.promql, a.twin) for a in ALERTS]
    if output == "json":
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table("", columns, rows)
