"""What is to be measured, frozen: everything that changes a number, and the hash that names the run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from zoo.data.base import OWN
from zoo.errors import DataError
from zoo.metrics.definitions import DEFINITIONS, STAND_IN
from zoo.models import BASELINES, CONTROLS

FILE = "plan.json"
PROTOCOL = "zoo"
"""The protocol that fixes nothing."""


@dataclass(frozen=True)
class MethodPlan:
    """One row of the table.

    Attributes:
        label: Its name in rows and tables: `cma`, or `cma@no_wpa` for a variant.
        name: The short name or dotted path it was asked for by.
        class_path: The dotted path of its class.
        preset: `nano`, `paper`, a name of the user's own, or `-` without weights.
        trained_on: The dataset its weights were trained on, as their header says; empty where nothing says it.
        weights_sha256: Hash of the weights file; empty without one.
        settings: Constructor arguments that differ from those in the weights (`--set`).
        weights: Where the file is. Not part of the hash: a copy elsewhere is the same method.
    """

    label: str
    name: str
    class_path: str
    preset: str = "-"
    trained_on: str = ""
    weights_sha256: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    weights: str = ""

    @property
    def control(self) -> bool:
        """Whether it is one of the zoo's controls; a user's own method without weights is none."""
        return self.class_path in CONTROLS.values()

    @property
    def baseline(self) -> bool:
        """Whether it is made of published networks, which its plan does not name."""
        return self.class_path in BASELINES.values()

    @property
    def file_name(self) -> str:
        """The label as a file name."""
        return re.sub(r"[^A-Za-z0-9._@-]", "_", self.label)


@dataclass(frozen=True)
class Plan:
    """A comparison: these methods on these images under these masks.

    Two plans with the same hash give the same rows. That is why `batch_size`, `precision`, `accelerator` and `threads`
    belong to it: matrix kernels differ between batch shapes, devices and thread counts, so that such rows agree to
    1e-4 only and must not share a table. How the work is shared out (processes, shards, workers) changes no bit and
    is not part of it.

    Attributes:
        dataset: A short name or a dotted path.
        split: `train`, `val` or `test`.
        root: The absolute folder of the data; None for the dataset's default.
        data_options: Further arguments of the dataset.
        count: How many images, the first ones in the dataset's order.
        size: Their height and width.
        ids_sha256: Hash of the ids, in order.
        mask: The mask kind, or mixture.
        mask_seed: The seed of the masks.
        manifest_sha256: Hash of the manifest the masks are read from; empty where the run draws them itself.
        methods: The rows of the table, in order.
        seed: The seed of the methods' noise.
        guidance: Which of `edge` and `segmentation` are shown whole.
        batch_size: Images in a batch; the last one is filled up with repeats.
        precision: `32-true`, `bf16-mixed` or `16-mixed`.
        accelerator: `cpu` or `cuda`.
        threads: Threads of each process.
        metrics: The versions that every value depends on; and of each metric that was asked for besides those of every
            run, by its name, what its values depend on (`zoo.metrics.Asked.facts`).
        version: The version of the zoo.
        captions: Which captions are given: the images' `own`, or an edit's (`recoloured`, `renamed`, ...).
        samples: Completions drawn of each image by each stochastic method, besides the one that the table counts.
        protocol: The name of the protocol.
        protocol_sha256: Hash of the protocol's file.
        manifest: Where the manifest is. Not part of the hash.
        left_out: Methods that would have belonged to the default choice, and why they do not. Not part of the hash.
        skipped: Metrics that were asked for and cannot be taken here, and why. Not part of the hash.
        features_files: Where the weights of feature networks are, by key. Not part of the hash: `metrics` has theirs.
    """

    dataset: str
    split: str
    root: str | None
    data_options: dict[str, Any]
    count: int
    size: int
    ids_sha256: str
    mask: str
    mask_seed: int
    manifest_sha256: str
    methods: tuple[MethodPlan, ...]
    seed: int
    guidance: tuple[str, ...]
    batch_size: int
    precision: str
    accelerator: str
    threads: int
    metrics: dict[str, Any]
    version: str
    captions: str = OWN
    samples: int = 0
    protocol: str = PROTOCOL
    protocol_sha256: str = ""
    manifest: str = ""
    left_out: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    features_files: dict[str, str] = field(default_factory=dict)

    @property
    def asked(self) -> tuple[str, ...]:
        """The metrics that are taken besides those of every run, in the order of their definitions."""
        return tuple(ordered({name for name, facts in self.metrics.items() if isinstance(facts, dict)}))

    def identity(self) -> dict[str, Any]:
        """What the hash is taken over: all fields but places on this machine."""
        content = asdict(self)
        for place in ("manifest", "left_out", "skipped", "features_files"):
            del content[place]
        if self.captions == OWN:  # plans made before captions could be edited keep their hash, and their folders
            del content["captions"]
        if not self.samples:  # so do those made before samples could be drawn
            del content["samples"]
        if self.protocol == PROTOCOL:  # and those made before there were protocols
            del content["protocol"], content["protocol_sha256"]
        for method in content["methods"]:
            del method["weights"]
        plain: dict[str, Any] = json.loads(json.dumps(content))  # tuples become lists, as in a plan that was read back
        return plain

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON of `identity`, in hexadecimal."""
        return hashlib.sha256(canonical(self.identity()).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The run folder's name: `shapes-object-1a2b3c4d`, `coco-center-tdanet-1a2b3c4d`."""
        dataset = self.dataset.rpartition(":")[2].rpartition(".")[2]
        rules = [rule for rule, usual in ((self.captions, OWN), (self.protocol, PROTOCOL)) if rule != usual]
        parts = [dataset, self.mask, *rules, self.hash[:8]]
        return re.sub(r"[^A-Za-z0-9.,*-]", "_", "-".join(parts)).replace("*", "x")

    def to_json(self) -> str:
        """The whole plan, indented, with its hash."""
        return json.dumps({"hash": self.hash, **asdict(self)}, indent=2, sort_keys=True) + "\n"

    @staticmethod
    def read(folder: Path) -> Plan:
        """The plan of a run folder.

        Raises:
            DataError: No plan there, or a file that is not one.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise DataError("not a run folder: it holds no plan.json", str(folder), "name a folder of zoo benchmark")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            methods = tuple(MethodPlan(**method) for method in content.pop("methods"))
            content["guidance"] = tuple(content["guidance"])
            known = {f.name for f in fields(Plan)}
            return Plan(methods=methods, **{k: v for k, v in content.items() if k in known})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            remedy = "the file is damaged or of another version; run the benchmark into another folder"
            raise DataError(f"this plan cannot be read: {error}", str(path), remedy) from error


def ordered(names: Collection[str]) -> list[str]:
    """Metrics in the order of the definitions, then stand-ins in that order; then a dataset's own judge's, by name."""
    known = [*DEFINITIONS, *(name + STAND_IN for name in DEFINITIONS)]
    return [name for name in known if name in names] + sorted(set(names) - set(known))


def canonical(content: Mapping[str, Any]) -> str:
    """JSON with sorted keys and no spaces: one text for one content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def differences(ours: Plan, theirs: Plan) -> list[str]:
    """The names of the fields in which two plans differ, places left out."""
    a, b = ours.identity(), theirs.identity()
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
