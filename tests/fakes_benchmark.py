"""A small dataset and methods that misbehave in known ways, for the tests of the benchmark. Reached by dotted path."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.batch import Batch
from zoo.data.base import ObjectRule, Sample
from zoo.errors import DataError
from zoo.keyed import Noise, key, numpy_generator
from zoo.module import InpaintingModule

DATA = "tests.fakes_benchmark:Dots"


class Dots:
    """Random smooth images with a caption.

    `broken` lists indices that cannot be read, `deadly` those that end a loader's process. `silent`: no captions.
    """

    name: ClassVar[str] = "dots"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = "made here"
    classes: tuple[str, ...] = ()

    def __init__(
        self,
        split: str = "test",
        size: int = 24,
        count: int | None = None,
        root: str | Path | None = None,
        broken: str = "",
        deadly: str = "",
        silent: bool = False,
    ) -> None:
        self.size, self.count, self.silent = size, count or 21, silent
        self.broken, self.deadly = ({int(index) for index in text.split(",") if index} for text in (broken, deadly))

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"image"} if self.silent else {"image", "caption"})

    @property
    def ids(self) -> Sequence[str]:
        return [f"dots/{index}" for index in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int) -> Sample:
        if index in self.broken and not os.environ.get("DOTS_MENDED"):
            raise DataError("the file is damaged", where=f"dots/{index}", remedy="get it again")
        if index in self.deadly and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        draw = numpy_generator("dots", index)
        coarse = draw.integers(0, 256, (4, 4, 3))
        image = np.kron(coarse, np.ones((self.size // 4, self.size // 4, 1))).astype(np.uint8)
        captions = () if self.silent else (f"a <script>alert({index})</script> & dots",)
        return Sample(id=f"dots/{index}", image=image, captions=captions)

    def judge(self, sample_id: str, composite: NDArray[np.uint8], mask: NDArray[np.uint8]) -> dict[str, float]:
        index = int(sample_id.rpartition("/")[2])
        return {"colour_fidelity": float(composite.mean() > 127), "objects": 1 + index % 3} if index % 4 else {}


class Fake(InpaintingModule):
    """No weights; subclasses say what happens."""

    trainable: ClassVar[bool] = False

    def __init__(self, size: int = 24, strength: float = 1.0) -> None:
        super().__init__(size=size, multiple=4)
        self.save_hyperparameters()
        self.strength = strength

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        return batch["image"] * self.strength


class Mixing(Fake):
    """A real network with fixed weights and noise, whose last bits depend on shapes as those of any network do."""

    def __init__(self, size: int = 24, strength: float = 1.0) -> None:
        super().__init__(size, strength)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = nn.Sequential(nn.Conv2d(4, 32, 5, padding=2), nn.ELU(), nn.Conv2d(32, 3, 5, padding=2))

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        raw = self.network(torch.cat([batch["image"], batch["mask"]], 1))
        raw = raw + 0.05 * noise.normal("latent", raw.shape[1:], raw.device)
        return torch.sigmoid(raw + 0.05 * torch.rand(1)[0])  # the global generator too


class Deadly(Mixing):
    """Ends the process on one image, where that is one that another has started."""

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        if "dots/9" in batch["id"] and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().inpaint(batch, noise)


class Crashing(Mixing):
    """Raises on two images."""

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        if {"dots/3", "dots/8"} & set(batch["id"]):
            raise RuntimeError("no idea what this is\nsecond line")
        return super().inpaint(batch, noise)


class NotANumber(Mixing):
    """NaN in the hole of one image."""

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        raw = super().inpaint(batch, noise)
        for place, sample in enumerate(batch["id"]):
            if sample == "dots/5":
                raw[place] = float("nan")
        return raw


class Hungry(Mixing):
    """Has memory for two images at a time."""

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        if len(batch["id"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        return super().inpaint(batch, noise)


class Exhausted(Mixing):
    """Has no memory for two images, on the device and on the host, however few there are at a time."""

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        if "dots/2" in batch["id"]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        if "dots/13" in batch["id"]:
            raise MemoryError("no more")
        return super().inpaint(batch, noise)


class Unloadable(Fake):
    """Cannot be made."""

    def __init__(self, size: int = 24) -> None:
        raise OSError("a file of mine is gone")


class Reader(Fake):
    """Needs a caption."""

    needs: ClassVar[frozenset[str]] = frozenset({"image", "mask", "caption"})


class Trained(Mixing):
    """A network whose weights come from a file."""

    trainable: ClassVar[bool] = True


class Drawing(Mixing):
    """Gives its mean unless `k` scales a deviation: inside `sampling()`, or where the constructor is told so."""

    stochastic: ClassVar[bool] = True

    def __init__(self, size: int = 24, strength: float = 1.0, k: float = 0.0) -> None:
        super().__init__(size, strength)
        self.k = k

    @contextmanager
    def sampling(self) -> Iterator[None]:
        before, self.k = self.k, self.k or 1.0
        try:
            yield
        finally:
            self.k = before

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        raw = self.network(torch.cat([batch["image"], batch["mask"]], 1))
        return torch.sigmoid(raw + self.k * noise.normal("latent", (3, 1, 1), raw.device))


class FlawedDrawing(Drawing):
    """NaN in the second sample of one image, and an error in the third of another."""

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        if self.k and noise.seed == 3 and "dots/8" in batch["id"]:
            raise RuntimeError("no paint left")
        bad = [self.k > 0 and noise.seed == 2 and sample == "dots/5" for sample in batch["id"]]
        return super().inpaint(batch, noise).masked_fill(torch.tensor(bad)[:, None, None, None], float("nan"))


class TrainedDrawing(Drawing):
    """The same with weights from a file."""

    trainable: ClassVar[bool] = True


class Obedient(Fake):
    """Knows the scenes of `shapes` and paints the removed object in a colour of its caption that is not to be seen."""

    needs: ClassVar[frozenset[str]] = frozenset({"image", "mask", "caption"})
    read: ClassVar[tuple[str, ...]] = ("colour",)

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        size = batch["image"].shape[-1]
        cases = zip(batch["id"], batch["caption"], batch["mask"][:, 0].numpy(), strict=True)
        return torch.stack([self._paint(sample, caption, mask, size) for sample, caption, mask in cases])

    def _paint(self, sample: str, caption: str, mask: NDArray[np.float32], size: int) -> Tensor:
        from zoo.data.shapes.colour import COLOURS
        from zoo.data.shapes.draw import draw, supports
        from zoo.data.shapes.geometry import SHAPES
        from zoo.data.shapes.judge import removed_object
        from zoo.data.shapes.scene import draw_scene

        scene = draw_scene("test", int(sample.rpartition("/")[2]))
        removed = removed_object(supports(scene, size), mask.astype(np.uint8))
        assert removed is not None
        objects, changes = list(scene.objects), {}
        for attribute, values in {"colour": COLOURS, "shape": SHAPES}.items():
            seen = {getattr(obj, attribute) for place, obj in enumerate(objects) if place != removed}
            asked = [word for word in caption.split() if word in values and word not in seen]
            if asked and attribute in self.read:
                changes[attribute] = asked[0]
        objects[removed] = replace(objects[removed], **changes)
        image, _ = draw(replace(scene, objects=tuple(objects)), size)
        return torch.from_numpy(image).permute(2, 0, 1) / 255


class Naming(Obedient):
    """Reads the noun of its caption too, and no fill."""

    read: ClassVar[tuple[str, ...]] = ("colour", "shape")


class Spelling(Fake):
    """Paints one colour, which any change of its caption changes."""

    needs: ClassVar[frozenset[str]] = frozenset({"image", "mask", "caption"})

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        levels = [[key(caption, channel) % 256 / 255 for channel in range(3)] for caption in batch["caption"]]
        return torch.tensor(levels)[:, :, None, None].expand_as(batch["image"])


class Leaking(Fake):
    """Reads no caption, but remembers: no two calls in a row give the same."""

    calls = 0

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        self.calls += 1
        return batch["image"] * 0.5 + 0.1 * (self.calls % 2)


class Moody(Obedient):
    """Obeys its caption, but in half of its samples paints nothing."""

    stochastic: ClassVar[bool] = True
    moody = False

    @contextmanager
    def sampling(self) -> Iterator[None]:
        self.moody = True
        try:
            yield
        finally:
            self.moody = False

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        painted = super().inpaint(batch, noise)
        if not self.moody:
            return painted
        made = torch.where(noise.uniform("mood", (1, 1, 1)) < 0.5, painted, batch["image"])
        return made * (1 - 0.1 * noise.uniform("light", (1, 1, 1)))
