"""Edits of captions that people wrote: which word, by which, and what agrees with it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.fakes_benchmark import Dots
from zoo.data.base import EditedCaption, Sample
from zoo.data.caption_edits import COLOURS, NOUNS, WordEditor
from zoo.data.masked import editor_of
from zoo.data.shapes import Shapes
from zoo.errors import UsageError

MASK = np.ones((8, 8), np.uint8)


def edited(rule: str, caption: str, sample: str = "coco/1", seed: int = 0) -> EditedCaption:
    image = Sample(id=sample, image=np.zeros((8, 8, 3), np.uint8), captions=(caption,))
    return WordEditor().edit_caption(rule, image, caption, MASK, seed)


def every(rule: str, caption: str) -> set[str]:
    """What becomes of a caption over many images."""
    return {edited(rule, caption, f"coco/{k}").text for k in range(1500)}


def test_the_lists() -> None:
    assert len(NOUNS) == len(set(NOUNS)) == 79  # COCO's 80 without `orange`
    assert "orange" not in {*COLOURS, *NOUNS}


def test_the_first_colour_is_replaced_by_any_other_and_articles_agree() -> None:
    found = every("recoloured", "A red bus behind the red car, on grey stone")
    assert found == {
        f"A {colour} bus behind the red car, on grey stone" for colour in COLOURS if colour not in ("red", "gray")
    }
    assert every("recoloured", "An ORANGE cat") == {"An ORANGE cat"}
    assert {"Grey sky", "Gray sky", "White sky"} <= every("recoloured", "Black sky")


def test_a_noun_is_replaced_by_one_of_its_number() -> None:
    single = every("renamed", "a cat next to a cup")
    assert "a cat next to a cup" not in single
    assert {"an elephant next to a cup", "a teddy bear next to a cup", "a person next to a cup"} <= single
    assert len(single) == 79 - 2 - 2  # no cat, no second cup, and neither skis nor scissors in the singular
    several = every("renamed", "Two dogs run")
    assert {"Two people run", "Two mice run", "Two benches run", "Two skis run", "Two wine glasses run"} <= several
    assert not {"Two sheeps run", "Two persons run", "Two knifes run"} & several
    assert every("renamed", "an elephant") >= {"a cat", "an umbrella"}


def test_the_longest_noun_and_whole_words_count() -> None:
    assert all(re.fullmatch("my .+ sits", text) for text in every("renamed", "my teddy bear sits"))
    assert edited("renamed", "a catalogue of carpets").reason == "the caption has no noun of the list"
    assert edited("recoloured", "a blackbird").reason == "the caption has no colour of the list"
    assert edited("recoloured", "") == EditedCaption("", "the caption has no colour of the list")


def test_edits_are_keyed_by_seed_and_id() -> None:
    assert edited("renamed", "a cat") == edited("renamed", "a cat")
    seeds = {edited("renamed", "a cat", seed=seed).text for seed in range(20)}
    assert len(seeds) > 10


def test_who_edits() -> None:
    shapes = Shapes("test", count=2)
    assert editor_of(shapes, "renamed", "object") is shapes

    with pytest.raises(UsageError, match="'dots' has no captions to edit"):
        editor_of(Dots(silent=True), "renamed", "object")
    with pytest.raises(UsageError, match="did you mean 'renamed'"):
        edited("rename", "a cat")
