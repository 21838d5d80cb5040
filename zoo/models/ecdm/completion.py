"""How ECDM completes images, and how its earlier stages make some to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.batch import Batch
from zoo.keyed import Noise
from zoo.models.ecdm.acda import KeyValue
from zoo.models.ecdm.diffusion import noise_from
from zoo.models.ecdm.hints import edge_hint, inpainting_hint, known_image, latent_mask
from zoo.models.ecdm.sampler import Predictor, Sampler, guided, halves

if TYPE_CHECKING:
    from zoo.models.ecdm.module import ECDM


def sampler_of(options: Mapping[str, Any]) -> Sampler:
    """The sampling loop that the constructor's arguments describe."""
    o = options
    return Sampler(
        steps=o["steps"], solver=o["solver"], eta=o["eta"], spacing=o["spacing"], entry=o["blend_entry"],
        final=o["blend_final"], draw=o["draw"], clip=o["clip"],
    )  # fmt: skip


def contexts(text: Callable[[Sequence[str]], Tensor], captions: Sequence[str], scale: float) -> Tensor:
    """Encoded captions, those of the empty prompt before them where guidance, of that scale, wants both."""
    encoded = text(captions)
    return encoded if scale == 1.0 else halves(text([""]).expand_as(encoded), encoded, scale)


def predictor(
    unet: Any,
    context: Tensor,
    control: Any = None,
    hint: Tensor | None = None,
    freq_kv: Mapping[str, KeyValue] | None = None,
    velocity_at: Tensor | None = None,
) -> Predictor:
    """What predicts the noise: one call of the UNet, and one of the ControlNet before it where there is one.

    Args:
        unet: The UNet.
        context: Encoded prompts, as many as the latents to come.
        control: The student, the teacher, or None.
        hint: What it is shown, as many.
        freq_kv: What the student's `precompute` made of the hint.
        velocity_at: Where the UNet predicts the velocity: the cumulative alphas of all time steps.
    """
    extra = {} if freq_kv is None else {"cross_attention_kwargs": {"freq_kv": freq_kv}}

    def predict(noisy: Tensor, time: Tensor) -> Tensor:
        residuals: dict[str, Any] = {}
        if control is not None:
            down, mid = control(noisy, time, context, hint, return_dict=False, **extra)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        predicted: Tensor = unet(noisy, time, context, return_dict=False, **residuals)[0]
        return predicted if velocity_at is None else noise_from(noisy, velocity_at[time], predicted.float())

    return predict


def inpaint(module: ECDM, batch: Batch, noise: Noise, truth: Tensor | None = None) -> Tensor:
    """The completed image before it is composited, B 3 H W in [0, 1].

    Args:
        module: A module of the last stage.
        batch: The hidden batch.
        noise: A generator for each sample.
        truth: The image that is not hidden, for `known_latent` gt alone.
    """
    o, codec = module.options, module.part("codec")
    image, mask = batch["image"], batch["mask"]
    # Deviation: the student is shown the masked image with -1 in the hole, and no mask as a fourth channel.
    hint = inpainting_hint(image, mask, o["hint"])
    context = contexts(module.part("text"), batch["caption"], o["guidance"])
    repeat = len(context) // len(hint)
    shown = known_image(image if truth is None else truth, mask, o["known_latent"])
    known = codec.encode(shown * 2.0 - 1.0)
    cells = latent_mask(mask, codec.factor, o["latent_mask"])
    freq_kv = module.student.precompute(hint, repeat)  # of the hint alone: once for all steps
    hints, alphas = hint.repeat(repeat, 1, 1, 1), module.velocity_at
    predict = predictor(module.part("unet"), context, module.student, hints, freq_kv, alphas)
    latents = module.sampler(guided(predict, o["guidance"]), known, cells, noise)
    decoded: Tensor = codec.decode(latents)
    return (decoded.clamp(-1.0, 1.0) + 1.0) / 2.0


def few(batch: Batch, count: int) -> Batch:
    """The first samples of a batch, on the CPU: they outlast the training, whose end moves the module there."""
    first: dict[str, Any] = {name: value[:count] for name, value in batch.items()}  # type: ignore[index]
    found: Any = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in first.items()}
    shown: Batch = found
    return shown


@torch.no_grad()
def sheet(module: ECDM) -> Tensor | None:
    """What a stage before the last has learned, B 3 H W in [0, 1]; None before any validation.

    Images of the validation data, and below them: what the codec makes of them; or samples of the same captions; or
    their edges, and samples of the same captions and edges.
    """
    batch = module.shown
    if batch is None:
        return None
    image, codec = batch["image"].to(module.device), module.part("codec")
    if module.stage == "autoencoder":
        return torch.cat([image, (codec.decode(codec.encode(image * 2.0 - 1.0)) + 1.0) / 2.0]).clamp(0.0, 1.0)
    rows, scale = [image], module.options["guidance"]
    context = contexts(module.part("text"), batch["caption"], scale)
    control = hint = None
    if module.stage == "teacher":
        rows.append(edge_hint(batch["edge"].to(module.device)))
        control, hint = module.teacher, rows[-1].repeat(len(context) // len(image), 1, 1, 1)
    known = torch.zeros_like(codec.encode(image))
    predict = predictor(module.part("unet"), context, control, hint, velocity_at=module.velocity_at)
    predict = guided(predict, scale)
    latents = module.sampler(predict, known, torch.ones_like(known[:, :1]), Noise(batch["id"]))
    return torch.cat([*rows, (codec.decode(latents) + 1.0) / 2.0]).clamp(0.0, 1.0)
