"""One method on one block of the work list: batches of constant shape in, rows out, whatever goes wrong.

A block is `batch_size` consecutive images. It is always computed whole and at full size: an image that is missing
(unreadable, past the end of the list) is replaced by a repeat of another whose result is dropped. So the shape that
the kernels see never changes, and a row has the same bits in any process, in any order and after any interruption.
"""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.batch import finish_batch
from zoo.benchmark import samples
from zoo.benchmark.edits import NAMES as MOVED
from zoo.benchmark.edits import movement
from zoo.benchmark.features import Measures, Pair
from zoo.benchmark.plan import MethodPlan, Plan
from zoo.benchmark.store import Row
from zoo.compose import to_uint8
from zoo.data.base import OWN, Judge
from zoo.errors import DataError, ZooError
from zoo.keyed import key
from zoo.metrics import per_image
from zoo.module import InpaintingModule

Item = dict[str, Any]


class Broken(NamedTuple):
    """An image that could not be read, in the place of its item."""

    id: str
    error: str


class Picture(NamedTuple):
    """What a row was measured on: H x W x 3 uint8 each."""

    composite: NDArray[np.uint8]
    truth: NDArray[np.uint8]


class Measured(NamedTuple):
    """A row, its picture, and features by extractor where the plan asks for some; a failure has neither."""

    row: Row
    picture: Picture | None
    features: dict[str, Pair] = {}  # noqa: RUF012 (of a tuple's field: never written to)


class Sample(NamedTuple):
    """One sample of one image: its composite, 3 H W uint8, and metrics."""

    composite: Tensor
    values: dict[str, float]


class Drawn(NamedTuple):
    """One sample of each image of a batch.

    Attributes:
        composite: B 3 H W uint8, on the CPU.
        values: Metrics, B values each.
        bad: For each image, how many values of the output were not finite.
    """

    composite: Tensor
    values: dict[str, list[float]]
    bad: list[int]

    def of(self, k: int) -> Sample:
        """The sample of one image of the batch."""
        return Sample(self.composite[k], {name: values[k] for name, values in self.values.items()})


def describe(error: BaseException) -> str:
    """An error in one line, for a row; what UTF-8 has no bytes for is escaped."""
    if isinstance(error, ZooError):
        line = f"{error.what} ({error.where})" if error.where else error.what
        line += f"; {error.remedy}" if error.remedy else ""
    else:
        line = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    return line.encode("utf-8", "backslashreplace").decode()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


