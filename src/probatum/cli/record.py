"""Record a live feed, and make datasets of what was recorded."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probatum.cli.common import FiniteRange, output_option, print_json, print_table, workspace_option
from probatum.core.errors import BlockedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from probatum.cli.workspace import Workspace
    from probatum.core.clock import Clock
    from probatum.monitoring.feed import FeedMonitor, Finding
    from probatum.pipeline.feeding import Intake
    from probatum.pipeline.importing import Imported
    from probatum.pipeline.ports import Feed


def feed_options(command: Any, *, required: bool = False) -> Any:
    """Add the options that name a feed."""
    options = [
        click.option("--feed", required=required, help="binance, or any venue that ccxt knows."),
        click.option("--symbols", required=required, help="Comma-separated, e.g. BTCUSDT,ETHUSDT; for ccxt BTC/USDT."),
        click.option(
            "--market", type=click.Choice(["spot", "usdm"]), default="spot", show_default=True, help="Binance's market."
        ),
        click.option("--url", help="Another websocket address: the data are then of class synthetic."),
        click.option("--rest-url", help="Another address for the bars that warm features up: likewise."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def make_feed(clock: Clock, feed: str, symbols: str | None, market: str, url: str | None, rest_url: str | None) -> Feed:
    """Return the feed that the options name."""
    from probatum.adapters.feeds import open_feed

    names = [name.strip() for name in (symbols or "").split(",") if name.strip()]
    return open_feed(feed, names, clock=clock, market=market, url=url, rest_url=rest_url)


def finding_teller(folder: Path) -> Callable[[Finding], None]:
    """Return what writes findings beside the segments and says them on stderr."""
    from probatum.adapters.recorder import FindingsFile
    from probatum.core.clock import format_utc

    file = FindingsFile(folder)

    def tell(finding: Finding) -> None:
        file.append(finding)
        subject = finding.symbol or "feed"
        click.echo(f"{format_utc(finding.ts)} {subject}: {finding.name} ({finding.amount}) {finding.detail}", err=True)

    return tell


@click.command()
@partial(feed_options, required=True)
@click.option("--duration", type=FiniteRange(0.001, 1e9), help="Seconds to record.  [default: until interrupted]")
@workspace_option
@output_option
def record(
    feed: str, symbols: str, market: str, url: str | None, rest_url: str | None, duration: float | None,
    workspace: Path, output: str,
) -> None:  # fmt: skip
    """Record a live feed until interrupted; what was recorded becomes a dataset of each symbol at the end.

    A killed process loses at most the last tenth of a second: the next one, or `data seal`, takes up what it left.

    \b
    Examples:
      probatum data record --feed binance --symbols BTCUSDT,ETHUSDT
      probatum data record --feed binance --symbols BTCUSDT --market usdm --duration 3600
      probatum data record --feed kraken --symbols BTC/USD
    """
    import asyncio

    from probatum.adapters.recorder import TickLog
    from probatum.cli.workspace import Workspace
    from probatum.monitoring.feed import FeedMonitor
    from probatum.pipeline.feeding import Intake

    space = Workspace(workspace)
    source = make_feed(space.clock, feed, symbols, market, url, rest_url)
    log, monitor = (
        TickLog(space.root / "recorded", source.name, source.provenance, space.clock),
        FeedMonitor(source.symbols),
    )
    try:
        asyncio.run(_run(Intake(source, monitor, space.clock, finding_teller(log.folder), log=log), duration))
    finally:
        log.close()
    found = _summary(monitor, log.counts)
    _print(found, [seal_symbol(space, log.folder, symbol) for symbol in _recorded(log.folder, source.symbols)], output)


@click.command()
@click.option("--feed", help="Only this one, e.g. binance-spot.")
@workspace_option
@output_option
def seal(feed: str | None, workspace: Path, output: str) -> None:
    """Make a new version of each dataset from all that was recorded; recorders may go on meanwhile.

    \b
    Examples:
      probatum data seal
      probatum data seal --feed binance-usdm
    """
    from probatum.adapters.recorder import TickLog
    from probatum.cli.workspace import Workspace
    from probatum.core.verdict import Provenance
    from probatum.market.dataset import check_symbol

    space, wanted = Workspace(workspace), "*" if feed is None else check_symbol(feed)
    root = space.root / "recorded"
    folders = [path for item in Provenance for path in sorted((root / item.value).glob(wanted))]
    for path in folders:  # opening takes up what a killed recorder left
        TickLog(root, path.name, Provenance(path.parent.name), space.clock).close()
    _print({}, [seal_symbol(space, path, name) for path in folders for name in _recorded(path)], output)


def seal_symbol(space: Workspace, folder: Path, symbol: str) -> Imported:
    """Import all segments of a symbol as a new version of its dataset."""
    from probatum.adapters.recorder import read_recorded
    from probatum.pipeline.importing import import_recording

    recording = read_recorded(folder, symbol)
    return import_recording(recording, save=space.datasets.save, ledger=space.ledger, sources=space)


def _recorded(folder: Path, wanted: tuple[str, ...] = ()) -> list[str]:
    from probatum.adapters.recorder import recorded_symbols

    return [name for name in recorded_symbols(folder) if name in wanted or not wanted]


async def _run(intake: Intake, duration: float | None) -> None:
    import asyncio
    import signal

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    running = asyncio.create_task(intake.run())
    click.echo(
        f"recording {', '.join(intake.feed.symbols)} from {intake.feed.name}, {intake.feed.provenance}", err=True
    )
    ended = asyncio.create_task(stop.wait())
    await asyncio.wait({running, ended}, timeout=duration, return_when=asyncio.FIRST_COMPLETED)
    for task in (running, ended):
        task.cancel()
    results = await asyncio.gather(running, ended, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


def _summary(monitor: FeedMonitor, counts: Any) -> dict[str, Any]:
    states = monitor.states.values()
    return {
        "messages": sum(state.ticks for state in states),
        "recorded": counts.written,
        "not_recorded": {"no room": counts.shed, "disk": counts.failed, "another symbol": monitor.strange},
        "duplicates": sum(state.duplicates for state in states),
        "late": sum(state.late for state in states),
        "trades_missing": sum(state.missing for state in states),
        "connections_lost": monitor.lost,
        "garbage": monitor.garbage,
    }


def _print(found: dict[str, Any], imported: list[Imported], output: str) -> None:
    datasets = [
        {"symbol": item.dataset.symbol, "sha256": item.dataset.sha256, **item.record.body["figures"]}
        for item in imported
    ]
    if output == "json":
        print_json({**found, "datasets": datasets})
    else:
        if found:
            print_table("What came", ["what", "count"], [(k.replace("_", " "), _cell(v)) for k, v in found.items()])
        rows = [(d["symbol"], d["provenance"].upper(), _cell(d["rows"]), _cell(d["quarantined"]), d["gaps"], d["sha256"][:12])
                for d in datasets]  # fmt: skip
        print_table("Datasets", ["symbol", "data", "rows", "in quarantine", "gaps", "version"], rows)
    if not datasets:
        raise BlockedError("nothing was recorded")


def _cell(value: Any) -> str:
    return ", ".join(f"{k}: {n:,}" for k, n in value.items()) if isinstance(value, dict) else f"{value:,}"
