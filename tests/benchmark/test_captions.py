"""Edited captions through the whole benchmark: a method that obeys its caption, and one that does not read it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_benchmark import DATA
from zoo.benchmark import Plan, make_plan, render_table, run, summarize, to_json, write_report
from zoo.benchmark.edits import NAMES
from zoo.benchmark.store import constant, key_of, read_rows
from zoo.data.shapes import Shapes
from zoo.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
OBEDIENT = "tests.fakes_benchmark.Obedient"
LIMIT = 48  # two of the first 48 scenes cannot be recoloured
TEXT = {"caption", "captions", "colour_given", "shape_given", "undefined", "unedited", *NAMES}
GIVEN = {"colour_given", "shape_given"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("captions")
    found = {}
    for captions in ("own", "deranged", "recoloured"):
        made = make_plan("shapes", "object", ["telea", OBEDIENT], captions=captions, limit=LIMIT)
        result = run(made, place / captions)
        assert (result.rows, result.failed) == (2 * LIMIT, 0)
        write_report(result.folder)
        found[captions] = result.folder
    return found


def rows(folder: Path, method: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: constant(row) for row in read_rows(folder) if row["method"] == method}


def means(folder: Path, method: str) -> dict[str, Any]:
    found: dict[str, Any] = to_json(summarize(folder))["methods"][method]
    return found


def test_a_method_that_obeys_its_caption_is_seen_to_do_so(folders: dict[str, Path]) -> None:
    own = means(folders["own"], OBEDIENT)
    assert own["colour_fidelity"]["mean"] > 0.95  # but where the caption's colour is to be seen twice
    assert not GIVEN & own.keys()
    for captions in ("deranged", "recoloured"):
        found = means(folders[captions], OBEDIENT)
        assert found["colour_given"]["mean"] == 1.0
        assert found["colour_given"]["n"] >= LIMIT - 4
        assert found["shape_fidelity"]["mean"] > 0.95
        wrong = [r for r in rows(folders[captions], OBEDIENT).values() if r["colour_given"] is not None]
        assert {r["colour_fidelity"] for r in wrong} == {0.0}


def test_a_method_that_does_not_read_does_not_move(folders: dict[str, Path]) -> None:
    own = rows(folders["own"], "telea")
    for captions in ("deranged", "recoloured"):
        edited = rows(folders[captions], "telea")
        for sample, row in own.items():
            ignored = TEXT | ({"colour_fidelity", "shape_fidelity"} if "unedited" in edited[sample] else set())
            assert {k: v for k, v in edited[sample].items() if k not in ignored} == {
                k: v for k, v in row.items() if k not in ignored
            }
    assert not any("unedited" in row for row in rows(folders["deranged"], "telea").values())
    assert means(folders["deranged"], "telea")["colour_given"]["mean"] == 0.0


def test_rows_hold_the_text_that_was_given(folders: dict[str, Path]) -> None:
    data = Shapes("test", count=LIMIT)
    captions = {data.ids[index]: data.sample(index).captions[0] for index in range(LIMIT)}
    assert {i: row["caption"] for i, row in rows(folders["own"], "telea").items()} == captions
    assert all("captions" not in row for row in rows(folders["own"], "telea").values())
    for rule in ("deranged", "recoloured"):
        edited = rows(folders[rule], OBEDIENT)
        assert edited.keys() == captions.keys()
        for sample, row in edited.items():
            assert row["captions"] == rule
            assert (row["caption"] == captions[sample]) == ("unedited" in row)
            assert key_of(row) != key_of(rows(folders["own"], OBEDIENT)[sample])


def test_an_image_whose_caption_cannot_be_edited_does_not_count_and_says_why(folders: dict[str, Path]) -> None:
    folder = folders["recoloured"]
    unedited = {i: row for i, row in rows(folder, OBEDIENT).items() if "unedited" in row}
    assert 0 < len(unedited) < 0.1 * LIMIT
    for row in unedited.values():
        for name in ("colour_fidelity", "shape_fidelity", *GIVEN):
            assert row[name] is None
            assert row["undefined"][name] == f"unedited: {row['unedited']}"
        assert "2 objects as" in row["unedited"]
        assert row["l1_hole"] is not None
        assert row["objects"] > 1
    content = to_json(summarize(folder))
    assert (content["unedited"], content["captions"]) == (len(unedited), "recoloured")
    assert content["methods"][OBEDIENT]["colour_fidelity"]["n"] == LIMIT - len(unedited)
    notice = f"captions not edited: {len(unedited)} of {LIMIT} images"
    assert notice in render_table(summarize(folder))
    assert "not edited" not in render_table(summarize(folders["deranged"]))


def test_a_caption_of_nothing_new_has_a_reason(folders: dict[str, Path]) -> None:
    silent = [r for r in rows(folders["recoloured"], "telea").values() if r["shape_given"] is None]
    reasons = {row["undefined"]["shape_given"] for row in silent if "unedited" not in row}
    assert reasons == {"the caption asks for nothing to be judged"}


def test_tables_show_what_was_given_and_fidelity_by_objects(folders: dict[str, Path]) -> None:
    for captions, folder in folders.items():
        texts = [(folder / name).read_text() for name in ("table.md", "index.html")]
        texts.append(render_table(summarize(folder), width=200))
        for text in texts:
            assert ("colour_given" in text) == ("shape_given" in text) == (captions != "own")
            assert captions == "own" or captions in text
        for text in texts[:2]:
            assert ("colour_given, 3 objects" in text) == (captions != "own")
            assert "shape_fidelity, 1 object" in text


def test_fidelity_by_objects_has_its_interval_and_its_n(folders: dict[str, Path]) -> None:
    folder = folders["deranged"]
    content = json.loads((folder / "summary.json").read_text())
    groups = content["by_objects"][OBEDIENT]
    assert list(groups) == ["colour_fidelity", "shape_fidelity", "colour_given", "shape_given"]
    for name, group in groups.items():
        assert list(group) == ["1", "2", "3"]
        assert sum(value["n"] for value in group.values()) == content["methods"][OBEDIENT][name]["n"]
        assert all(value["lo"] <= value["mean"] <= value["hi"] for value in group.values())
    shapes = groups["shape_given"]["1"]
    cell = f"{shapes['mean']:.3f} [{shapes['lo']:.3f}, {shapes['hi']:.3f}], n = {shapes['n']}"
    assert cell in (folder / "table.md").read_text()
    assert cell in (folder / "index.html").read_text()
    with (folder / "table.csv").open(newline="") as file:
        table = [row for row in csv.DictReader(file) if (row["method"], row["metric"]) == (OBEDIENT, "shape_given")]
    assert [row["objects"] for row in table] == ["", "1", "2", "3"]
    assert [int(row["n"]) for row in table[1:]] == [group["n"] for group in groups["shape_given"].values()]
    assert float(table[1]["mean"]) == shapes["mean"]


def test_shards_and_workers_give_the_same_rows(folders: dict[str, Path], tmp_path: Path) -> None:
    made = Plan.read(folders["deranged"])
    for part in (1, 0):
        run(made, tmp_path / "run", shard=(part, 2), workers=part)
    for method in ("telea", OBEDIENT):
        assert rows(tmp_path / "run", method) == rows(folders["deranged"], method)


def test_a_plan_names_its_captions(folders: dict[str, Path]) -> None:
    own, deranged = Plan.read(folders["own"]), Plan.read(folders["deranged"])
    assert (own.captions, deranged.captions) == ("own", "deranged")
    assert deranged.name == f"shapes-object-deranged-{deranged.hash[:8]}"
    with pytest.raises(UsageError, match="differ in captions"):
        run(deranged, folders["own"])


@pytest.mark.parametrize(
    ("dataset", "mask", "captions", "message"),
    [
        ("shapes", "object", "derangd", "did you mean 'deranged'"),
        ("shapes", "freeform", "deranged", "captions are edited only under object masks"),
        ("shapes", "object,center", "recoloured", "captions are edited only under object masks"),
        (DATA, "center", "deranged", "known: own, recoloured, renamed"),
    ],
)
def test_what_cannot_be_edited_is_refused_before_any_work(dataset: str, mask: str, captions: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_plan(dataset, mask, ["mean"], captions=captions, limit=4)
    assert message in str(caught.value)


@pytest.mark.parametrize("mask", ["object", "freeform", "center"])
def test_plans_made_before_captions_could_be_edited_are_read_and_keep_their_hash(mask: str, tmp_path: Path) -> None:
    content = json.loads((ROOT / "benchmarks" / "results" / f"shapes-{mask}" / "plan.json").read_text())
    content.pop("captions", None)
    (tmp_path / "plan.json").write_text(json.dumps(content))
    made = Plan.read(tmp_path)
    assert (made.captions, made.hash) == ("own", content["hash"])
