"""The one model that every peer serves: a scaled logistic regression over seven features.

As their tutorials do, the peers call the scikit-learn pipeline that was trained. BENCH_NUMPY=1 gives them the bare
arithmetic in numpy instead: what a user gets who rewrites the model for each framework by hand.
"""

import json
import os
from pathlib import Path

import numpy as np

_MODEL = json.loads(Path(os.environ["BENCH_MODEL"]).read_text())
_WEIGHTS = np.array(_MODEL["weights"])
_INTERCEPT = float(_MODEL["intercept"])


def _with_numpy(rows: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-(rows @ _WEIGHTS + _INTERCEPT)))


def _pipeline():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    count = len(_WEIGHTS)
    scaler, logistic = StandardScaler(), LogisticRegression()
    scaler.mean_, scaler.scale_, scaler.var_ = np.zeros(count), np.ones(count), np.ones(count)
    scaler.n_features_in_ = logistic.n_features_in_ = count
    logistic.coef_, logistic.intercept_ = _WEIGHTS[None, :], np.array([_INTERCEPT])
    logistic.classes_ = np.array([0, 1])
    pipeline = make_pipeline(scaler, logistic)
    return lambda rows: pipeline.predict_proba(rows)[:, 1]


predict = _with_numpy if os.environ.get("BENCH_NUMPY") == "1" else _pipeline()
