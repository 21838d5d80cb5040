"""The image side of NIGDT's match networks: its two trunks, what they learn, and Inception's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from tests.fakes_inception import inception_state, numbers
from zoo.errors import EXIT_WEIGHTS, WeightsError
from zoo.models.nigdt.inception import read_tensors
from zoo.models.nigdt.match import InceptionTrunk, MatchNetwork, SmallTrunk
from zoo.models.nigdt.text import TextEncoder
from zoo.words import WordTokenizer


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return inception_state()


@pytest.fixture(scope="module")
def inception(published: dict[str, Tensor]) -> InceptionTrunk:
    return InceptionTrunk(published)


def small(width: int = 48) -> MatchNetwork:
    torch.manual_seed(0)
    trunk = SmallTrunk()
    return MatchNetwork(trunk, trunk.regions, trunk.pooled, width)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# --- the network and its small trunk -------------------------------------------------------------------------------


def test_regions_and_image_have_the_width_of_words() -> None:
    found = small(width=20)(numbers([2, 3, 64, 64], 1))
    assert found.regions.shape == (2, 20, 64)
    assert found.image.shape == (2, 20)


def test_both_heads_are_linear_in_the_trunks_outputs() -> None:
    network = small()
    image = numbers([2, 3, 64, 64], 1)
    found, (features, pooled) = network(image), network.trunk(image)
    torch.testing.assert_close(pooled, features.mean((2, 3)))
    regions = torch.einsum("dc,bchw->bdhw", network.to_regions.weight[:, :, 0, 0], features)
    torch.testing.assert_close(found.regions[1, :, 8 * 3 + 5], regions[1, :, 3, 5])
    torch.testing.assert_close(found.image, pooled @ network.to_image.weight.t() + network.to_image.bias)


def test_regions_are_places_row_by_row() -> None:
    network = small()
    image = numbers([1, 3, 64, 64], 1)
    other = image.clone()
    other[:, :, :4, 60:] = 1.0  # the end of the first row
    change = (network(image).regions - network(other).regions).abs().sum((0, 1))
    assert change.argmax() == 7
    assert change.reshape(8, 8)[4:].max() == 0.0


def test_the_small_one_is_not_normalized_and_is_trained_whole() -> None:
    network = small()
    assert parameters(network) == 39_696
    assert not [name for name in network.state_dict() if "parametrizations" in name]
    image = numbers([2, 3, 64, 64], 1).requires_grad_()
    found = network(image)
    (found.regions.square().sum() + found.image.square().sum()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    assert image.grad.abs().sum() > 0


def test_it_learns_which_sentence_belongs_to_which_image() -> None:
    colours = ["red", "green", "blue", "white"]
    images = torch.tensor([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]]).float()[:, :, None, None]
    images = images.expand(-1, -1, 32, 32) + 0.3 * numbers([4, 3, 32, 32], 2)
    given = WordTokenizer(colours, 4, brackets=False)(colours)
    network, text = small(width=24), TextEncoder(8, embedding=12, width=24)
    optimizer = torch.optim.Adam([*network.parameters(), *text.parameters()], lr=2e-3)
    losses = []
    for _ in range(40):
        scores = 10.0 * F.normalize(network(images).image) @ F.normalize(text(given).sentence).t()
        loss = F.cross_entropy(scores, torch.arange(4)) + F.cross_entropy(scores.t(), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


# --- Inception-v3 --------------------------------------------------------------------------------------------------


def test_inception_computes_what_torchvision_computes(inception: InceptionTrunk) -> None:
    assert parameters(inception) == 21_785_568
    with torch.no_grad():
        regions, pooled = inception(numbers([1, 3, 299, 299], 5))
    assert regions.shape == (1, 768, 17, 17)
    assert pooled.shape == (1, 2048)
    # What torchvision 0.29.2's inception_v3(transform_input=False) gives, in evaluation mode, with these weights.
    wanted = [1.370466, 2.106033, 4.184657, 5.486423]
    found = torch.stack([regions.mean(), regions.std(), regions[0, 576, 8, 8], regions[0, 672, 8, 8]])
    torch.testing.assert_close(found, torch.tensor(wanted), atol=1e-3, rtol=1e-3)
    wanted = [1.831734, 2.359618, 0.101379, 2.240119, 0.0, 0.626752, 0.0, 0.021595, 1.070284, 10.528018]
    found = torch.stack([pooled.mean(), pooled.std(), *pooled[0, ::256]])
    torch.testing.assert_close(found, torch.tensor(wanted), atol=1e-3, rtol=1e-3)


def test_inception_is_frozen_and_lets_gradients_through(inception: InceptionTrunk) -> None:
    network = MatchNetwork(inception, inception.regions, inception.pooled, 16).train()
    assert not any(module.training for module in inception.modules())
    assert {name for name, p in network.named_parameters() if p.requires_grad} == {
        "to_regions.weight", "to_image.weight", "to_image.bias",
    }  # fmt: skip
    before = inception.Mixed_7c.branch1x1.bn.running_mean.clone()
    image = numbers([1, 3, 64, 64], 3).requires_grad_()
    found = network(image)
    assert found.regions.shape == (1, 16, 17 * 17)
    (found.regions.mean() + found.image.mean()).backward()
    assert image.grad.abs().sum() > 0
    assert torch.equal(inception.Mixed_7c.branch1x1.bn.running_mean, before)


def test_inception_sees_images_at_299_pixels(inception: InceptionTrunk) -> None:
    image = numbers([1, 3, 40, 40], 3)
    whole = F.interpolate(image, (299, 299), mode="bilinear", align_corners=False)
    with torch.no_grad():
        assert torch.equal(inception(image)[1], inception(whole)[1])


def test_a_file_of_torchvision_is_read(published: dict[str, Tensor], tmp_path: Path) -> None:
    more = {
        "fc.weight": torch.zeros(1000, 2048),
        "AuxLogits.conv0.conv.weight": torch.zeros(128, 768, 1, 1),
        "Conv2d_1a_3x3.bn.num_batches_tracked": torch.tensor(9),
    }
    torch.save({**published, **more}, tmp_path / "inception.pth")
    trunk = InceptionTrunk(str(tmp_path / "inception.pth"))
    state = trunk.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in published.items())
    assert set(state) - set(published) == {name for name in state if name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("weights", ["", "no/such/inception.pth"])
def test_a_missing_file_says_where_to_get_it_and_who_needs_none(weights: str) -> None:
    with pytest.raises(WeightsError, match="need the weights of Inception-v3") as caught:
        InceptionTrunk(weights)
    assert caught.value.exit_code == EXIT_WEIGHTS
    assert weights in str(caught.value)
    assert "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth" in caught.value.remedy
    assert "--model.inception FILE" in caught.value.remedy
    assert "nano needs none" in caught.value.remedy


def test_a_trunk_without_weights_looks_at_nothing(published: dict[str, Tensor]) -> None:
    network = MatchNetwork(InceptionTrunk(), 768, 2048, 4)
    image = numbers([1, 3, 16, 16], 3)
    network.load_state_dict({"to_image.bias": torch.zeros(4)}, strict=False)  # as a checkpoint without frozen modules
    with pytest.raises(WeightsError, match="none are loaded"):
        network(image)
    network.load_state_dict({f"trunk.{name}": tensor for name, tensor in published.items()}, strict=False)
    assert network(image).image.isfinite().all()


def test_weights_that_do_not_fit_are_named(published: dict[str, Tensor]) -> None:
    stem = "Mixed_6e.branch7x7dbl_4"
    wrong = {**published, f"{stem}.conv.weight": torch.zeros(2, 2), "extra": torch.zeros(1)}
    wrong[f"{stem}.bn.bias"] = torch.full_like(published[f"{stem}.bn.bias"], float("nan"))
    del wrong[f"{stem}.bn.weight"]
    with pytest.raises(WeightsError) as caught:
        InceptionTrunk(wrong, "here.pth")
    for said in ("bn.weight is missing", "is (2, 2), not (192, 192, 7, 1)", "bn.bias is not finite", "extra has no"):
        assert said in caught.value.what
    assert caught.value.where == "here.pth"


def test_files_of_tensors(tmp_path: Path) -> None:
    tensors = {"module.a": torch.ones(2), "b": torch.zeros(1)}
    torch.save(tensors, tmp_path / "a.pth")
    save_file(tensors, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        assert read_tensors(tmp_path / name, "").keys() == {"a", "b"}


def test_files_of_anything_else_are_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "number.pth")
    torch.save(SmallTrunk(), tmp_path / "module.pth")
    (tmp_path / "damaged.safetensors").write_bytes(b"12")
    for name, what in (
        ("number.pth", "holds no dict of tensors"),
        ("module.pth", "cannot be read"),
        ("damaged.safetensors", "cannot be read"),
        ("absent.pth", "no such weights file"),
    ):
        with pytest.raises(WeightsError, match=what) as caught:
            read_tensors(tmp_path / name, "fetch it again")
        assert caught.value.where == str(tmp_path / name)
        assert caught.value.remedy == "fetch it again"
        assert len(str(caught.value).splitlines()) == 3
