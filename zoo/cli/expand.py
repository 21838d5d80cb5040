"""From what the user types to what LightningCLI reads: short names become recipes and dotted options.

`expand` is a function from argv to argv (it looks only at which recipes and run folders exist):
`fit --model deepfill --seed 1` becomes
`fit --config .../deepfill/nano.yaml --preset nano --out runs/deepfill-nano --seed_everything 1 --data.seed 1`.

With `--stage NAME`, FILE.NAME.yaml beside a recipe or a configuration FILE.yaml lies over it, where it exists: it holds
what this stage has otherwise than the others.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.cli.parsers import LIGHTNING_VERBS, lightning_parser
from zoo.errors import UsageError, unknown_name
from zoo.models import BASELINES, CONTROLS, MODELS, class_path, dotted
from zoo.resources import resource

PRESETS = ("nano", "paper")
NO_RECIPE = "custom"
CONFIG = "config.yaml"  # of a run folder


@dataclass(frozen=True)
class Expansion:
    """An expanded command line.

    Attributes:
        argv: The verb, then what LightningCLI reads.
        notes: What was chosen for the user, one line each, for stderr.
    """

    argv: tuple[str, ...]
    notes: tuple[str, ...] = ()


def expand(argv: Sequence[str]) -> list[str]:
    """The expanded command line of a verb of LightningCLI.

    Args:
        argv: The verb (`fit`, `validate`, `test`, `predict`), then what the user typed.

    Raises:
        UsageError: An unknown name or option, or two that contradict each other.
    """
    return list(explain(argv).argv)


def _data_recipe(data: str) -> list[str]:
    """The recipe of a dataset, if it has one: shapes has none, for it is what every method's recipe is written for."""
    try:
        return ["--config", str(resource(f"configs/data/{data}.yaml"))]
    except UsageError:
        return []


def explain(argv: Sequence[str]) -> Expansion:
    """As `expand`, with what was chosen for the user."""
    verb = argv[0]
    if verb not in LIGHTNING_VERBS:
        raise unknown_name("verb", verb, list(LIGHTNING_VERBS))
    known, rest = lightning_parser(verb).parse_known_args(list(argv[1:]))
    configs = list(known.config)
    model = one(known.model, "--model")
    _check_rest(verb, rest, model)
    data = one(known.data, "--data")
    check_data(data)
    check_mask(known.mask)
    out = known.out or (f"runs/{run_name(model, _preset(known.preset, data))}" if model else None)
    run = _resumed_run(known.resume, out)
    if not model and not configs and run is None:
        raise UsageError(
            f"zoo {verb} needs a method",
            remedy=f"--model NAME ({', '.join(MODELS)}), --model package.module.Class, or --config FILE",
        )
    head, notes = _model_options(verb, model, known.preset, data)
    stage = getattr(known, "stage", None)
    overlays = of_stage(head[1], stage) if head[:1] == ["--config"] else []
    if run is not None:  # its settings over the recipe's, and what is typed now over both
        configs.insert(0, str(run / CONFIG))
        notes.append(f"settings of {configs[0]}")
        out = known.out or str(run)
    if run is None and data is not None:
        head += _data_recipe(data)
    for config in configs:
        overlays += [config, *of_stage(config, stage)]
    notes += [f"settings of {file}" for file in overlays if stage and file not in configs]
    head += [part for file in overlays for part in ("--config", file)]
    if out is not None:
        head += ["--out", out]
    return Expansion((verb, *head, *_plain_options(verb, known, data), *rest), tuple(notes))


def of_stage(config: str, stage: str | None) -> list[str]:
    """The file with what one stage has otherwise than a configuration says; empty where there is none.

    Args:
        config: A file such as `nano.yaml`; `nano.match.yaml` beside it holds what the stage `match` has otherwise.
        stage: The stage that is trained; None for what all stages share.
    """
    return [str(stage_file(config, stage))] if stage and stage_file(config, stage).is_file() else []


def stage_file(config: str | Path, stage: str) -> Path:
    """Where the settings of one stage lie: `nano.match.yaml` beside `nano.yaml`."""
    path = Path(config)
    return path.parent / f"{path.stem}.{stage}{path.suffix}"


def run_name(model: str, preset: str) -> str:
    """The name of a method's run folder: `deepfill-nano`, `package.module.Class-nano`."""
    return f"{dotted(model)}-{preset}"


def _preset(preset: str | None, data: str | None) -> str:
    return preset or ("nano" if data in (None, "shapes") else "paper")


