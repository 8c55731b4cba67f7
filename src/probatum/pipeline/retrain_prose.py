"""Write a retrain attempt for people, in Markdown: the strategy, and the card of the model that it chose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from probatum.models.artifact import Artifact
from probatum.pipeline.ports import Record


def strategy(record: Record) -> str:
    """Return what was tried, why, what came of it, when the successor could be promoted, and what to do now."""
    found = record.body["figures"]
    holdout = found["holdout"]
    return _page(
        f"Retrain strategy: {found['replaces']} to {record.subject}",
        record,
        f"Attempt {found['number']} of at most {found['attempts_max']}: **{found['verdict']}**. "
        f"Asked for by {found['because']}. The champion stays until this model is promoted.",
        f"Every attempt is judged at α = {found['alpha']:.4g}; {found['alpha_spent']:.4g} of {found['alpha_total']:g} are spent, "
        "so the chance that any attempt passes a bad model is at most the whole.",
        "## Candidates",
        f"Target {found['target']}, data {found['data']['start']} to {found['data']['end']}, one split for all; chosen by the "
        "validation part, which neither trained nor judged.",
        _table(
            ("set", "model", "validation AUC", "test AUC", "at least", "P@20", "at least", "gate", "chosen"),
            (
                (c["set"], c["model"], c["validate_auc"], c["auc"], c["auc_lower"], c["precision_at_20"],
                 c["precision_at_20_lower"], c["verdict"], "yes" if c["chosen"] else "")
                for c in found["candidates"]
            ),
        ),
        *(f"{name} could not be trained: {problem}" for name, problem in found["not_trained"].items()),
        f"PSI of the test part against the training part: {_cell(holdout['overall_psi'])} overall, {_cell(holdout['max_psi'])} at "
        f"worst, {holdout['verdict']} over {holdout['rows']:,} rows. Promotion enforces it on fresh data.",
        "## Timeline",
        "Computed from the canary's plan at this market's rate of decisions, if nothing fails:",
        _table(("step", "from", "to"), ((s["step"], s["start"], s["end"]) for s in found["timeline"])),
        "## Next steps",
        "\n".join(f"{n}. {step}" for n, step in enumerate(found["next_steps"], 1)),
    )  # fmt: skip


def model_card(record: Record, artifact: Artifact) -> str:
    """Return the card of an attempt's model: what it is for, what it learnt from, how it was judged, what it cannot do."""
    found = record.body["figures"]
    checks = [(c["name"], c["value"], c["bound"], c["lower"], c["upper"], c["verdict"], "yes" if c["enforced"] else "") for c in found["checks"]]  # fmt: skip
    data = artifact.data
    return _page(
        f"Model card: {artifact.name}",
        record,
        f"Foretells {artifact.target} from feature set {artifact.features.set}; kind {artifact.model.__struct_config__.tag}; artifact "
        f"`{record.body['inputs']['artifact']}`.",
        "## Data",
        f"{', '.join(data.symbols)}, class {data.provenance.upper()}: {data.rows:,} rows, {data.start} to {data.end}. The test part "
        f"begins at {artifact.split['test_start']}; embargo {artifact.split['embargo_s']:,} s.",
        "## Features",
        ", ".join(artifact.features.names),
        "## Judged",
        f"**{found['verdict']}** at α = {found['alpha']:.4g}, on rows that it never saw.",
        _table(("check", "value", "bound", "lower", "upper", "verdict", "enforced"), checks),
        "## Measured in training",
        _table(("metric", "value"), artifact.metrics.items()),
        "## Limits",
        "A gate passed on recorded data promotes nothing. The score is a probability of this target only: for `large_move` it is a "
        "filter for risk, not a signal to buy.",
        "## Made with",
        _table(("library", "version"), artifact.versions.items()),
    )


def _page(title: str, record: Record, *parts: str) -> str:
    marks = f"{record.provenance.upper()} data. Record {record.seq}, {record.hash}."
    return "\n\n".join((f"# {_plain(title)}", marks, *parts)) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows)])


def _cell(value: object) -> str:
    return (
        "–" if value is None else f"{value:.4g}" if isinstance(value, float) else _plain(str(value)).replace("|", "\\|")
    )


def _plain(text: str) -> str:
    return " ".join(text.split()) if text.isprintable() else ascii(text)
