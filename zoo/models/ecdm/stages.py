"""The training steps of ECDM's stages, their optimizers, where they start, and what validation measures in them.

Whatever is drawn is keyed by sample and iteration: a training that is resumed, or shared out among processes, draws the
same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from zoo.batch import Batch
from zoo.compose import to_uint8
from zoo.errors import UsageError
from zoo.keyed import Noise, key, torch_generator
from zoo.layers.muon import Muon
from zoo.models.ecdm import hub, losses
from zoo.models.ecdm.codecs import PCACodec
from zoo.models.ecdm.diffusion import noise_from, q_sample, velocity
from zoo.models.ecdm.hints import edge_hint, inpainting_hint
from zoo.models.ecdm.text import drop_prompts

if TYPE_CHECKING:
    from zoo.models.ecdm.module import ECDM

TRAINED = {"autoencoder": ("codec",), "unet": ("unet", "text"), "teacher": ("teacher",), "inpaint": ("student",)}
LEADING = {"autoencoder": "codec", "unet": "unet", "teacher": "teacher", "inpaint": "student"}
KL = 1e-6  # weight of the divergence in the autoencoder's loss, and below that of the squared error
SQUARED = 0.5


class Noised(NamedTuple):
    """What a network that predicts noise, or the velocity, is trained on.

    Attributes:
        x: B C h w, noised latents.
        ε: B C h w, the noise in them.
        target: B C h w, what is to be predicted: the noise, or the velocity.
        t: B, time steps.
        taught: B, bool: whether the teacher teaches the sample.
    """

    x: Tensor
    ε: Tensor
    target: Tensor
    t: Tensor
    taught: Tensor


def noise_of(module: ECDM, batch: Batch) -> Noise:
    """The noise of this iteration, a generator for each sample."""
    return Noise(batch["id"], key("ecdm", module.stage, _seed(module), module.iteration))


def _seed(module: ECDM) -> int:
    return int(getattr(getattr(module.trainer, "datamodule", None), "seed", 0))


def noised(module: ECDM, image: Tensor, noise: Noise) -> Noised:
    """Latents of whole images at time steps of their own, without gradient.

    Args:
        module: Its codec and noise schedule.
        image: B 3 H W in [0, 1], of the ids of `noise`.
        noise: What is drawn.
    """
    codec, o = module.part("codec"), module.options
    shape = (codec.channels, *(side // codec.factor for side in image.shape[-2:]))
    with torch.no_grad():
        drawn = noise.normal("posterior", shape, image.device) if o["codec"] == "kl" else None
        z = codec.draw(module.cache.posterior(codec, noise.ids, image), drawn)
    ε = noise.normal("noise", shape, image.device)
    # The gate is of the student's stage; the others see all time steps, in training and in validation.
    T = len(module.alphas)
    below, gate = (o["sail_max_timestep"], o["sail_gate"]) if module.stage == "inpaint" else (T, "sample")
    t, taught = _times(noise, below, gate, T)
    t = t.to(image.device)
    alpha = module.alphas[t]
    # Deviation: `nano` predicts the velocity and not the noise of Eq. 5.
    target = ε if module.velocity_at is None else velocity(z, alpha, ε)
    return Noised(q_sample(z, alpha, ε), ε, target, t, taught)


def _times(noise: Noise, below: int, gate: str, T: int) -> tuple[Tensor, Tensor]:
    # Of a whole batch is decided alike by every process that has a part of it.
    taught = torch.rand((), generator=torch_generator("gate", noise.seed)).item() * T < below
    draws = [
        losses.timesteps(1, T, below, gate, torch_generator("time", noise.seed, name), taught=taught)
        for name in noise.ids
    ]
    return torch.cat([t for t, _ in draws]), torch.cat([taught for _, taught in draws])


def _prompts(module: ECDM, batch: Batch, noise: Noise) -> Tensor:
    """Encoded captions, some of them dropped."""
    # Deviation: a tenth of the captions is replaced by the empty one in training, for guidance contrasts the two.
    dropped = drop_prompts(batch["caption"], module.options["prompt_dropout"], noise.uniform("prompt", (1,)))
    encoder = module.part("text")
    if "text" in TRAINED[module.stage]:
        learned: Tensor = encoder(dropped)
        return learned
    return module.cache.prompts(encoder, dropped, batch["image"].device)


def _edges(batch: Batch) -> Tensor:
    if "edge" not in batch:
        what = "ECDM's teacher needs the edges of its training images, and the batches have none"
        raise UsageError(what, remedy="--data.edges true; or train without a teacher: --model.sail false")
    return edge_hint(batch["edge"])


def step(module: ECDM, batch: Batch) -> dict[str, Tensor]:
    """One iteration of the module's stage.

    Returns:
        The terms, for the log.

    Raises:
        UsageError: The batch lacks the edges that the teacher needs.
    """
    return {"autoencoder": _autoencoder, "unet": _unet, "teacher": _teacher, "inpaint": _inpaint}[module.stage](
        module, batch
    )


def _autoencoder(module: ECDM, batch: Batch) -> dict[str, Tensor]:
    """PCA: its closed form over all images so far. KL: L1 + squared error + divergence, and the latents' scale."""
    codec, x = module.part("codec"), batch["image"] * 2.0 - 1.0
    with module.turn(*module.by_name) as minimize:
        if isinstance(codec, PCACodec):
            codec.accumulate(x)
            codec.solve(keep=True)
            minimize(-module.fitted)  # a step of 1: it counts batches
            return {"l_2": (codec.decode(codec.encode(x)) - x).square().mean()}
        posterior = codec.posterior(x)
        mode = posterior.mode()
        drawn = noise_of(module, batch).normal("posterior", mode.shape[1:], x.device)
        error = codec.autoencoder.decode(mode + posterior.std * drawn).sample.float() - x
        terms = {"l_1": error.abs().mean(), "l_2": error.square().mean(), "kl": posterior.kl().mean()}
        minimize(terms["l_1"] + SQUARED * terms["l_2"] + KL * terms["kl"])
        codec.follow_scale(mode.detach(), max(0.05, 1.0 / (1 + module.iteration)))
    return terms


