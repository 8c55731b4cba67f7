"""Map work over the workers of a Dask cluster: the same functions on the same files, so the same bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from probatum.core.errors import MissingExtraError, ParameterError, ProbatumError
from probatum.models.trainer import library_versions
from probatum.pipeline.ports import Key, Result

try:
    distributed: Any = import_module("distributed")  # its classes are half typed
except ImportError as error:
    raise MissingExtraError("dask", f"Dask cannot be imported ({error})") from None

CONNECT_S = 10
PATIENCE_S = 20
"""How long to wait before asking whether there is any worker; twice none in a row is an end."""


class ClusterError(ProbatumError):
    """The cluster gave no result; what was appended before stands, and the same command may be run again."""


class DaskMapper:
    """Implements ``pipeline.ports.Mapper``. A piece whose worker dies is computed anew by another one.

    Workers read the workspace by its path, so it must be on a disk that all of them share.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def map(self, function: Callable[[Key], Result], keys: Iterable[Key]) -> Iterator[Result]:
        """Yield results in the order of the keys; see the protocol. ClusterError when scheduler or workers are gone."""
        waiting = self._client.map(function, list(keys), pure=False)[::-1]
        try:
            while waiting:
                yield self._result(waiting.pop())  # what was handed over is freed on its worker
        finally:
            if waiting and self._client.status == "running":
                self._client.cancel(waiting, force=True)

    def _result(self, future: Any) -> Any:
        try:
            self._wait(future)
            return future.result()
        except distributed.KilledWorker as error:
            raise ClusterError(f"a piece of work ended every worker that took it: {error}") from None
        except (CancelledError, OSError, TimeoutError) as error:
            if future.status == "error":  # the function's own
                raise
            raise ClusterError(f"the Dask cluster does not answer any more: {error}") from None

    def _wait(self, future: Any) -> None:
        """Wait for a future; Dask itself would wait for ever for a worker that does not come."""
        empty = 0
        while not future.done():
            try:
                with self._client.as_current():
                    distributed.wait(future, timeout=PATIENCE_S)
            except TimeoutError:
                empty = 0 if self._client.scheduler_info()["workers"] else empty + 1
                if empty == 2:
                    raise ClusterError("no worker is left in the Dask cluster") from None


@contextmanager
def dask_mapper(scheduler: str | None = None, workers: int = 2) -> Iterator[DaskMapper]:
    """Yield a mapper over a running cluster, or over ``workers`` processes of this machine that end with it.

    Raises ParameterError where nobody answers, and where the versions differ there: then results might too.
    """
    with _client(scheduler, workers) as client:
        here = library_versions()
        for address, there in client.run(library_versions).items():
            if there != here:
                raise ParameterError(f"versions on {address}", f"those of this process, {here}", there)
        yield DaskMapper(client)


@contextmanager
def _client(scheduler: str | None, workers: int) -> Iterator[Any]:
    if scheduler is None:
        with (
            distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", memory_limit=0,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):  # fmt: skip
            yield client
        return
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise ParameterError(
            "scheduler", f"the address of a Dask scheduler that answers ({error})", scheduler
        ) from None
    with client:
        yield client
