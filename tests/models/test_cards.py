"""Each method's card says what its code does: the marked deviations are those of its table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from zoo.models import names, resolve

ROOT = Path(__file__).resolve().parents[2]
COST = ROOT / "benchmarks" / "results" / "shapes-object" / "cost.json"


def folder_of(name: str) -> Path:
    return ROOT / Path(resolve(name).__module__.replace(".", "/")).parent


@pytest.mark.parametrize("name", names())
def test_the_card_lists_every_deviation(name: str) -> None:
    marked = [
        line.split("# Deviation:", 1)[1].strip().rstrip(".")
        for path in sorted(folder_of(name).glob("*.py"))
        for line in path.read_text().splitlines()
        if "# Deviation:" in line
    ]
    table = (folder_of(name) / "README.md").read_text().split("## Deviations", 1)[1].split("\n## ", 1)[0]
    listed = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][1:]
    assert marked
    assert sorted(listed) == sorted(marked)


@pytest.mark.parametrize("name", names())
def test_the_card_names_files_that_exist_and_cites_its_paper(name: str) -> None:
    card = (folder_of(name) / "README.md").read_text()
    files = re.findall(r"`(\w+\.py)`", card.split("## Faithful")[0])
    assert files
    assert all((folder_of(name) / file).is_file() for file in files)
    assert "```\n@" in card


def test_the_cards_count_what_completing_reads() -> None:
    measured = json.loads(COST.read_text())["methods"]
    stated = {
        name: [int(number.replace(",", "")) for number in re.findall(r"([\d,]+)\s+parameters\s+complete", card)]
        for name in names()
        for card in [(folder_of(name) / "README.md").read_text()]
    }
    assert {name for name, numbers in stated.items() if numbers} >= {"deepfill", "cma", "nigdt", "mminvertfill"}
    for name, numbers in stated.items():
        assert all(number == measured[name]["parameters"] for number in numbers), name
