"""The match loss and its gradient over two processes, saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from zoo.errors import UsageError
from zoo.models.nigdt.gather import Codes, gather, keys
from zoo.models.nigdt.losses import match

BATCH, WIDTH, REGIONS, PLACES = 6, 5, 4, 7
IDS = ["a", "b", "c", "a", "d", "b"]  # two images twice, in different halves: only gathered ids show it


class Heads(nn.Module):
    """Images and captions, plain vectors here, to codes."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, image: Tensor, text: Tensor, known: Tensor, key: Tensor) -> Codes:
        """Image B N c and text B T c to codes."""
        regions, words = self.image(image), self.text(text)
        return Codes(regions.mT, regions.mean(1), words.mT, words.mean(1), known, key)


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Six images with captions of different length."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(BATCH, REGIONS, WIDTH, generator=generator)
    text = torch.randn(BATCH, PLACES, WIDTH, generator=generator)
    lengths = torch.tensor([7, 1, 3, 5, 2, 6])
    return image, text, torch.arange(PLACES) < lengths[:, None], keys(IDS)


def gradients(heads: nn.Module, part: slice, gathered: bool) -> dict[str, Any]:
    """The loss of a part of the batch and the gradient of each parameter."""
    heads.zero_grad()
    codes = heads(*(x[part] for x in batch()))
    losses = match(gather(codes) if gathered else codes)
    sum(losses).backward()  # type: ignore[union-attr]
    found = {name.removeprefix("module."): p.grad.clone() for name, p in heads.named_parameters() if p.grad is not None}
    return {"losses": torch.stack(losses).detach(), "gradients": found}


def refusal(rank: int) -> str:
    """What is said where the processes' batches differ in size."""
    try:
        gather(Heads()(*(x[: 2 + rank] for x in batch())))
    except UsageError as error:
        return str(error)
    return ""


def heads() -> Heads:
    """The same network in every process."""
    torch.manual_seed(0)
    return Heads()


def work(rank: int, folder: str) -> None:
    """One process: takes its half of the batch and saves what it found."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    network = DistributedDataParallel(heads())
    part = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
    codes = heads()(*(x[part] for x in batch()))
    half = gather(Codes(*(x.bfloat16() for x in codes[:4]), *codes[4:]))
    found = {
        "whole": gradients(network, part, gathered=True),
        "apart": gradients(network, part, gathered=False),
        "dtypes": [str(x.dtype) for x in half],
        "refusal": refusal(rank),
    }
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def two(folder: Path) -> None:
    """Forks them."""
    torch.multiprocessing.start_processes(work, (str(folder),), 2, start_method="fork")
