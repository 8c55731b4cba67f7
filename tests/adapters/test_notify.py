"""Notifications reach a real service over HTTP, and one that fails holds up nobody."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from inbox import Inbox

from probatum.adapters.notify import WAITING_MAX, AppriseNotifier
from probatum.core.errors import MissingExtraError, ParameterError


@contextmanager
def running(notifier: AppriseNotifier) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=notifier.run, args=(stop,), daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_texts_arrive_in_order() -> None:
    """Each service gets each text, as it was said, oldest first."""
    services = [Inbox(), Inbox()]
    notifier = AppriseNotifier([service.url for service in services])
    with running(notifier):
        for text in ("phase 1 of 5 passed", "<b>CRITICAL</b>: psi 0.4 & rising"):
            notifier.tell(text)
        for service in services:
            got = [service.got.get(timeout=10) for _ in range(2)]
            assert [item["message"] for item in got] == ["phase 1 of 5 passed", "<b>CRITICAL</b>: psi 0.4 & rising"]
            assert {item["title"] for item in got} == {"probatum"}


def test_a_failing_service_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A service that refuses, and one that is not there, cost their own texts; the third gets all, and nobody waits."""
    broken, well = Inbox(500), Inbox()
    notifier = AppriseNotifier([broken.url, "json://127.0.0.1:9", well.url])
    with running(notifier):
        began = time.monotonic()
        for n in range(3):
            notifier.tell(f"text {n}")
        assert time.monotonic() - began < 0.1
        assert [well.got.get(timeout=10)["message"] for _ in range(3)] == ["text 0", "text 1", "text 2"]
    assert "not sent by at least one service: text 0" in caplog.text


def test_a_flood_keeps_the_newest() -> None:
    """Where nobody sends, the oldest texts give way: memory is bounded."""
    service = Inbox()
    notifier = AppriseNotifier([service.url])
    for n in range(WAITING_MAX + 5):
        notifier.tell(str(n))
    with running(notifier):
        assert service.got.get(timeout=10)["message"] == "5"


def test_what_is_no_service_is_refused() -> None:
    """A URL that Apprise does not know is named by its place, not by its text, which may hold a password."""
    with pytest.raises(ParameterError, match="number 2") as caught:
        AppriseNotifier(["json://127.0.0.1:9", "nonsense://secret-password@host"])
    assert "secret" not in str(caught.value)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where apprise is not installed the message says how to get it."""
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(MissingExtraError, match=r"probatum\[notify\]"):
        AppriseNotifier(["json://127.0.0.1:9"])
