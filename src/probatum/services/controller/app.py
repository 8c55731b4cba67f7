"""Show over HTTP what the controller does, and take what people and Alertmanager say. Deciding is the loop's alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from probatum.core.errors import ProbatumError
from probatum.services.controller.loop import Controller
from probatum.services.http import error_body, refusal
from probatum.services.telemetry.registry import CONTENT_TYPE, Registry

STOP_S = 5.0


class ControllerApp(Starlette):
    """Run the loop in a thread of its own beside the pages; ``routes`` are those of the parts that are wired in.

    ``guard`` refuses who may not see where rollouts stand; health and metrics are open, and tell no more than that.
    ``beside`` run in threads of their own until the event they are given is set. Nobody waits long for them at the end:
    what they append is whole or not at all.
    """

    def __init__(
        self,
        controller: Controller,
        registry: Registry,
        routes: Sequence[BaseRoute] = (),
        guard: Callable[[Request], None] = lambda _: None,
        beside: Sequence[Callable[[threading.Event], None]] = (),
    ) -> None:
        self._controller, self._registry, self._guard = controller, registry, guard
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=run, args=(self._stop,), daemon=True) for run in (controller.run, *beside)
        ]
        own = (Route("/status", self._status), Route("/health", self._health), Route("/metrics", self._metrics))
        super().__init__(routes=[*own, *routes], exception_handlers={ProbatumError: _refused, 404: _lost, 405: _method})

    async def start(self) -> None:
        """Begin to tick."""
        for thread in self._threads:
            thread.start()

    async def stop(self) -> None:
        """Let the tick that runs end, and resign."""
        self._stop.set()
        loop, *beside = self._threads
        await asyncio.get_running_loop().run_in_executor(None, loop.join)
        for thread in beside:
            await asyncio.get_running_loop().run_in_executor(None, thread.join, STOP_S)

    async def _status(self, request: Request) -> Response:
        self._guard(request)
        return json_response(200, msgspec.json.encode(self._controller.status))

    async def _health(self, request: Request) -> Response:  # noqa: ARG002
        shown = {key: self._controller.status[key] for key in ("role", "problem")}
        return json_response(200, msgspec.json.encode({"ok": True, "service": "controller", **shown}))

    async def _metrics(self, request: Request) -> Response:  # noqa: ARG002
        return Response(self._registry.expose(), media_type=CONTENT_TYPE.decode())


def json_response(status: int, body: bytes) -> Response:
    """Return JSON that was encoded already."""
    return Response(body, status, media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, ProbatumError)
    return json_response(*refusal(error))


async def _lost(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return json_response(404, error_body("no such path", field="path", value=request.url.path))


async def _method(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return json_response(405, error_body("not answered here", field="method", value=request.method))
