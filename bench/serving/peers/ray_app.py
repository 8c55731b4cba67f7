"""Serve with Ray Serve: one replica behind its HTTP proxy."""

import sys
import time

import numpy as np
import ray
from model import predict
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 1})
class Logistic:
    async def __call__(self, request: Request) -> dict[str, float]:
        body = await request.json()
        return {"score": float(predict(np.array([body["features"]]))[0])}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Logistic.bind(), route_prefix="/predict")
    while True:
        time.sleep(3600)
