"""Random numbers keyed by identity (seed, sample id, purpose), never by position in a stream.

Whatever is drawn for a sample depends on what the sample is, and not on the batch size, the order, the rank, the number
of workers or which other samples were drawn. Keys are hashed with blake2b: Python's `hash` is salted per process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # masks and their names are wanted where torch, which takes seconds to import, is not
    import torch
    from torch import Tensor

Part = str | int | float | bool | None


def key(*parts: Part) -> int:
    """A 63-bit integer for a tuple of names and numbers, the same in every process and on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def integers(count: int, *parts: Part) -> list[int]:
    """Integers uniform in [0, 65536), keyed by `parts`: the 16-bit words of SHAKE-128.

    For a short list several times quicker than building a generator, and bound to no library's version.
    """
    stream = hashlib.shake_128(repr(parts).encode()).digest(2 * count)
    words: list[int] = np.frombuffer(stream, "<u2").tolist()
    return words


def numpy_generator(*parts: Part) -> np.random.Generator:
    """A NumPy generator keyed by `parts` (Philox, seeded by the hash)."""
    return np.random.Generator(np.random.Philox(key=key(*parts)))


def torch_generator(*parts: Part) -> torch.Generator:
    """A CPU generator of torch keyed by `parts`; draw on the CPU and move: every device then sees the same numbers."""
    import torch

    return torch.Generator().manual_seed(key(*parts))


def permutation(length: int, *parts: Part) -> list[int]:
    """The indices 0..length-1 in an order keyed by `parts`."""
    order: list[int] = numpy_generator(*parts).permutation(length).tolist()
    return order


class Noise:
    """Gaussian and uniform noise with one generator per sample, keyed (seed, id, purpose).

    Args:
        ids: The ids of the samples of a batch, in order.
        seed: The seed of the run; another seed gives another completion of the same image.
    """

    def __init__(self, ids: Sequence[str], seed: int = 0) -> None:
        self.ids, self.seed = list(ids), seed

    def normal(self, purpose: str, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Standard normal noise, B x `shape`, float32.

        Args:
            purpose: What it is for; two purposes are independent ("latent", "step 12").
            shape: The shape of one sample's noise.
            device: Where to put it; it is drawn on the CPU.
        """
        import torch

        draws = [torch.randn(*shape, generator=self._generator(i, purpose)) for i in self.ids]
        return torch.stack(draws).to(device)

    def uniform(self, purpose: str, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Noise uniform in [0, 1), B x `shape`, float32."""
        import torch

        draws = [torch.rand(*shape, generator=self._generator(i, purpose)) for i in self.ids]
        return torch.stack(draws).to(device)

    def _generator(self, sample: str, purpose: str) -> torch.Generator:
        return torch_generator("noise", self.seed, sample, purpose)
