"""Measure what recording costs: messages a second of CPU on one core, and peak memory, at three lengths.

A process of its own sends bookTicker and trade messages of one symbol as fast as they are taken; the recorder reads,
decodes, judges, journals and rotates into Parquet as `probatum data record` does. CPU counts all its threads, so the
figure is what one core keeps up with.

    python bench/scale/bench_record.py [MESSAGES]
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from probatum.adapters.feeds.binance import BinanceFeed
from probatum.adapters.feeds.link import LinkSettings
from probatum.adapters.recorder import TickLog
from probatum.core.clock import SystemClock
from probatum.monitoring.feed import FeedMonitor, Finding
from probatum.pipeline.feeding import Intake

NEEDED_PER_S = 20_000
BATCH = 64


def message(i: int, now_ms: int) -> bytes:
    """Return one message: three quotes to each trade, as in the captures."""
    if i % 4:
        text = f'{{"stream":"btcusdt@bookTicker","data":{{"e":"bookTicker","u":{i},"s":"BTCUSDT","b":"61800.20","B":"2.507","a":"61800.30","A":"{i % 97}.510","T":{now_ms},"E":{now_ms}}}}}'
    else:
        text = f'{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{now_ms},"T":{now_ms},"s":"BTCUSDT","t":{i // 4},"p":"61800.30","q":"0.006","X":"MARKET","m":false}}}}'
    body = text.encode()
    return b"\x81\x7e" + len(body).to_bytes(2, "big") + body


async def send(count: int) -> None:
    """Listen on a free port, print it, and send so many messages to whoever comes."""

    async def handle(link: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            for start in range(0, count, BATCH):
                now_ms = time.time_ns() // 1_000_000
                link.transport.write(b"".join(message(i, now_ms) for i in range(start, min(start + BATCH, count))))
                while link.transport.get_write_buffer_size() > 1 << 18:
                    await asyncio.sleep(0.0005)
            await link.wait_closed()

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.Event().wait()


async def record(url: str, count: int, folder: Path) -> TickLog:
    """Record until so many messages are in."""
    clock, found = SystemClock(), list[Finding]()
    feed = BinanceFeed(["BTCUSDT"], clock=clock, rng=random.Random(1), url=url, settings=LinkSettings())
    log, monitor = TickLog(folder, feed.name, feed.provenance, clock), FeedMonitor(feed.symbols)
    running = asyncio.create_task(Intake(feed, monitor, clock, found.append, log=log).run())
    while monitor.states["BTCUSDT"].ticks < count:
        await asyncio.sleep(0.02)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    log.close()
    assert monitor.states["BTCUSDT"].missing == 0, "the sender's numbers have no holes"
    # This sender is faster than any market: what it sent waits in buffers, and is old when it is read.
    assert {item.name for item in found} <= {"clock_skew"}, found
    return log


def measure(count: int) -> None:
    """Print one line, from a process of its own, so that its peak memory is its own."""
    sender = subprocess.Popen([sys.executable, __file__, "send", str(count)], stdout=subprocess.PIPE, text=True)
    assert sender.stdout is not None
    try:
        url = f"ws://127.0.0.1:{int(sender.stdout.readline())}"
        with tempfile.TemporaryDirectory() as folder:
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            log = asyncio.run(record(url, count, Path(folder)))
            cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
            size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    finally:
        sender.kill()
        sender.wait()
    counts = log.counts
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    verdict = "keeps up" if count / cpu_s >= NEEDED_PER_S and counts.written == count else "DOES NOT KEEP UP"
    print(f"{count:>10,} messages  {count / cpu_s:>8,.0f} /s of CPU ({1e6 * cpu_s / count:.1f} µs each)  {count / wall_s:>8,.0f} /s of wall  "
          f"peak {peak_mb:,.0f} MB  written {counts.written:,} shed {counts.shed} failed {counts.failed}  "
          f"{size / count:.1f} B each on disk  {verdict}", flush=True)  # fmt: skip


def main() -> None:
    """Measure a quarter, half and all of the messages, each in a fresh process."""
    if sys.argv[1:2] == ["send"]:
        asyncio.run(send(int(sys.argv[2])))
    elif sys.argv[1:2] == ["measure"]:
        measure(int(sys.argv[2]))
    else:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_600_000
        print(f"needed: {NEEDED_PER_S:,} /s on one core; {os.cpu_count()} cores here, load {os.getloadavg()[0]:.1f}")
        for part in (4, 2, 1):
            subprocess.run([sys.executable, __file__, "measure", str(count // part)], check=True)


if __name__ == "__main__":
    main()
