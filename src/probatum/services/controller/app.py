"""Show over HTTP what the controller does: status, health and metrics. Deciding is the loop's alone."""

from __future__ import annotations

import asyncio
import threading

import msgspec

from probatum.services.controller.loop import Controller
from probatum.services.http import JSON, Receive, Scope, Send, error_body, reply
from probatum.services.telemetry.registry import CONTENT_TYPE, Registry


class ControllerApp:
    """Run the loop in a thread of its own beside a small ASGI application."""

    def __init__(self, controller: Controller, registry: Registry) -> None:
        self._controller, self._registry = controller, registry
        self._stop = threading.Event()
        self._thread = threading.Thread(target=controller.run, args=(self._stop,), name="controller", daemon=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        if scope["type"] != "http":
            return
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            await reply(send, 405, error_body("only GET is answered here", field="method"))
        elif path in ("/status", "/health"):
            await reply(send, 200, msgspec.json.encode(self._controller.status), JSON)
        elif path == "/metrics":
            await reply(send, 200, self._registry.expose(), CONTENT_TYPE)
        else:
            await reply(send, 404, error_body("no such path", field="path", value=path))

    async def start(self) -> None:
        """Begin to tick."""
        self._thread.start()

    async def stop(self) -> None:
        """Let the tick that runs end, and resign."""
        self._stop.set()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
