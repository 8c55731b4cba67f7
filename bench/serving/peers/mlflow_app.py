"""Serve with `mlflow models serve`: a pyfunc model in the local environment, one worker."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mlflow.pyfunc
import numpy as np


class Logistic(mlflow.pyfunc.PythonModel):
    def load_context(self, context) -> None:  # noqa: ARG002
        from model import predict

        self._predict = predict

    def predict(self, context, model_input, params=None):  # noqa: ARG002
        return self._predict(np.asarray(model_input))


if __name__ == "__main__":
    here = Path(__file__).parent
    folder = Path(tempfile.mkdtemp()) / "model"
    mlflow.pyfunc.save_model(path=str(folder), python_model=Logistic(), code_paths=[str(here / "model.py")])
    command = [
        str(Path(sys.executable).parent / "mlflow"), "models", "serve", "-m", str(folder), "--env-manager", "local",
        "-h", "127.0.0.1", "-p", sys.argv[1], "-w", "1",
    ]  # fmt: skip
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    sys.exit(subprocess.call(command, env={**os.environ, "PATH": path}))
