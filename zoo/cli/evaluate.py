"""`zoo validate`, `zoo test` and `zoo predict`: one method on one split, with the trainer that trained it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import EXIT_OK, UsageError, WeightsError

if TYPE_CHECKING:
    from zoo.cli.lightning import ZooCLI
    from zoo.module import InpaintingModule

SPLITS = {"validate": "val", "test": "test", "predict": "test"}


def run_evaluation(argv: Sequence[str]) -> int:
    """Scores weights, or writes what they paint.

    Args:
        argv: The expanded command line, the verb first.
    """
    from zoo.batch import check_needs
    from zoo.cli.callbacks import PredictionWriter
    from zoo.cli.lightning import ZooCLI, quiet
    from zoo.cli.vocabulary import adopt
    from zoo.models import resolve
    from zoo.weights import load_weights, read_header

    verb = argv[0]
    quiet()
    cli = ZooCLI(argv[1:])
    cls = resolve(cli.class_path)
    weights = _weights(cli, cls)
    loaded = None
    if weights is not None:
        print(f"weights: {weights}", file=sys.stderr)
        loaded = load_weights(weights, expect=cli.class_path)
    adopt(cli, cls, read_header(weights).vocabulary if weights else [])
    _adopt_stage(cli, cls)
    configured = cli.config.model.get("init_args")
    arguments = configured.as_dict() if configured else {}
    cls.check_available(arguments if loaded is None else dict(loaded.hparams))
    callbacks = [PredictionWriter(cli.run_folder / "predictions")] if verb == "predict" else []
    cli.build(callbacks, cli.run_folder, logger=False)
    module: InpaintingModule = cli.model if loaded is None else loaded
    module.check_completes(str(cli.config.ckpt_path or ""), cli.method)
    check_needs(module.needs, cli.datamodule.provides, cli.method, cli.config.data.name)
    options: dict[str, Any] = {"datamodule": cli.datamodule}
    if cli.config.ckpt_path:
        options |= {"ckpt_path": cli.config.ckpt_path, "weights_only": True}
    if verb == "predict":
        cli.trainer.predict(module, return_predictions=False, **options)
        print(cli.run_folder / "predictions")
        return EXIT_OK
    getattr(cli.trainer, verb)(module, verbose=False, **options)
    if cli.trainer.is_global_zero:
        for name, value in sorted(cli.trainer.callback_metrics.items()):
            print(f"{name.removeprefix(f'{SPLITS[verb]}/'):<20} {float(value):.6g}")
    return EXIT_OK


def _adopt_stage(cli: ZooCLI, cls: type[InpaintingModule]) -> None:
    """Gives a method that is scored by a checkpoint the stage of it: the module of another may have other networks."""
    if len(cls.stages) > 1 and cli.config.ckpt_path:
        from zoo.cli.checkpoint import read_checkpoint

        saved = read_checkpoint(Path(cli.config.ckpt_path)).get("hyper_parameters", {})
        cli.config.model["init_args"]["stage"] = saved.get("stage", cls.stages[-1])


def own_path(text: str, method: str) -> Path:
    """The file of `--weights FILE` or `--weights METHOD=FILE`.

    Raises:
        UsageError: The name before the sign is another method's.
        WeightsError: There is no such file.
    """
    name, equals, path = text.partition("=")
    if equals and name != method and not Path(text).is_file():
        raise UsageError(f"--weights names '{name}', but the method is '{method}'")
    found = Path(path if equals and name == method else text)
    if not found.is_file():
        raise WeightsError("no such weights file", where=str(found), remedy="zoo weights list shows what is here")
    return found


def _weights(cli: ZooCLI, cls: type[InpaintingModule]) -> Path | None:
    """The weights to score; None for a control, or where a checkpoint is named."""
    from zoo.weights import find_weights

    config = cli.config
    if config.resume and not config.ckpt_path:
        from zoo.cli.fit import find_checkpoint

        found = find_checkpoint(config.resume, cli.run_folder, cls.stages[-1], cls.stages)
        config.ckpt_path = str(found) if found else None
    if config.ckpt_path or not cls.trainable:
        return None
    if config.weights:
        return own_path(config.weights, cli.method)
    own = cli.run_folder / cls.stages[-1] / "weights.safetensors"
    path = own if own.is_file() else find_weights(cli.method, config.preset)
    if path is None:
        remedy = f"zoo fit --model {cli.method}, or --preset nano, or --weights FILE"
        raise WeightsError(f"no '{config.preset}' weights of '{cli.method}' are here", remedy=remedy)
    return path
