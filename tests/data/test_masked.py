"""Masks and captions are keyed by what a sample is; batches are checked when they are made."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from tests.fakes import Pictures
from zoo.data import dataset_class, open_dataset
from zoo.data.masked import EvaluationSet, TrainingSet, collate
from zoo.errors import DataError, UsageError

MIX = "freeform,object,center"


def test_an_item() -> None:
    dataset = Pictures()
    item = EvaluationSet(dataset, "center")[3]
    assert set(item) == {"id", "image", "mask", "caption", "segmentation"}
    assert (item["id"], item["caption"]) == ("pictures/train/003", "one")
    assert (item["image"].shape, item["image"].dtype) == ((3, 16, 16), torch.uint8)
    assert np.array_equal(item["image"].permute(1, 2, 0).numpy(), dataset.sample(3).image)
    assert (item["mask"].shape, item["mask"].dtype) == ((1, 16, 16), torch.uint8)
    assert item["mask"].sum() == 64
    assert item["segmentation"].shape == (16, 16)


def test_a_mask_depends_on_the_id_and_the_seed_alone() -> None:
    short, long = Pictures(count=4), Pictures(count=9)
    masks = [EvaluationSet(d, "freeform", 7)[2]["mask"] for d in (short, long)]
    assert torch.equal(*masks)
    assert not torch.equal(masks[0], EvaluationSet(short, "freeform", 8)[2]["mask"])
    assert not torch.equal(masks[0], EvaluationSet(short, "freeform", 7)[3]["mask"])


def test_every_epoch_draws_another_mask_and_caption() -> None:
    training = TrainingSet(Pictures(), MIX, seed=1)
    visits = [training.visit(epoch, 5) for epoch in range(30)]
    assert len({v["mask"].numpy().tobytes() for v in visits}) > 5
    assert {v["caption"] for v in visits} == {"one", "two", "three"}
    training.set_epoch(3)
    for key in ("mask", "caption"):
        assert np.array_equal(training[5][key], visits[3][key])
    other = TrainingSet(Pictures(), MIX, seed=2)
    assert any(not torch.equal(other.visit(epoch, 5)["mask"], visits[epoch]["mask"]) for epoch in range(30))


def test_the_caption_of_evaluation() -> None:
    dataset = Pictures(count=30)
    assert {EvaluationSet(dataset, "center")[i]["caption"] for i in range(30)} == {"one"}
    keyed = EvaluationSet(dataset, "center", caption="keyed")
    drawn = [keyed[i]["caption"] for i in range(30)]
    assert set(drawn) == {"one", "two", "three"}
    assert drawn == [EvaluationSet(dataset, "center", caption="keyed")[i]["caption"] for i in range(30)]
    with pytest.raises(UsageError, match="caption rule"):
        EvaluationSet(dataset, "center", caption="last")  # type: ignore[arg-type]


def test_a_dataset_that_edits_no_captions_has_its_words_edited() -> None:
    edited = EvaluationSet(Pictures(), "center", captions="renamed")[0]
    assert (edited["caption"], edited["own_caption"]) == ("one", "one")
    assert edited["unedited"] == "the caption has no noun of the list"
    with pytest.raises(UsageError, match="unknown caption edit of 'pictures' 'deranged'"):
        EvaluationSet(Pictures(), "center", captions="deranged")


def test_masks_made_before_replace_the_drawn_ones() -> None:
    dataset = Pictures()
    given = np.zeros((16, 16), np.uint8)
    given[2, 3] = 1
    made = EvaluationSet(dataset, "center", masks={"pictures/train/002": given})
    assert np.array_equal(made[2]["mask"][0].numpy(), given)
    assert torch.equal(made[3]["mask"], EvaluationSet(dataset, "center")[3]["mask"])
    made[2]["mask"].zero_()
    assert given.sum() == 1
    with pytest.raises(DataError, match=r"the mask is \(16, 15\), the image \(16, 16\)"):
        EvaluationSet(dataset, "center", masks={"pictures/train/002": given[:, 1:]})[2]


def test_unknown_masks_and_empty_sets() -> None:
    with pytest.raises(UsageError):
        EvaluationSet(Pictures(), "no-such-mask")
    empty = Pictures()
    empty._ids = []
    with pytest.raises(UsageError, match="no samples"):
        TrainingSet(empty, "center")


def test_a_sample_that_cannot_be_read_is_named() -> None:
    with pytest.raises(DataError) as caught:
        EvaluationSet(Pictures(bad=2), "center")[2]
    assert "pictures/train/002" in str(caught.value)

    class Careless(Pictures):
        def sample(self, index: int):  # type: ignore[no-untyped-def]
            raise OSError("disk trouble")

    with pytest.raises(DataError, match="'pictures/train/004' cannot be read: disk trouble"):
        TrainingSet(Careless(), "center")[4]


def test_samples_are_decoded_once_where_all_fit() -> None:
    dataset = Pictures(count=5)
    cached = TrainingSet(dataset, "center", cache_mb=1)
    first = [cached.visit(0, i)["image"] for i in range(5)]
    again = [cached.visit(1, i)["image"] for i in range(5)]
    assert dataset.reads == 5
    assert all(map(torch.equal, first, again))
    assert pickle.loads(pickle.dumps(cached))._cache._samples == {}


def test_nothing_is_kept_where_not_all_fit() -> None:
    dataset = Pictures(count=50)
    small = TrainingSet(dataset, "center", cache_mb=0.05)
    for _ in range(2):
        small[0]
    assert dataset.reads == 2


def test_writing_to_an_item_does_not_change_the_cached_sample() -> None:
    cached = EvaluationSet(Pictures(), "center", cache_mb=1)
    before = cached[0]["image"].clone()
    cached[0]["image"].zero_()
    assert torch.equal(cached[0]["image"], before)


def test_collate_stacks() -> None:
    items = [EvaluationSet(Pictures(), "center")[i] for i in range(3)]
    batch = collate(items)
    assert batch["id"] == [i["id"] for i in items]
    assert batch["caption"] == ["one"] * 3
    assert batch["image"].shape == (3, 3, 16, 16)
    assert batch["segmentation"].dtype == torch.uint8
    assert torch.equal(batch["image"][1], items[1]["image"])


def test_collate_refuses_what_does_not_fit() -> None:
    small, large = (EvaluationSet(Pictures(size=s), "center")[0] for s in (16, 20))
    with pytest.raises(DataError, match="different sizes"):
        collate([small, large])
    silent = {k: v for k, v in small.items() if k != "caption"}
    with pytest.raises(DataError, match="differ in caption"):
        collate([small, silent])


# --- opening datasets ------------------------------------------------------------------------------------------------


def test_datasets_open_by_short_name_and_by_path() -> None:
    assert open_dataset("shapes", split="val", size=32, count=3).ids[2] == "shapes/val/000002"
    for path in ("tests.fakes:Pictures", "tests.fakes.Pictures"):
        assert len(open_dataset(path, count=4)) == 4
    assert dataset_class("tests.fakes:Pictures") is Pictures


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shape", {}, "unknown dataset 'shape'"),
        ("no_such_module:Data", {}, "cannot be imported"),
        ("tests.fakes:Nothing", {}, "cannot be imported"),
        ("tests.fakes:picture", {}, "not a dataset class"),
        ("shapes", {"split": "training"}, "unknown split"),
        ("shapes", {"count": 0}, "count must be at least 1"),
        ("shapes", {"size": 0}, "size must be at least 1"),
        ("shapes", {"mask_root": "masks"}, "has no option mask_root"),
    ],
)
def test_what_cannot_be_opened(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_dataset(name, **options)  # type: ignore[arg-type]
