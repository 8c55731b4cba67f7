"""Train a model on stored datasets into an artifact, and prove it: a verifier trains again and must get the same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import msgspec
import numpy as np

from probatum.core.canonical import canonical_json, parse_json
from probatum.core.clock import NS_PER_MINUTE, NS_PER_S, format_utc
from probatum.core.errors import DataError, ParameterError
from probatum.core.verdict import Provenance
from probatum.features.labels import Target, parse_target
from probatum.features.samples import Samples, build_samples
from probatum.features.sets import level_warnings
from probatum.features.splits import Rows, Split, split, walk_forward
from probatum.market.dataset import Dataset
from probatum.market.quality import refuse_gaps
from probatum.models.artifact import Artifact, DataSpec, FeatureSpec, ReferenceBins
from probatum.models.metrics import auc
from probatum.models.scoring import compile_scorer, score_rows
from probatum.models.trainer import Trainer, get_trainer, library_versions
from probatum.monitoring.psi import SCORE, freeze
from probatum.pipeline.evidence import prove_once, same_inputs
from probatum.pipeline.ports import Ledger, Mapper, OneProcess, Progress, Record, Sources
from probatum.pipeline.registry import load_artifact

FOLDS = 5
SEED = 7
SHARES = (0.6, 0.2, 0.2)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@:-]{0,79}")


class TrainingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Say what to train. ``model`` is an entry point of ``probatum.models``; ``grid_ns`` is for ticks only.

    ``by`` cuts train, validation and test at shares of the rows, or of the trading sessions.
    """

    symbols: tuple[str, ...]
    set: str
    target: str
    model: str
    name: str = ""
    grid_ns: int | None = None
    by: Literal["rows", "session"] = "rows"
    shuffle: bool = False
    seed: int = SEED

    def __post_init__(self) -> None:
        if not self.symbols or len(set(self.symbols)) != len(self.symbols):
            raise ParameterError("symbols", "at least one, each once", self.symbols)
        if self.name and not _NAME.fullmatch(self.name):
            raise ParameterError(
                "name", "1 to 80 letters, digits or ._+=@:-, starting with a letter or digit", self.name
            )
        if not 0 <= self.seed < 2**31:
            raise ParameterError("seed", "a whole number in 0..2147483647", self.seed)

    @property
    def subject(self) -> str:
        """Return the given name, or one made from set, target and model."""
        return self.name or re.sub(r"[^A-Za-z0-9._+=-]", "-", f"{self.set}-{self.target}-{self.model}")


class Trained(msgspec.Struct, frozen=True):
    """Hold a stored artifact with its digest, its record, and what its trainer should be warned of."""

    artifact: Artifact
    digest: str
    record: Record
    warnings: tuple[str, ...]


def embargo_ns_of(target: Target) -> int:
    """Return how long before the next part begins a label must be known: an hour, ten minutes below 60 s."""
    return 60 * NS_PER_MINUTE if target.horizon_ns >= 60 * NS_PER_S else 10 * NS_PER_MINUTE


def train(ledger: Ledger, sources: Sources, plan: TrainingPlan, progress: Progress | None = None) -> Trained:
    """Train on the newest version of each dataset, store the artifact, and append ``train`` to the ledger.

    The same training twice is one record. Raises DataError for unexplained gaps or too few rows, ParameterError for a
    shuffled split.
    """
    datasets = _datasets(sources, plan)
    inputs = training_inputs(plan, datasets)
    provenance = Provenance.weakest(dataset.provenance for dataset in datasets)
    return _stored(ledger, sources, plan.subject, provenance, inputs, lambda: _fitted(inputs, datasets, progress))


def train_each(
    ledger: Ledger,
    sources: Sources,
    plan: TrainingPlan,
    mapper: Mapper | None = None,
    progress: Progress | None = None,
) -> Iterator[Trained]:
    """Train one model of each symbol, wherever the mapper does it, and append them in the order of the symbols.

    Their names end in the symbol. What stands in the ledger is the same, byte for byte, whatever the mapper.
    """
    plans = [
        msgspec.structs.replace(plan, symbols=(symbol,), name=f"{plan.subject}-{symbol}")
        for symbol in sorted(plan.symbols)
    ]
    for done, fitted in enumerate((mapper or OneProcess()).map(partial(fit, sources), plans), 1):
        if progress is not None:
            progress.step(f"train {plan.subject}", done, len(plans))
        artifact = fitted.artifact
        yield _stored(ledger, sources, artifact.name, artifact.data.provenance, fitted.inputs, partial(_itself, fitted))


