"""On Dask every use case gives, bit for bit, what one process gives; a dead worker changes nothing; what fails says so."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from canary import bench
from click.testing import CliRunner

from probatum.adapters.dask import ClusterError, DaskMapper, dask_mapper, distributed
from probatum.cli.main import cli
from probatum.cli.workspace import Workspace
from probatum.core.clock import VirtualClock
from probatum.core.errors import DataError, ParameterError, UnknownNameError
from probatum.pipeline.drift import snapshot_each
from probatum.pipeline.ports import Mapper, OneProcess
from probatum.pipeline.training import TrainingPlan, train_each
from probatum.pipeline.verify import verify
from probatum.pipeline.whatif import cases, replay_each
from probatum.rollout.policy import shipped_policy
from probatum.testing.models import toy_dataset

SYMBOLS = ("A", "B", "C")
PLAN = TrainingPlan(symbols=SYMBOLS, set="robust", target="large_move@60s", model="logistic", name="each")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers on this machine, which come again when they are killed."""
    with local(n_workers=2) as found:
        yield found


@pytest.fixture(scope="module")
def mapper(cluster: Any) -> Iterator[DaskMapper]:
    with dask_mapper(cluster.scheduler_address) as found:
        yield found


def workspace(root: Path) -> Workspace:
    """Return a workspace of three symbols whose clock stands still, so that whole chains compare."""
    space = Workspace(root, VirtualClock())
    for seed, symbol in enumerate(SYMBOLS):
        space.datasets.save(toy_dataset(symbol, days=5, seed=seed))
    return space


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which one process trained and judged everything."""
    space = workspace(tmp_path_factory.mktemp("alone"))
    told(space, OneProcess())
    return space


def told(space: Workspace, mapper: Mapper) -> None:
    """Train a model of each symbol and judge the drift of each, into the workspace's ledger."""
    models = [trained.digest for trained in train_each(space.ledger, space, PLAN, mapper)]
    list(snapshot_each(space.ledger, space, models, window="test", mapper=mapper))


def blobs(space: Workspace) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (space.root / "blobs").rglob("*") if path.is_file()}


class Watched:
    """Hand work to another mapper, slowly, each piece noting first which process takes it."""

    def __init__(self, mapper: Mapper, folder: Path) -> None:
        self._mapper, self._folder = mapper, folder

    def map(self, function: Callable[[Any], Any], keys: Iterable[Any]) -> Iterator[Any]:
        return self._mapper.map(partial(noted, function, self._folder), keys)


def noted(function: Callable[[Any], Any], folder: Path, key: Any) -> Any:
    (folder / f"{os.getpid()}-{time.time_ns()}").touch()
    time.sleep(0.3)
    return function(key)


def test_training_and_drift_with_a_worker_killed_are_the_same_chain(
    alone: Workspace, mapper: DaskMapper, tmp_path: Path
) -> None:
    """Artifacts, windows and the ledger's head equal those of one process, though a worker died with work in its hands."""
    space, folder = workspace(tmp_path / "dask"), tmp_path / "pids"
    folder.mkdir()
    thread = threading.Thread(target=told, args=(space, Watched(mapper, folder)))
    thread.start()
    while not (taken := list(folder.iterdir())):
        time.sleep(0.01)
    os.kill(int(taken[0].name.partition("-")[0]), signal.SIGKILL)
    thread.join(120)
    pieces = 2 * len(SYMBOLS)
    assert len(list(folder.iterdir())) > pieces  # the dead one's piece was taken again
    assert len({path.name.partition("-")[0] for path in folder.iterdir()}) >= 2
    assert space.ledger.head() == alone.ledger.head()
    assert blobs(space) == blobs(alone)
    assert len(blobs(space)) == pieces
    found = verify(space.ledger, space)
    assert found.ok, found.findings


def test_features_on_dask_are_the_same_files(alone: Workspace, cluster: Any, tmp_path: Path) -> None:
    """`features build --engine dask` writes the bytes that it writes without."""
    common = ["features", "build", *SYMBOLS, "--set", "robust", "-o", "json", "-w", str(alone.root), "--out"]
    scheduler = ["--engine", "dask", "--scheduler", cluster.scheduler_address]
    here, there = (
        CliRunner().invoke(cli, [*common, str(tmp_path / name), *options], catch_exceptions=False)
        for name, options in (("here", []), ("there", scheduler))
    )
    assert here.stdout == there.stdout
    files = {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    assert sorted(files) == [f"{symbol}.parquet" for symbol in SYMBOLS]
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()}


