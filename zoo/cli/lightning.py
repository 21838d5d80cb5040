"""LightningCLI as the zoo uses it: one method class, one datamodule, a run folder."""

from __future__ import annotations

import logging
import warnings
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from zoo.cli.expand import CONFIG, NO_RECIPE, run_name, stage_file
from zoo.cli.vocabulary import FILE as VOCABULARY
from zoo.cli.vocabulary import Vocabulary
from zoo.data.module import InpaintingData
from zoo.errors import UsageError
from zoo.models import MODELS
from zoo.module import InpaintingModule

DDP = "ddp_find_unused_parameters_true"
TRAINER = {
    "devices": 1,
    "max_steps": 2000,
    "check_val_every_n_epoch": None,
    "val_check_interval": 500,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 50,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,  # the datamodule's loader deals out the work itself
}
OURS = ("out", "preset", "stage", "resume", "ema", "weights", "ckpt_path", "save_every")


class SaveRunConfig(SaveConfigCallback):
    """Writes RUN/config.yaml, and RUN/vocabulary.json beside it, when training starts; a resumed run replaces them.

    A method of several stages has RUN/config.STAGE.yaml besides, with all the settings of that stage.

    Args:
        parser: What reads the configuration again.
        config: The configuration; without a vocabulary that `zoo fit` has found, which would be most of the file.
        folder: RUN.
        vocabulary: The words that `zoo fit` has found, if any.
        stages: The configurations of single stages, by the name of the stage.
    """

    def __init__(
        self,
        parser: LightningArgumentParser,
        config: Namespace,
        folder: Path,
        vocabulary: Vocabulary | None = None,
        stages: Mapping[str, Namespace] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(parser, config, save_to_log_dir=False, **kwargs)
        self.folder, self.vocabulary, self.stages = folder, vocabulary, dict(stages or {})

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.vocabulary is not None:
            self.vocabulary.save(self.folder / VOCABULARY)
        common = self.folder / CONFIG
        self._write(self.config, common)
        for name, config in self.stages.items():
            self._write(config, stage_file(common, name))

    def _write(self, config: Namespace, path: Path) -> None:
        kept = config.clone()
        for name in ("resume", "stage", "ckpt_path", "weights"):  # of this command, not of the run
            kept[name] = None
        self.parser.save(kept, path, skip_none=False, overwrite=True, multifile=False)


class ZooCLI(LightningCLI):
    """Parses a command line; nothing is built before `build`, so that a finished stage costs nothing.

    Args:
        argv: What LightningCLI reads (see `zoo.cli.expand`), without the verb.

    Raises:
        UsageError: jsonargparse refuses an option or a value.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
        self.argv = list(argv)
        self._data: InpaintingData | None = None
        super().__init__(
            model_class=InpaintingModule,
            datamodule_class=InpaintingData,
            subclass_mode_model=True,
            run=False,
            save_config_callback=None,
            trainer_defaults=dict(TRAINER),
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={"parser_mode": "omegaconf+", "exit_on_error": False},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add = parser.add_argument
        add("--out", type=str | None, default=None, help="run folder")
        add("--preset", type=str, default=NO_RECIPE, help="the name of the recipe, for the record")
        add("--stage", type=str | None, default=None, help="train this stage alone")
        add("--resume", type=str | None, default=None, help="auto, a checkpoint, or a run folder")
        add("--ckpt_path", type=str | None, default=None, help="the same as --resume with a checkpoint")
        add("--ema", type=float | None, default=None, help="decay of a moving average of the weights")
        add("--weights", type=str | None, default=None, help="safetensors to score (validate, test, predict)")
        add("--save_every", type=int, default=500, help="iterations between checkpoints")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            self.config = parser.parse_args(self.argv)
        except ArgumentError as error:
            raise UsageError(_shorten(str(error)), remedy="zoo fit --help-all lists every option") from error
        if not self.config.model:
            raise UsageError("no method is named", remedy="--model NAME, or 'model:' in the configuration")

    def instantiate_classes(self) -> None:
        """Nothing yet: see `build`."""

    def open_data(self) -> InpaintingData:
        """The datamodule, where its captions are wanted before the method can be built; `build` keeps it."""
        if self._data is None:
            self._data = InpaintingData(**self.config.data.as_dict())
        return self._data

    def build(self, callbacks: Sequence[Any], folder: Path, logger: bool) -> None:
        """Builds the datamodule, the method and the trainer.

        Args:
            callbacks: Callbacks besides those of the configuration.
            folder: Where logs go.
            logger: Whether to log to a CSV file where the user names no logger.
        """
        self.callbacks, self._folder, self._log = list(callbacks), folder, logger
        super().instantiate_classes()
        if self._data is not None:  # its annotations have been read, and need not be again
            self.datamodule = self._data

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        settings = {**self._get(self.config_init, "trainer", default={}), **kwargs}
        if settings["strategy"] == "auto" and (settings["devices"] != 1 or settings["num_nodes"] != 1):
            settings["strategy"] = DDP  # two networks with manual optimization: plain ddp fails on either's turn
        if settings["logger"] in (None, True):
            settings["logger"] = CSVLogger(self._folder, name="log") if self._log else False
        trainer = self._instantiate_trainer(settings, list(self.callbacks))
        precision = str(trainer.precision)
        if precision.endswith("-true") and precision != "32-true":
            what = f"precision {precision} changes the type of the weights, which are float32"
            raise UsageError(what, "trainer.precision", "bf16-mixed, 16-mixed or 32-true")
        return trainer

    @property
    def class_path(self) -> str:
        return str(self.config.model.class_path)

    @property
    def method(self) -> str:
        """The short name where the class has one, else its dotted path."""
        return next((name for name, path in MODELS.items() if path == self.class_path), self.class_path)

    @property
    def run_folder(self) -> Path:
        return Path(self.config.out or f"runs/{run_name(self.method, self.config.preset)}")


def full_help() -> str:
    """Every option that LightningCLI takes, as it prints them."""

    class Silent(ZooCLI):
        def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
            self.config = Namespace(seed_everything=False)

    parser: ArgumentParser = Silent([]).parser
    return str(parser.format_help())


def quiet() -> None:
    """Silences what Lightning says of itself; `--debug` leaves it."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for pattern in (".*does not have many workers.*", ".*litlogger.*", ".*isinstance.treespec.*", ".*sync_dist.*"):
        warnings.filterwarnings("ignore", pattern)
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning")


def _shorten(text: str, lines: int = 6) -> str:
    """The first lines of jsonargparse's message, which repeats itself."""
    kept = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n  ".join(kept[:lines])
