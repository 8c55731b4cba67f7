"""Hold every deployment file to its public validator, and to what the services really answer and take."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from nginx import Nginx
from tests.conftest import require_service

from probatum.cli.doctor import SERVICES
from probatum.cli.main import cli

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
UNITS = sorted(path.name for path in (DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted(path for path in (DEPLOY / "kustomize").glob("*.yaml") if path.name != "kustomization.yaml")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text())
EXPOSURE_MAX = 15  # tenths; systemd's own scale goes from 0 to 100, and below 20 it says OK


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a validator; its whole output is the message where it refuses."""
    require_service(str(command[0]), shutil.which(command[0]))
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def parse(arguments: list[str]) -> None:
    """Let click read a command as it stands in a deployment file: an unknown command or option raises UsageError."""
    context = click.Context(cli)
    command = cli.get_command(context, arguments[0])
    assert command is not None, arguments
    command.make_parser(click.Context(command)).parse_args(arguments[1:])


def test_dockerfile() -> None:
    """hadolint has nothing to say; the user is not root; whatever is installed is locked by hash and comes from no named registry."""
    assert run(BIN / "hadolint", "Dockerfile") == ""
    text = (ROOT / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:[\w.-]+", base) for base in bases)
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["10001"]
    assert "HEALTHCHECK" in text
    installs = re.findall(r"pip install .*", text)
    assert len(installs) == 2
    assert "--require-hashes -r locks/image.txt" in installs[0]
    assert "--no-deps --no-build-isolation" in installs[1]
    assert "://" not in text.replace("http://127.0.0.1", "")


def test_the_image_lock_is_that_of_the_tests() -> None:
    """Every version in the image is the one that the tests run on, with its hashes, and no address."""
    pins = {
        name: dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "locks" / f"{name}.txt").read_text(), re.MULTILINE))
        for name in ("image", "run", "dev")
    }
    assert pins["image"].items() <= pins["dev"].items()
    assert pins["run"].items() <= pins["image"].items()
    assert {"psycopg", "distributed", "websockets"} <= pins["image"].keys()
    text = (ROOT / "locks" / "image.txt").read_text()
    assert text.count("==") <= text.count("--hash=sha256:")
    assert "://" not in text


def test_compose_file() -> None:
    """The compose specification's schema accepts it; our services are read-only, without capabilities, on loopback."""
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yml")
    services = COMPOSE["services"]
    assert services.keys() == {"engine", "executor", "controller", "postgres", "prometheus", "alertmanager"}
    for name, (port, path) in SERVICES.items():
        service = services[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["environment"]["PROBATUM_HEALTH"] == f"http://127.0.0.1:{port}{path}"
        parse(service["command"])
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_configurations_within_the_compose_file(tmp_path: Path) -> None:
    """promtool and amtool accept what Prometheus and Alertmanager are given, and the job names are those that are asked for."""
    from probatum.adapters.promql import ENGINES, EXECUTORS

    for name in ("prometheus", "alertmanager"):
        (tmp_path / f"{name}.yml").write_text(COMPOSE["configs"][name]["content"])
    run("promtool", "check", "config", tmp_path / "prometheus.yml")
    run("amtool", "check-config", tmp_path / "alertmanager.yml")
    jobs = {job["job_name"]: job for job in yaml.safe_load((tmp_path / "prometheus.yml").read_text())["scrape_configs"]}
    assert {EXECUTORS, ENGINES} < jobs.keys()
    for name, (port, _) in SERVICES.items():
        found = jobs[f"probatum-{name}"]["dns_sd_configs"][0]
        assert (found["names"], found["port"]) == ([name], port)


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_units(unit: str, tmp_path: Path) -> None:
    """systemd itself finds no fault in a unit, and rates its exposure as OK; the command is one that there is."""
    shutil.copytree(DEPLOY / "systemd", tmp_path / "units")
    command = re.findall(r"^ExecStart=/opt/probatum/bin/probatum (.*)$", (DEPLOY / "systemd" / unit).read_text(), re.M)
    parse(command[0].replace("%i", "4010").split())
    made = tmp_path / "units" / unit.replace("@", "@4010")
    text = (tmp_path / "units" / unit).read_text().replace("/opt/probatum/bin/probatum", str(BIN / "probatum"))
    made.write_text(text)
    assert run("systemd-analyze", "verify", "--man=no", made) == ""
    run("systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={EXPOSURE_MAX}", made)


def test_a_unit_without_its_hardening_is_refused(tmp_path: Path) -> None:
    """The threshold is one that can be missed: without the drop-in the same unit is rated unsafe."""
    shutil.copy(DEPLOY / "systemd" / "probatum-controller.service", tmp_path)
    require_service("systemd-analyze", shutil.which("systemd-analyze"))
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={EXPOSURE_MAX}"]
    assert subprocess.run([*command, tmp_path / "probatum-controller.service"], capture_output=True).returncode


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_manifests(path: Path) -> None:
    """Each is strictly what its kind's schema says."""
    assert "passed" in run(BIN / "kubernetes-validate", "--strict", path)


def test_kustomization_lists_every_manifest() -> None:
    """No file is forgotten, and the label that network policies go by reaches the pods."""
    (found,) = documents(DEPLOY / "kustomize" / "kustomization.yaml")
    assert (found["apiVersion"], found["kind"]) == ("kustomize.config.k8s.io/v1beta1", "Kustomization")
    assert sorted(found["resources"]) == [path.name for path in MANIFESTS]
    label = {"pairs": {"app.kubernetes.io/part-of": "probatum"}, "includeTemplates": True}
    assert found["labels"] == [label]


@pytest.mark.parametrize("name", SERVICES)
def test_pods_are_confined_probed_and_bounded(name: str) -> None:
    """Not root, nothing writable but the workspace and /tmp, probes on what the service answers, and a network policy."""
    port, path = SERVICES[name]
    deployment, service = documents(DEPLOY / "kustomize" / f"{name}.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert container["ports"] == [{"name": "http", "containerPort": port}]
    assert container["readinessProbe"]["httpGet"] == {"path": path, "port": "http"}
    assert container["livenessProbe"]["tcpSocket"] == {"port": "http"}
    assert container["resources"]["limits"]["memory"]
    assert service["spec"]["ports"][0]["port"] == port
    parse(container["args"])
    policies = {item["metadata"]["name"]: item["spec"] for item in documents(DEPLOY / "kustomize" / "network.yaml")}
    ours = {"matchLabels": {"app.kubernetes.io/part-of": "probatum"}}
    assert policies["probatum-nothing"] == {"podSelector": ours, "policyTypes": ["Ingress", "Egress"]}
    mine = policies[f"probatum-{name}"]
    assert mine["podSelector"]["matchLabels"] == deployment["spec"]["selector"]["matchLabels"]
    assert [rule["ports"][0]["port"] for rule in mine["ingress"]] == [port]


def test_nginx(tmp_path: Path) -> None:
    """nginx takes the shipped file, between its own lines, and listens."""
    found = Nginx(tmp_path, ["http://127.0.0.1:4010", "http://127.0.0.1:4011"])
    found.stop()
    assert "emerg" not in (tmp_path / "error.log").read_text()
