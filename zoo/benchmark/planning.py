"""Making a plan: names become classes, files and hashes, and everything that can be refused is refused here."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.batch import check_needs
from zoo.benchmark.distributions import text_of
from zoo.benchmark.plan import PROTOCOL, MethodPlan, Plan
from zoo.benchmark.protocols import load_protocol, settle
from zoo.data.base import GUIDES, OWN, check_text
from zoo.errors import DataError, UsageError, WeightsError, unknown_name
from zoo.metrics.definitions import STAND_IN
from zoo.resources import resource
from zoo.version import __version__

if TYPE_CHECKING:
    from zoo.data.base import Dataset
    from zoo.module import InpaintingModule

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
DEFAULT_SIZE = 64  # where no method has a native size: all controls


def make_plan(
    dataset: str | None = None,
    mask: str | None = None,
    models: Sequence[str] | None = None,
    weights: Mapping[str, str | Path] | None = None,
    *,
    leave_out: bool = False,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    preset: str | None = None,
    limit: int | None = None,
    size: int | None = None,
    seed: int = 0,
    mask_seed: int = 0,
    guidance: Sequence[str] = (),
    captions: str = OWN,
    samples: int = 0,
    data_root: str | Path | None = None,
    data_options: Mapping[str, Any] | None = None,
    split: str | None = None,
    manifest: str | Path | None = None,
    batch_size: int = 16,
    precision: str = "32-true",
    accelerator: str = "cpu",
    threads: int = 1,
    protocol: str = PROTOCOL,
    metrics: Sequence[str] = (),
    features_files: Mapping[str, str | Path] | None = None,
    announce: Callable[[str], None] | None = None,
) -> Plan:
    """Decides what is to be measured, before any work.

    Args:
        dataset: A short name or the dotted path of a dataset class; None is the protocol's, else `shapes`.
        mask: A mask kind, or a mixture of kinds; None is the protocol's, else `object`.
        models: Short names, dotted paths, or `NAME@LABEL=WEIGHTS` for a variant; None is every method whose weights
            are here and whose guidance the data provides, and the controls.
        weights: Weights files by name or label, in place of the preset's.
        leave_out: Whether methods of `models`, too, are left out, instead of refused, where their weights are not here
            or the data lacks their guidance; `left_out` says why.
        settings: Constructor arguments to change, by name or label: `{"ecdm": {"steps": 50}}`.
        preset: Whose weights; None is `nano` on `shapes`, elsewhere `paper` where it is here and `nano` where not.
        limit: The first so many images only.
        size: Image height and width; None is the protocol's, else the smallest native size of the methods.
        seed: Keys the methods' own noise.
        mask_seed: Keys the masks.
        guidance: Which of `edge` and `segmentation` to show whole.
        captions: The images' `own`, or edited ones: `recoloured` (another colour word), `renamed` (another noun), and
            on `shapes` also `refilled` (another fill) and `deranged` (of another scene).
        samples: Completions of each image, with seeds 1 to `samples`, that stochastic methods draw besides the one that
            the table counts; they have a table of their own.
        data_root: The folder of the data.
        data_options: Further arguments of the dataset (`mask_root` of `folder`).
        split: `test`, `val` or `train`; None is the protocol's, else `test`.
        manifest: Masks made before (`zoo masks make`).
        batch_size: Images in a batch; rows of different batch sizes agree to 1e-4 and do not mix.
        precision: `32-true`, `bf16-mixed` or `16-mixed`.
        accelerator: `cpu`, `gpu`, or `auto` for a GPU where there is one.
        threads: Threads of each process; more processes (`run(devices=)`) are the way to use more cores.
        protocol: A paper's, by name (`zoo.benchmark.protocols`): fixes what is not given here.
        metrics: Metrics besides those of every run and the protocol's, or groups of them (`zoo.metrics.ask`). One that
            cannot be taken here is left out, and `skipped` says why.
        features_files: Files of feature networks of the user's own, by key.
        announce: Is told of each download of a feature network before it is made.

    Raises:
        UsageError: An unknown name or option, one that contradicts the protocol, guidance that the data does not
            provide, captions that cannot be edited, samples of methods none of which is stochastic, or images too
            small for a metric.
        DataError: The data or the manifest is missing or damaged.
        WeightsError: Weights are missing, damaged or of another method.
    """
    _check_options(guidance, precision, {"batch size": batch_size, "threads": threads, "limit": limit or 1})
    from zoo.data import open_dataset
    from zoo.data.masked import editor_of
    from zoo.masks import parse_mixture

    rules = load_protocol(protocol)
    said: dict[str, Any] = {"dataset": dataset, "mask": mask, "size": size, "split": split, "metrics": metrics}
    said |= {"data_options": data_options, "captions": captions, "mask_seed": mask_seed}
    dataset, mask, size, split, options, metrics = settle(rules, said)
    parse_mixture(mask)
    asked = _parse_models(models, dict(weights or {}))
    optional = leave_out or (models is None and preset is None)
    chosen, left_out = _choose(asked, preset, dataset, optional=optional, settings=settings or {})
    size = size or _native_size(chosen)
    data = open_dataset(dataset, split=split, size=size, root=data_root, count=limit, **options)
    editor_of(data, captions, mask)
    chosen = _served(chosen, left_out, data, optional=leave_out or models is None)
    _check_samples(samples, chosen)
    _check_guidance(guidance, chosen, left_out)
    ids = _ids(data, str(data_root or dataset))
    path, sha = _find_manifest(manifest, [dataset, *map(str, options.values())], split, mask, mask_seed, size, ids)
    _check_masks(data, mask, mask_seed, path)
    as_given: dict[str, Any] = {"seed": seed, "mask_seed": mask_seed, "batch_size": batch_size, "precision": precision}
    as_given |= {"threads": threads, "captions": captions, "samples": samples}
    return Plan(
        dataset=dataset,
        split=split,
        root=None if data_root is None else str(Path(data_root).resolve()),
        data_options={k: str(v) if isinstance(v, Path) else v for k, v in options.items()},
        count=len(ids),
        size=size,
        ids_sha256=hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        mask=mask,
        manifest_sha256=sha,
        methods=tuple(chosen),
        guidance=tuple(sorted(set(guidance))),
        accelerator=_device_kind(accelerator, precision),
        version=__version__,
        protocol=rules.name,
        protocol_sha256=rules.sha256,
        manifest=path,
        left_out=left_out,
        **as_given,
        **_metrics(metrics, features_files, announce, size),  # last: it may fetch files
    )


def _metrics(
    names: Sequence[str],
    files: Mapping[str, str | Path] | None,
    announce: Callable[[str], None] | None,
    size: int,
) -> dict[str, Any]:
    """The fields of a plan that say what is measured: `metrics`, `skipped` and `features_files`."""
    from zoo.metrics import ask, versions
    from zoo.metrics.definitions_learned import PER_IMAGE
    from zoo.metrics.perceptual import SMALLEST

    asked = ask(names, files, announce)
    for name in asked.names:
        if name.removesuffix(STAND_IN) in PER_IMAGE and size < SMALLEST:
            remedy = f"leave out {name}, or choose a --size"
            raise UsageError(f"'{name}' needs images of at least {SMALLEST} pixels, not {size}", remedy=remedy)
    return {
        "metrics": versions() | asked.facts,
        "skipped": {name: text_of(why) for name, why in asked.skipped.items()},
        "features_files": {key: str(Path(path).resolve()) for key, path in asked.files.items()},
    }


def _check_options(guidance: Sequence[str], precision: str, numbers: Mapping[str, int]) -> None:
    for guide in guidance:
        if guide not in GUIDES:
            raise unknown_name("guidance", guide, list(GUIDES))
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, list(PRECISIONS))
    for name, number in numbers.items():
        if number < 1:
            raise UsageError(f"{name} must be at least 1, got {number}")


def _device_kind(accelerator: str, precision: str) -> str:
    import torch

    if accelerator not in ("cpu", "gpu", "cuda", "auto"):
        raise unknown_name("accelerator", accelerator, ["cpu", "gpu", "auto"])
    there = torch.cuda.is_available()
    if accelerator in ("gpu", "cuda") and not there:
        raise UsageError("no GPU is here", remedy="use --accelerator cpu")
    kind = "cuda" if there and accelerator != "cpu" else "cpu"
    if kind == "cpu" and precision == "16-mixed":
        raise UsageError("16-mixed needs a GPU", remedy="use --precision bf16-mixed or 32-true")
    return kind


# --- methods ---------------------------------------------------------------------------------------------------------


def _parse_models(models: Sequence[str] | None, weights: dict[str, str | Path]) -> dict[str, tuple[str, str]]:
    """The name and the weights file ("" for the preset's) by label, in order."""
    from zoo.models import CONTROLS, MODELS

    asked: dict[str, tuple[str, str]] = {}
    for entry in [*MODELS, *CONTROLS] if models is None else models:
        label, _, path = entry.partition("=")
        name, at, variant = label.partition("@")
        if not name or (at and not re.fullmatch(r"[A-Za-z0-9_.-]+", variant)) or ("=" in entry and not path):
            raise UsageError(f"'{entry}' is not NAME or NAME@LABEL=WEIGHTS", remedy="labels: letters, digits, _ . -")
        if label in asked:
            raise UsageError(f"'{label}' is there twice", remedy=f"give variants labels: {name}@LABEL=WEIGHTS")
        asked[label] = (name, path or str(weights.pop(label, "")))
    if not asked:
        raise UsageError("no method is named", remedy="--models deepfill,telea")
    for name in weights:
        if name not in asked:
            raise UsageError(f"weights are given for '{name}', which is not compared", remedy="add it to --models")
    return asked


def _choose(
    asked: Mapping[str, tuple[str, str]],
    preset: str | None,
    dataset: str,
    *,
    optional: bool,
    settings: Mapping[str, Mapping[str, Any]],
) -> tuple[list[MethodPlan], dict[str, str]]:
    """Plans for the methods asked for; those without weights are left out where the user did not name them."""
    chosen, left_out = [], {}
    for label, (name, path) in asked.items():
        changes = {**settings.get(name, {}), **settings.get(label, {})}
        if label != name and not path and label not in settings:
            raise UsageError(f"'{label}' is the same as '{name}'", remedy=f"give it weights: {label}=FILE")
        try:
            chosen.append(_method(label, name, path, preset, dataset, changes))
        except WeightsError as error:
            if not optional or path:
                raise
            left_out[label] = error.what
    if not chosen:
        raise WeightsError(next(iter(left_out.values())), remedy="name a method whose weights are here, or train them")
    compared = sorted(asked.keys() | {name for name, _ in asked.values()})
    unused = sorted(set(settings) - set(compared))
    if unused:
        near = difflib.get_close_matches(unused[0], compared, n=1)
        hint = f"did you mean '{near[0]}'? else " if near else ""
        what = f"settings are given for '{unused[0]}', which is not compared"
        raise UsageError(what, remedy=f"{hint}add it to --models")
    return chosen, left_out


def _method(label: str, name: str, path: str, preset: str | None, dataset: str, changes: dict[str, Any]) -> MethodPlan:
    from zoo.models import class_path, resolve
    from zoo.weights import check_completes, find_weights, read_header, sha256

    cls = resolve(name)
    _check_settings(label, cls, changes)
    if not cls.trainable:
        if path:
            raise UsageError(f"'{name}' takes no weights", where=path)
        cls.check_available(changes)
        return MethodPlan(label, name, class_path(name), settings=changes)
    found = Path(path) if path else None
    for choice in presets_of(preset, dataset):
        found = found or find_weights(name, choice)
    if found is None:
        wanted = preset or "nano"
        remedy = f"train them (zoo fit --model {name} --preset {wanted}), or give a file (--weights {name}=FILE)"
        raise WeightsError(f"no '{wanted}' weights of '{name}' are here", remedy=remedy)
    header = read_header(found)
    if header.class_path != class_path(name) and resolve(header.class_path) is not cls:
        remedy = f"name the method they belong to ({header.method})"
        raise WeightsError(f"these weights are of '{header.method}', not of '{name}'", str(found), remedy)
    check_completes(header, found)
    cls.check_available({**header.arguments, **changes})
    trained_on = header.provenance.get("data", "")
    if isinstance(trained_on, Mapping):
        trained_on = trained_on.get("name", "")
    return MethodPlan(
        label, name, class_path(name), header.preset, str(trained_on), sha256(found), changes, str(found.resolve())
    )


def presets_of(preset: str | None, dataset: str) -> tuple[str, ...]:
    """Whose weights a comparison on a dataset takes, the first that are here; `preset` is what was asked for."""
    return (preset,) if preset else ("nano",) if dataset == "shapes" else ("paper", "nano")


def _check_settings(label: str, cls: type[InpaintingModule], changes: Mapping[str, Any]) -> None:
    """Refuses names that the constructor does not take, and values of another kind than it does."""
    from zoo.models import check_settings

    check_settings(label, cls, changes)
    parameters = inspect.signature(cls).parameters
    for setting, value in changes.items():
        kinds = _kinds(parameters[setting]) if setting in parameters else [""]  # others go to a `**more`
        if "" not in kinds and value is not None and _kind(value) not in kinds:
            raise UsageError(f"'{label}.{setting}' takes {' or '.join(kinds)}, got {json.dumps(value)}")


def _kinds(parameter: inspect.Parameter) -> list[str]:
    """What an argument may be: the kinds of its annotation where that has several (`int | str`), else its default's.

    Among them is "" where anything may be given.
    """
    plain = {"bool": "true or false", "int": "a number", "float": "a number", "str": "a text"}
    annotation = parameter.annotation
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    named = [part.strip() for part in text.split("|")]
    kinds = list(dict.fromkeys(plain.get(part, "") for part in named if part != "None"))
    return kinds if len(kinds) > 1 else [_kind(parameter.default)]


def _kind(value: Any) -> str:
    """What a plain value is; empty for anything that needs a look at the annotation."""
    if isinstance(value, bool):
        return "true or false"
    return "a number" if isinstance(value, int | float) else "a text" if isinstance(value, str) else ""


def _check_samples(samples: int, methods: Sequence[MethodPlan]) -> None:
    from zoo.models import resolve

    if samples < 0:
        raise UsageError(f"samples must be at least 0, got {samples}")
    if samples and not any(resolve(method.name).stochastic for method in methods):
        remedy = "leave out --samples, or add a method that draws its completions"
        raise UsageError("none of these methods is stochastic: their samples would all be equal", remedy=remedy)


def _check_guidance(guidance: Sequence[str], methods: Sequence[MethodPlan], left_out: Mapping[str, str]) -> None:
    from zoo.models import resolve

    for kind in guidance:
        if not any(kind in resolve(method.name).uses for method in methods):
            lost = "".join(f"; left out: {name} ({why})" for name, why in left_out.items())
            raise UsageError(f"no method here has {kind} as optional guidance{lost}", "--guidance", "leave it out")


def _native_size(methods: Sequence[MethodPlan]) -> int:
    trained = [method for method in methods if method.weights or method.baseline]
    sizes = [method.settings.get("size", trained_size(method)) for method in trained]
    return min((int(size) for size in sizes if size), default=DEFAULT_SIZE)


def trained_size(method: MethodPlan) -> int | None:
    """Pixels of the images that a method's weights were trained on; None for a control, and where nothing says it."""
    from zoo.models import resolve
    from zoo.weights import read_header

    if method.baseline:
        return int(inspect.signature(resolve(method.name)).parameters["size"].default)
    size = read_header(method.weights).config.get("size") if method.weights else None
    return int(size) if size else None


def _served(
    methods: Sequence[MethodPlan], left_out: dict[str, str], data: Dataset, *, optional: bool
) -> list[MethodPlan]:
    """The methods whose guidance the data provides (edges can be had from any image)."""
    from zoo.models import resolve

    served = []
    for method in methods:
        try:
            check_needs(resolve(method.name).needs, data.provides | {"edge"}, method.label, data.name)
        except UsageError as error:
            if not optional:
                raise
            left_out[method.label] = error.what
        else:
            served.append(method)
    return served


def _ids(data: Dataset, where: str) -> list[str]:
    """The ids of the images, of which there must be some, and which rows must be able to hold."""
    if not len(data):
        raise DataError(f"dataset '{data.name}' has no images here", where=where)
    for sample in data.ids:
        check_text(sample, where)
    return list(data.ids)


# --- masks -----------------------------------------------------------------------------------------------------------


def _find_manifest(
    given: str | Path | None, names: Sequence[str], split: str, mask: str, mask_seed: int, size: int, ids: Sequence[str]
) -> tuple[str, str]:
    """The path and the hash of the manifest to read masks from; ("", "") where the run draws them.

    `names` are the dataset and the values of its options, as `benchmarks.manifests` puts them into a file's name; it
    leaves out those that are the dataset's default.
    """
    from zoo.benchmark.masks import covers
    from zoo.weights import sha256

    if given is not None:
        path = Path(given)
        missing = covers(path, ids, mask, mask_seed, size)
        if missing:
            remedy = "name what it holds (--mask, --mask-seed, --size, --limit), or make one for this: zoo masks make"
            raise DataError(f"the manifest does not fit the plan: {missing}", str(path), remedy)
        return str(path.resolve()), sha256(path)
    for parts in dict.fromkeys((tuple(names), (names[0],))):
        try:
            file = "-".join([*parts, split, mask.replace(":", "-"), str(size)])
            shipped = resource(f"benchmarks/masks/{file}.jsonl.gz")
        except UsageError:
            continue
        if not covers(shipped, ids, mask, mask_seed, size):
            return str(shipped), sha256(shipped)
    return "", ""


def _check_masks(data: Dataset, mask: str, mask_seed: int, manifest: str) -> None:
    """Refuses masks that the run would draw, and cannot."""
    from zoo.benchmark.masks import check_drawable

    if not manifest:
        check_drawable(data, mask, mask_seed)


# --- suites ----------------------------------------------------------------------------------------------------------


def suites() -> dict[str, str]:
    """The shipped suites and what each is for."""
    folder = resource("configs/suite")
    return {path.stem: str(_read_suite(path).get("description", "")) for path in sorted(folder.glob("*.yaml"))}


def load_suite(name: str | Path) -> list[dict[str, Any]]:
    """The runs of a suite: of each the arguments of `make_plan`, and `cost` where its cost is to be measured too.

    Args:
        name: A shipped suite, or a YAML file whose keys are arguments of `make_plan`, `cost`, `description`, and
            `runs`: a list of what each of several runs has besides.

    Raises:
        UsageError: No such suite, or a key that is none of these.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if str(name) not in suites():
            raise unknown_name("suite", str(name), list(suites()))
        path = resource(f"configs/suite/{name}.yaml")
    elif not path.is_file():
        raise UsageError("no such suite file", where=str(path))
    shared = _read_suite(path)
    shared.pop("description", None)
    several = shared.pop("runs", [{}])
    if not (isinstance(several, list) and several and all(isinstance(one, dict) for one in several)):
        raise UsageError("`runs` is a list of `option: value` lines, one entry a run", where=str(path))
    known = [*(name for name in inspect.signature(make_plan).parameters if name != "announce"), "cost"]
    for argument in [*shared, *(argument for one in several for argument in one)]:
        if argument not in known:
            error = unknown_name("suite option", argument, known)
            raise UsageError(error.what, str(path), error.remedy)
    return [{**shared, **one} for one in several]


def _read_suite(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except YAMLError as error:
        raise UsageError(f"not readable as YAML: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise UsageError("a suite is a list of `option: value` lines", where=str(path))
    return {str(k): v for k, v in content.items()}
