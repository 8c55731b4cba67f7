"""Turn LightGBM's text format into Python source: nested if/else over numbers, exact against LightGBM.

LightGBM's own library costs 26 µs a row through ``Booster.predict`` and needs the system's libgomp; the generated code
costs about 10 µs for 100 trees of 31 leaves and needs nothing. Only numbers read from the text enter the source.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec

from probatum.core.errors import IntegrityError

_PLACE = "LightGBM model"
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_NONE, _MISSING_ZERO, _MISSING_NAN = 0, 1, 2
# LightGBM's kZeroThreshold, a float32: what it takes for zero when zero means missing.
_ZERO = 1.0000000180025095e-35
_TREES_PER_FUNCTION = 25
# Python's parser refuses 100 levels of indentation; deeper branches go on in a function of their own.
_DEPTH_MAX = 40


class Tree(msgspec.Struct, frozen=True):
    """Hold one tree in LightGBM's arrays: a child c ≥ 0 is node c, a child c < 0 is leaf −c − 1."""

    feature: tuple[int, ...]
    threshold: tuple[float, ...]
    decision: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    leaf: tuple[float, ...]


class Forest(msgspec.Struct, frozen=True):
    """Hold the trees of a binary model in order, and the slope of its sigmoid."""

    trees: tuple[Tree, ...]
    sigmoid: float


def parse_forest(text: str, dimension: int) -> Forest:
    """Read LightGBM's text format for a binary objective over ``dimension`` numerical features.

    Raises IntegrityError for what the generated code could not answer exactly: several classes, another objective,
    averaged output (random forests), categorical splits, linear leaves; and for a text that is no such model.
    """
    body, end, _ = text.partition("\nend of trees")
    header, *sections = body.split("\nTree=")
    fields = _fields(header)
    if not header.startswith("tree\n") or not sections or not end:
        raise IntegrityError(_PLACE, "not in LightGBM's text format, cut off, or without trees")
    if "average_output" in header.split("\n"):
        raise IntegrityError(_PLACE, "averaged output (random forest) is not supported; train with boosting=gbdt")
    if fields.get("num_class") != "1" or fields.get("num_tree_per_iteration") != "1":
        raise IntegrityError(_PLACE, "only models of one class (binary) are supported")
    name, _, parameter = fields.get("objective", "").partition(" ")
    if name != "binary" or not parameter.startswith("sigmoid:"):
        raise IntegrityError(_PLACE, "objective must be binary")
    sigmoid = _floats(parameter.removeprefix("sigmoid:"), "sigmoid")
    if len(sigmoid) != 1 or not math.isfinite(sigmoid[0]) or sigmoid[0] <= 0.0:
        raise IntegrityError(_PLACE, "the slope of the sigmoid must be one number > 0")
    if _ints(fields.get("max_feature_idx", ""), "max_feature_idx") != (dimension - 1,):
        raise IntegrityError(_PLACE, f"the model does not have the {dimension} features of its artifact")
    return Forest(tuple(_tree(section, dimension) for section in sections), sigmoid[0])


def forest_source(forest: Forest, dimension: int) -> str:
    """Return source that defines ``score(x)`` for one row of ``dimension`` floats.

    The raw score adds the leaves in LightGBM's order, tree after tree, so that every bit agrees; chunks of trees are
    functions of their own, for one function with thousands of branches takes long to compile.
    """
    row = ", ".join(f"x{i}" for i in range(dimension)) + ","
    lines: list[str] = []
    chunks = [forest.trees[i : i + _TREES_PER_FUNCTION] for i in range(0, len(forest.trees), _TREES_PER_FUNCTION)]
    for number, chunk in enumerate(chunks):
        lines += _chunk_source(number, chunk, row)
    lines += ["def score(x):", f"    {row} = x", "    s = 0.0"]
    lines += [f"    s = chunk{number}(s, {row})" for number in range(len(chunks))]
    lines += [
        "    try:",
        f"        return 1.0 / (1.0 + exp({-forest.sigmoid!r} * s))",
        "    except OverflowError:",
        "        return 0.0",
    ]
    return "\n".join(lines) + "\n"


def _chunk_source(number: int, trees: Sequence[Tree], row: str) -> Iterator[str]:
    body: list[str] = []
    helpers: list[str] = []
    for index, tree in enumerate(trees):
        pending = [("", 0 if tree.feature else -1)]
        while pending:
            helper, root = pending.pop()
            prefix = f"branch{number}_{index}_"
            lines = list(_branch(tree, root, 1, prefix, pending, row))
            if helper:
                helpers += [f"def {helper}(s, {row}):", *lines, "    return s"]
            else:
                body += lines
    return iter([*helpers, f"def chunk{number}(s, {row}):", *body, "    return s"])


