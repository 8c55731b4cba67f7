"""Serve with the KServe SDK: a custom predictor."""

import sys
from typing import Any

import numpy as np
from kserve import Model, ModelServer
from model import predict


class Logistic(Model):
    def __init__(self) -> None:
        super().__init__("m")
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:  # noqa: ARG002
        return {"predictions": predict(np.array(payload["instances"])).tolist()}


if __name__ == "__main__":
    ModelServer(http_port=int(sys.argv[1]), workers=1, enable_grpc=False, access_log_format=None).start([Logistic()])
