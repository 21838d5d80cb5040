"""What frozen networks make of images and captions that come again, kept in the memory of a process.

Of a training step with published networks the autoencoder's encoder is a quarter (at 512 pixels), and it sees the same
images in each epoch. What is kept is the posterior of the latents, which are drawn anew each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.errors import UsageError
from zoo.models.ecdm.codecs import Codec

_SAME = 1e-5  # of sums over one image in batches of different size


class Cache:
    """Posteriors by image and encoded captions, as long as there is room; what is not kept is computed anew.

    A copy of a module, as for a moving average of its weights, shares it.

    Args:
        gib: How much may be kept, GiB; 0 keeps nothing.
    """

    def __init__(self, gib: float = 0.0) -> None:
        self.room = int(gib * 2**30)
        self._posteriors: dict[str, Tensor] = {}
        self._marks: dict[str, float] = {}
        self._captions: dict[str, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Cache:
        return self

    def posterior(self, codec: Codec, ids: Sequence[str], image: Tensor) -> Tensor:
        """What `codec.draw` draws latents from, on the images' device.

        Args:
            codec: Frozen.
            ids: B ids of samples.
            image: B 3 H W in [0, 1], of which an id has always the same.

        Raises:
            UsageError: An image is another one than before under this id.
        """
        if not self.room and not self._posteriors:
            return codec.posterior_of(image * 2.0 - 1.0)
        marks = _marks(image)
        for name, mark in zip(ids, marks, strict=True):
            if abs(self._marks.setdefault(name, mark) - mark) > _SAME:
                what = f"the image '{name}' is not the one it was before: what is made of it cannot be kept"
                raise UsageError(what, remedy="no augmentation of images, or no cache (--model.cache 0)")
        return self._recalled(
            self._posteriors, ids, lambda rows: codec.posterior_of(image[rows] * 2.0 - 1.0), image.device
        )

    def prompts(self, encoder: Callable[[Sequence[str]], Tensor], captions: Sequence[str], device: Any) -> Tensor:
        """Encoded captions, B T c.

        Args:
            encoder: Frozen.
            captions: B captions.
            device: Where the result is to be.
        """
        if not self.room and not self._captions:
            return encoder(captions)
        return self._recalled(self._captions, captions, lambda rows: encoder([captions[row] for row in rows]), device)

    def _recalled(
        self, kept: dict[str, Tensor], names: Sequence[str], compute: Callable[[list[int]], Tensor], device: Any
    ) -> Tensor:
        """One row for each name: the kept ones, and the others computed together, and kept while there is room."""
        lacking = [row for row, name in enumerate(names) if name not in kept]
        found = {row: kept[name].to(device) for row, name in enumerate(names) if name in kept}
        for row, fresh in zip(lacking, compute(lacking) if lacking else [], strict=True):
            found[row] = fresh
            size = fresh.numel() * fresh.element_size()
            if names[row] not in kept and size <= self.room:
                self.room -= size
                kept[names[row]] = fresh.detach().to("cpu", copy=True)
        return torch.stack([found[row] for row in range(len(names))])


def _marks(image: Tensor) -> list[float]:
    """A number of each image, another one where it is flipped or cropped."""
    height, width = image.shape[-2:]
    across = torch.linspace(0.0, 1.0, width, device=image.device)
    down = torch.linspace(0.0, 2.0, height, device=image.device)[:, None]
    marks: list[float] = (image.float() * (across + down)).mean((1, 2, 3)).tolist()
    return marks
