"""Stable Diffusion's own ways to inpaint, on a tiny random pipeline on disk: the contract, and diffusers' numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.evaluations import evaluations
from tests.fakes_stable_diffusion import save_control, save_pipeline
from zoo.batch import Batch
from zoo.errors import DataError, WeightsError
from zoo.keyed import Noise
from zoo.models.ecdm import hub
from zoo.models.ecdm.baselines import BlendedLatentDiffusion, ControlNetInpaint, Pretrained, StableDiffusionInpaint
from zoo.models.ecdm.hints import inpainting_hint, known_image
from zoo.module import hide_truth
from zoo.weights import constructor_arguments

Make = Callable[..., Pretrained]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Make]:
    root = tmp_path_factory.mktemp("hub")
    plain, nine = save_pipeline(root / "plain"), save_pipeline(root / "nine", channels=9)
    control = save_control(root / "control")

    def builder(cls: type[Pretrained], **sources: Any) -> Make:
        return lambda **options: cls(**{"size": 32, "steps": 3, **sources, **options})  # type: ignore[arg-type]

    return {
        "sd": builder(StableDiffusionInpaint, source=str(nine)),
        "control": builder(ControlNetInpaint, source=str(plain), control=str(control)),
        "blended": builder(BlendedLatentDiffusion, source=str(plain)),
    }


def batch(size: int = 32) -> Batch:
    image = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 1, size, size)
    mask[0, :, 5:20, 9:30] = 1
    mask[1, :, 16:] = 1
    return Batch(id=["x", "y"], image=image, mask=mask, caption=["a red a", ""])


NAMES = ["sd", "control", "blended"]


@pytest.mark.parametrize("name", NAMES)
def test_the_contract(make: dict[str, Make], name: str) -> None:
    method, full = make[name](), batch()
    assert not type(method).trainable
    assert method.multiple == 8
    made = method.complete(full)
    known = (full["mask"] < 0.5).expand_as(made.image)
    assert torch.equal(made.image[known], full["image"][known])
    blind = Batch({**full, "image": full["image"].masked_fill(full["mask"] > 0.5, float("nan"))})  # type: ignore[typeddict-item]
    assert torch.equal(method.complete(blind).image, made.image)
    assert not torch.equal(method.complete(full, seed=1).image, made.image)
    one = Batch(id=["y"], image=full["image"][1:], mask=full["mask"][1:], caption=full["caption"][1:])
    assert torch.allclose(method.complete(one).image, made.image[1:], atol=1e-4)
    other = Batch({**full, "caption": ["blue", "green"]})  # type: ignore[typeddict-item]
    assert (method.complete(other).raw - made.raw).abs().max() > 1e-5
    assert not any(p.requires_grad for p in method.parameters())
    with pytest.raises(DataError, match="caption"):
        method.complete(Batch(id=full["id"], image=full["image"], mask=full["mask"]))


@pytest.mark.parametrize("name", NAMES)
def test_no_hole_every_hole_and_odd_sizes_run(make: dict[str, Make], name: str) -> None:
    method, full = make[name](steps=2), batch(28)
    none = Batch({**full, "mask": torch.zeros_like(full["mask"])})  # type: ignore[typeddict-item]
    assert torch.equal(method.complete(none).image, full["image"])
    every = Batch({**full, "mask": torch.ones_like(full["mask"])})  # type: ignore[typeddict-item]
    assert method.complete(every).image.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_one_call_of_each_network_for_both_halves(make: dict[str, Make], name: str) -> None:
    method = make[name](steps=4)
    networks = {"unet": method.unet, "text": method.text}
    if isinstance(method, ControlNetInpaint):
        networks["control"] = method.control
    with evaluations(**networks) as counts:
        method.complete(batch())
    steps = 3 if name == "blended" else 4  # a quarter is skipped
    assert (counts["unet"].calls, counts["unet"].samples) == (steps, steps * 4)
    assert counts["text"].calls == 2
    assert "control" not in counts or counts["control"].samples == steps * 4
    with evaluations(unet=(plain := make[name](steps=4, guidance=1.0)).unet) as counts:
        plain.complete(batch())
    assert counts["unet"].samples == steps * 2


@pytest.mark.parametrize("name", ["sd", "control"])
def test_the_numbers_are_those_of_diffusers_pipeline(make: dict[str, Make], name: str) -> None:
    method, hidden = make[name](), hide_truth(batch())
    ours = method.inpaint(hidden, Noise(hidden["id"], 5))
    theirs = _diffusers(method, hidden, Noise(hidden["id"], 5).normal("start", (4, 8, 8)))
    assert (theirs - 0.5).abs().max() > 0.01
    assert torch.allclose(ours, theirs, atol=2e-5)


def _diffusers(method: Pretrained, hidden: Batch, start: Tensor) -> Tensor:
    """The same completion by the pipelines of diffusers, with the mode of the posterior instead of a draw."""
    from diffusers.pipelines.controlnet.pipeline_controlnet_inpaint import StableDiffusionControlNetInpaintPipeline
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import StableDiffusionInpaintPipeline

    parts: dict[str, Any] = {
        "vae": method.codec.autoencoder, "unet": method.unet, "text_encoder": method.text.model,
        "tokenizer": method.text.tokenizer.tokenizer, "scheduler": method.sampler.schedule.scheduler(),
        "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False,
    }  # fmt: skip
    call: dict[str, Any] = {
        "prompt": hidden["caption"], "mask_image": hidden["mask"], "height": 32, "width": 32, "latents": start,
        "image": known_image(hidden["image"], hidden["mask"], method.known), "num_inference_steps": 3,
        "guidance_scale": 7.5, "output_type": "pt",
    }  # fmt: skip
    pipeline: Any
    if isinstance(method, ControlNetInpaint):
        pipeline = StableDiffusionControlNetInpaintPipeline(**parts, controlnet=method.control)
        call["control_image"] = inpainting_hint(hidden["image"], hidden["mask"])
        call["controlnet_conditioning_scale"] = 1.0
    else:
        pipeline = StableDiffusionInpaintPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    pipeline._encode_vae_image = lambda image, generator: method.codec.encode(image)
    prepare = pipeline.prepare_latents

    def blended(*arguments: Any, **options: Any) -> Any:
        """The pipeline puts known latents back from the second step on, this sampler from the first."""
        latents, noise, *known = prepare(*arguments, **options)
        if known:
            alpha = pipeline.scheduler.alphas_cumprod[pipeline.scheduler.timesteps[0]]
            mask = hidden["mask"][..., ::4, ::4]
            latents = mask * latents + (1 - mask) * (alpha**0.5 * known[0] + (1 - alpha) ** 0.5 * noise)
        return latents, noise, *known

    pipeline.prepare_latents = blended
    with torch.no_grad():
        images: Tensor = pipeline(**call).images
    return images


def test_a_unet_of_another_kind_is_refused(make: dict[str, Make]) -> None:
    nine = make["sd"]().hparams["source"]
    with pytest.raises(WeightsError, match="needs a UNet of 4 input channels, this one has 9"):
        make["blended"](source=nine)


@pytest.mark.parametrize("cls", [StableDiffusionInpaint, ControlNetInpaint, BlendedLatentDiffusion])
def test_without_weights_there_is_one_error_before_any_work(
    cls: type[Pretrained], make: dict[str, Make], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    source = cls.defaults()["source"]
    for attempt in (cls.check_available, cls):
        with pytest.raises(WeightsError, match="is not here") as caught:
            attempt()
        assert f"hf download {source}" in caught.value.remedy
    here = constructor_arguments(make["control"]())
    cls.check_available({"source": here["source"], "control": here["control"]})
    if cls is ControlNetInpaint:
        with pytest.raises(WeightsError, match=hub.CONTROL_INPAINT):
            cls.check_available({"source": here["source"]})


def test_it_is_rebuilt_from_its_arguments(make: dict[str, Make]) -> None:
    method = make["blended"](skip=0.5, guidance=2.0)
    arguments = constructor_arguments(method)
    assert arguments["skip"] == 0.5
    again = BlendedLatentDiffusion(**arguments)
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.complete(batch()).image, method.complete(batch()).image)
