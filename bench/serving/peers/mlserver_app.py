"""Serve with MLServer: a custom runtime in the server's own process (parallel workers only add a hop)."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from model import predict


class Logistic(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        scores = predict(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("score", scores)])


if __name__ == "__main__":
    port = int(sys.argv[1])
    folder = Path(tempfile.mkdtemp())
    settings = {
        "host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "parallel_workers": 0,
        "debug": False, "use_structured_logging": False, "metrics_dir": str(folder / "metrics"),
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps({"name": "m", "implementation": "mlserver_app.Logistic"}))
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": here}
    command = [str(Path(sys.executable).parent / "mlserver"), "start", str(folder)]
    sys.exit(subprocess.call(command, env=environment, cwd=folder))
