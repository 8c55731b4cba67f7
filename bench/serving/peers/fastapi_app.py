"""Serve with FastAPI as its documentation does: a pydantic model in, a dict out."""

import sys

import numpy as np
import uvicorn
from fastapi import FastAPI
from model import predict
from pydantic import BaseModel

app = FastAPI()


class Request(BaseModel):
    features: list[float]


class Response(BaseModel):
    score: float


@app.post("/predict")
async def predict_one(request: Request) -> Response:
    return Response(score=float(predict(np.array([request.features]))[0]))


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
