"""Write what runs the jobs by another scheduler's clock: systemd timers with services, and Kubernetes CronJobs.

Who runs them twice does no harm: a slot that is recorded is left alone, and ``--slot due`` catches up with what was missed.
The ledger's URL comes from ``/etc/probatum/environment``, or from the secret ``probatum``, where there is one.
"""

from __future__ import annotations

import json

from probatum.core.errors import ParameterError
from probatum.pipeline.jobs import JOBS, Job


def systemd_units(program: str, workspace: str) -> dict[str, str]:
    """Return {file name: text} of a timer and a service for each job.

    Raises ParameterError for a path that systemd could read as more than one word, or as more than one line.
    """
    for name, value in (("command", program), ("workspace", workspace)):
        if not value.startswith("/") or not value.isprintable() or set(value) & set(" '\"\\%$;"):
            raise ParameterError(name, "an absolute path without space, quote, backslash, %, $ or ;", value)
    units = {}
    for job in JOBS.values():
        units[f"{_unit(job)}.timer"] = _TIMER.format(help=job.help, calendar=job.schedule.calendar)
        units[f"{_unit(job)}.service"] = _SERVICE.format(
            help=job.help, program=program, workspace=workspace, name=job.name
        )
    return units


def cron_jobs(image: str) -> dict[str, str]:
    """Return {file name: YAML} of one CronJob for each job; the workspace is the claim ``probatum-workspace``."""
    if not image or not image.isprintable() or " " in image:
        raise ParameterError("image", "the name of a container image", image)
    # JSON is YAML, and quotes whatever a name holds.
    return {f"{_unit(job)}.yaml": json.dumps(_cron_job(job, image), indent=2) + "\n" for job in JOBS.values()}


def _unit(job: Job) -> str:
    return f"probatum-{job.name.replace('_', '-')}"


_TIMER = """[Unit]
Description=Probatum: {help}

[Timer]
OnCalendar={calendar}
AccuracySec=1s
RandomizedDelaySec=0
Persistent=true

[Install]
WantedBy=timers.target
"""

_SERVICE = """[Unit]
Description=Probatum: {help}
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
EnvironmentFile=-/etc/probatum/environment
ExecStart={program} jobs run {name} --slot due --workspace {workspace}
ReadWritePaths={workspace}
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
"""


def _cron_job(job: Job, image: str) -> dict[str, object]:
    container = {
        "name": "job",
        "image": image,
        "command": ["probatum", "jobs", "run", job.name, "--slot", "due", "--workspace", "/workspace"],
        "envFrom": [{"secretRef": {"name": "probatum", "optional": True}}],
        "volumeMounts": [{"name": "workspace", "mountPath": "/workspace"}],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "restartPolicy": "OnFailure",
        "containers": [container],
        "volumes": [{"name": "workspace", "persistentVolumeClaim": {"claimName": "probatum-workspace"}}],
        "securityContext": {"runAsNonRoot": True},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": _unit(job), "labels": {"app.kubernetes.io/name": "probatum"}},
        "spec": {
            "schedule": job.schedule.cron,
            "timeZone": "Etc/UTC",
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "jobTemplate": {"spec": {"backoffLimit": 3, "template": {"spec": pod}}},
        },
    }
