"""Guidance of MMInvertFill: one-hot classes, what is withheld in training, the encoder's input."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from zoo.errors import DataError, UsageError
from zoo.models.mminvertfill.guidance import assemble, guidance_mask, one_hot


def test_unknown_classes_are_zeros_and_impossible_ones_refused() -> None:
    classes = torch.tensor([[[0, 2], [255, 1]]])
    expected = torch.tensor([[[[1.0, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 1], [0, 0]]]])
    assert torch.equal(one_hot(classes, 3), expected)
    with pytest.raises(DataError, match="class 2, beside 2 classes"):
        one_hot(classes, 2)


# --- what is withheld -------------------------------------------------------------------------------------------------


def holes(count: int, size: int = 16) -> Tensor:
    M = torch.zeros(count, 1, size, size)
    M[:, :, 3:9, 5:12] = 1.0
    return M


def kinds(masks: Tensor, M: Tensor) -> list[str]:
    found = []
    for mask, hole in zip(masks, M, strict=True):
        plain = {"all": torch.ones_like(hole), "hole": hole, "nothing": torch.zeros_like(hole)}
        found.append(next((name for name, value in plain.items() if torch.equal(mask, value)), "own"))
    return found


def test_half_is_missing_a_quarter_hidden_as_the_hole_and_the_rest_on_its_own() -> None:
    ids = [str(i) for i in range(1000)]
    masks = guidance_mask(holes(1000), ids, "edge")
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    found = kinds(masks, holes(1000))
    shares = {name: found.count(name) / 1000 for name in ("all", "hole", "nothing", "own")}
    assert shares == pytest.approx({"all": 0.5, "hole": 0.25, "nothing": 0.125, "own": 0.125}, abs=0.04)


def test_draws_belong_to_the_sample_and_not_to_its_batch() -> None:
    ids = [str(i) for i in range(60)]
    M = holes(60)
    both = guidance_mask(M, ids, "edge", seed=3, visit=2)
    alone = torch.cat([guidance_mask(M[i : i + 1], ids[i : i + 1], "edge", 3, 2) for i in reversed(range(60))])
    assert torch.equal(both, alone.flip(0))
    for other in (("segmentation", 3, 2), ("edge", 4, 2), ("edge", 3, 3)):
        assert not torch.equal(both, guidance_mask(M, ids, *other))
    strokes = {m.numpy().tobytes() for m in guidance_mask(M, ids, "edge", shares=(0.0, 0.0), whole=0.0)}
    assert len(strokes) == 60


def test_shares_may_be_changed() -> None:
    M, ids = holes(20), [str(i) for i in range(20)]
    assert kinds(guidance_mask(M, ids, "edge", shares=(1.0, 0.0)), M) == ["all"] * 20
    assert kinds(guidance_mask(M, ids, "edge", shares=(0.0, 1.0)), M) == ["hole"] * 20
    assert kinds(guidance_mask(M, ids, "edge", shares=(0.0, 0.0), whole=1.0), M) == ["nothing"] * 20
    with pytest.raises(UsageError, match="probabilities"):
        guidance_mask(M, ids, "edge", shares=(0.7, 0.7))


def test_drawing_is_cheap() -> None:
    M, ids = holes(64, 256), [str(i) for i in range(64)]
    guidance_mask(M, ids, "edge")
    start = time.perf_counter()
    guidance_mask(M, ids, "edge", seed=1)
    assert time.perf_counter() - start < 1.0  # 64 masks; about 0.01 s


# --- the encoder's input ----------------------------------------------------------------------------------------------


def modalities(K: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(0)
    S = one_hot(torch.randint(0, K, (2, 8, 8)), K)
    masks = {name: (torch.rand(2, 1, 8, 8) > 0.5).float() for name in ("M", "M_E", "M_S")}
    return {"X": torch.rand(2, 3, 8, 8), "E": (torch.rand(2, 1, 8, 8) > 0.5).float(), "S": S, **masks}


def test_the_input_is_every_modality_with_its_mask() -> None:
    given = modalities()
    x = assemble(**given)
    shown = {name: given[name] * (1 - given[mask]) for name, mask in (("X", "M"), ("E", "M_E"), ("S", "M_S"))}
    parts = [shown["X"], given["M"], shown["E"], given["M_E"], shown["S"], given["M_S"]]
    assert torch.equal(x, torch.cat(parts, 1))
    assert x.shape == (2, 12, 8, 8)


@pytest.mark.parametrize(("name", "mask"), [("X", "M"), ("E", "M_E"), ("S", "M_S")])
def test_what_is_hidden_changes_nothing(name: str, mask: str) -> None:
    given = modalities()
    given[mask] = torch.ones_like(given[mask])
    expected = assemble(**given)
    for other in (torch.zeros_like(given[name]), torch.full_like(given[name], torch.nan)):
        assert torch.equal(assemble(**{**given, name: other}), expected)


def test_absent_modalities_have_no_channels() -> None:
    given = modalities()
    assert assemble(given["X"], given["M"]).shape[1] == 4
    assert assemble(given["X"], given["M"], given["E"], given["M_E"]).shape[1] == 6
    assert assemble(given["X"], given["M"], S=given["S"], M_S=given["M_S"]).shape[1] == 10
    with pytest.raises(UsageError, match="segmentation comes without"):
        assemble(given["X"], given["M"], S=given["S"])
