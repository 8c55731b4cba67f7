"""Serve with BentoML: one service, one API, one worker."""

import os
import subprocess
import sys
from pathlib import Path

import bentoml
import numpy as np
from model import predict


@bentoml.service(workers=1, traffic={"timeout": 10}, logging={"access": {"enabled": False}})
class Logistic:
    @bentoml.api
    async def predict(self, features: list[float]) -> dict[str, float]:
        return {"score": float(predict(np.array([features]))[0])}


if __name__ == "__main__":
    here = Path(__file__).parent
    command = [
        str(Path(sys.executable).parent / "bentoml"), "serve", "bentoml_app:Logistic",
        "--host", "127.0.0.1", "--port", sys.argv[1], "--working-dir", str(here),
    ]  # fmt: skip
    sys.exit(subprocess.call(command, env={**os.environ, "BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": str(here)}))