def test_what_if_replays_are_the_same(mapper: DaskMapper) -> None:
    """Two plans over each day of a recording end alike in both, and not all in the same way."""
    place = bench(bad_share=0.03)
    plans = [place.plan(), place.plan(shipped_policy("seed-v1.8"))]
    days = cases(place.sources, plans)
    assert len(days) > 4
    here, there = (list(replay_each(place.sources, days, item)) for item in (OneProcess(), mapper))
    assert here == there
    assert {(item.policy, item.symbol) for item in here} == {("default", "TOY"), ("seed-v1.8", "TOY")}
    assert sum(item.decisions for item in here) > 1_000
    assert len({(item.stage, item.passed) for item in here}) > 1


def fails(key: int) -> int:
    if key == 2:
        raise DataError("price is negative", file="a.csv", row=3, field="close", value=-1.0)
    return key


def test_an_error_comes_back_as_itself_at_its_place(mapper: DaskMapper) -> None:
    """What came before the failing key is handed over; the error keeps its class, message and fields."""
    found = mapper.map(fails, [0, 1, 2, 3])
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(DataError, match=r"a.csv, row 3, field close: price is negative \(got -1.0\)") as caught:
        next(found)
    assert caught.value.fields["row"] == 3
    with pytest.raises(FileNotFoundError, match="gone"):
        list(mapper.map(partial(raises, FileNotFoundError("gone")), [1]))
    with pytest.raises(UnknownNameError, match="unknown dataset 'NONE'; known: A, B"):
        list(mapper.map(partial(raises, UnknownNameError("dataset", "NONE", ["A", "B"])), [1]))


def raises(error: Exception, _: int) -> None:
    raise error


def dies(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def local(**options: Any) -> Any:
    return distributed.LocalCluster(
        threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50, **options
    )


def test_work_that_kills_every_worker_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece that ends four workers is an error, also where the last of them is not started again."""
    monkeypatch.setattr("probatum.adapters.dask.PATIENCE_S", 3)
    with (
        local(n_workers=1) as cluster,
        dask_mapper(cluster.scheduler_address) as mapper,
        pytest.raises(ClusterError, match=r"ended every worker|no worker is left"),
    ):
        list(mapper.map(dies, [1]))


def test_a_cluster_that_is_not_there_ends_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without any worker, and when the scheduler goes in the midst of it, a command ends rather than waits."""
    monkeypatch.setattr("probatum.adapters.dask.PATIENCE_S", 0.5)
    with (
        local(n_workers=0) as empty,
        dask_mapper(empty.scheduler_address) as mapper,
        pytest.raises(ClusterError, match="no worker is left"),
    ):
        list(mapper.map(fails, [0]))
    cluster = local(n_workers=1, processes=False, protocol="tcp://")
    with dask_mapper(cluster.scheduler_address) as mapper:
        found = mapper.map(partial(noted, fails, tmp_path), [0] * 50)
        next(found)
        cluster.close()
        with pytest.raises(ClusterError, match=r"does not answer|no worker is left"):
            list(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "2"], "one of the two at most, and with --engine dask"),
        (["--engine", "dask", "--workers", "2", "--scheduler", "tcp://x:1"], "one of the two at most"),
        (["--engine", "dask", "--scheduler", "tcp://127.0.0.1:1"], "a Dask scheduler that answers"),
        (["--engine", "dask", "--scheduler", "nonsense://"], "a Dask scheduler that answers"),
    ],
)
def test_options_that_cannot_be_are_refused(
    alone: Workspace, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is an error of input that names what is allowed."""
    monkeypatch.setattr("probatum.adapters.dask.CONNECT_S", 0.3)
    result = CliRunner().invoke(cli, ["train", "A", "B", "--each", *options, "-w", str(alone.root)])
    assert isinstance(result.exception, ParameterError)
    assert message in result.exception.message


def test_one_model_is_fitted_in_one_process(alone: Workspace) -> None:
    """`train --engine dask` without --each is refused rather than ignored."""
    result = CliRunner().invoke(cli, ["train", "A", "--engine", "dask", "-w", str(alone.root)])
    assert isinstance(result.exception, ParameterError)
    assert "--each" in result.exception.message


def test_other_versions_there_are_refused(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker with another numpy might round otherwise: it gets no work."""
    monkeypatch.setattr("probatum.adapters.dask.library_versions", lambda: {"numpy": "1.0"}, raising=True)
    monkeypatch.setattr(distributed.Client, "run", lambda *_: {"tcp://w": {"numpy": "2.0"}})
    with (
        pytest.raises(ParameterError, match=r"versions on tcp://w must be .*1\.0.*2\.0"),
        dask_mapper(cluster.scheduler_address),
    ):
        pass
