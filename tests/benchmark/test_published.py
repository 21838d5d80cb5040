"""Published values beside measured ones: what is compared, what is refused, and what a reader is told."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.test_plan import fixed
from zoo import resources
from zoo.benchmark import published as module
from zoo.benchmark.plan import MethodPlan
from zoo.benchmark.published import (
    DIFFERS,
    NOT_COMPARABLE,
    NOT_MEASURED,
    REPRODUCED,
    Beside,
    beside,
    elsewhere,
    nothing,
    related,
)
from zoo.benchmark.published_papers import METHODS, PAPERS, Cell, compared, read_published
from zoo.benchmark.published_text import published_csv, published_grid, published_json
from zoo.benchmark.summary import MethodSummary, Summary
from zoo.errors import DataError, UsageError
from zoo.metrics.statistics import Interval
from zoo.models import BASELINES

CELL = Cell("cma", "1", "coco", "center", "", "CMA", "psnr_db", "21.50", "")
CMA = MethodPlan("cma", "cma", "zoo.models.cma.CMA", "paper", "coco", "11")


def summary(mean: float = 21.5, half: float = 0.1, n: int = 5000, method: MethodPlan = CMA, **changed: Any) -> Summary:
    plan = replace(
        fixed(),
        **{"dataset": "coco", "mask": "center", "protocol": "tdanet", "methods": (method,), "count": n} | changed,
    )
    values = {"tdanet_psnr": Interval(mean, mean - half, mean + half, n), "psnr": Interval(20.0, 19.9, 20.1, n)}
    return Summary(Path("run"), plan, {method.label: MethodSummary(method, values, n, 0, 0)})


def one(found: Summary, cell: Cell = CELL, others: tuple[Summary, ...] = ()) -> Beside:
    (only,) = beside(found, [cell], others)
    return only


def test_the_shipped_values_are_those_of_the_papers() -> None:
    cells = read_published()
    assert len(cells) > 800
    assert {cell.paper for cell in cells} <= set(PAPERS)
    assert {cell.method for cell in cells} >= {"CMA", "NIGDT", "ECDM", "MMInvertFill"} & set(METHODS)
    suspects = [cell for cell in cells if cell.suspect]
    assert suspects
    assert all(cell.note.startswith("suspect: ") for cell in suspects), "the reason follows"
    assert not [cell for cell in compared(cells) if cell.metric.startswith("rank_")]


def test_they_are_found_in_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "site-packages" / "zoo")
    with pytest.raises(UsageError, match="does not ship") as caught:
        read_published()
    assert "reinstall" in caught.value.remedy
    place = tmp_path / "site-packages" / "zoo" / "_shipped" / "benchmarks" / "published"
    place.mkdir(parents=True)
    (place / "results.csv").write_text(
        "paper,table,dataset,mask,hole_ratio,method,metric,value,note\n" + ",".join(CELL)
    )
    assert read_published() == [CELL]


def test_the_wheel_takes_them_along() -> None:
    import tomllib

    content = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    taken = content["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert taken["benchmarks/published"] == "zoo/_shipped/benchmarks/published"


def test_other_columns_and_words_for_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("paper,value\ncma,1\n")
    with pytest.raises(DataError, match="no published values"):
        read_published(path)
    path.write_text("paper,table,dataset,mask,hole_ratio,method,metric,value,note\ncma,1,coco,center,,CMA,fid,many,\n")
    with pytest.raises(DataError, match="'many' is not a number") as caught:
        read_published(path)
    assert caught.value.where == f"{path}:2"


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [
        (21.5, REPRODUCED),
        (21.5 + 0.1 * 1.414 + 0.004, REPRODUCED),  # the interval, widened, and half a unit of the last digit
        (21.5 + 0.1 * 1.415 + 0.006, DIFFERS),
        (25.0, DIFFERS),
    ],
)
def test_the_verdict_follows_the_rule(mean: float, verdict: str) -> None:
    found = one(summary(mean))
    assert (found.verdict, found.reason, found.label, found.run) == (verdict, "", "cma", "")
    assert found.theirs == Interval(mean, mean - 0.1, mean + 0.1, 5000)
    assert found.ours == Interval(20.0, 19.9, 20.1, 5000)
    assert found.protocol == PAPERS["cma"].about


@pytest.mark.parametrize(
    ("run", "cell", "reason"),
    [
        (summary(protocol="zoo"), CELL, "protocol is zoo, not tdanet"),
        (summary(method=replace(CMA, preset="nano")), CELL, "weights are nano"),
        (summary(method=replace(CMA, trained_on="shapes")), CELL, "trained on shapes"),
        (summary(method=replace(CMA, settings={"k": 1})), CELL, "k changed"),
        (summary(method=MethodPlan("cma", "cma", BASELINES["sd_inpaint"])), CELL, "which weights it took"),
        (summary(captions="deranged"), CELL, "captions are deranged"),
        (summary(guidance=("edge",)), CELL, "edge are shown whole"),
        (summary(n=300), CELL, "too few images: 300"),
        (summary(), CELL._replace(note="suspect: repeats table 2"), "suspect: repeats table 2"),
        (summary(), CELL._replace(metric="miou_percent"), "not measured here"),
        (summary(), CELL._replace(metric="ssim_percent"), "tdanet_ssim is not measured"),
        (summary(), CELL._replace(metric="fid"), "fid_tf is not measured"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_not_comparable_says_why(run: Summary, cell: Cell, reason: str) -> None:
    found = one(run, cell)
    assert found.verdict == NOT_COMPARABLE
    assert reason in found.reason


def test_nigdts_images_of_coco_are_those_of_2014() -> None:
    cell = Cell("nigdt", "1", "coco", "center", "", "NIGDT", "psnr_db", "21.20", "")
    method = MethodPlan("nigdt", "nigdt", "zoo.models.nigdt.NIGDT", "paper", "coco", "11")
    values = {"picnet_psnr": Interval(21.2, 21.1, 21.3, 5000)}

    def found(**options: str) -> Beside:
        run = summary(method=method, data_options=options)
        return one(replace(run, methods={"nigdt": MethodSummary(method, values, 5000, 0, 0)}), cell)

    assert found(variant="2014").verdict == REPRODUCED
    assert "--option variant=2014" in found(variant="karpathy").reason
    assert "variant=unknown" in found().reason


def test_failures_and_missing_rows_are_not_comparable() -> None:
    run = summary()
    broken = replace(run, methods={"cma": replace(run.methods["cma"], failed=2, missing=1)})
    assert one(broken).reason == "2 images failed, 1 are missing"


def test_a_distance_of_sets_needs_the_number_of_images() -> None:
    cell = Cell("mminvertfill", "1", "places2", "irregular", "10-30", "MMInvertFill", "fid", "5.0", "")
    method = MethodPlan("m", "mminvertfill", "a.B", "paper", "places2", "11")
    values = {"fid_tf": Interval(5.0, 4.9, 5.1, 36_500)}
    plan = {"dataset": "places2", "mask": "irregular:10-30", "protocol": "mminvertfill", "method": method}
    for n, verdict in ((36_500, REPRODUCED), (36_000, NOT_COMPARABLE)):
        run = summary(n=n, **plan)
        values = {"fid_tf": Interval(5.0, 4.9, 5.1, n)}
        run = replace(run, methods={"m": MethodSummary(method, values, n, 0, 0)})
        assert one(run, cell).verdict == verdict


def test_other_data_and_masks_are_listed_apart() -> None:
    cells = [CELL._replace(dataset="cub"), CELL._replace(mask="object"), CELL, CELL._replace(method="PICNet")]
    found = beside(summary(), cells, ())
    assert [(row.cell.method, row.verdict) for row in found] == [("CMA", REPRODUCED), ("PICNet", NOT_MEASURED)]
    assert elsewhere(summary(), cells) == [("cma", "cub, center", "cma", 1), ("cma", "coco, object", "cma", 1)]


def test_what_was_never_published_is_said() -> None:
    assert nothing(summary(), [one(summary())]) == []
    own = MethodPlan("my<own>", "mine.Own", "mine.Own", "paper", "coco", "11")
    control = MethodPlan("telea", "telea", "zoo.models.controls.Telea")
    run = summary(dataset="dots", methods=(own, control))
    assert nothing(run, beside(run, [CELL], ())) == [
        "nothing comparable: no paper has published a value on dots with center masks",
        "nothing comparable: no paper has published a value of my<own>",
    ]


def test_a_run_beside_gives_the_value_of_the_papers_protocol() -> None:
    ours = summary(30.0, protocol="zoo")
    theirs = replace(summary(21.5), folder=Path("elsewhere/coco-tdanet"))
    found = one(ours, others=(theirs,))
    assert (found.verdict, found.run) == (REPRODUCED, "coco-tdanet")
    assert found.theirs == Interval(21.5, 21.4, 21.6, 5000)
    assert found.ours == ours.methods["cma"].metrics["psnr"]
    for other in (
        summary(21.5, method=replace(CMA, weights_sha256="22")),
        summary(21.5, mask="object"),
        summary(21.5, protocol="ecdm"),
    ):
        assert "protocol is zoo" in one(ours, others=(other,)).reason


def test_related_runs_are_those_of_a_paper_on_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = replace(summary(protocol="zoo"), folder=tmp_path / "own")
    plans = {
        "own": run.plan,
        "paper": summary().plan,
        "plain": run.plan,
        "other": summary(dataset="cub").plan,
    }
    for name, plan in plans.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").write_text(plan.to_json())
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "plan.json").write_text("{")
    monkeypatch.setattr(module, "summarize", lambda folder: replace(summary(), folder=folder))
    assert [found.folder.name for found in related(run)] == ["paper"]


def test_texts_hold_all_of_it() -> None:
    rows = [one(summary()), one(summary(), CELL._replace(note="suspect: so | so"))]
    header, good, bad = published_grid(rows)
    assert len({len(header), len(good), len(bad)}) == 1
    assert good[0] == "CMA (cma)"
    assert good[3:] == ["21.50", "21.50 [21.40, 21.60]", "psnr 20.00 [19.90, 20.10]", REPRODUCED]
    assert bad[3] == "21.50 †"
    assert bad[-1] == "not comparable: the published cell is suspect: so | so"
    lines = list(csv.DictReader(io.StringIO(published_csv(rows))))
    assert [line["verdict"] for line in lines] == [REPRODUCED, NOT_COMPARABLE]
    assert (lines[0]["theirs_mean"], lines[0]["ours_n"]) == ("21.5", "5000")
    plain = published_json(rows)
    json.dumps(plain, allow_nan=False)
    assert [row["suspect"] for row in plain] == [False, True]
