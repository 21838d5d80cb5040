"""What frozen networks made of images and captions is used again, and changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.fakes_ecdm import edged, fit, make
from zoo.batch import Batch
from zoo.errors import UsageError
from zoo.models.ecdm import ECDM
from zoo.models.ecdm.cache import Cache
from zoo.models.ecdm.networks import codec as codec_of

KL = {"codec": "kl", "codec_channels": 4}


class Counting:
    """A text encoder that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, captions: Sequence[str]) -> Tensor:
        self.asked.append(list(captions))
        return torch.tensor([[float(len(caption))] * 256 for caption in captions])


def calls(module: ECDM, *parts: str) -> dict[str, list[int]]:
    """Batch sizes with which the encoders of images and captions are called from now on."""
    made: dict[str, list[int]] = {part: [] for part in parts}
    for part in parts:
        network = module.part(part)
        inner = network.autoencoder.encoder if part == "codec" else network.model
        inner.register_forward_pre_hook(
            lambda _, args, kwargs, part=part: made[part].append(len(args[0] if args else kwargs["input_ids"])),
            with_kwargs=True,
        )
    return made


def trained(stage: str, **options: Any) -> tuple[ECDM, dict[str, list[int]]]:
    """Two epochs of two batches of three scenes."""
    module = make(stage=stage, **KL, **options)
    counted = calls(module, "codec", "text")
    other = edged()
    other["id"] = [f"other/{name}" for name in other["id"]]
    other["image"] = 1.0 - other["image"]
    fit(module, edged(), other, max_epochs=2, max_steps=-1)
    return module, counted


@pytest.mark.parametrize("stage", ["unet", "teacher", "inpaint"])
def test_a_training_is_the_same_and_encodes_each_image_once(stage: str) -> None:
    plain, without = trained(stage)
    cached, counted = trained(stage, cache=0.5)
    assert without["codec"] == [3] * 4
    assert counted["codec"] == [3] * 2, "latents are drawn from what is kept"
    assert without["text"] == [3] * 4
    if stage == "unet":
        assert counted["text"] == [3] * 4, "the text encoder learns here"
    else:
        assert sum(counted["text"]) < 12
    for (name, tensor), other in zip(plain.state_dict().items(), cached.state_dict().values(), strict=True):
        torch.testing.assert_close(tensor, other, msg=name)


@pytest.mark.parametrize("options", [KL, {"codec": "pca"}, {"codec": "identity"}], ids=str)
def test_latents_are_those_of_the_codec(options: dict[str, Any]) -> None:
    module, batch = make(**options), edged()
    codec, cache, x = module.part("codec"), Cache(1.0), batch["image"]
    shape = (3, codec.channels, 8, 8)
    for noise in (None, torch.randn(shape)):
        with torch.no_grad():
            wanted = codec.encode(x * 2.0 - 1.0, noise)
            for _ in range(2):
                assert torch.equal(codec.draw(cache.posterior(codec, batch["id"], x), noise), wanted)
                mixed = cache.posterior(codec, [batch["id"][2], batch["id"][0]], x[[2, 0]])
                drawn = None if noise is None else noise[[2, 0]]
                torch.testing.assert_close(codec.draw(mixed, drawn), wanted[[2, 0]])


def test_what_does_not_fit_is_computed_anew() -> None:
    encoder, cache = Counting(), Cache(2.5 * 1024 / 2**30)  # a row is 1 KiB
    captions = ["a", "bb", "ccc", "a"]
    for _ in range(2):
        found = cache.prompts(encoder, captions, "cpu")
        assert found[:, 0].tolist() == [1.0, 2.0, 3.0, 1.0]
    assert encoder.asked == [captions, ["ccc"]]
    nothing = Cache(0.0)
    for _ in range(2):
        nothing.prompts(encoder, ["a"], "cpu")
    assert encoder.asked[2:] == [["a"], ["a"]]


@pytest.mark.parametrize("change", [lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: 0.9 * x])
def test_images_that_change_are_refused(change: Any) -> None:
    module, batch, cache = make(), edged(), Cache(1.0)
    cache.posterior(module.part("codec"), batch["id"], batch["image"])
    with pytest.raises(UsageError, match=r"(?s)not the one it was before.*--model\.cache 0"):
        cache.posterior(module.part("codec"), batch["id"], change(batch["image"]))


def test_a_copy_shares_it_and_weights_do_not_hold_it() -> None:
    module = make(cache=1.0)
    fit(module, Batch(**edged()))
    assert copy.deepcopy(module).cache is module.cache
    assert not any("cache" in name for name in module.state_dict())
    with pytest.raises(UsageError, match="cache must be at least 0"):
        make(cache=-1.0)


def test_codecs_alone_know_what_they_draw_from() -> None:
    codec = codec_of({**make(**KL).options})
    x = torch.rand(2, 3, 32, 32) * 2.0 - 1.0
    with torch.no_grad():
        assert codec.posterior_of(x).shape == (2, 8, 8, 8)
        assert torch.equal(codec.draw(codec.posterior_of(x)), codec.encode(x))
