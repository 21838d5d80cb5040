"""The first stage: StyleGAN2's game between generator and discriminator (Karras et al. 2020, Sec. B), without masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from zoo.batch import Batch
from zoo.models.mminvertfill import stylegan_losses as losses

if TYPE_CHECKING:
    from zoo.models.mminvertfill.module import MMInvertFill


def lazy(lr: float, betas: tuple[float, float], every: int) -> tuple[float, tuple[float, float]]:
    """Learning rate and betas of a network whose regulariser comes every `every` iterations only; 0: never."""
    c = every / (every + 1) if every else 1.0
    return lr * c, (betas[0] ** c, betas[1] ** c)


def optimizers(module: MMInvertFill) -> dict[str, Optimizer]:
    """`generator` leads; `style_critic` is the discriminator's."""
    o: Mapping[str, Any] = module.options
    betas = (o["style_betas"][0], o["style_betas"][1])
    made: dict[str, Optimizer] = {}
    for name, weight, every in (("generator", o["pl"], o["pl_every"]), ("style_critic", o["r1"], o["r1_every"])):
        rate, momenta = lazy(o["style_lr"], betas, every if weight > 0 else 0)
        made[name] = Adam(getattr(module, name).parameters(), rate, momenta)
    return made


def step(module: MMInvertFill, batch: Batch) -> dict[str, Tensor]:
    """One iteration: the discriminator, then the generator, each with its regulariser where it is due.

    Returns:
        The terms, for the log.
    """
    o, G, D, iteration = module.options, module.generator, module.style_critic, module.iteration
    x = batch["image"] * 2.0 - 1.0
    if o["mirror"]:
        x = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)
    terms: dict[str, Tensor] = {}
    with module.turn("style_critic") as minimize:
        with torch.no_grad():
            G_z = G.synthesize(styles(module, len(x)), G.fresh_noise(len(x), x.device))
        terms["l_d"] = losses.logistic_discriminator(D(x), D(G_z))
        loss = terms["l_d"]
        if o["r1"] > 0 and iteration % o["r1_every"] == 0:
            with torch.autocast(x.device.type, enabled=False):
                x = x.detach().requires_grad_(True)
                terms["R1"] = losses.R1(D(x), x, o["r1"])
            loss = loss + o["r1_every"] * terms["R1"]
        minimize(loss)
    with module.turn("generator") as minimize:
        G_z = G.synthesize(styles(module, len(x)), G.fresh_noise(len(x), x.device))
        terms["l_g"] = losses.logistic_generator(D(G_z))
        loss = terms["l_g"]
        if o["pl"] > 0 and iteration % o["pl_every"] == 0:
            terms["pl"] = _path_length(module, max(1, len(x) // 2))
            loss = loss + o["pl"] * o["pl_every"] * terms["pl"]
        minimize(loss)
    return terms


def _path_length(module: MMInvertFill, count: int) -> Tensor:
    G = module.generator
    with torch.autocast(module.device.type, enabled=False):
        w = styles(module, count)
        g_w = G.synthesize(w, G.fresh_noise(count, module.device))
        penalty, a = losses.path_length(g_w, w, module.path_mean)
    module.path_mean.copy_(a.detach())
    return penalty


def styles(module: MMInvertFill, count: int) -> Tensor:
    """w, B L w, of new z; from a random style on of another z in a share `mixing` of the calls."""
    G, device = module.generator, module.device
    z = torch.randn(count, G.w, device=device)
    if float(torch.rand(())) >= module.options["mixing"]:
        return G.mix(z)
    other, crossover = torch.randn(count, G.w, device=device), int(torch.randint(1, G.styles, ()))
    return G.mix(z, other, crossover)


@torch.no_grad()
def scores(module: MMInvertFill, batch: Batch) -> dict[str, list[float]]:
    """The discriminator's scores of images it was not trained on, and of as many that are generated.

    Far apart, the discriminator has won; scores of unseen images near those of generated ones, it has learnt the
    training set by heart (Karras et al. 2020, ADA).
    """
    G, D = module.generator, module.style_critic
    x = batch["image"] * 2.0 - 1.0
    G_z = G.synthesize(G.mix(torch.randn(len(x), G.w, device=x.device)), G.fixed_noise())
    return {"score_real": D(x).flatten().tolist(), "score_made": D(G_z).flatten().tolist()}
