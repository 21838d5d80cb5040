"""The metrics that were asked for, set up on a device: values per image, and features for the metrics of sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.errors import WeightsError
from zoo.metrics import stand_in
from zoo.metrics.asked import Asked
from zoo.metrics.definitions import DEFINITIONS, STAND_IN
from zoo.metrics.definitions_learned import PER_IMAGE, PROTOCOLS
from zoo.metrics.inception import Inception
from zoo.metrics.perceptual import Dists, Lpips
from zoo.metrics.sets import extractor_of
from zoo.metrics.sources import Located, locate
from zoo.metrics.store import Extractor
from zoo.metrics.tdanet import protocols
from zoo.metrics.text import ClipScore

MAKERS = ("weights", "torch-fidelity", "pillow")
"""Of a metric's facts, those that its features depend on."""

Values = dict[str, Tensor]
Measure = Callable[[Tensor, Tensor, Tensor, Sequence[str]], Values]


class Suite:
    """What was asked for and can be taken.

    Args:
        asked: The result of `ask`; its files are read again, and checked.
        device: Where the networks run.

    Attributes:
        image_names: Metrics of images, in the order of `asked.names`.
        set_names: Metrics of sets, in that order.
        extractors: What makes the features that `set_names` need, by name.

    Raises:
        WeightsError: A file is gone, or has changed since.
    """

    def __init__(self, asked: Asked, device: torch.device | str = "cpu") -> None:
        self.asked, self.device = asked, torch.device(device)
        self.image_names = tuple(n for n in asked.names if DEFINITIONS[n.removesuffix(STAND_IN)].of == "image")
        self.set_names = tuple(n for n in asked.names if n not in self.image_names)
        self._measures: list[Measure] = [*self._protocols(), *self._perceptual(), *self._clip(), *self._stand_ins()]
        self._networks: dict[str, nn.Module] = {}
        self.extractors: dict[str, Extractor] = {}
        for name in self.set_names:
            self._add_extractor(name)

    def measure(self, composite: Tensor, truth: Tensor, mask: Tensor, captions: Sequence[str]) -> Values:
        """The metrics of each image of a batch.

        Args:
            composite: B 3 H W uint8; sides of at least 32 pixels where a feature network is asked for.
            truth: B 3 H W uint8.
            mask: B 1 H W in {0, 1}, 1 = hole.
            captions: The captions that the method was given, empty where there is none.

        Returns:
            `image_names` in order, each with B values, float64, on the device; NaN where a value is undefined.

        Raises:
            DataError: Shapes or types differ from the above.
        """
        composite, truth, mask = (x.to(self.device) for x in (composite, truth, mask))
        found: Values = {}
        for measure in self._measures:
            found |= measure(composite, truth, mask, captions)
        return {name: found[name] for name in self.image_names}

    def features(self, image: Tensor) -> dict[str, NDArray[np.float32]]:
        """Features of a batch by every extractor, B x D each.

        Args:
            image: B 3 H W uint8, truths or composites.
        """
        image = image.to(self.device)
        return {name: network(image).float().cpu().numpy() for name, network in self._networks.items()}

    def _protocols(self) -> list[Measure]:
        if not set(self.image_names) & set(PROTOCOLS):
            return []
        return [lambda composite, truth, mask, captions: protocols(composite, truth)]

    def _perceptual(self) -> list[Measure]:
        networks: list[nn.Module] = []
        for net, key in (("alex", "alexnet"), ("vgg", "vgg16")):
            if any(name in self.image_names for name in (f"lpips_{net}", f"lpips_{net}_hole")):
                networks.append(Lpips(net, self._file(key).path))  # type: ignore[arg-type]
        if "dists" in self.image_names:
            networks.append(Dists(self._file("vgg16").path))
        return [_without_captions(network.to(self.device)) for network in networks]

    def _clip(self) -> list[Measure]:
        found: list[Measure] = []
        for end in ("", STAND_IN):
            whole, hole = (name + end in self.image_names for name in ("clip", "clip_hole"))
            if whole or hole:
                score = stand_in.clip_score() if end else ClipScore.load(self._file("clip").path)
                found.append(_with_captions(score.to(self.device), hole, whole, end))
        return found

    def _stand_ins(self) -> list[Measure]:
        bases = {name: name.removesuffix(STAND_IN) for name in self.image_names if name.endswith(STAND_IN)}
        names = [name for name, base in bases.items() if base in PER_IMAGE and not base.startswith("clip")]
        if not names:
            return []
        network = stand_in.Perceptual([bases[name] for name in names]).to(self.device)
        measure = _without_captions(network)
        return [lambda *batch: {name + STAND_IN: value for name, value in measure(*batch).items()}]

    def _add_extractor(self, name: str) -> None:
        key = extractor_of(name)
        if key in self.extractors:
            return
        if key.endswith(STAND_IN):
            network: nn.Module = stand_in.Extractor()
        else:
            network = Inception(self._file("inception").path, "clean" if key == "inception_clean" else "tf")
        # Not the metric's own revision and libraries: several metrics share these features.
        made_by = {"name": key} | {k: v for k, v in self.asked.facts[name].items() if k in MAKERS}
        self._networks[key] = network.to(self.device).eval()
        fingerprint = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
        self.extractors[key] = Extractor(key, fingerprint, int(network.width))  # type: ignore[arg-type]

    def _file(self, key: str) -> Located:
        """A file of weights, the same one as when it was asked for."""
        found = locate(key, {key: self.asked.files[key]})
        known = {facts["weights"] for facts in self.asked.facts.values() if "weights" in facts}
        if not isinstance(found, Located) or found.sha256 not in known:
            path = self.asked.files[key]
            raise WeightsError("the feature network's weights have changed since the plan was made", path)
        return found


def _without_captions(network: nn.Module) -> Measure:
    def measure(composite: Tensor, truth: Tensor, mask: Tensor, captions: Sequence[str]) -> Values:
        values: Values = network(composite, truth, mask)
        return values

    return measure


def _with_captions(score: nn.Module, hole: bool, whole: bool, end: str) -> Measure:
    def measure(composite: Tensor, truth: Tensor, mask: Tensor, captions: Sequence[str]) -> Values:
        values: Values = score(composite, mask, captions, hole=hole, whole=whole)
        return {name + end: value for name, value in values.items()}

    return measure