class Fitted(msgspec.Struct, frozen=True):
    """Hold an artifact that is not stored yet, with the inputs that give it."""

    inputs: dict[str, Any]
    artifact: Artifact
    warnings: tuple[str, ...]


def fit(sources: Sources, plan: TrainingPlan, progress: Progress | None = None) -> Fitted:
    """Train as :func:`train` does, and store nothing: the part that another process can do."""
    datasets = _datasets(sources, plan)
    return _fitted(training_inputs(plan, datasets), datasets, progress)


def _datasets(sources: Sources, plan: TrainingPlan) -> list[Dataset]:
    return [sources.datasets.load(symbol) for symbol in sorted(plan.symbols)]


def _fitted(inputs: dict[str, Any], datasets: Sequence[Dataset], progress: Progress | None) -> Fitted:
    artifact, warnings = fit_artifact(inputs, datasets, progress)
    return Fitted(inputs, artifact, tuple(warnings))


def _itself(fitted: Fitted) -> Fitted:
    return fitted


def _stored(
    ledger: Ledger,
    sources: Sources,
    subject: str,
    provenance: Provenance,
    inputs: dict[str, Any],
    make: Callable[[], Fitted],
) -> Trained:
    """Store what is made and append its record, unless one of the same inputs stands already."""

    def derive(_inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
        fitted = make()
        sources.blobs.put("artifact", fitted.artifact.to_bytes())
        return _figures(fitted.artifact, fitted.warnings)

    record = prove_once(
        ledger, sources, kind="train", subject=subject, provenance=provenance, inputs=inputs, derive=derive,
        standing=same_inputs(inputs),
    )  # fmt: skip
    found = record.body["figures"]
    return Trained(load_artifact(sources, found["artifact"]), found["artifact"], record, tuple(found["warnings"]))


def training_inputs(plan: TrainingPlan, datasets: Sequence[Dataset]) -> dict[str, Any]:
    """Return what a training is a function of, datasets by digest: the inputs of :func:`fit_artifact`."""
    target = parse_target(plan.target)
    inputs = {
        **{name: getattr(plan, name) for name in ("set", "model", "grid_ns", "by", "shuffle", "seed")},
        "name": plan.subject,
        "target": target.name,
        "symbols": [dataset.symbol for dataset in datasets],
        "datasets": [dataset.sha256 for dataset in datasets],
        "shares": SHARES,
        "embargo_s": embargo_ns_of(target) // NS_PER_S,
        "versions": library_versions(),
    }
    seen: dict[str, Any] = parse_json(canonical_json(inputs))
    return seen


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Train again from the stored datasets: the artifact's digest must come out the same."""
    pairs = zip(inputs["symbols"], inputs["datasets"], strict=True)
    return _figures(*fit_artifact(inputs, [sources.datasets.load(symbol, sha256) for symbol, sha256 in pairs]))


def _figures(artifact: Artifact, warnings: Sequence[str]) -> dict[str, Any]:
    return {
        "artifact": artifact.digest,
        "target": artifact.target,
        "features": list(artifact.features.names),
        "rows": artifact.split["rows"],
        "metrics": artifact.metrics,
        "warnings": list(warnings),
    }


def fit_artifact(
    inputs: dict[str, Any], datasets: Sequence[Dataset], progress: Progress | None = None
) -> tuple[Artifact, list[str]]:
    """Return the artifact that ``inputs`` describe, and warnings: a pure function of inputs and data."""
    for dataset in datasets:
        refuse_gaps(dataset)
    trainer = get_trainer(inputs["model"])
    samples, parts = samples_of(inputs, datasets, progress)
    warnings = level_warnings(samples.feature_set)
    bare = _bare_artifact(inputs, datasets, samples, parts, trainer)
    scores = score_rows(bare, samples.values)
    metrics = {
        "train_auc": auc(scores[parts.train], samples.label[parts.train]),
        "validate_auc": auc(scores[parts.validate], samples.label[parts.validate]),
        **_cross_validate(trainer, bare, samples.take(parts.train), inputs, warnings, progress),
    }
    artifact = msgspec.structs.replace(
        bare,
        reference=_reference(samples, parts.train, scores[parts.train]),
        metrics={name: round(value, 10) for name, value in metrics.items() if not np.isnan(value)},
    )
    compile_scorer(artifact)  # probes the model on its own bins: what could not be served is not stored
    return artifact, warnings


def samples_of(
    inputs: dict[str, Any], datasets: Sequence[Dataset], progress: Progress | None = None
) -> tuple[Samples, Split]:
    """Return the labelled rows of a training's inputs and how they are split; the gate asks for the same."""
    samples = build_samples(
        datasets, inputs["set"], parse_target(inputs["target"]), grid_ns=inputs["grid_ns"], progress=progress
    )
    train_share, validate, test = inputs["shares"]
    parts = split(
        samples,
        train=train_share,
        validate=validate,
        test=test,
        embargo_ns=inputs["embargo_s"] * NS_PER_S,
        shuffle=inputs["shuffle"],
        by=inputs["by"],
    )
    return samples, parts


def _bare_artifact(
    inputs: dict[str, Any], datasets: Sequence[Dataset], samples: Samples, parts: Split, trainer: Trainer
) -> Artifact:
    """Return the artifact without what is measured by scoring with it: reference bins and metrics."""
    label = samples.label[parts.train]
    if label.min() == label.max():
        raise DataError(f"all {len(label):,} training rows have the label {label[0]}: there is nothing to learn")
    names = samples.feature_set.names
    return Artifact(
        name=inputs["name"],
        model=trainer.fit(samples.values[parts.train], label, names=names, seed=inputs["seed"]),
        features=FeatureSpec(samples.feature_set.name, names, samples.feature_set.fingerprint),
        target=inputs["target"],
        grid_ns=inputs["grid_ns"],
        reference={},
        data=DataSpec(
            symbols=tuple(inputs["symbols"]),
            sha256=tuple(inputs["datasets"]),
            provenance=Provenance.weakest(dataset.provenance for dataset in datasets),
            rows=len(parts.train),
            start=format_utc(int(samples.ts[parts.train[0]])),
            end=format_utc(int(samples.ts[parts.train[-1]])),
        ),
        split={
            **{name: inputs[name] for name in ("shares", "embargo_s", "by", "shuffle")},
            "rows": {name: len(getattr(parts, name)) for name in ("train", "validate", "test")},
            "test_start": format_utc(int(samples.ts[parts.test[0]])),
        },
        seed=inputs["seed"],
        versions=inputs["versions"],
        metrics={},
    )


def _reference(samples: Samples, train_rows: Rows, scores: Any) -> dict[str, ReferenceBins]:
    values = samples.values[train_rows]
    bins = {
        feature.name: freeze(values[:, i], raw=not feature.derived)
        for i, feature in enumerate(samples.feature_set.features)
    }
    return {**bins, SCORE: freeze(scores, raw=False)}


def _cross_validate(
    trainer: Trainer,
    bare: Artifact,
    samples: Samples,
    inputs: dict[str, Any],
    warnings: list[str],
    progress: Progress | None,
) -> dict[str, float]:
    """Return the AUC of each walk-forward fold within the training part, or warn why there is none."""
    try:
        folds = walk_forward(samples, FOLDS, inputs["embargo_s"] * NS_PER_S)
    except DataError as error:
        warnings.append(f"no cross-validation: {error.message}")
        return {}
    found = {}
    for number, (known, held) in enumerate(folds, 1):
        if progress is not None:
            progress.step(f"cross-validate {bare.name}", number, FOLDS)
        if len(np.unique(samples.label[known])) < 2:
            warnings.append(f"no cross-validation in fold {number}: its training rows have one label only")
            continue
        model = trainer.fit(samples.values[known], samples.label[known], names=bare.features.names, seed=inputs["seed"])
        scores = score_rows(msgspec.structs.replace(bare, model=model), samples.values[held])
        found[f"cv_auc_{number}"] = auc(scores, samples.label[held])
    return found


def inputs_of(artifact: Artifact) -> dict[str, Any]:
    """Return the inputs under which :func:`samples_of` gives an artifact's rows."""
    return {
        **{name: artifact.split[name] for name in ("shares", "embargo_s", "by", "shuffle")},
        "set": artifact.features.set,
        "target": artifact.target,
        "grid_ns": artifact.grid_ns,
    }