def _unet(module: ECDM, batch: Batch) -> dict[str, Tensor]:
    """UNet and text encoder learn together to predict the target from captions."""
    noise = noise_of(module, batch)
    made = noised(module, batch["image"], noise)
    with module.turn(*module.by_name) as minimize:
        predicted = module.unet(made.x, made.t, _prompts(module, batch, noise), return_dict=False)[0]
        l_simple = losses.L_simple(made.target, predicted)
        minimize(l_simple)
    return {"l_simple": l_simple}


def _teacher(module: ECDM, batch: Batch) -> dict[str, Tensor]:
    """A ControlNet learns to read edges; the UNet is fixed."""
    from zoo.models.ecdm.unet import decode, encode

    noise, unet, hint = noise_of(module, batch), module.part("unet"), _edges(batch)
    made = noised(module, batch["image"], noise)
    with torch.no_grad():
        c = _prompts(module, batch, noise)
        state = encode(unet, made.x, made.t, c)
    with module.turn(*module.by_name) as minimize:
        down, mid = module.teacher(made.x, made.t, c, hint, return_dict=False)
        l_simple = losses.L_simple(made.target, decode(unet, state, down, mid)[0])
        minimize(l_simple)
    return {"l_simple": l_simple}


def _inpaint(module: ECDM, batch: Batch) -> dict[str, Tensor]:
    """The student learns to predict the target, and to have the UNet's decoder see what it sees under the teacher."""
    from zoo.models.ecdm.unet import decode, encode

    o, noise, unet = module.options, noise_of(module, batch), module.part("unet")
    edges = _edges(batch) if o["sail"] else None
    made = noised(module, batch["image"], noise)
    hint = inpainting_hint(batch["image"], batch["mask"], o["hint"])
    with torch.no_grad():
        c = _prompts(module, batch, noise)
        state = encode(unet, made.x, made.t, c)  # once: it is decoded under either branch's residuals
    with module.turn(*module.by_name) as minimize:
        down, mid = module.student(made.x, made.t, c, hint, return_dict=False)
        predicted, features = decode(unet, state, down, mid)
        terms = {"l_simple": losses.L_simple(made.target, predicted)}
        loss = terms["l_simple"]
        if edges is not None and bool(made.taught.any()):
            with torch.no_grad():
                down_T, mid_T = module.part("teacher")(made.x, made.t, c, edges, return_dict=False)
                taps = [*down_T, mid_T] if o["sail_tap"] == "residual" else decode(unet, state, down_T, mid_T)[1]
            own = [*down, mid] if o["sail_tap"] == "residual" else features
            gate = None if bool(made.taught.all()) else made.taught.to(predicted.device)
            terms["l_soft"] = losses.L_soft(taps, own, gate, o["sail_detached"])
            # Deviation: `nano` weighs the soft loss by 0.01.
            loss = losses.L_total(loss, terms["l_soft"], o["sail_weight"])
        minimize(loss)
    return terms


# --- starting and optimizing ----------------------------------------------------------------------------------------


