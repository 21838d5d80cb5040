"""A user study: a page that tells raters nothing, its key, and what their answers say."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.benchmark.test_plan import fixed, plan
from tests.benchmark.test_report import Loads
from zoo.benchmark import run
from zoo.benchmark.gallery import picture_path
from zoo.benchmark.plan import MethodPlan
from zoo.benchmark.study import compared, make_study
from zoo.benchmark.study_rank import rank_answers, rank_grids, rank_json
from zoo.cli.main import main
from zoo.errors import DataError, UsageError
from zoo.models import BASELINES, CONTROLS

LABELS = ["mean", "telea", "truth"]
COUNT = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(plan(*LABELS, batch_size=4, limit=8), tmp_path_factory.mktemp("study") / "run").folder


@pytest.fixture(scope="module")
def study(folder: Path) -> dict[str, Any]:
    _, key = make_study(folder, COUNT)
    content: dict[str, Any] = json.loads(key.read_text())
    return content


def answers(study: dict[str, Any], place: Path, rater: str, best: list[str], questions: int = COUNT) -> Path:
    """A file in which a rater puts the methods in the same order everywhere."""
    given = []
    for number, question in list(study["questions"].items())[:questions]:
        letters = {label: letter for letter, label in question["options"].items()}
        for criterion in study["criteria"]:
            order = [letters[label] for label in best]
            given.append({"question": int(number), "criterion": criterion, "order": order})
    path = place / f"{rater}.json"
    path.write_text(json.dumps({"study": study["study"], "rater": rater, "answers": given}))
    return path


def test_the_page_is_whole_and_tells_nothing(folder: Path, study: dict[str, Any]) -> None:
    page = (folder / "study" / "index.html").read_text()
    loads = Loads(page)
    assert loads.outside == []
    assert not {"link", "iframe", "object", "embed", "base"} & set(loads.tags)
    assert loads.tags.count("script") == 1
    assert not re.search(r"https?:", page)
    assert "default-src 'none'" in page
    for label in LABELS:
        assert not re.search(rf"\b{label}\b", re.sub(r"data:image[^\"]+", "", page)), "no method is named"
    for question in study["questions"].values():
        assert question["id"] not in page
    assert loads.tags.count("section") == COUNT + 1
    assert page.count("data-option=") == 3 * COUNT
    assert "&lt;script&gt;alert(" in page, "captions are text"
    assert "application/json" in page, "answers are downloaded as JSON"
    assert [path.name for path in (folder / "study").iterdir()] == ["index.html"], "the key is not where raters look"


def test_orders_are_drawn_anew_and_the_same_every_time(folder: Path, study: dict[str, Any]) -> None:
    orders = [tuple(question["options"].values()) for question in study["questions"].values()]
    assert all(sorted(order) == LABELS for order in orders)
    assert len(set(orders)) > 1
    before = (folder / "study" / "index.html").read_bytes()
    _, key = make_study(folder, COUNT)
    assert json.loads(key.read_text()) == study
    assert (folder / "study" / "index.html").read_bytes() == before
    _, key = make_study(folder, COUNT, seed=1)
    other = json.loads(key.read_text())
    assert other["study"] != study["study"]
    make_study(folder, COUNT)


def test_a_letter_is_the_picture_of_its_method(folder: Path, study: dict[str, Any]) -> None:
    import base64

    page = (folder / "study" / "index.html").read_text()
    for number, question in study["questions"].items():
        section = page.partition(f'data-question="{number}"')[2].partition("</section>")[0]
        for letter, label in question["options"].items():
            uri = section.partition(f'data-option="{letter}"><img src="')[2].partition('"')[0]
            shown = base64.b64decode(uri.partition(",")[2])
            assert shown == picture_path(folder, label, question["id"]).read_bytes()


def test_too_many_images_or_one_method_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pictures of 8 images") as caught:
        make_study(folder, 9)
    assert caught.value.remedy == "--study 8"
    alone = run(plan("mean", batch_size=4, limit=2), tmp_path / "run").folder
    with pytest.raises(UsageError, match="2 to 26 methods, this run has 1") as caught:
        make_study(alone, 1)
    assert "zoo benchmark --models A,B" in caught.value.remedy


def test_baselines_and_methods_of_ones_own_are_compared_and_controls_are_not() -> None:
    own = MethodPlan("mine.Own", "mine.Own", "mine.Own")
    baseline = MethodPlan("sd_inpaint", "sd_inpaint", BASELINES["sd_inpaint"])
    controls = [MethodPlan(name, name, CONTROLS[name]) for name in ("truth", "telea")]
    assert compared(replace(fixed(), methods=(own, baseline, *controls))) == ["mine.Own", "sd_inpaint", "truth"]


def test_ranks_are_those_of_the_answers(folder: Path, study: dict[str, Any], tmp_path: Path) -> None:
    files = [
        answers(study, tmp_path, "a", ["truth", "telea", "mean"]),
        answers(study, tmp_path, "b", ["truth", "telea", "mean"], questions=COUNT - 2),
        answers(study, tmp_path, "c", ["truth", "mean", "telea"]),
        answers(study, tmp_path, "d", ["telea", "truth", "mean"], questions=1),
    ]
    ranking = rank_answers(folder, files)
    assert (ranking.raters, ranking.questions) == (4, COUNT)
    one = ranking.criteria[0]
    assert (one.name, one.answers) == ("naturalness", 3 * COUNT - 1)
    # By image: the first has four raters, the next three have three, the last two have two.
    truth = [5 / 4, 1, 1, 1, 1, 1]
    telea = [(2 + 2 + 3 + 1) / 4, *[7 / 3] * (COUNT - 3), 5 / 2, 5 / 2]
    assert one.ranks["truth"].mean == pytest.approx(np.mean(truth))
    assert one.ranks["telea"].mean == pytest.approx(np.mean(telea))
    assert one.ranks["telea"].lo < one.ranks["telea"].mean < one.ranks["telea"].hi
    assert one.first["truth"].mean == pytest.approx((3 / 4 + COUNT - 1) / COUNT)
    assert one.first["mean"] == (0, 0, 0, COUNT)
    assert sum(value.mean for value in one.ranks.values()) == pytest.approx(6)
    place = list(one.ranks).index
    for a, b in combinations(one.ranks, 2):
        assert one.wins[place(a), place(b)] + one.wins[place(b), place(a)] == pytest.approx(1)
    assert one.wins[place("truth"), place("mean")] == 1
    assert {(pair.first, pair.second) for pair in one.pairs} == set(combinations(one.ranks, 2))
    title, rows = rank_grids(ranking)[0]
    assert title == f"naturalness, {3 * COUNT - 1} answers"
    assert [row[0] for row in rows[1:]] == ["truth", "telea", "mean"], "from the best"
    json.dumps(rank_json(ranking), allow_nan=False)


def test_wrong_answers_are_refused(folder: Path, study: dict[str, Any], tmp_path: Path) -> None:
    good = answers(study, tmp_path, "good", LABELS)
    content = json.loads(good.read_text())
    first = content["answers"][0]

    def refused(match: str, **changed: Any) -> None:
        bad = tmp_path / "bad.json"
        bad.write_text(json.dumps(content | {"rater": "bad"} | changed))
        with pytest.raises(DataError, match=match):
            rank_answers(folder, [good, bad])

    refused("these answer study other", study="other")
    refused("two files of one rater", rater="good")
    refused("no file of answers", answers=None)
    refused("no question of the study", answers=[{**first, "question": 99}])
    refused("not one order of all pictures", answers=[{**first, "order": first["order"][:2]}])
    refused("not one order of all pictures", answers=[{**first, "order": [1, "A", None]}])
    refused("not one order of all pictures", answers=[{**first, "criterion": "beauty"}])
    refused("not one order of all pictures", answers=[first, first])
    with pytest.raises(DataError, match="no file of answers"):
        rank_answers(folder, [tmp_path / "absent.json"])
    empty = answers(study, tmp_path, "empty", LABELS, questions=0)
    with pytest.raises(DataError, match="no answer"):
        rank_answers(folder, [empty])


def test_a_run_without_a_study_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no study") as caught:
        rank_answers(tmp_path, [])
    assert "--study 100" in caught.value.remedy


def test_as_typed(folder: Path, study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder), "--study", str(COUNT)]) == 0
    assert "not for the raters" in capsys.readouterr().out
    files = [str(answers(study, tmp_path, name, ["truth", "telea", "mean"])) for name in "ab"]
    assert main(["report", str(folder), "--rank", *files]) == 0
    assert "2 raters, 6 images" in capsys.readouterr().out
    assert main(["report", str(folder), "--rank", *files, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["criteria"]["naturalness"]["rank"]["truth"]["mean"] == 1
    assert main(["report", str(folder), "--study", "2", "--rank", *files]) == 2
