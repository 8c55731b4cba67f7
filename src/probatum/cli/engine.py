"""Serve predictions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from probatum.cli.common import FiniteRange, workspace_option


@click.command()
@workspace_option
@click.option("--model", help="Alias, name or digest in the workspace.  [default: champion]")
@click.option(
    "--artifact",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Serve this artifact file instead of a workspace's model.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=4010, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes behind the port.")
@click.option(
    "--tokens",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    envvar="PROBATUM_TOKENS",
    show_envvar=True,
    help="JSON file of {sha256 of a token: role}; without one nobody may swap over HTTP.",
)
@click.option(
    "--as-of-age",
    "as_of_age_s",
    type=FiniteRange(0.001, 1e9),
    default=300.0,
    show_default=True,
    help="Age in seconds from which a request's as_of is stale.",
)
def engine(
    workspace: Path,
    model: str | None,
    artifact: Path | None,
    host: str,
    port: int,
    workers: int,
    tokens: Path | None,
    as_of_age_s: float,
) -> None:
    """Serve one model over HTTP: /ml/predict, Open Inference Protocol v2, /invocations.

    SIGHUP serves what --model names by then, POST /ml/model/swap another one; neither drops a request. SIGTERM drains.

    \b
    Examples:
      probatum engine                                  the workspace's champion on 127.0.0.1:4010
      probatum engine --model challenger --port 4011 --workers 2
      probatum engine --artifact model.json
      curl --json '{"features":[1,42000,1.0,1e6,55,13.8]}' localhost:4010/ml/predict
    """
    from probatum.core.clock import NS_PER_S, SystemClock
    from probatum.services.auth import read_tokens
    from probatum.services.engine.predict import Limits
    from probatum.services.engine.server import Engine, EngineSettings
    from probatum.services.fleet import bind, url_of

    reference = model or ("" if artifact else "champion")  # a file was promoted by nobody
    settings = EngineSettings(model=reference, workers=workers, limits=Limits(age_max_ns=round(as_of_age_s * NS_PER_S)))
    load = file_source(artifact, reference) if artifact else workspace_source(workspace)
    server = Engine(settings, load, read_tokens(tokens), SystemClock())
    sock = bind(host, port)
    click.echo(f"engine serves {server.version} {server.digest[:12]} on {url_of(sock)}", err=True)
    sys.exit(server.run(sock))


def workspace_source(root: Path) -> Callable[[str], tuple[str, bytes]]:
    """Return what finds an artifact's digest and bytes by alias, name or digest; the ledger is read at each call.

    A whole digest needs no ledger: it names its blob, so that all workers of a swap open the same one.
    """
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.registry import resolve

    space = Workspace(root)

    def load(reference: str) -> tuple[str, bytes]:
        whole = len(reference) == 64 and set(reference) <= set("0123456789abcdef")
        digest = reference if whole else resolve(space.ledger.records(), reference)
        return digest, space.blobs.get("artifact", digest)

    return load


def file_source(path: Path, alias: str) -> Callable[[str], tuple[str, bytes]]:
    """Return what reads one artifact file under one alias ("": none); a swap reads the file again."""
    from probatum.core.canonical import sha256_hex
    from probatum.core.errors import UnknownNameError

    def load(reference: str) -> tuple[str, bytes]:
        data = path.read_bytes()
        digest = sha256_hex(data)
        if reference not in (alias, digest):
            raise UnknownNameError("model", reference, [name for name in (alias, digest) if name])
        return digest, data

    return load
