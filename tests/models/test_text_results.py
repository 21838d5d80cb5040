"""What shipped weights that read captions reach on 512 scenes: the rows that `python -m benchmarks.publish` stored."""

from __future__ import annotations

from statistics import fmean

import pytest

from tests.results import mean, rows

CHANCE = 1 / 8
READERS = ("cma", "nigdt", "ecdm")


@pytest.mark.parametrize(
    ("method", "one", "all_scenes"), [("cma", 0.95, 0.85), ("nigdt", 0.95, 0.85), ("ecdm", 0.9, 0.75)]
)
def test_it_paints_the_colour_that_the_caption_names(method: str, one: float, all_scenes: float) -> None:
    assert mean("object", "colour_fidelity", method, objects=1) >= one
    assert mean("object", "colour_fidelity", method) >= all_scenes


def test_cma_paints_the_shape_that_the_caption_names() -> None:
    assert mean("object", "shape_fidelity", "cma") >= 0.6


@pytest.mark.parametrize("method", READERS)
def test_its_hole_is_nearer_to_the_truth_than_that_of_a_method_without_text(method: str) -> None:
    assert mean("object", "l1_hole", method) <= 0.7 * mean("object", "l1_hole", "deepfill")


@pytest.mark.parametrize("method", READERS)
def test_with_captions_of_other_scenes_it_follows_those(method: str) -> None:
    assert mean("object-deranged", "colour_fidelity", method) <= 0.17
    assert mean("object-deranged", "colour_given", method) > 0.5


@pytest.mark.parametrize("method", READERS)
def test_one_changed_word_changes_the_fill(method: str) -> None:
    edited = [row for row in rows("object-recoloured", method) if row["objects"] == 1]
    assert fmean(row["colour_given"] for row in edited if row["colour_given"] is not None) >= 0.7
    assert fmean(row["colour_fidelity"] for row in edited if row["colour_fidelity"] is not None) <= CHANCE


@pytest.mark.parametrize("rule", ["deranged", "recoloured"])
@pytest.mark.parametrize("method", ["deepfill", "telea"])
def test_methods_without_text_do_not_move(method: str, rule: str) -> None:
    edited = {row["id"]: row for row in rows(f"object-{rule}", method)}
    for row in rows("object", method):
        assert edited[row["id"]]["l1_hole"] == row["l1_hole"]
        assert edited[row["id"]]["psnr"] == row["psnr"]


def test_completions_of_a_method_that_samples_differ_and_the_best_of_them_is_apart() -> None:
    drawn = [row["samples"] for method in ("nigdt", "ecdm") for row in rows("object", method)]
    assert all(sample["n"] == 5 and sample["diversity"] > 0 for sample in drawn)
    assert all(sample["l1_hole"]["oracle_best"] <= sample["l1_hole"]["mean"] for sample in drawn)
    assert all(row.get("samples") is None for row in rows("object", "deepfill"))
