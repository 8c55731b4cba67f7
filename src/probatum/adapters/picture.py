"""Take a picture of a page with a headless Chromium, where there is one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from probatum.pipeline.picture import Shot

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=1280,1600",
    "--timeout=3000",
)  # fmt: skip
"""Three seconds for charts to be drawn and the first events to come; a page that streams is never loaded to its end. No
sandbox, which root and most containers cannot have: the page is our own, from loopback."""

TIMEOUT_S = 30.0


def take_picture(url: str) -> Shot:
    """Return a PNG of a page, or why there is none: no browser, or one that did not finish in time. Never raises for either."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        return Shot(None, f"no browser: none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        target = Path(folder, "page.png")
        options = (*FLAGS, f"--user-data-dir={folder}/profile", f"--screenshot={target}", "--", url)
        problem = _run([browser, *options])
        try:
            return Shot(target.read_bytes(), "")
        except OSError:
            return Shot(None, problem or "the browser wrote no picture")


def _run(command: list[str]) -> str:
    """Run a browser with all its children, and end them all; return what went wrong."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return f"the browser did not start: {error.strerror or error}"
    with suppress(ProcessLookupError):  # it is in no hurry, and must not slow what is on the same machine
        os.setpriority(os.PRIO_PGRP, process.pid, 19)
    try:
        code = process.wait(TIMEOUT_S)
        return f"the browser ended with {code}" if code else ""
    except subprocess.TimeoutExpired:
        return f"the browser took longer than {TIMEOUT_S:g} s"
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
