"""`zoo fit`: one Trainer.fit per stage into RUN/STAGE, finished stages skipped, weights and a picture at the end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.interrupt import Stopped
from zoo.errors import EXIT_OK, UsageError, WeightsError, unknown_name

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from torch import Tensor

    from zoo.cli.lightning import ZooCLI
    from zoo.module import InpaintingModule

WEIGHTS = "weights.safetensors"
ALL_STAGES = "ZOO_ALL_STAGES"  # in the environment of a child: its --stage is not the user's, and no advice names it
PATIENCE = 60.0  # seconds that a child has for its last step after Ctrl-C


def run_fit(argv: Sequence[str], typed: Sequence[str]) -> int:
    """Trains the stages of a method that are not finished.

    Args:
        argv: The expanded command line, the verb first.
        typed: What the user typed after the verb; the provenance records it, and a child process gets it.
    """
    from zoo.cli.lightning import ZooCLI, quiet
    from zoo.models import resolve

    quiet()
    cli = ZooCLI(argv[1:])
    cls = resolve(cli.class_path)
    if not cls.trainable:
        raise UsageError(f"'{cli.method}' has nothing to train")
    stage, run = cli.config.stage, cli.run_folder
    if stage and stage not in cls.stages:
        raise unknown_name("stage", stage, list(cls.stages))
    stages = [stage] if stage else list(stages_of(cli, cls))
    todo = [name for name in stages if not (run / name / WEIGHTS).is_file()]
    for name in stages:
        if name not in todo:
            where = run / name / WEIGHTS
            print(
                f"zoo fit: {name} is finished ({where}) and left as it is; --out elsewhere trains anew", file=sys.stderr
            )
    if len(cls.stages) > 1 and "--stage" not in argv:
        return _each_in_a_process(todo, typed)
    for name in todo:
        command = ["zoo", "fit", *typed]
        try:
            fit_stage(cli, cls, run, name, command)
        except Stopped as stopped:  # between training and the writing of the weights nobody else gives the advice
            stopped.advice = stopped.advice or f"go on with: {_resume_command(command)}"
            raise
    return EXIT_OK


def stages_of(cli: ZooCLI, cls: type[InpaintingModule]) -> tuple[str, ...]:
    """The stages that this configuration trains."""
    arguments = cli.config.model.get("init_args")
    return cls.stages_for(arguments.as_dict() if arguments else {})


def _each_in_a_process(stages: Sequence[str], typed: Sequence[str]) -> int:
    """One process per stage, with `--stage`, so that the settings of the stage are read.

    A process each, because under DDP the helper processes repeat the command, which must then mean one fit.
    """
    for stage in stages:
        command = [sys.executable, "-m", "zoo", "fit", *typed, "--stage", stage]
        child = subprocess.Popen(command, env={**os.environ, ALL_STAGES: "1"})
        try:
            code = child.wait()
        except Stopped:
            _stop(child)
            raise
        except KeyboardInterrupt:
            # A terminal sends Ctrl-C to the child too, and a second signal would cut its last step.
            try:
                child.wait(PATIENCE)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                _stop(child)
            raise
        if code != EXIT_OK:
            return code
    return EXIT_OK


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGTERM)
    child.wait()


def fit_stage(cli: ZooCLI, cls: type[InpaintingModule], run: Path, stage: str, command: Sequence[str]) -> None:
    """Trains one stage, then writes its weights, a picture and the last validation's figures.

    Args:
        cli: The parsed command line.
        cls: The class of the method.
        run: The run folder.
        stage: One of `cls.stages`.
        command: What was typed, for the provenance and for the advice on how to resume.
    """
    from zoo.cli.checkpoint import CommandLineWins
    from zoo.cli.export import finish, inherited_licence
    from zoo.cli.lightning import SaveRunConfig
    from zoo.cli.vocabulary import settle

    folder = run / stage
    checkpoint = find_checkpoint(cli.config.resume or cli.config.ckpt_path, run, stage, cls.stages)
    _refuse_unfinished(folder, checkpoint, command)
    if len(cls.stages) > 1:
        cli.config.model["init_args"]["stage"] = stage
    recorded, of_stages = _settings(cli, cls, run, stage, command)
    vocabulary = settle(cli, cls, run, stage, checkpoint)
    changed = _differences(cli, checkpoint)
    saver = SaveRunConfig(cli.parser, recorded, run, vocabulary, of_stages)
    _build(cli, run, stage, [CommandLineWins(changed), saver], f"go on with: {_resume_command(command)}")
    _check_data(cli)
    before = cls.stages[: cls.stages.index(stage)]
    if checkpoint is None:
        _load_predecessors(cli.model, run, [name for name in stages_of(cli, cls) if name in before])
    _train(cli, checkpoint, command)
    if not cli.config.trainer.fast_dev_run:
        finish(cli, folder, stage, command, inherited_licence(run, before, cli.model.licences))


def _settings(
    cli: ZooCLI, cls: type[InpaintingModule], run: Path, stage: str, command: Sequence[str]
) -> tuple[Namespace, dict[str, Namespace]]:
    """The settings to record: without those of any stage, and those of every stage that is not begun yet.

    A run that is resumed later, without its options, then keeps them for the stages to come.
    """
    if len(cls.stages) == 1:
        return cli.config.clone(), {}
    from zoo.cli.expand import expand

    words = ["fit", *_without(command[2:], "--stage")]
    of_stages = {}
    for name in cls.stages:
        if name == stage or not (run / name).exists():
            of_stages[name] = cli.parser.parse_args(expand([*words, "--stage", name])[1:])
            of_stages[name].model["init_args"]["stage"] = name
    return cli.parser.parse_args(expand(words)[1:]), of_stages


def _build(cli: ZooCLI, run: Path, stage: str, more: Sequence[Any], advice: str) -> None:
    from zoo.cli.callbacks import FitProgress, Samples
    from zoo.cli.checkpoint import Ema, RunCheckpoint

    settings = cli.config.trainer
    callbacks: list[Any] = [Samples(), *more]
    if cli.config.ema is not None:
        callbacks.append(Ema(cli.config.ema))
    if not settings.enable_progress_bar:
        callbacks.append(FitProgress(stage, settings.log_every_n_steps))
    if settings.enable_checkpointing is not False and not settings.fast_dev_run:
        callbacks.append(RunCheckpoint(run / stage / "checkpoints", cli.config.save_every, advice))
    cli.build(callbacks, run / stage, logger=True)


def _check_data(cli: ZooCLI) -> None:
    from zoo.batch import check_needs

    check_needs(cli.model.needs, cli.datamodule.provides, cli.method, cli.config.data.name)
    size, multiple = cli.datamodule.size, cli.model.multiple
    if size is not None and size % multiple:
        raise UsageError(
            f"{cli.method} trains on images whose sides are multiples of {multiple}, not {size}",
            remedy=f"--size {max(multiple, round(size / multiple) * multiple)}",
        )


def _train(cli: ZooCLI, checkpoint: Path | None, command: Sequence[str]) -> None:
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    advice = f"go on with: {_resume_command(command)}"
    try:
        path = str(checkpoint) if checkpoint else None
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=path, weights_only=True)
    except SIGTERMException as error:  # before the checkpoint callback has the signals
        raise Stopped(signal.SIGTERM, advice) from error
    except SystemExit as error:  # Lightning turns an early Ctrl-C into this
        raise Stopped(signal.SIGINT, advice) from error
    except MisconfigurationException as error:
        raise UsageError(str(error), where="trainer") from error


def find_checkpoint(resume: str | None, run: Path, stage: str, stages: Sequence[str]) -> Path | None:
    """The checkpoint to go on from.

    Args:
        resume: `auto`, a checkpoint, a run folder, or None.
        run: The run folder.
        stage: The stage that is trained.
        stages: All stages of the method.

    Returns:
        None where nothing is asked for, where `auto` finds none, or where the checkpoint is another stage's: this one
        then starts at its beginning.

    Raises:
        WeightsError: The path that is named holds no checkpoint of this stage.
    """
    if resume is None:
        return None
    if resume == "auto":
        last = run / stage / "checkpoints" / "last.ckpt"
        if not last.is_file():
            print(f"zoo fit: no checkpoint of {stage} in {run}; it starts at step 0", file=sys.stderr)
            return None
        return last
    path = Path(resume)
    if path.is_dir():
        found = [path / stage / "checkpoints" / "last.ckpt", path / "checkpoints" / "last.ckpt", path / "last.ckpt"]
        if not any(file.is_file() for file in found) and any((path / name / WEIGHTS).is_file() for name in stages):
            return None  # a run that has finished other stages, and not begun this one
        path = next((file for file in found if file.is_file()), path)
    if not path.is_file():
        raise WeightsError("no checkpoint to resume from", where=resume, remedy="--resume RUN, FILE.ckpt or auto")
    belongs = path.resolve().parent.parent.name
    return None if belongs in stages and belongs != stage else path


def _refuse_unfinished(folder: Path, checkpoint: Path | None, command: Sequence[str]) -> None:
    if checkpoint is None and (folder / "checkpoints" / "last.ckpt").is_file():
        raise UsageError(
            "an unfinished run is here, and starting anew would overwrite it",
            where=str(folder),
            remedy=f"go on with: {_resume_command(command)}; or train into another folder with --out",
        )


def _resume_command(command: Sequence[str]) -> str:
    kept = _without(command, "--resume")
    if os.environ.get(ALL_STAGES):
        kept = _without(kept, "--stage")
    return shlex.join([*kept, "--resume", "auto"])


def _without(words: Sequence[str], option: str) -> list[str]:
    """A command line without an option and its value."""
    kept = list(words)
    while option in kept:
        index = kept.index(option)
        del kept[index : index + 2]
    return [word for word in kept if not word.startswith(f"{option}=")]


def _differences(cli: ZooCLI, checkpoint: Path | None) -> list[str]:
    """Which settings the command line changes against the checkpoint; they are printed, and the command line wins."""
    if checkpoint is None:
        return []
    from zoo.cli.checkpoint import read_checkpoint

    saved = read_checkpoint(checkpoint)
    arguments = cli.config.model.get("init_args")
    before, now = saved.get("hyper_parameters", {}), arguments.as_dict() if arguments else {}
    changed = sorted(name for name in now if name in before and _plain(before[name]) != _plain(now[name]))
    for name in changed:
        was, new = (_said(name, values[name]) for values in (before, now))
        print(f"zoo fit: {name} was {was}, is now {new} (the command line wins)", file=sys.stderr)
    print(f"zoo fit: resuming at iteration {saved.get('global_step')} from {checkpoint}", file=sys.stderr)
    return changed


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _said(name: str, value: Any) -> Any:
    """A setting for a line of text; of a vocabulary how large it is, for it may have thousands of words."""
    return f"{len(value)} words" if name == "vocabulary" and isinstance(value, list | tuple) else value


def _load_predecessors(module: InpaintingModule, run: Path, stages: Sequence[str]) -> None:
    """Takes over, from the weights of the stages before, every tensor that this stage's module has too.

    A constructor may build only what its stage needs, so that either side may have tensors that the other has not.
    Where two stages before hold the same tensor, the later one's is taken.

    Raises:
        WeightsError: A stage before is not finished, a tensor has another shape than here, a network
            is there in part, or nothing fits at all.
    """
    from safetensors.torch import load_file

    taken: dict[str, Tensor] = {}
    own = module.state_dict()
    for stage in stages:
        path = run / stage / WEIGHTS
        if not path.is_file():
            raise WeightsError(
                f"stage '{stage}' comes first and is not finished", str(path), f"train it first: --stage {stage}"
            )
        state = load_file(str(path))
        common = {name: tensor for name, tensor in state.items() if name in own}
        _check_whole(state, own, module.frozen, stage, path)
        _check_shapes(common, own, stage, module.stage, path)
        if os.environ.get("LOCAL_RANK", "0") == "0":  # the helper processes of a distributed fit do the same
            print(f"zoo fit: {len(common)} of {len(state)} tensors taken over from {path}", file=sys.stderr)
        taken |= common
    if stages and not taken:
        raise WeightsError(
            f"stage '{module.stage}' has no tensor of the stages before it ({', '.join(stages)})",
            where=str(run),
            remedy="train them anew in another folder (--out), or name the submodules alike in all stages",
        )
    module.load_state_dict({**own, **taken})


def _check_whole(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], frozen: Sequence[str], stage: str, path: Path
) -> None:
    """Refuses half a network: a submodule that both stages have must have the same tensors in both.

    Weights that were converted elsewhere can be of other sizes, and what fits by chance would be taken without a word.
    """
    wanted = {name for name in own if not name.startswith(tuple(f"{network}." for network in frozen))}
    for part in sorted({name.partition(".")[0] for name in state} & {name.partition(".")[0] for name in wanted}):
        here, there = ({n for n in names if n.partition(".")[0] == part} for names in (wanted, state))
        if here != there:
            lacking, more = sorted(here - there), sorted(there - here)
            raise WeightsError(
                f"'{part}' of stage '{stage}' has {len(lacking)} tensors too few and {len(more)} too many: "
                f"{', '.join([*lacking, *more][:3])}",
                where=str(path),
                remedy="give both stages the same settings, or take weights of those sizes",
            )


def _check_shapes(found: Mapping[str, Tensor], own: Mapping[str, Tensor], before: str, stage: str, path: Path) -> None:
    for name, tensor in found.items():
        if tensor.shape != own[name].shape:
            shapes = f"{tuple(tensor.shape)} in stage '{before}', {tuple(own[name].shape)} in stage '{stage}'"
            raise WeightsError(
                f"'{name}' is {shapes}",
                where=str(path),
                remedy=f"give both stages the same settings, or train '{before}' anew in another folder (--out)",
            )
