"""Movement under edited captions: a method that follows its text, one that reads none, and one of these that leaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.fakes_benchmark import Dots
from tests.trees.coco import coco_tree
from zoo.benchmark import make_plan, render_table, run, summarize, to_json, write_report
from zoo.benchmark.edits import NAMES, control, edits_grid, movement, warnings
from zoo.benchmark.report import markdown
from zoo.benchmark.store import read_rows
from zoo.data.masked import judge_of
from zoo.data.shapes import Shapes

FAKE = "tests.fakes_benchmark."
NAMING, LEAKING, SPELLING = FAKE + "Naming", FAKE + "Leaking", FAKE + "Spelling"
LIMIT = 16


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("edits")
    found = {}
    for captions in ("own", "renamed", "refilled"):
        made = make_plan("shapes", "object", ["telea", NAMING, LEAKING], captions=captions, limit=LIMIT)
        found[captions] = run(made, place / captions).folder
    return found


def rows(folder: Path, method: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in read_rows(folder) if row["method"] == method}


def test_movement_by_hand() -> None:
    own = torch.full((3, 3, 4, 5), 100, dtype=torch.uint8)
    mask = torch.zeros(3, 1, 4, 5)
    mask[:2, :, 1:3, 1:3] = 1
    edited = own.clone()
    edited[0, 0, 1, 1] = 151  # one channel of one of the hole's four pixels
    edited[1, :, 0, 0] = 49  # one of the sixteen known pixels
    found = movement(edited, own, mask)
    assert tuple(found) == NAMES
    assert found["moved"].tolist() == [1.0, 1.0, 0.0]
    assert found["moved_hole"][:2].tolist() == pytest.approx([51 / 255 / 12, 0.0])
    assert found["moved_hole"][2].isnan()
    assert found["moved_known"].tolist() == pytest.approx([0.0, 51 / 255 / 16, 0.0])


def test_a_method_that_follows_moves_in_the_hole_and_nowhere_else(folders: dict[str, Path]) -> None:
    found = rows(folders["renamed"], NAMING)
    edited = [row for row in found.values() if not row.get("unedited")]
    assert len(edited) > 0.8 * LIMIT
    assert all(row["moved"] == 1 and row["moved_hole"] > 0.005 and row["moved_known"] == 0 for row in edited)
    judged = [row for row in edited if row["shape_given"] is not None]
    assert len(judged) > 0.8 * LIMIT
    assert sum(row["shape_given"] for row in judged) >= len(judged) - 1
    assert {row["shape_fidelity"] for row in judged} == {0.0}
    for row in found.values():
        if row.get("unedited"):
            assert [row[name] for name in NAMES] == [None] * 3
            assert {row["undefined"][name] for name in NAMES} == {f"unedited: {row['unedited']}"}
    assert not any(name in row for row in rows(folders["own"], NAMING).values() for name in NAMES)


def test_the_control_does_not_move_and_is_the_same_as_in_the_run_of_own_captions(folders: dict[str, Path]) -> None:
    own, edited = (rows(folders[captions], "telea") for captions in ("own", "renamed"))
    for sample, row in edited.items():
        assert all(row[name] == (None if row.get("unedited") else 0) for name in NAMES)
        assert all(row[name] == own[sample][name] for name in ("image_hash", "mask_hash", "l1", "psnr", "tv_band"))


def test_a_control_that_leaks_is_reported(folders: dict[str, Path]) -> None:
    folder = folders["renamed"]
    write_report(folder)
    summary = summarize(folder)
    facts = to_json(summary)["methods"]
    assert facts["telea"]["moved"] == {"mean": 0.0, "lo": 0.0, "hi": 0.0, "n": LIMIT - summary.unedited}
    assert facts[LEAKING]["moved"]["mean"] == pytest.approx(1.0)
    lines = warnings(summary)
    assert len(lines) == 1
    n = LIMIT - summary.unedited
    assert f"CONTROL FAILED: {LEAKING} reads no captions, and moved on {n} of {n} images" in lines[0]
    assert control(summary).startswith(f"The control failed: {LEAKING} read no captions")
    for text in (render_table(summary, width=200), *((folder / f).read_text() for f in ("table.md", "index.html"))):
        assert lines[0] in text
        assert control(summary) in text
        assert "moved_known" in text
    grid = edits_grid(summary)
    header = grid[0]
    assert header[:3] == ["method", "reads captions", "n"]
    assert [row[:2] for row in grid[1:]] == [["telea", "no"], [NAMING, "yes"], [LEAKING, "no"]]
    assert summary.unedited == (len({r["id"] for r in read_rows(folder) if r.get("unedited")}))


def test_own_captions_have_no_such_section(folders: dict[str, Path]) -> None:
    summary = summarize(folders["own"])
    assert (edits_grid(summary), control(summary), warnings(summary)) == ([], "", [])
    assert "own captions" not in markdown(summary)


def test_a_fill_that_a_caption_does_not_name_is_left_out_and_counted(folders: dict[str, Path]) -> None:
    found = rows(folders["refilled"], NAMING)
    reasons = {row["unedited"] for row in found.values() if row.get("unedited")}
    assert "the caption does not say its fill" in reasons
    assert 0.2 * LIMIT < summarize(folders["refilled"]).unedited < 0.7 * LIMIT
    # The colour asked for is the same: a method that reads colours alone stays where it was.
    assert {row["moved"] for row in found.values()} == {0.0, None}


def test_the_control_without_leaks_holds(tmp_path: Path) -> None:
    made = make_plan("shapes", "object", ["telea", "mean", NAMING], captions="recoloured", limit=8)
    folder = run(made, tmp_path / "run").folder
    assert warnings(summarize(folder)) == []
    assert control(summarize(folder)) == "The control holds: telea, mean read no captions, and did not move by one bit."
    alone = make_plan("shapes", "object", [NAMING], captions="recoloured", limit=2)
    assert "no control" in control(summarize(run(alone, tmp_path / "alone").folder))


@pytest.mark.parametrize(("captions", "edited"), [("renamed", 4), ("recoloured", 0)])
def test_real_captions_are_edited_by_words_under_any_mask(captions: str, edited: int, tmp_path: Path) -> None:
    root = coco_tree(tmp_path / "coco")  # its captions name a cat and a cup, and no colour
    made = make_plan("coco", "center", ["mean", SPELLING], captions=captions, data_root=root, size=32, limit=4)
    folder = run(made, tmp_path / "run").folder
    found = rows(folder, SPELLING)
    moved = {"moved": 1.0, "moved_known": 0.0} if edited else {"moved": None, "moved_known": None}
    assert all({name: row[name] for name in moved} == moved for row in found.values())
    assert {row["moved"] for row in rows(folder, "mean").values()} == {0.0 if edited else None}
    assert to_json(summarize(folder))["unedited"] == len(found) - edited == 4 - edited
    reasons = {row.get("unedited") for row in found.values()}
    assert reasons == {None if edited else "the caption has no colour of the list"}


def test_a_judge_is_given_the_captions_that_its_own_dataset_edits() -> None:
    image, mask = np.full((24, 24, 3), 200, np.uint8), np.ones((24, 24), np.uint8)
    dots = Dots()
    judge = judge_of(dots, "object", "recoloured")
    assert judge is not None
    assert judge("dots/1", image, mask, "a red dot") == dots.judge("dots/1", image, mask)
    assert judge_of(dots, "center", "recoloured") is None
    shapes = Shapes("test", count=2)
    assert judge_of(shapes, "object", "recoloured") == shapes.judge