@dataclass
class Bench:
    """A method set up to be measured.

    Attributes:
        plan: The plan.
        method: The method's part of it.
        module: The method, on `device`, in evaluation mode.
        device: Where it runs.
        autocast: Makes the context of the plan's precision.
        judge: What the dataset says of a composite, or None.
        measures: The metrics that were asked for besides those of every run, or None.
        capacity: Images that fit into memory at once; halved when it runs out, and the rows say so.
    """

    plan: Plan
    method: MethodPlan
    module: InpaintingModule
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    judge: Judge | None = None
    measures: Measures | None = None
    capacity: int = field(default=0)
    _ids: list[str] = field(default_factory=list, init=False)
    _first: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.capacity = self.capacity or self.plan.batch_size

    def measure(self, items: Sequence[Item | Broken]) -> list[Measured]:
        """The rows of a block, in its order.

        Args:
            items: At most `batch_size` items of `zoo.data.masked`, or `Broken` ones.
        """
        results: dict[int, Measured] = {}
        self._ids = [item.id if isinstance(item, Broken) else item["id"] for item in items]
        for place, item in enumerate(items):
            if isinstance(item, Broken):
                results[place] = failure(self.plan, self.method, item.id, item.error)
            elif missing := sorted((self.wanted() & {"caption", "segmentation"}) - item.keys()):
                text = f"the image has no {', '.join(missing)}, which the method needs"
                results[place] = failure(self.plan, self.method, item["id"], text, item)
        good = [place for place in range(len(items)) if place not in results]
        if good:
            slots = [items[place if place in good else good[0]] for place in range(len(items))]
            slots += [items[good[0]]] * (self.plan.batch_size - len(items))
            results |= self._attempt(slots, good)  # type: ignore[arg-type]
        return [results[place] for place in range(len(items))]

    def _attempt(self, slots: list[Item], good: list[int]) -> dict[int, Measured]:
        """Measures the good places of a block; one by one where the block as a whole raises."""
        try:
            return self._compute(slots, good)
        except Exception as error:
            if len(good) == 1:
                return {good[0]: failure(self.plan, self.method, slots[good[0]]["id"], describe(error), slots[good[0]])}
        results: dict[int, Measured] = {}
        for place in good:
            # The image keeps its place among repeats of itself: the same shape, so the same bits as in its block.
            results |= self._attempt([slots[place]] * len(slots), [place])
        return results

    def _compute(self, slots: list[Item], good: list[int]) -> dict[int, Measured]:
        """Completes a full block, in parts where memory does not hold it, and measures its good places."""
        before = self.capacity
        while True:
            try:
                capacity = self.capacity
                parts = [slots[i : i + capacity] for i in range(0, len(slots), capacity)]
                results: dict[int, Measured] = {}
                for number, part in enumerate(parts):
                    full = part + [part[0]] * (capacity - len(part))
                    places = [p for p in good if number * capacity <= p < number * capacity + len(part)]
                    if places:
                        results |= self._part(full, places, number * capacity)
                return results
            except Exception as error:
                if not out_of_memory(error) or self.capacity == 1:
                    self.capacity = before  # a smaller one did not help, and would change the other images' bits
                    raise
                self.capacity //= 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _part(self, items: list[Item], places: list[int], offset: int) -> dict[int, Measured]:
        self._first = self._ids[offset]  # also where it cannot be read: the others' bits must not tell
        started = time.perf_counter()
        raw, image, truth, mask = self.complete(items, self.plan.seed)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = (time.perf_counter() - started) / len(items)
        composite = to_uint8(image)
        values = {name: value.cpu() for name, value in per_image(composite, truth, mask, raw).items()}
        values |= self._movement(items, composite)
        features: list[dict[str, Pair]] = [{} for _ in items]
        if self.measures is not None:
            captions = [item.get("caption", "") for item in items]
            asked = self.measures.values(composite, truth, mask, captions)
            values |= {name: value.cpu() for name, value in asked.items()}
            features = self.measures.features(composite, truth, [item["id"] for item in items])
        bad = _not_finite(image)
        drawn = self._draw(items)
        pictures = [x.permute(0, 2, 3, 1).contiguous().cpu().numpy() for x in (composite, truth)]
        holes = mask[:, 0].to(torch.uint8).cpu().numpy()
        results = {}
        for place in places:
            k, item = place - offset, items[place - offset]
            flawed = [("the output", bad[k]), *((f"sample {seed}", one.bad[k]) for seed, one in enumerate(drawn, 1))]
            if text := next((f"{what} has {n} values that are not finite" for what, n in flawed if n), ""):
                results[place] = failure(self.plan, self.method, item["id"], text, item)
                continue
            picture = Picture(pictures[0][k], pictures[1][k])
            try:
                verdict = self._judged(item, picture.composite, holes[k])
                several = {samples.KEY: self._sampled(item, [one.of(k) for one in drawn], holes[k])} if drawn else {}
            except Exception as error:
                results[place] = failure(self.plan, self.method, item["id"], f"judge: {describe(error)}", item)
                continue
            numbers = {name: float(value[k]) for name, value in values.items()} | verdict
            row = self._row(item, numbers, float(holes[k].mean()), seconds, verdict)
            row |= {"image_hash": _digest(picture.truth), "mask_hash": _digest(holes[k]), **several}
            results[place] = Measured(row, picture, features[k])
        return results

    def _draw(self, items: list[Item]) -> list[Drawn]:
        """The samples that the plan asks for, with seeds 1, 2, ...; none of a method that is not stochastic."""
        drawn: list[Drawn] = []
        if not self.module.stochastic:
            return drawn
        for seed in range(1, self.plan.samples + 1):
            with self.module.sampling():
                _, image, truth, mask = self.complete(items, seed)
            composite = to_uint8(image)
            values = {k: v.tolist() for k, v in per_image(composite, truth, mask).items() if k in samples.MEASURED}
            drawn.append(Drawn(composite.cpu(), values, _not_finite(image)))
        return drawn

    def _movement(self, items: list[Item], composite: Tensor) -> dict[str, Tensor]:
        """Where captions are edited: how far the composites are from those with the images' own captions."""
        if self.plan.captions == OWN:
            return {}
        own = [{**item, "caption": item["own_caption"]} if "caption" in item else item for item in items]
        _, image, _, mask = self.complete(own, self.plan.seed)
        lost = torch.tensor([bool(item.get("unedited", True)) for item in items])
        lost |= torch.tensor(_not_finite(image)) > 0
        moved = movement(composite, to_uint8(image), mask)
        return {name: value.masked_fill(lost, math.nan) for name, value in moved.items()}

    def _sampled(self, item: Item, several: Sequence[Sample], hole: NDArray[np.uint8]) -> dict[str, Any]:
        """What the row of an image stores of its samples."""
        judged = [self._judged(item, one.composite.permute(1, 2, 0).contiguous().numpy(), hole) for one in several]
        values = [one.values | verdict for one, verdict in zip(several, judged, strict=True)]
        composites = torch.stack([one.composite for one in several])
        return samples.digest(values, samples.diversity(composites, torch.from_numpy(hole).bool()))

    def _judged(self, item: Item, composite: NDArray[np.uint8], hole: NDArray[np.uint8]) -> dict[str, float]:
        """What the judge says; nothing is to be said of an image whose caption was to be edited and could not be."""
        if self.judge is None:
            return {}
        if self.plan.captions == OWN:
            return self.judge(item["id"], composite, hole)
        verdict = self.judge(item["id"], composite, hole, item.get("caption", ""))
        if item.get("unedited", True):
            return {name: value if name == "objects" else math.nan for name, value in verdict.items()}
        return verdict

    def wanted(self) -> frozenset[str]:
        """The keys of the batch that the method is given, besides image and mask."""
        return self.module.needs | (self.module.uses & set(self.plan.guidance))

    @torch.no_grad()
    def complete(self, items: list[Item], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Raw output, composite (floats), truth (uint8) and mask of a batch, all on the device."""
        from zoo.data.masked import collate

        wanted = {"id", "image", "mask"} | (self.wanted() & {"caption", "segmentation"})
        batch = collate([{name: item[name] for name in sorted(wanted)} for item in items])
        batch = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        truth = batch["image"]
        finished = finish_batch(batch)
        if "edge" in self.wanted():
            from zoo.data.edges import canny

            finished["edge"] = canny(finished["image"])
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            # A method that draws from the global generator instead of `noise` is repeatable all the same.
            torch.manual_seed(key("benchmark", seed, self._first or items[0]["id"]))
            with self.autocast():
                completed = self.module.complete(finished, seed, self.plan.guidance)
        raw, image = completed.raw.float(), completed.image.float()
        if raw.shape != truth.shape or image.shape != truth.shape:
            raise DataError(f"the method returned {tuple(raw.shape)} and {tuple(image.shape)} for {tuple(truth.shape)}")
        return raw, image, truth, finished["mask"]

    def _row(self, item: Item, numbers: dict[str, float], ratio: float, seconds: float, judged: Collection[str]) -> Row:
        row = identity(self.plan, self.method, item["id"], item)
        objects = numbers.pop("objects", None)
        row |= {"objects": None if objects is None else int(objects), "hole_ratio": round(ratio, 6)}
        if self.capacity != self.plan.batch_size:
            row["batch"] = self.capacity
        undefined = {}
        for name, value in numbers.items():
            row[name] = value if math.isfinite(value) else None
            if math.isfinite(value):
                continue
            unedited = item.get("unedited")
            if unedited and (name in judged or name in MOVED):
                undefined[name] = f"unedited: {unedited}"
            elif name in judged and math.isnan(value):
                undefined[name] = "the caption asks for nothing to be judged"
            elif (name.startswith("clip") or name in MOVED) and not item.get("caption", "").strip():
                undefined[name] = "there is no caption"
            else:
                undefined[name] = "the mask has no hole" if ratio == 0 else f"not finite ({value})"
        if undefined:
            row["undefined"] = undefined
        return row | {"seconds": round(seconds, 6), "at": now(), "peak_mb": peak_mb(self.device)}


def identity(plan: Plan, method: MethodPlan, sample: str, item: Item | None = None) -> Row:
    """What a row is about."""
    row = {
        "id": sample,
        "method": method.label,
        "preset": method.preset,
        "trained_on": method.trained_on,
        "weights": method.weights_sha256,
        "mask": plan.mask,
        "mask_seed": plan.mask_seed,
        "caption": (item or {}).get("caption", ""),
        "seed": plan.seed,
        "guidance": list(plan.guidance),
    }
    if plan.captions != OWN:
        row["captions"] = plan.captions
        if item and item.get("unedited"):
            row["unedited"] = item["unedited"]
    return row


def failure(plan: Plan, method: MethodPlan, sample: str, error: str, item: Item | None = None) -> Measured:
    """The row of an image that a method did not complete."""
    return Measured(identity(plan, method, sample, item) | {"error": error, "at": now()}, None)


def _not_finite(image: Tensor) -> list[int]:
    """How many values of each image of a batch are not finite."""
    counts: list[int] = (~image.isfinite()).flatten(1).sum(1).tolist()
    return counts


def _digest(pixels: NDArray[np.uint8]) -> str:
    """A short hash of pixels: rows of one image must have been measured on the same ones."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=8).hexdigest()


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def peak_mb(device: torch.device) -> int:
    """The most memory so far, in megabytes: of the device, or of this process on the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device) / 1e6)
    if sys.platform == "win32":
        return 0  # the standard library cannot tell
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6)
