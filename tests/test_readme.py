"""The README keeps its promises: commands, code, pictures and table are those of the project."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from zoo.benchmark.report_update import first_table
from zoo.cli.expand import expand
from zoo.cli.parsers import LIGHTNING_VERBS, PARSERS
from zoo.models import names
from zoo.weights import sha256
from zoo.weights import shipped as find_shipped

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_two_commands_are_there_and_ci_runs_them() -> None:
    commands = re.findall(r"^pip install .+ && (?:zoo benchmark|pytest)$", README, re.MULTILINE)
    assert commands == ["pip install . && zoo benchmark", 'pip install ".[dev]" && pytest']
    assert "grep -E '^pip install .+ && (zoo benchmark|pytest)$' README.md" in (ROOT / ".ci" / "run").read_text()


def test_the_library_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    scope: dict[str, object] = {}
    exec(code, scope)  # the README's own words
    done, image, mask = scope["done"], scope["image"], scope["mask"]
    assert ((done.image == image) | (mask > 0.5)).all()  # type: ignore[attr-defined, operator]


def test_files_that_the_readme_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("mask", ["object", "object-guided", "freeform", "object-recoloured", "object-deranged"])
def test_the_tables_are_the_measured_ones(mask: str) -> None:
    table = README.split(f"<!-- table {mask}: begin -->")[1].split(f"<!-- table {mask}: end -->")[0].strip()
    assert table == first_table((ROOT / "benchmarks" / "results" / f"shapes-{mask}" / "table.md").read_text())


def test_the_results_are_of_the_weights_that_ship() -> None:
    shipped = {name: sha256(path) for name in names() if (path := find_shipped(name)) is not None}
    assert shipped
    for plan in (ROOT / "benchmarks" / "results").glob("shapes-*/plan.json"):
        used = {m["label"]: m["weights_sha256"] for m in json.loads(plan.read_text())["methods"] if m["weights_sha256"]}
        problem = f"{plan.parent.name} is of other weights: python -m benchmarks.publish"
        assert used, plan
        assert used.items() <= shipped.items(), problem
        assert plan.parent.name.endswith("-guided") or used == shipped, problem


@pytest.mark.parametrize("line", re.findall(r"^zoo .+$", README, re.MULTILINE))
def test_every_command_parses(line: str) -> None:
    verb, *rest = shlex.split(line.split("#")[0])[1:]
    if verb in LIGHTNING_VERBS:
        expand([verb, *rest])
    else:
        PARSERS[verb]().parse_args(rest)