def _model_options(verb: str, model: str | None, preset: str | None, data: str | None) -> tuple[list[str], list[str]]:
    check_preset(preset, model)
    if model is None:
        if preset is not None:
            raise UsageError("--preset chooses a recipe, and --config already gives one", remedy="drop one of the two")
        return [], []
    if model in CONTROLS:
        if verb == "fit":
            raise UsageError(f"'{model}' is a control: it has nothing to train", remedy=f"one of {', '.join(MODELS)}")
        return ["--model", CONTROLS[model], "--model.size", "64"], []
    if model in BASELINES:
        if verb == "fit":
            what = f"'{model}' is a baseline of published weights: it has nothing to train"
            raise UsageError(what, remedy=f"one of {', '.join(MODELS)}")
        return ["--model", BASELINES[model], "--data.size", "512"], []
    if model not in MODELS:
        name = class_path(model)
        chosen = _preset(preset, data)
        return ["--model", name, "--preset", chosen], [f"{name}: no recipe, its defaults under the name '{chosen}'"]
    chosen = _preset(preset, data)
    recipe = resource(f"configs/model/{model}/{chosen}.yaml")
    reason = "as asked" if preset else f"{data or 'shapes'} implies it; --preset overrides"
    options = ["--config", str(recipe), "--preset", chosen]
    return options, [f"{model}, preset {chosen} ({reason}), data {data or _data_of(recipe)}"]


def _data_of(recipe: Path) -> str:
    """The dataset that a recipe names; read by line, as a parser of YAML takes longer to import than all of this."""
    lines = recipe.read_text().splitlines()
    inside = lines[lines.index("data:") + 1 :] if "data:" in lines else []
    return next((line.split(":", 1)[1].strip() for line in inside if line.startswith("  name:")), "shapes")


def _plain_options(verb: str, known: Namespace, data: str | None) -> list[str]:
    options: list[str] = []
    if data is not None:
        options += ["--data.name", data]
    if known.mask is not None:
        options += ["--data.train_mask" if verb == "fit" else "--data.mask", known.mask]
    if known.size is not None:
        options += ["--data.size", str(known.size), "--model.size", str(known.size)]
    if known.seed is not None:
        options += ["--seed_everything", str(known.seed), "--data.seed", str(known.seed)]
    for name in ("ema", "save_every", "stage", "resume", "weights"):
        value = getattr(known, name, None)
        if value is not None:
            options += [f"--{name}", str(value)]
    return options


def check_preset(preset: str | None, model: str | None = None) -> None:
    """Refuses a name that is no preset: neither `nano` nor `paper`, nor a further recipe of the method, or of any."""
    if preset is None or preset in PRESETS:
        return
    folder = resource("configs/model")
    further = {path.stem for path in folder.glob(f"{model if model in MODELS else '*'}/*.yaml") if "." not in path.stem}
    if preset not in further:
        raise unknown_name("preset", preset, [*PRESETS, *sorted(further - {*PRESETS})])


def one(values: list[str], option: str) -> str | None:
    """The value of an option that may be given once."""
    if len(values) > 1:
        raise UsageError(
            f"{option} is given {len(values)} times: {', '.join(values)}",
            remedy="give it once; to compare methods: zoo benchmark --models A,B",
        )
    return values[0] if values else None


def check_data(data: str | None) -> None:
    """Refuses a dataset that is neither known nor a dotted path."""
    from zoo.data import DATASETS

    if data is not None and data not in DATASETS and "." not in data and ":" not in data:
        raise unknown_name("dataset", data, list(DATASETS))


def check_mask(mask: str | None) -> None:
    """Refuses a mask, or a mixture of masks, that does not exist."""
    if mask is not None:
        from zoo.masks import parse_mixture

        parse_mixture(mask)


def _resumed_run(resume: str | None, out: str | None) -> Path | None:
    """The run folder that is resumed, where it holds the settings it was made with."""
    if resume is None:
        return None
    if resume == "auto":
        candidates = [Path(out)] if out else []
    else:
        candidates = [Path(resume), *list(Path(resume).parents)[:3]]
    return next((folder for folder in candidates if (folder / CONFIG).is_file()), None)


def _check_rest(verb: str, rest: Sequence[str], model: str | None) -> None:
    """Refuses what neither the short options nor LightningCLI know, before anything heavy is imported."""
    from zoo.cli.signatures import check_dotted

    index = 0
    while index < len(rest):
        option, _, value = rest[index].partition("=")
        if not option.startswith("--"):
            raise UsageError(f"unexpected argument '{rest[index]}'", remedy=f"see zoo {verb} --help")
        index += 1
        if "=" not in rest[index - 1]:
            start = index
            while index < len(rest) and not rest[index].startswith("--"):
                index += 1
            value = " ".join(rest[start:index])
        check_dotted(verb, option, value, model)
