"""List and run scheduled jobs, write their units for other schedulers, and render their reports."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from probatum.cli.common import output_option, print_json, print_table, progress, workspace_option
from probatum.core.errors import BlockedError, ParameterError, UnknownNameError

if TYPE_CHECKING:
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.jobs import Book, Job
    from probatum.pipeline.ports import Record


@click.group()
def jobs() -> None:
    """List and run the jobs that a controller runs by the clock.

    \b
    Examples:
      probatum jobs ls
      probatum jobs run daily_report
    """


@jobs.command("ls")
@workspace_option
@output_option
def list_jobs(workspace: Path, output: str) -> None:
    """List jobs: when they are due, the newest slot, how it ended, and how many slots wait.

    \b
    Examples:
      probatum jobs ls
      probatum jobs ls -o json
    """
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.jobs import Book, listing

    space = Workspace(workspace)
    book = Book(space.ledger)
    book.refresh()
    rows = listing(book, space.clock.now_ns())
    if output == "json":
        print_json(rows)
    else:
        columns = list(rows[0])
        print_table("", columns, [["–" if cell is None else cell for cell in row.values()] for row in rows])


@jobs.command()
@click.argument("name")
@click.option(
    "--slot",
    default="due",
    show_default=True,
    help='"due": every slot that waits, after downtime all that were missed; "now": the newest; or a time such as 2026-03-02T00:00:00Z.',
)
@workspace_option
@output_option
def run(name: str, slot: str, workspace: Path, output: str) -> None:
    """Run job NAME, each slot once: one that is recorded already is left alone, whoever recorded it.

    A job that never ran begins with its newest slot. A slot of this very moment waits ten seconds for decisions in flight.

    \b
    Examples:
      probatum jobs run psi_snapshot
      probatum jobs run daily_report --slot now
      probatum jobs run daily_report --slot 2026-03-02T00:00:00Z -o json
    """
    from probatum.cli.evidence import export_evidence
    from probatum.cli.workspace import Workspace
    from probatum.core.clock import format_utc
    from probatum.pipeline.jobs import Book, Place, get_job

    space, job = Workspace(workspace), get_job(name)
    place, book = Place(space, space.decisions), Book(space.ledger)
    book.refresh()
    slots = _slots(space, book, job, slot)
    found: list[dict[str, object]] = []
    with progress() as bars:
        for done, slot_ns in enumerate(slots, 1):
            records = book.run(place, job, slot_ns)
            told = [{"record": r.seq, "kind": r.kind, "subject": r.subject} for r in records[1:]]
            found.append({"job": name, "slot": format_utc(slot_ns), "records": told})
            bars.step(name, done, len(slots))
    if slots:
        export_evidence(space)
    if output == "json":
        print_json(found)
    else:
        for item in found:
            click.echo(f"{item['slot']}: {len(item['records'])} records")  # type: ignore[arg-type]
        if not found:
            click.echo("nothing is due")


def _slots(space: Workspace, book: Book, job: Job, wanted: str) -> list[int]:
    """Return the slots to be run; one by name that was done already is none, and one to come is refused."""
    from probatum.core.clock import NS_PER_S, parse_utc
    from probatum.pipeline.jobs import DONE, GRACE_NS, KIND

    fresh_ns = space.clock.now_ns() - job.schedule.newest(space.clock.now_ns())
    if wanted in ("due", "now") and fresh_ns < GRACE_NS:
        time.sleep((GRACE_NS - fresh_ns) / NS_PER_S)
    now_ns = space.clock.now_ns()
    if wanted == "due" and job.name in book.jobs:
        return list(book.open_slots(job, now_ns))
    slot_ns = job.schedule.newest(now_ns) if wanted in ("now", "due") else parse_utc(wanted)
    if slot_ns > now_ns or job.schedule.newest(slot_ns) != slot_ns:
        raise ParameterError("slot", f"due, now, or a past instant of {job.schedule.calendar}", wanted)
    runs = [record.body["inputs"] for record in space.ledger.records(kind=KIND, subject=job.name)]
    done = {parse_utc(item["slot"]) for item in runs if item["outcome"] == DONE}
    return [] if slot_ns in done else [slot_ns]


@jobs.command()
@click.option("--systemd", type=click.Path(path_type=Path, file_okay=False), help="Folder for timers and services.")
@click.option("--kubernetes", type=click.Path(path_type=Path, file_okay=False), help="Folder for CronJobs.")
@click.option("--image", default="probatum:latest", show_default=True, help="Container image of the CronJobs.")
@click.option("--command", "program", default="/usr/bin/probatum", show_default=True, help="Program of the services.")
@workspace_option
@output_option
def export(
    systemd: Path | None, kubernetes: Path | None, image: str, program: str, workspace: Path, output: str
) -> None:
    """Write units that run the jobs elsewhere than in the controller (then started with --no-jobs).

    \b
    Examples:
      probatum jobs export --systemd /etc/systemd/system --workspace /var/lib/probatum
      probatum jobs export --kubernetes deploy/cron --image registry.example/probatum:1.0
    """
    from probatum.adapters.atomic import write_atomic
    from probatum.pipeline.job_units import cron_jobs, systemd_units

    if systemd is None and kubernetes is None:
        raise ParameterError("systemd, kubernetes", "a folder for at least one of the two", None)
    files: dict[Path, str] = {}
    if systemd is not None:
        units = systemd_units(program, str(workspace.absolute()))
        files |= {systemd / name: text for name, text in units.items()}
    if kubernetes is not None:
        files |= {kubernetes / name: text for name, text in cron_jobs(image).items()}
    for path, text in files.items():
        write_atomic(path, text.encode())
    if output == "json":
        print_json([str(path) for path in files])
    else:
        print_table("", ["file"], [[path] for path in files])


@click.group()
def report() -> None:
    """Render a day or a week as pages for people: HTML with charts, and Markdown.

    \b
    Examples:
      probatum report daily
      probatum report weekly --date 2026-03-08
    """


def _command(period: str, kind: str, text: str) -> click.Command:
    """Return the command that renders reports of one kind."""

    @click.command(
        period,
        help=f"{text}\n\n\b\nExamples:\n  probatum report {period}\n  probatum report {period} --date 2026-03-08",
    )
    @click.option("--date", help="UTC date, such as 2026-03-08; the newest when left out.")
    @click.option(
        "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder; WORKSPACE/reports if left out."
    )
    @workspace_option
    @output_option
    def command(date: str | None, out: Path | None, workspace: Path, output: str) -> None:
        from probatum.adapters.atomic import write_atomic
        from probatum.cli.workspace import Workspace
        from probatum.pipeline.periodic import date_of, snapshots_of
        from probatum.pipeline.periodic_page import periodic_html, periodic_markdown

        space = Workspace(workspace)
        known = {date_of(record): record for record in space.ledger.records(kind=kind)}
        chosen = date or max(known, default="")
        if not known:
            raise BlockedError(f"no {kind} yet: probatum jobs run {kind}")
        if chosen not in known:
            raise UnknownNameError(f"{period} report of", chosen, known)
        shots = snapshots_of(space, known[chosen])
        made: dict[str, Callable[[Record, list[Record]], str]] = {"html": periodic_html, "md": periodic_markdown}
        paths = [(out or workspace / "reports") / f"{period}_{chosen}.{ending}" for ending in made]
        for path, render in zip(paths, made.values(), strict=True):
            write_atomic(path, render(known[chosen], shots).encode())
        print_json([str(path) for path in paths]) if output == "json" else click.echo("\n".join(map(str, paths)))

    return command


report.add_command(_command("daily", "daily_report", "Render the report of one UTC day."))
report.add_command(_command("weekly", "weekly_summary", "Render the summary of the week that ended on a Sunday."))
