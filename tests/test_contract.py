"""The contract: batches, keyed numbers, composition."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from zoo.batch import Batch, check_batch, check_needs, finish_batch
from zoo.compose import composite, dilate, hide, pad_to_multiple, shrink_mask, to_uint8, unpad
from zoo.errors import DataError, UsageError, ZooError, unknown_name
from zoo.keyed import Noise, key, permutation


def make_batch(size: int = 16, count: int = 2, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(count, 1, size, size)
    mask[:, :, size // 4 : size // 2, size // 4 : size // 2] = 1
    return Batch(
        id=[f"fake/{i}" for i in range(count)], image=torch.rand(count, 3, size, size, generator=generator), mask=mask
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"image": torch.rand(2, 3, 16, 16) * 255}, "must lie in"),
        ({"image": torch.full((2, 3, 16, 16), float("nan"))}, "must lie in"),
        ({"image": torch.zeros(2, 3, 16, 16, dtype=torch.uint8)}, "float"),
        ({"image": torch.zeros(2, 3, 16, 16, dtype=torch.float64)}, "float32"),
        ({"mask": torch.full((2, 1, 16, 16), 0.5)}, "other than 0 and 1"),
        ({"mask": torch.zeros(2, 1, 8, 8)}, "must be"),
        ({"id": ["one"]}, "1 ids for 2"),
        ({"caption": ["one"]}, "1 captions for 2"),
        ({"segmentation": torch.zeros(2, 16, 16)}, "int64"),
    ],
)
def test_check_batch_names_what_is_wrong(change: dict[str, object], text: str) -> None:
    with pytest.raises(DataError, match=text):
        check_batch({**make_batch(), **change})  # type: ignore[typeddict-item]


def test_check_batch_does_not_look_into_the_hole() -> None:
    batch = make_batch()
    batch["image"] = batch["image"].masked_fill(batch["mask"] > 0.5, float("nan"))
    check_batch(batch)


def test_check_batch_and_needs_name_what_is_missing() -> None:
    with pytest.raises(DataError, match="no 'caption'"):
        check_batch(make_batch(), {"image", "caption"})
    with pytest.raises(UsageError, match="caption"):
        check_needs({"image", "mask", "caption"}, {"image"}, "cma", "folder")
    check_needs({"image", "mask"}, {"image"}, "deepfill", "folder")


def test_finish_batch_scales_bytes() -> None:
    raw = {
        "id": ["a"],
        "image": torch.tensor([[[[0, 255]]] * 3], dtype=torch.uint8),
        "mask": torch.ones(1, 1, 1, 2).bool(),
    }
    batch = finish_batch(raw)
    assert batch["image"].flatten(0, 1)[0].tolist() == [[0.0, 1.0]]
    assert batch["mask"].dtype == torch.float32


def test_keys_are_the_same_in_every_process_and_tell_types_apart() -> None:
    assert len({key("a", 1), key("a", "1"), key("a1"), key("a", 1.0), key("a", True), key("1", "a")}) == 6
    code = "from zoo.keyed import key; print(key('mask', 0, 'shapes/test/000001'))"
    done = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert done[0].stdout == done[1].stdout == f"{key('mask', 0, 'shapes/test/000001')}\n"


def test_golden_numbers() -> None:
    assert key("mask", 0, "shapes/test/000001") == GOLDEN_KEY
    assert permutation(8, "order", 0) == GOLDEN_ORDER
    assert Noise(["a"]).normal("z", (3,))[0].tolist() == pytest.approx(GOLDEN_NOISE, abs=1e-6)


GOLDEN_KEY = 767446326538352642
GOLDEN_ORDER = [7, 3, 4, 0, 6, 2, 5, 1]
GOLDEN_NOISE = [-0.8808, -0.167264, 0.300921]


def test_noise_of_a_sample_does_not_depend_on_its_batch() -> None:
    together = Noise(["a", "b", "c"], 3).normal("latent", (2, 4))
    alone = Noise(["b"], 3).normal("latent", (2, 4))
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(alone, Noise(["b"], 4).normal("latent", (2, 4)))
    assert not torch.equal(alone, Noise(["b"], 3).normal("other", (2, 4)))
    assert 0 <= Noise(["b"]).uniform("u", (100,)).min() < Noise(["b"]).uniform("u", (100,)).max() < 1


def test_hide_and_composite() -> None:
    batch = make_batch()
    image = batch["image"].masked_fill(batch["mask"] > 0.5, float("nan"))
    hidden = hide(image, batch["mask"])
    assert hidden.isfinite().all()
    assert (hidden[batch["mask"].expand_as(hidden) > 0.5] == 0.5).all()
    raw = torch.rand_like(hidden)
    out = composite(raw, batch["image"], batch["mask"])
    inside = batch["mask"].expand_as(out) > 0.5
    assert torch.equal(out[~inside], batch["image"][~inside])
    assert torch.equal(out[inside], raw[inside])


def test_masks_shrink_by_any_and_grow_by_radius() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[0, 0, 3, 3] = 1
    assert shrink_mask(mask, 4)[0, 0].tolist() == [[1, 0], [0, 0]]
    assert dilate(mask, 2).sum() == 25
    assert torch.equal(dilate(mask, 0), mask)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (13, 9), (3, 40), (1, 1)])
def test_pad_and_unpad(height: int, width: int) -> None:
    image = torch.rand(1, 3, height, width)
    padded = pad_to_multiple(image, 8)
    assert padded.shape[-1] % 8 == padded.shape[-2] % 8 == 0
    assert torch.equal(unpad(padded, height, width), image)


def test_to_uint8_rounds() -> None:
    assert to_uint8(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]


def test_errors_say_what_where_and_how_to_mend() -> None:
    text = str(ZooError("it broke", "a.png", "mend it"))
    assert text.splitlines() == ["it broke", "  where: a.png", "  remedy: mend it"]
    assert "did you mean 'deepfill'" in str(unknown_name("model", "depfill", ["deepfill", "cma"]))
