"""The house stands: imports go down, nothing hides one, and what must stay light stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import probatum

ROOT = Path(probatum.__file__).parent
LEVEL = {
    "core": 0,
    "market": 1,
    "features": 2,
    "models": 3,
    "monitoring": 4,
    "rollout": 5,
    "pipeline": 6,
    "adapters": 7,
    "services": 7,
    "testing": 8,
    "cli": 9,
}
HEAVY = {"sklearn", "polars", "numba", "scipy", "numpy", "fastapi", "uvicorn", "lightgbm", "jinja2", "rich"}


def _imports(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return [name for name in names if name.startswith("probatum.")]


def test_imports_go_down() -> None:
    """No module imports from a layer above or beside its own, function-level imports included."""
    wrong = []
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        if len(parts) == 1:
            continue
        for name in _imports(path):
            target = name.split(".")[1]
            if target == parts[0] or target not in LEVEL:
                continue
            if LEVEL[target] >= LEVEL[parts[0]]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_every_package_has_a_level() -> None:
    """A new folder must be given its place in the house before it can be imported."""
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(LEVEL)


def test_no_import_cycle() -> None:
    """Modules form no cycle, counting function-level imports."""
    graph = {
        ".".join(("probatum", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): _imports(path)
        for path in ROOT.rglob("*.py")
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name in done or name not in graph:
            return
        for target in graph[name]:
            visit(target, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_help_is_light() -> None:
    """``probatum --help`` imports none of the heavy libraries."""
    code = (
        "import sys; sys.argv=['probatum','--help']\n"
        "from probatum.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(sorted(set(sys.modules) & {HEAVY!r}), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"
    assert "Examples:" in result.stdout
