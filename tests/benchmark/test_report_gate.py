"""`--fail-below` and `--update`: the gate of a run, and its table in a text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.test_plan import fixed, plan
from zoo.benchmark import run
from zoo.benchmark.plan import MethodPlan
from zoo.benchmark.report import markdown
from zoo.benchmark.report_gate import Bound, misses, parse_bounds
from zoo.benchmark.report_update import first_table, mark_names, marks, update
from zoo.benchmark.summary import MethodSummary, Summary
from zoo.cli.main import main
from zoo.errors import DataError, UsageError
from zoo.metrics.statistics import Interval

A = MethodPlan("a", "a", "b.A", "nano", "shapes", "11")
TELEA = MethodPlan("telea", "telea", "zoo.models.controls.Telea")


def summary(psnr: float = 25.0, failed: int = 0, missing: int = 0) -> Summary:
    def method(of: MethodPlan, value: float) -> MethodSummary:
        metrics = {"psnr": Interval(value, value, value, 9), "l1_hole": Interval(1 / value, 0, 1, 9)}
        return MethodSummary(of, metrics | {"hole_ratio_": Interval(1, 1, 1, 9)}, 9, failed, missing)

    made = replace(fixed(), methods=(A, TELEA))
    return Summary(Path("run"), made, {"a": method(A, psnr), "telea": method(TELEA, 10.0)})


def test_bounds_are_read() -> None:
    assert parse_bounds("psnr=25, x.Y:l1_hole=0.1") == [Bound("", "psnr", 25.0), Bound("x.Y", "l1_hole", 0.1)]


@pytest.mark.parametrize("text", ["psnr", "psnr=", "=3", "psnr=nan", "psnr=inf", "psnr=1,", "a:=1", ""])
def test_what_is_no_bound_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not METRIC=VALUE"):
        parse_bounds(text)


def test_trained_methods_must_be_as_good_and_controls_only_where_named() -> None:
    assert misses(summary(), parse_bounds("psnr=25,l1_hole=0.04")) == []
    assert misses(summary(), parse_bounds("psnr=25.01")) == ["a: psnr 25.00 is below 25.01"]
    assert misses(summary(), parse_bounds("l1_hole=0.03")) == ["a: l1_hole 0.0400 is above 0.03"]
    assert misses(summary(), parse_bounds("telea:psnr=11")) == ["telea: psnr 10.00 is below 11"]


def test_a_method_without_weights_is_no_control() -> None:
    own = replace(A, label="b", weights_sha256="", preset="-")
    found = summary()
    found = replace(found, methods=found.methods | {"b": replace(found.methods["a"], method=own)})
    assert misses(found, parse_bounds("psnr=26")) == ["a: psnr 25.00 is below 26", "b: psnr 25.00 is below 26"]


def test_failures_missing_rows_and_undefined_values_are_not_good_enough() -> None:
    assert misses(summary(failed=1), parse_bounds("psnr=1")) == ["a: 1 images failed and 0 are missing"]
    assert misses(summary(missing=2), parse_bounds("psnr=1")) == ["a: 0 images failed and 2 are missing"]
    assert misses(summary(float("nan")), parse_bounds("psnr=1")) == ["a: psnr has no value"]


def test_where_all_images_failed_a_bound_is_missed_and_not_unknown() -> None:
    found = summary(failed=9)
    nothing = {label: replace(method, metrics={}) for label, method in found.methods.items()}
    assert misses(replace(found, methods=nothing), parse_bounds("psnr=1")) == ["a: 9 images failed and 0 are missing"]


@pytest.mark.parametrize("text", ["psmr=1", "b:psnr=1", "hole_ratio_=1"])
def test_bounds_of_what_is_not_there_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        misses(summary(), parse_bounds(text))


def test_controls_alone_must_be_named() -> None:
    found = summary()
    alone = replace(found, methods={"telea": found.methods["telea"]})
    with pytest.raises(UsageError, match="controls only"):
        misses(alone, parse_bounds("psnr=1"))


def test_marks_say_dataset_mask_and_rules() -> None:
    assert mark_names(fixed()) == ["shapes-object", "object"]
    assert mark_names(replace(fixed(), dataset="coco", protocol="tdanet", captions="deranged")) == [
        "coco-object-deranged-tdanet"
    ]
    assert mark_names(replace(fixed(), guidance=("edge",))) == ["shapes-object-guided", "object-guided"]


def test_the_table_between_the_marks_is_replaced(tmp_path: Path) -> None:
    text = tmp_path / "README.md"
    begin, end = marks("object")
    text.write_text(f"before\n{begin}\nold | table\n{end}\nafter\n")
    assert update(text, fixed(), "| new |\n")
    assert text.read_text() == f"before\n{begin}\n| new |\n{end}\nafter\n"
    assert not update(text, fixed(), "| new |\n"), "again changes nothing"


def test_of_several_tables_the_first_is_taken_with_its_head(tmp_path: Path) -> None:
    text = tmp_path / "README.md"
    begin, end = marks("object")
    text.write_text(f"{begin}\n{end}\n")
    report = "what\n\n| a |\n| --- |\n| 1 |\n\nmore\n\n| b |\n"
    update(text, fixed(), report)
    assert text.read_text() == f"{begin}\nwhat\n\n| a |\n| --- |\n| 1 |\n{end}\n"
    assert not update(text, fixed(), report)


def test_a_guided_run_leaves_the_unguided_table_alone(tmp_path: Path) -> None:
    text = tmp_path / "README.md"
    begin, end = marks("object")
    text.write_text(f"{begin}\n| unguided |\n{end}\n")
    with pytest.raises(UsageError, match="no marks for the table of this run"):
        update(text, replace(fixed(), guidance=("edge", "segmentation")), "| guided |")
    assert "| unguided |" in text.read_text()


@pytest.mark.parametrize(
    ("change", "taken"),
    [({}, True), ({"count": 600}, True), ({"count": 4}, False), ({"size": 32}, False), ({"split": "val"}, False)],
    ids=str,
)
def test_a_smaller_run_does_not_take_the_place_of_a_larger(change: dict[str, Any], taken: bool, tmp_path: Path) -> None:
    text = tmp_path / "README.md"
    begin, end = marks("object")
    text.write_text(f"{begin}\n{end}\n")
    update(text, fixed(), markdown(summary()))
    before = text.read_text()
    assert "n = 512 images" in before
    other = replace(summary(26.0), plan=replace(summary().plan, **change))
    if taken:
        assert update(text, other.plan, markdown(other))
        return
    with pytest.raises(UsageError, match=r"the table of 'object' is of 512 images \(test, 64x64\)"):
        update(text, other.plan, markdown(other))
    assert text.read_text() == before


def test_line_ends_stay_as_they_are(tmp_path: Path) -> None:
    text = tmp_path / "README.md"
    begin, end = marks("shapes-object")
    text.write_bytes(f"é\r\n{begin}\r\n{end}\r\n".encode())
    update(text, fixed(), "one\ntwo\n")
    assert text.read_bytes() == f"é\r\n{begin}\r\none\r\ntwo\r\n{end}\r\n".encode()


def test_a_text_without_marks_is_left_alone_and_told_which(tmp_path: Path) -> None:
    text = tmp_path / "README.md"
    begin, end = marks("object")
    for content in ("nothing", f"{end} {begin}", f"{begin} {end} {begin} {end}", begin):
        text.write_text(content)
        with pytest.raises(UsageError) as caught:
            update(text, fixed(), "table")
        assert begin in caught.value.remedy
        assert text.read_text() == content
    with pytest.raises(DataError):
        update(tmp_path / "absent.md", fixed(), "table")


def test_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(plan("truth", "mean", limit=4, batch_size=4), tmp_path / "run").folder
    text = tmp_path / "README.md"
    begin, end = marks("Dots-center")
    text.write_text(f"{begin}\n{end}\n")
    assert main(["report", str(folder), "--fail-below", "mean:psnr=1", "--update", str(text)]) == 0
    assert text.read_text().splitlines()[1:-1] == first_table((folder / "table.md").read_text()).splitlines()
    capsys.readouterr()
    assert main(["report", str(folder), "--fail-below", "mean:psnr=99,truth:psnr=99", "--json"]) == 5
    out, err = capsys.readouterr()
    assert json.loads(out)["n"] == 4
    assert [line for line in err.splitlines() if "not good enough" in line and "mean: psnr" in line]
    assert "truth" not in err
    assert main(["report", str(folder), "--fail-below", "psnr"]) == 2
    capsys.readouterr()
    assert main(["report", str(folder), "--against", "paper"]) == 0
    out = capsys.readouterr().out
    assert "nothing comparable: no paper has published a value on" in out
    assert "nothing comparable" in (folder / "index.html").read_text()
    assert (folder / "published.csv").read_text().count("\n") == 1
