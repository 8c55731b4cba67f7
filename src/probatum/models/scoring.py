"""Compile an artifact's model to plain Python code that scores one row: the same code offline and in the engine.

The code is generated from numbers only (``repr`` of checked floats); no name or text of an artifact enters it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from operator import gt
from typing import TYPE_CHECKING, Any

from probatum.core.errors import IntegrityError, UnknownNameError
from probatum.models.artifact import Artifact, FixedModel, LogisticModel, PluginModel, ReferenceBins, TreesModel
from probatum.models.treecode import forest_source, parse_forest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Scorer = Callable[[Sequence[float]], float]

ENTRY_POINTS = "probatum.models"
CLIP = 1e-6
"""The seed's clip: v1.8-b0 scores lie in [1e-6, 1 − 1e-6]."""


def compile_scorer(artifact: Artifact) -> Scorer:
    """Return the function that scores one row of the artifact's features (floats, in the artifact's order).

    Every model is probed once before it is handed out: a score that is NaN or outside [0, 1] at the middle of any
    reference bin is an IntegrityError here, not a wrong decision later. NaN in a row of a logistic or fixed model gives NaN.
    """
    scorer = _scorer(artifact)
    for row in _probe_rows(artifact):
        _probe(artifact, scorer, row)
    return scorer


def score_rows(artifact: Artifact, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score float64[n, k] rows; bitwise equal to :func:`compile_scorer` row by row.

    Logistic and fixed models use numpy for everything but ``exp``, whose last bit differs between numpy and libm.
    """
    import numpy as np

    scorer = compile_scorer(artifact)
    if values.ndim != 2 or values.shape[1] != len(artifact.features.names):
        raise IntegrityError("rows", f"shape is {values.shape}, the model has {len(artifact.features.names)} features")
    model = artifact.model
    if isinstance(model, LogisticModel):
        return np.array([_sigmoid(z) for z in _logits(model, values).tolist()], dtype=np.float64)
    if isinstance(model, FixedModel):
        z = sum((weight * values[:, i] for i, weight in enumerate(model.weights)), np.zeros(len(values)))
        return np.array([_clipped(_sigmoid(item)) for item in z.tolist()], dtype=np.float64)
    return np.array([scorer(row) for row in values.tolist()], dtype=np.float64)


def _scorer(artifact: Artifact) -> Scorer:
    model, dimension = artifact.model, len(artifact.features.names)
    if isinstance(model, LogisticModel):
        return _compile("\n".join(_logistic_source(model, dimension)))
    if isinstance(model, FixedModel):
        return _compile("\n".join(_fixed_source(model, dimension)))
    if isinstance(model, TreesModel):
        return _compile(forest_source(parse_forest(model.text, dimension), dimension))
    return _plugin_scorer(model)


def _logistic_source(model: LogisticModel, dimension: int) -> Iterator[str]:
    columns = (model.weights, model.lower, model.upper, model.mean, model.scale)
    if any(len(column) != dimension for column in columns):
        raise IntegrityError("logistic model", f"weights and scaling do not fit {dimension} features")
    if any(scale <= 0.0 for scale in model.scale) or any(map(gt, model.lower, model.upper)):
        raise IntegrityError("logistic model", "a scale is not > 0, or a lower bound lies above its upper bound")
    yield from _head(dimension)
    terms = _number(model.intercept)
    for i, (weight, lower, upper, mean, scale) in enumerate(zip(*columns, strict=True)):
        yield f"    if x{i} < {_number(lower)}: x{i} = {_number(lower)}"
        yield f"    elif x{i} > {_number(upper)}: x{i} = {_number(upper)}"
        terms = f"({terms} + {_number(weight)} * ((x{i} - {_number(mean)}) / {_number(scale)}))"
    yield f"    return sigmoid({terms})"


def _fixed_source(model: FixedModel, dimension: int) -> Iterator[str]:
    if len(model.weights) != dimension:
        raise IntegrityError("fixed model", f"{len(model.weights)} weights do not fit {dimension} features")
    yield from _head(dimension)
    terms = "0.0"
    for i, weight in enumerate(model.weights):
        terms = f"({terms} + {_number(weight)} * x{i})"
    yield f"    return clipped(sigmoid({terms}))"


def _head(dimension: int) -> Iterator[str]:
    yield "def score(x):"
    yield f"    {', '.join(f'x{i}' for i in range(dimension))}, = x"


def _logits(model: LogisticModel, values: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    z = np.full(len(values), model.intercept)
    columns = zip(model.weights, model.lower, model.upper, model.mean, model.scale, strict=True)
    for i, (weight, lower, upper, mean, scale) in enumerate(columns):
        z = z + weight * ((np.clip(values[:, i], lower, upper) - mean) / scale)
    return z


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise IntegrityError("model", f"a parameter is not finite ({value!r})")
    return f"({float(value)!r})"


def _compile(source: str) -> Scorer:
    namespace: dict[str, Any] = {
        "__builtins__": {"OverflowError": OverflowError},
        "exp": math.exp,
        "sigmoid": _sigmoid,
        "clipped": _clipped,
    }
    exec(compile(source, "<model>", "exec"), namespace)
    scorer: Scorer = namespace["score"]
    return scorer


def _sigmoid(z: float) -> float:
    """Return 1/(1 + e^−z) without overflow at either end."""
    if z >= 0.0:
        return 1.0 / (1.0 + math.exp(-z))
    e = math.exp(z)
    return e / (1.0 + e)


def _clipped(score: float) -> float:
    if score < CLIP:
        return CLIP
    return 1.0 - CLIP if score > 1.0 - CLIP else score


def load_entry_point(name: str) -> Any:
    """Import what an installed package registered in the group ``probatum.models``; UnknownNameError lists the known."""
    from importlib.metadata import entry_points

    found = entry_points(group=ENTRY_POINTS)
    if name not in found.names:
        raise UnknownNameError("model", name, found.names)
    return found[name].load()


def _plugin_scorer(model: PluginModel) -> Scorer:
    place = f"model of plugin {model.entry_point}"
    make = load_entry_point(model.entry_point)
    try:
        scorer: Scorer = make().scorer(model.payload)
    except Exception as error:  # a user's code may raise anything
        raise IntegrityError(place, f"no scorer for its payload: {type(error).__name__}: {error}") from error
    return scorer


def _probe_rows(artifact: Artifact) -> Iterator[list[float]]:
    """Yield rows that walk through the middles of all reference bins at once, edges included at both ends."""
    columns = [_middles(artifact.reference.get(name)) for name in artifact.features.names]
    for j in range(max(len(column) for column in columns)):
        yield [column[min(j, len(column) - 1)] for column in columns]


def _middles(bins: ReferenceBins | None) -> list[float]:
    edges = bins.edges if bins is not None else ()
    if not edges:
        return [0.0]
    return [edges[0], *((a + b) / 2.0 for a, b in pairwise(edges)), edges[-1]]


def _probe(artifact: Artifact, scorer: Scorer, row: list[float]) -> None:
    try:
        score = scorer(row)
        valid = 0.0 <= score <= 1.0
    except Exception as error:
        raise IntegrityError(f"model {artifact.name}", f"scoring failed on a probe row: {error}") from error
    if not valid:
        raise IntegrityError(f"model {artifact.name}", f"score {score!r} on a probe row is not within [0, 1]")
