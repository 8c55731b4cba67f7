"""Import, fetch, record, synthesise, list and check market data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probatum.cli.common import output_option, print_json, print_table, progress, workspace_option
from probatum.cli.record import record, seal
from probatum.core.errors import ParameterError

if TYPE_CHECKING:
    from probatum.adapters.importers import Options
    from probatum.cli.workspace import Workspace
    from probatum.market.quality import Recording
    from probatum.pipeline.importing import Imported

FORMATS = ("binance-klines", "binance-ws", "lean", "bid-ask-bars", "csv", "parquet")
_FETCHED = re.compile(r"binance:([A-Za-z0-9]+):(\d+)d")


@click.group()
def data() -> None:
    """Import, fetch, record, synthesise, list and check market data.

    \b
    Examples:
      probatum data fetch binance --symbol BTCUSDT --days 30
      probatum data import BTCUSDT-1m-2024-01-01.zip --format binance-klines
      probatum data check BTCUSDT
    """


data.add_command(record)
data.add_command(seal)


@data.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "format_name", required=True, type=click.Choice(FORMATS), help="What the files are.")
@click.option("--symbol", help="The instrument, where the file names do not carry it.")
@click.option("--calendar", help="24x7, fx, us-equity, or ZONE,HH:MM-HH:MM,WEEKDAYS (0 = Monday).")
@click.option("--tick-size", type=float, help="The smallest price step, where the format does not fix it.")
@click.option("--map", "columns", multiple=True, metavar="NAME=COLUMN", help="csv, parquet: which column is which.")
@click.option("--time-unit", type=click.Choice(["s", "ms", "us", "ns"]), help="Unit of numeric times [detected].")
@click.option("--time-zone", help="Zone of times that name none [UTC].")
@click.option("--explain-gap", multiple=True, metavar="START..END=REASON", help="Accept a gap, for a reason.")
@workspace_option
@output_option
def import_(
    paths: tuple[Path, ...],
    format_name: str,
    columns: tuple[str, ...],
    explain_gap: tuple[str, ...],
    workspace: Path,
    output: str,
    **told: Any,
) -> None:
    """Import files of one instrument as a new version of its dataset.

    Bad rows go to quarantine with a reason; a file that is not what the format says is refused and nothing is stored.
    For csv and parquet, NAME is ts (a bar's close) or ts_open, and close, bid and ask, or price and size, and so on.

    \b
    Examples:
      probatum data import BTCUSDT-1m-2024-01.zip --format binance-klines
      probatum data import equity/usa/tick/bac --format lean
      probatum data import gbpusd-bid.csv gbpusd-ask.csv --format bid-ask-bars
      probatum data import t.csv --format csv --symbol X --map ts=time --map price=px --map size=qty
    """
    from probatum.adapters.importers import read_files
    from probatum.cli.workspace import Workspace

    recording = read_files(format_name, paths, parse_options(columns, explain_gap, **told))
    _print_imported(store_recording(Workspace(workspace), recording), output)


@data.command()
@click.option("--days", type=int, default=28, show_default=True, help="Length of the market.")
@click.option("--seed", type=int, default=7, show_default=True, help="The same seed gives the same bytes.")
@click.option("--symbol", default="SYN", show_default=True, help="Its name.")
@click.option("--drift-day", type=int, help="Day from which on the market is another one.")
@click.option("--drift", multiple=True, metavar="NAME=FACTOR", help="price, volatility or volume, times FACTOR.")
@workspace_option
@output_option
def synth(
    days: int, seed: int, symbol: str, drift_day: int | None, drift: tuple[str, ...], workspace: Path, output: str
) -> None:
    """Make a synthetic market: one-second quotes with sizes, and trades. Its class is always synthetic.

    \b
    Examples:
      probatum data synth --days 28 --seed 7
      probatum data synth --symbol DRIFTED --drift-day 14 --drift volatility=2 --drift price=1.3
    """
    from probatum.cli.workspace import Workspace
    from probatum.market.synth import Drift, record_synthetic

    factors = {name: _factor(name, value) for name, value in _pairs("drift", drift).items()}
    if (drift_day is None) != (not factors):
        raise ParameterError("drift", "given together with --drift-day", drift or drift_day)
    change = None if drift_day is None else Drift(drift_day, **factors)
    recording = record_synthetic(days=days, seed=seed, symbol=symbol, drift=change)
    _print_imported(store_recording(Workspace(workspace), recording), output)


@data.command()
@click.argument("source", type=click.Choice(["binance"]))
@click.option("--symbol", required=True, help="As the exchange spells it, e.g. BTCUSDT.")
@click.option("--days", type=int, default=30, show_default=True, help="The last published days.")
@click.option("--base-url", help="Another server with the same dumps [the public one].")
@click.option("--explain-gap", multiple=True, metavar="START..END=REASON", help="Accept a gap, for a reason.")
@workspace_option
@output_option
def fetch(
    source: str,  # noqa: ARG001
    symbol: str,
    days: int,
    base_url: str | None,
    explain_gap: tuple[str, ...],
    workspace: Path,
    output: str,
) -> None:
    """Fetch daily dumps of one-minute bars, verify their checksums, and import them.

    A download that broke off goes on where it stopped; files that are there already are not fetched again.

    \b
    Examples:
      probatum data fetch binance --symbol BTCUSDT --days 30
    """
    from probatum.cli.workspace import Workspace

    space = Workspace(workspace)
    recording = fetch_recording(space, symbol, days, base_url=base_url, options=parse_options((), explain_gap))
    _print_imported(store_recording(space, recording), output)


@data.command("ls")
@workspace_option
@output_option
def list_datasets(workspace: Path, output: str) -> None:
    """List the datasets, each at its newest version.

    \b
    Examples:
      probatum data ls
      probatum data ls -o json
    """
    from probatum.cli.workspace import Workspace

    store = Workspace(workspace).datasets
    found = [(symbol, *store.manifest(symbol)) for symbol in store.symbols()]
    if output == "json":
        print_json(
            [
                {"symbol": symbol, "sha256": digest, "provenance": manifest.provenance, "rows": manifest.rows}
                for symbol, digest, manifest in found
            ]
        )
        return
    rows = [
        (
            symbol,
            manifest.provenance.upper(),
            ", ".join(f"{count:,} {kind}" for kind, count in manifest.rows.items()),
            f"{min(p.date for p in manifest.partitions)} to {max(p.date for p in manifest.partitions)}",
            digest[:12],
        )
        for symbol, digest, manifest in found
    ]
    print_table("", ["symbol", "data", "rows", "days", "version"], rows)


@data.command()
@click.argument("symbol")
@click.option("--version", "sha256", help="Digest of an older version [the newest].")
@workspace_option
@output_option
def check(symbol: str, sha256: str | None, workspace: Path, output: str) -> None:
    """Judge a stored dataset again: exit 1 when training would refuse it.

    \b
    Examples:
      probatum data check BTCUSDT
    """
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.importing import quality

    found = quality(Workspace(workspace).datasets.load(symbol, sha256))
    if output == "json":
        print_json(found)
    else:
        _print_quality(symbol, found)
    if not found["trainable"]:
        click.echo(f"{symbol} is not fit for training: unexplained gaps: {found['gaps_unexplained']}", err=True)
        raise SystemExit(1)


def parse_options(columns: tuple[str, ...], explain_gap: tuple[str, ...], **told: Any) -> Options:
    """Turn what the user typed into the importers' options; ParameterError says what is wrong with it."""
    from probatum.adapters.importers import Options
    from probatum.market.calendar import parse_calendar

    if told.get("calendar") is not None:
        told["calendar"] = parse_calendar(told["calendar"])
    explained = tuple(_explained(text) for text in explain_gap)
    return Options(columns=_pairs("map", columns), explained=explained, **told)


def open_recording(
    space: Workspace, spec: str, *, format_name: str | None = None, options: Options | None = None
) -> Recording:
    """Read what ``--data`` names: ``binance:SYMBOL:30d`` (fetched into the workspace), or a file of ``format_name``."""
    from probatum.adapters.importers import read_files

    match = _FETCHED.fullmatch(spec)
    if match is not None:
        return fetch_recording(space, match[1], int(match[2]), options=options)
    if format_name is None:
        raise ParameterError("format", f"given with --format for a file: one of {', '.join(FORMATS)}", None)
    return read_files(format_name, [Path(spec)], options)


def fetch_recording(
    space: Workspace, symbol: str, days: int, *, base_url: str | None = None, options: Options | None = None
) -> Recording:
    """Fetch Binance's dumps of the last ``days`` into the workspace's ``downloads`` and read them."""
    from probatum.adapters.fetch import BASE_URL, fetch_binance
    from probatum.adapters.importers import read_files

    folder = space.root / "downloads" / "binance"
    with progress() as bars:
        files = fetch_binance(
            symbol, days, folder=folder, now_ns=space.clock.now_ns(), base_url=base_url or BASE_URL, progress=bars
        )
    return read_files("binance-klines", files, options)


def store_recording(space: Workspace, recording: Recording) -> Imported:
    """Import a recording into a workspace."""
    from probatum.pipeline.importing import import_recording

    return import_recording(recording, save=space.datasets.save, ledger=space.ledger, sources=space)


def _pairs(name: str, texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [part.partition("=") for text in texts for part in text.split(",")]
    for key, _, value in pairs:
        if not key or not value:
            raise ParameterError(name, "NAME=VALUE", f"{key}={value}" if value else key)
    found = {key: value for key, _, value in pairs}
    if len(found) < len(pairs):
        raise ParameterError(name, "given once for each NAME", ",".join(texts))
    return found


def _factor(name: str, value: str) -> float:
    if name not in ("price", "volatility", "volume"):
        raise ParameterError("drift", "price, volatility or volume", name)
    try:
        return float(value)
    except ValueError:
        raise ParameterError(f"drift {name}", "a factor", value) from None


def _explained(text: str) -> Any:
    from probatum.market.calendar import Explained

    span, _, reason = text.partition("=")
    start, _, end = span.partition("..")
    return Explained(start, end, reason)


def _print_imported(imported: Imported, output: str) -> None:
    found = imported.record.body["figures"]
    if output == "json":
        print_json({"symbol": imported.dataset.symbol, "sha256": imported.dataset.sha256, **found})
        return
    print_table(
        f"{imported.dataset.symbol}: {found['rows_in']:,} rows in, version {imported.dataset.sha256[:12]}",
        ["rows", "of which"],
        [
            (f"{found['rows_stored']:,}", "stored: " + ", ".join(f"{n:,} {k}" for k, n in found["rows"].items())),
            (f"{found['rows_merged']:,}", "merged with another row (bid and ask)"),
            (f"{found['rows_ignored']:,}", "carry something else"),
            (f"{imported.record.body['inputs']['rows_out_of_order']:,}", "came out of order and were sorted"),
            (
                f"{found['rows_quarantined']:,}",
                "in quarantine" + "".join(f"; {reason}: {n:,}" for reason, n in found["quarantined"].items()),
            ),
        ],
    )
    for decision in imported.record.body["inputs"]["decisions"]:
        click.echo(f"  decided: {decision}")
    _print_quality(imported.dataset.symbol, found)


def _print_quality(symbol: str, found: dict[str, Any]) -> None:
    print_table(
        f"{symbol}, {found['provenance'].upper()}: {found['start']} to {found['end']}",
        ["measure", "value"],
        [
            (
                "minutes with data, of those in sessions",
                f"{found['minutes_with_data']:,} of {found['minutes_in_sessions']:,}",
            ),
            ("rows outside sessions", f"{found['rows_outside_sessions']:,}"),
            ("locked quotes", f"{found['locked']:,}"),
            ("columns the source lacks", ", ".join(found["absent"]) or "none"),
            ("gaps over 5 minutes, unexplained", f"{found['gaps']:,}, {found['gaps_unexplained']:,}"),
            ("fit for training", "PASS" if found["trainable"] else "FAIL"),
        ],
    )
    if found["gaps_largest"]:
        rows = [(g["start"], g["end"], f"{g['minutes']:.1f}", g["explained"] or "-") for g in found["gaps_largest"]]
        print_table("Largest gaps", ["from", "to", "minutes", "explained by"], rows)
