"""Fetch Binance's public daily dumps and believe none that its CHECKSUM file does not vouch for."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import httpx

from probatum.adapters.atomic import write_atomic
from probatum.core.canonical import sha256_file
from probatum.core.clock import NS_PER_S
from probatum.core.errors import DataError, ParameterError, StorageError

if TYPE_CHECKING:
    from probatum.pipeline.ports import Progress

BASE_URL = "https://data.binance.vision"
MAX_BYTES = 64 * 2**20  # a day of one-minute bars is 0.1 MB
MAX_CHECKSUM_BYTES = 4_096
MAX_DAYS = 1_000
PUBLISHED_WITHIN_DAYS = 3  # yesterday's dump may not be there yet
RETRIES = 5
FIRST_WAIT_S = 0.5
TIMEOUT_S = 30.0
_SYMBOL = re.compile(r"[A-Z0-9]{2,20}")
T = TypeVar("T")
_CHECKSUM = re.compile(r"([0-9a-f]{64})\s+\*?(\S+)\s*")


class _TryAgainError(Exception):
    """The server or the network failed in a way that may pass."""


@dataclass(frozen=True)
class Dumps:
    """Say where the dumps are and where they are kept. ``sleep`` is called with seconds between attempts."""

    folder: Path
    client: httpx.Client
    base_url: str = BASE_URL
    sleep: Callable[[float], None] = time.sleep

    def url(self, name: str) -> str:
        """Return the address of a dump by its file name, ``BTCUSDT-1m-2024-01-01.zip``."""
        return f"{self.base_url.rstrip('/')}/data/spot/daily/klines/{name.split('-')[0]}/1m/{name}"


def fetch_binance(
    symbol: str,
    days: int,
    *,
    folder: Path,
    now_ns: int,
    base_url: str = BASE_URL,
    sleep: Callable[[float], None] = time.sleep,
    progress: Progress | None = None,
) -> list[Path]:
    """Return the zips of the last ``days`` published days of one-minute bars, fetched where they are not kept yet.

    Each file is verified against its CHECKSUM; a download that broke off goes on where it stopped. Raises DataError
    when a dump does not exist or its checksum is wrong (the file is not kept then), StorageError when the server
    stays unreachable.
    """
    if not _SYMBOL.fullmatch(symbol):
        raise ParameterError("symbol", "2 to 20 capital letters or digits, e.g. BTCUSDT", symbol)
    if not 1 <= days <= MAX_DAYS:
        raise ParameterError("days", f"1 to {MAX_DAYS}", days)
    if not base_url.startswith(("https://", "http://")):
        raise ParameterError("base url", "an http or https address", base_url)
    with httpx.Client(timeout=TIMEOUT_S) as client:
        dumps = Dumps(folder, client, base_url, sleep)
        last = _last_published(dumps, symbol, datetime.fromtimestamp(now_ns // NS_PER_S, UTC).date())
        files: list[Path] = []
        for done in range(days):
            files.append(_fetch(dumps, _name(symbol, last - timedelta(days=days - 1 - done))))
            if progress is not None:
                progress.step(f"fetch {symbol}", done + 1, days)
    return files


def _name(symbol: str, day: date) -> str:
    return f"{symbol}-1m-{day.isoformat()}.zip"


def _last_published(dumps: Dumps, symbol: str, today: date) -> date:
    for back in range(1, PUBLISHED_WITHIN_DAYS + 1):
        day = today - timedelta(days=back)
        if (dumps.folder / _name(symbol, day)).is_file() or _checksum(dumps, _name(symbol, day)) is not None:
            return day
    raise DataError(f"no dump of the last {PUBLISHED_WITHIN_DAYS} days exists", file=dumps.url(_name(symbol, day)))


def _fetch(dumps: Dumps, name: str) -> Path:
    path = dumps.folder / name
    expected = _checksum(dumps, name)
    if expected is None:
        raise DataError("no such dump on the server", file=dumps.url(name))
    if path.is_file() and sha256_file(path) == expected:
        return path
    part = path.with_suffix(".zip.part")
    resumed = part.is_file()
    _retry(dumps, name, lambda: _download(dumps, name, part))
    if resumed and sha256_file(part) != expected:  # the old part was of another file: once more from the start
        part.unlink()
        _retry(dumps, name, lambda: _download(dumps, name, part))
    if sha256_file(part) != expected:
        part.unlink()
        raise DataError("the file is not the one its CHECKSUM names; it was not kept", file=dumps.url(name))
    part.replace(path)
    return path


def _checksum(dumps: Dumps, name: str) -> str | None:
    """Return the digest that the server, or the copy kept from it, gives for a dump; None where there is none."""
    kept = dumps.folder / f"{name}.CHECKSUM"
    # A copy is believed as long as its dump is there; a dump that is fetched anew may have been revised.
    fresh = not (kept.is_file() and (dumps.folder / name).is_file())
    data = _retry(dumps, name, lambda: _get_checksum(dumps, name)) if fresh else kept.read_bytes()
    if data is None:
        return None
    match = _CHECKSUM.fullmatch(data.decode("ascii", "replace"))
    if match is None or match[2] != name:
        raise DataError("not a CHECKSUM of this dump", file=dumps.url(name) + ".CHECKSUM", value=data[:100])
    if fresh:
        write_atomic(kept, data)
    return match[1]


def _get_checksum(dumps: Dumps, name: str) -> bytes | None:
    with dumps.client.stream("GET", dumps.url(name) + ".CHECKSUM") as reply:
        if reply.status_code == httpx.codes.NOT_FOUND:
            return None
        _require_ok(reply)
        data = b""
        for chunk in reply.iter_bytes():
            data += chunk
            if len(data) > MAX_CHECKSUM_BYTES:
                break
        return data[:MAX_CHECKSUM_BYTES]


def _download(dumps: Dumps, name: str, part: Path) -> None:
    """Append to the part what it lacks, or start over where the server cannot resume."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {"Accept-Encoding": "identity"}
    with dumps.client.stream("GET", dumps.url(name), headers=headers) as reply:
        if reply.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise _TryAgainError("the server cannot resume here")
        _require_ok(reply)
        goes_on = reply.headers.get("content-range", "").startswith(f"bytes {have}-")
        if reply.status_code == httpx.codes.PARTIAL_CONTENT and not goes_on:
            part.unlink(missing_ok=True)
            raise _TryAgainError("the server sent another range than asked for")
        appends = have > 0 and reply.status_code == httpx.codes.PARTIAL_CONTENT
        _save(reply, part, have if appends else 0)


