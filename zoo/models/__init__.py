"""The methods by name. A dotted path (`package.module.Class`, or `package.module:Class`) works wherever a name does,
without registration."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import UsageError, WeightsError, unknown_name
from zoo.resources import resource

if TYPE_CHECKING:
    from zoo.module import InpaintingModule

MODELS = {
    "deepfill": "zoo.models.deepfill.DeepFill",
    "cma": "zoo.models.cma.CMA",
    "nigdt": "zoo.models.nigdt.NIGDT",
    "mminvertfill": "zoo.models.mminvertfill.MMInvertFill",
    "ecdm": "zoo.models.ecdm.ECDM",
}
CONTROLS = {
    "truth": "zoo.models.controls.Truth",
    "mean": "zoo.models.controls.Mean",
    "telea": "zoo.models.controls.Telea",
}
# Published networks that nothing is trained of here: they run where their weights are, and only where they are named.
BASELINES = {
    "sd_inpaint": "zoo.models.ecdm.baselines.StableDiffusionInpaint",
    "controlnet_inpaint": "zoo.models.ecdm.baselines.ControlNetInpaint",
    "blended_latent": "zoo.models.ecdm.baselines.BlendedLatentDiffusion",
}


def names() -> list[str]:
    """The short names of the methods; the controls are in `CONTROLS`, and what is only compared with in `BASELINES`."""
    return list(MODELS)


def dotted(name: str) -> str:
    """The name as files and folders have it: `package.module.Class` also for `package.module:Class`."""
    return name.replace(":", ".")


def class_path(name: str) -> str:
    """The dotted path of a short name; a dotted path, its last dot a colon or not, is its own.

    Raises:
        UsageError: No method has that name.
    """
    if "." in dotted(name):
        return dotted(name)
    known = MODELS | CONTROLS | BASELINES
    if name not in known:
        raise unknown_name("model", name, list(known))
    return known[name]


def resolve(name: str) -> type[InpaintingModule]:
    """The class of a short name or a dotted path.

    Raises:
        UsageError: No such name, no such module, or a class that is no `InpaintingModule`.
    """
    from zoo.module import InpaintingModule

    path = class_path(name)
    module, _, attribute = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        remedy = "give it as package.module.Class; its folder must be importable (run from there, or set PYTHONPATH)"
        raise UsageError(f"cannot import '{path}': {error}", remedy=remedy) from error
    if not (isinstance(found, type) and issubclass(found, InpaintingModule)):
        raise UsageError(f"'{path}' is not a method", remedy="derive it from zoo.module.InpaintingModule")
    return found


def recipe(name: str, preset: str) -> dict[str, Any]:
    """The recipe of a preset (`configs/model/<name>/<preset>.yaml`) as plain dicts and lists."""
    from omegaconf import OmegaConf

    if name not in MODELS:
        raise unknown_name("model", name, names())
    content = OmegaConf.to_container(OmegaConf.load(resource(f"configs/model/{name}/{preset}.yaml")), resolve=True)
    return dict(content)  # type: ignore[arg-type]


def build(name: str, preset: str = "nano", **changes: Any) -> InpaintingModule:
    """An untrained method in the configuration of a preset.

    Args:
        name: A short name.
        preset: `nano` or `paper`.
        **changes: Constructor arguments that differ from the preset's.
    """
    return resolve(name)(**{**recipe(name, preset)["model"]["init_args"], **changes})


def load(
    name: str,
    preset: str = "nano",
    weights: str | Path | None = None,
    device: str = "cpu",
    **settings: Any,
) -> InpaintingModule:
    """A trained method in evaluation mode.

    The weights of a preset are those of a run under `./runs`, else what was pulled into `$ZOO_HOME/weights`, else what
    ships with the package (`zoo.weights.find_weights`). `zoo inpaint` takes `paper` where that is here and `nano` where
    not; this takes the preset that is named, and `nano` where none is.

    Args:
        name: A short name (`deepfill`), a control (`telea`), a baseline (`sd_inpaint`) or a dotted path.
        preset: Which weights: `nano` or `paper`.
        weights: A safetensors file of your own instead.
        device: Where to put it.
        **settings: Constructor arguments, over those that are in the weights: `steps=50`.

    Raises:
        UsageError: No method of that name, or a setting that it does not have.
        WeightsError: No weights of that preset are here (the message says how to get them), or they do not fit the
            settings.
    """
    from zoo.weights import find_weights, load_weights

    cls = resolve(name)
    check_settings(name, cls, settings)
    if not cls.trainable:
        native = {} if class_path(name) in BASELINES.values() else {"size": 64}
        return cls(**{**native, **settings}).to(device).eval()
    path = Path(weights) if weights is not None else find_weights(name, preset)
    if path is None:
        raise WeightsError(
            f"no '{preset}' weights of '{name}' are here",
            remedy=f"train them (zoo fit --model {name} --preset {preset}), or give a file (weights=PATH)",
        )
    return changed(load_weights(path, expect=class_path(name)), settings).to(device).eval()


def changed(module: InpaintingModule, settings: Mapping[str, Any]) -> InpaintingModule:
    """A method with the same weights and other constructor arguments, in evaluation mode.

    Args:
        module: The method; it is given back where nothing is to change.
        settings: What is to be other than it is.

    Raises:
        WeightsError: The weights do not fit the settings.
    """
    from zoo.weights import constructor_arguments

    if not settings:
        return module.eval()
    made = type(module)(**{**constructor_arguments(module), **settings})
    made.load_state_dict(module.state_dict())
    return made.eval()


def check_settings(name: str, cls: type[InpaintingModule], settings: Mapping[str, Any]) -> None:
    """Refuses settings of names that a method's constructor does not take.

    Raises:
        UsageError: The first such name, with the nearest that it takes.
    """
    parameters = inspect.signature(cls).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for setting in settings:
        if setting not in parameters:
            raise unknown_name(f"setting of '{name}'", setting, sorted(parameters))