def start(module: ECDM) -> None:
    """Puts the network that a stage trains where it starts; not for a training that is resumed.

    What is drawn is keyed by the seed of the data: processes agree.

    Raises:
        WeightsError: What it starts from is not here, or of other sizes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key("ecdm", "start", module.stage, _seed(module)))
        _start(module)


def _start(module: ECDM) -> None:
    from diffusers import ControlNetModel

    from zoo.models.ecdm.controlnet import initialize, warm_start

    o = module.options
    if module.stage not in ("teacher", "inpaint"):
        return
    learning = module.student if module.stage == "inpaint" else module.teacher
    if o["unlock_decoder"] and o["base"] and module.stage == "inpaint":
        module.unet.load_state_dict(hub.load("unet", o["base"]).state_dict())
    if module.stage == "inpaint" and o["base"] and o["student_source"]:
        published = hub.load("controlnet", o["student_source"])
        warm_start(learning, published.state_dict(), o["student_source"])
        return
    plain = ControlNetModel.from_unet(module.part("unet"), conditioning_embedding_out_channels=tuple(o["hint_widths"]))
    warm_start(learning, plain.state_dict(), "the UNet")
    initialize(learning, o["controlnet_init"])


def freeze(module: ECDM) -> None:
    """Lets only what the stage trains have gradients."""
    for name, network in module.named_children():
        network.requires_grad_(name in TRAINED[module.stage])
    if module.stage == "inpaint" and module.options["unlock_decoder"]:
        for network in unlocked(module):
            network.requires_grad_(True)


def unlocked(module: ECDM) -> list[nn.Module]:
    """The UNet's decoder."""
    return [module.unet.up_blocks, module.unet.conv_norm_out, module.unet.conv_out]


def optimizers(module: ECDM) -> dict[str, Optimizer]:
    """One, by the name of what it trains; with `muon_lr` its `matrices` have their own, which steps with it."""
    o, name = module.options, LEADING[module.stage]
    if module.stage == "autoencoder" and isinstance(module.part("codec"), PCACodec):
        return {name: SGD([module.fitted], lr=1.0)}
    rates = {"autoencoder": "codec_lr", "unet": "unet_lr", "teacher": "teacher_lr", "inpaint": "lr"}
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # Deviation: the matrices and kernels of what is trained from scratch are optimized by Muon.
    matrices = _matrices(module) if o["muon_lr"] > 0 else []
    ids = {id(parameter) for parameter in matrices}
    rest = [parameter for parameter in learning if id(parameter) not in ids]
    made: dict[str, Optimizer] = {name: AdamW(rest, lr=o[rates[module.stage]], weight_decay=o["weight_decay"])}
    return {**made, "matrices": Muon(matrices, o["muon_lr"], o["weight_decay"])} if matrices else made


def _matrices(module: ECDM) -> list[nn.Parameter]:
    """Trained matrices and kernels of eight rows and columns or more; no tables, whose rows are tokens."""
    tables = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Embedding)}
    large = [p for p in module.parameters() if p.ndim in (2, 4) and min(p.flatten(1).shape) >= 8]
    return [parameter for parameter in large if parameter.requires_grad and id(parameter) not in tables]


def factor(decay: str, step: int, total: int) -> float:
    """What the learning rate is multiplied by.

    Args:
        decay: `linear` or `cosine`; both end at zero.
        step: Steps taken.
        total: Steps of the training.
    """
    left = max(0.0, 1.0 - step / total)
    return left if decay == "linear" else 0.5 * (1.0 - math.cos(math.pi * left))


# --- validating -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def scores(module: ECDM, batch: Batch) -> Mapping[str, list[float]]:
    """Of the autoencoder, the PSNR of what it makes of images; of UNet and teacher, the squared error of the noise.

    Noise and time steps are keyed by the image: they are the same at each validation.
    """
    if module.stage == "autoencoder":
        codec = module.part("codec")
        made = (codec.decode(codec.encode(batch["image"] * 2.0 - 1.0)).clamp(-1.0, 1.0) + 1.0) / 2.0
        error = (to_uint8(made).double() - to_uint8(batch["image"]).double()).square().mean((1, 2, 3)) / 255.0**2
        return {"psnr": (-10.0 * error.clamp(min=1e-10).log10()).tolist()}
    made_noise = noised(module, batch["image"], Noise(batch["id"]))
    c = module.part("text")(batch["caption"])
    residuals: dict[str, Any] = {}
    if module.stage == "teacher":
        down, mid = module.teacher(made_noise.x, made_noise.t, c, _edges(batch), return_dict=False)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
    ε_θ = module.part("unet")(made_noise.x, made_noise.t, c, return_dict=False, **residuals)[0]
    if module.velocity_at is not None:
        ε_θ = noise_from(made_noise.x, module.alphas[made_noise.t], ε_θ.float())
    return {"noise_mse": (ε_θ.float() - made_noise.ε).square().mean((1, 2, 3)).tolist()}
