"""How the second stage of MMInvertFill is optimized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from zoo.layers.muon import Muon

if TYPE_CHECKING:
    from zoo.models.mminvertfill.module import MMInvertFill


def optimizers(module: MMInvertFill) -> dict[str, Optimizer]:
    """`inverter` leads; with `muon_lr` its matrices have their own, which steps with it; then the discriminator's."""
    o = module.options
    betas = (o["betas"][0], o["betas"][1])
    # Deviation: the matrices and kernels of what is trained from scratch are optimized by Muon.
    matrices = module.inverter.matrices() if o["muon_lr"] > 0 else []
    ids = {id(p) for p in matrices}
    trained = [p for net in (module.inverter, module.generator) for p in net.parameters() if p.requires_grad]
    made: dict[str, Optimizer] = {"inverter": Adam([p for p in trained if id(p) not in ids], o["lr"], betas)}
    if matrices:
        made["matrices"] = Muon(matrices, o["muon_lr"])
    if o["w_adv"] > 0:
        made["critic"] = Adam(module.critic.parameters(), o["critic_lr"], betas)
    return made


def schedulers(module: MMInvertFill) -> dict[str, LRScheduler]:
    """With `decay: linear` all rates but the discriminator's fall to zero."""
    if module.options["decay"] == "constant":
        return {}
    total = module.total_iterations()
    falling = [name for name in module.by_name if name != "critic"]
    return {name: LambdaLR(module.by_name[name], lambda step: max(0.0, 1.0 - step / total)) for name in falling}
