"""Imports flow one way, and the front door imports no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A room may import from its own level (itself) and from every level above it.
LEVELS = [
    {"version", "errors", "batch", "keyed", "resources"},
    {"compose", "words"},
    {"masks", "metrics", "layers"},
    {"data"},
    {"module", "weights"},
    {"models"},
    {"benchmark"},
    {"cli"},
]
# `weights` rebuilds a module from its class path and so asks the name table, at run time, inside functions.
LATE = {("weights", "models")}


def _room(path: Path) -> str:
    return path.relative_to(ROOT / "zoo").parts[0].removesuffix(".py")


def _imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("zoo"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("zoo.")}
    return found


def test_imports_flow_one_way() -> None:
    level = {name: i for i, names in enumerate(LEVELS) for name in names}
    wrong = []
    for path in sorted((ROOT / "zoo").rglob("*.py")):
        room = _room(path)
        if room in ("__init__", "__main__"):
            continue
        for other in _imports(ast.parse(path.read_text())) & set(level):
            allowed = other == room or level[other] < level[room] or (room, other) in LATE
            same_level = level[other] == level[room] and room in LEVELS[0] | {"module", "weights"}
            if not (allowed or same_level):
                wrong.append(f"{path.relative_to(ROOT)} imports zoo.{other}")
    assert wrong == []


def test_models_never_import_data_nor_metrics_models() -> None:
    for room, forbidden in (("models", {"data"}), ("metrics", {"models", "data"})):
        for path in (ROOT / "zoo" / room).rglob("*.py"):
            assert not _imports(ast.parse(path.read_text())) & forbidden, path


def test_import_zoo_imports_no_torch() -> None:
    code = (
        "import sys, zoo, zoo.cli.main; assert zoo.__version__; print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_only_the_command_line_and_the_report_print() -> None:
    for path in (ROOT / "zoo").rglob("*.py"):
        if _room(path) == "cli" or path.name.startswith("report"):
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path


def test_files_stay_readable() -> None:
    for path in (ROOT / "zoo").rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 500, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                assert lines <= 45, f"{path}:{node.name} has {lines} lines"