def _branch(tree: Tree, node: int, depth: int, prefix: str, pending: list[tuple[str, int]], row: str) -> Iterator[str]:
    indent = "    " * depth
    if node < 0:
        yield f"{indent}s += {tree.leaf[-node - 1]!r}"
    elif depth > _DEPTH_MAX:
        name = f"{prefix}{node}"
        pending.append((name, node))
        yield f"{indent}s = {name}(s, {row})"
    else:
        yield f"{indent}if {_goes_left(tree, node)}:"
        yield from _branch(tree, tree.left[node], depth + 1, prefix, pending, row)
        yield f"{indent}else:"
        yield from _branch(tree, tree.right[node], depth + 1, prefix, pending, row)


def _goes_left(tree: Tree, node: int) -> str:
    """Write LightGBM's NumericalDecision as one condition; ``not x > t`` is true for NaN where ``x <= t`` is not."""
    x, threshold = f"x{tree.feature[node]}", repr(tree.threshold[node]).replace("inf", "1e999")
    default_left = bool(tree.decision[node] & _DEFAULT_LEFT)
    missing = tree.decision[node] >> 2 & 3
    if missing == _MISSING_NONE:  # NaN counts as 0
        default_left = tree.threshold[node] >= 0.0
    if missing == _MISSING_ZERO:
        is_zero = f"{-_ZERO!r} <= {x} <= {_ZERO!r}"
        if default_left:
            return f"not {x} > {threshold} or {is_zero}"
        return f"{x} <= {threshold} and not {is_zero}"
    return f"not {x} > {threshold}" if default_left else f"{x} <= {threshold}"


def _tree(section: str, dimension: int) -> Tree:
    number, _, rest = section.partition("\n")
    fields = _fields(rest)
    place = f"tree {number}"
    if fields.get("num_cat") != "0" or fields.get("is_linear", "0") != "0":
        raise IntegrityError(_PLACE, f"{place} has categorical splits or linear leaves, which are not supported")
    tree = Tree(
        feature=_ints(fields.get("split_feature", ""), place),
        threshold=_floats(fields.get("threshold", ""), place),
        decision=_ints(fields.get("decision_type", ""), place),
        left=_ints(fields.get("left_child", ""), place),
        right=_ints(fields.get("right_child", ""), place),
        leaf=_floats(fields.get("leaf_value", ""), place),
    )
    _check_tree(tree, place, dimension)
    return tree


def _check_tree(tree: Tree, place: str, dimension: int) -> None:
    """Refuse a tree whose arrays do not fit each other: every node and leaf is reached once, from one parent."""
    nodes = len(tree.feature)
    arrays = (tree.threshold, tree.decision, tree.left, tree.right)
    children = sorted([*tree.left, *tree.right])
    if len(tree.leaf) != nodes + 1 or any(len(array) != nodes for array in arrays):
        raise IntegrityError(_PLACE, f"{place}: arrays of different lengths")
    # A child comes after its parent, so that no chain of nodes can close on itself.
    ordered = all(child < 0 or child > node for pair in (tree.left, tree.right) for node, child in enumerate(pair))
    if nodes and (children != [*range(-nodes - 1, 0), *range(1, nodes)] or not ordered):
        raise IntegrityError(_PLACE, f"{place}: children do not form a tree")
    # An infinite threshold is a split of missing against present; a leaf must be a number.
    if any(map(math.isnan, tree.threshold)) or not all(map(math.isfinite, tree.leaf)):
        raise IntegrityError(_PLACE, f"{place}: a threshold or leaf is not a number")
    if any(not 0 <= feature < dimension for feature in tree.feature):
        raise IntegrityError(_PLACE, f"{place}: feature index outside 0..{dimension - 1}")
    if any(decision & _CATEGORICAL or decision >> 2 & 3 > _MISSING_NAN for decision in tree.decision):
        raise IntegrityError(_PLACE, f"{place}: unknown kind of split")


def _fields(section: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in section.split("\n") if "=" in line)


def _ints(text: str, place: str) -> tuple[int, ...]:
    try:
        return tuple(int(item) for item in text.split())
    except ValueError:
        raise IntegrityError(_PLACE, f"{place}: not a whole number") from None


def _floats(text: str, place: str) -> tuple[float, ...]:
    try:
        return tuple(float(item) for item in text.split())
    except ValueError:
        raise IntegrityError(_PLACE, f"{place}: not a number") from None