def _save(reply: httpx.Response, part: Path, start: int) -> None:
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab" if start else "wb") as file:
            for chunk in reply.iter_raw():
                if file.tell() + len(chunk) > MAX_BYTES:
                    raise DataError(f"the dump is larger than {MAX_BYTES} bytes", file=str(reply.url))
                file.write(chunk)
    except DataError:
        part.unlink(missing_ok=True)
        raise
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise StorageError(f"{part}: not written: {error.strerror or error}", file=str(part)) from None


def _require_ok(reply: httpx.Response) -> None:
    if reply.status_code == httpx.codes.TOO_MANY_REQUESTS or reply.status_code >= 500:
        raise _TryAgainError(f"the server answers {reply.status_code}")
    if reply.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
        raise DataError(f"the server answers {reply.status_code}", file=str(reply.url))


def _retry(dumps: Dumps, name: str, attempt: Callable[[], T]) -> T:
    reason = ""
    for tries in range(RETRIES):
        if tries:
            dumps.sleep(FIRST_WAIT_S * 2.0 ** (tries - 1))
        try:
            return attempt()
        except (httpx.TransportError, _TryAgainError) as error:
            reason = str(error) or type(error).__name__
        except (httpx.InvalidURL, httpx.DecodingError) as error:
            raise DataError(f"cannot be fetched: {error}", file=dumps.url(name)) from None
    raise StorageError(
        f"{dumps.url(name)}: {reason}, after {RETRIES} attempts; run it again to go on", url=dumps.url(name)
    )
