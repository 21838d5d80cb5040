"""What parts of a method are worth: `python -m benchmarks.ablation NAME --run RUN [--steps N] [--seeds 0,1,2]`.

RUN is a finished run of `zoo fit --model NAME` on `shapes`. Its stages before the last are shared by all variants; the
last stage is trained anew for each variant and seed, with the settings of RUN and those of the variant, for N steps.
Then `zoo benchmark` completes the same 512 scenes with each (object masks), and one table compares the variants: means
over seeds with intervals, and how far the seeds lie apart. What is finished is skipped where the command is given
again. `--limit 8 --steps 2` tries it out.

Trainings go to `--work` (default `runs/NAME-ablation-STEPS`), the benchmark's rows to `runs/`. The table, all figures
(`summary.json`), the plan and the rows go to `--out` (default `benchmarks/results/NAME-ablation`, with other steps,
seeds or images than the ablation's own `WORK/results`).
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ablation_table import write
from zoo.errors import EXIT_INTERRUPTED, EXIT_OK, UsageError, WeightsError, ZooError, unknown_name
from zoo.models import resolve
from zoo.weights import read_header, write_atomically

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = "weights.safetensors"
SCENES = 512
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        label: Its name in files and plans: letters, digits, `_`, `.` and `-`.
        title: Its name in the table.
        arguments: The constructor arguments that make it.
    """

    label: str
    title: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Ablation:
    """What is compared.

    Attributes:
        method: A short name, or the dotted path of a class.
        kept: The stages before the last, which all variants share.
        variants: The rows; differences are taken to the first.
        metrics: The columns; `summary.json` has every metric.
        steps: Of the last stage, unless told otherwise.
    """

    method: str
    kept: tuple[str, ...]
    variants: tuple[Variant, ...]
    metrics: tuple[str, ...]
    steps: int


ABLATIONS = {
    "ecdm": Ablation(  # the paper's Table 2, with its weight of SAIL; the last row has that of `nano`
        "ecdm",
        ("autoencoder", "unet", "teacher"),
        (
            Variant("baseline", "baseline", {"sail": False, "acda": False, "sail_weight": 0.1}),
            Variant("sail", "w/ SAIL", {"sail": True, "acda": False, "sail_weight": 0.1}),
            Variant("acda", "w/ ACDA", {"sail": False, "acda": True, "sail_weight": 0.1}),
            Variant("both", "both", {"sail": True, "acda": True, "sail_weight": 0.1}),
            Variant("weak", "both, λ = 0.01", {"sail": True, "acda": True, "sail_weight": 0.01}),
        ),
        ("l1", "psnr", "ssim", "l1_hole", "colour_fidelity", "shape_fidelity"),
        steps=500,
    ),
    # The last row of its Table 5. Its discriminator comes in at `adv_start`: only a longer training (--steps) has it.
    "mminvertfill": Ablation(
        "mminvertfill",
        ("generator",),
        (Variant("no_fw", "- F&W+", {"fw": False}), Variant("fw", "F&W+", {"fw": True})),
        ("l1_hole", "l1_band", "psnr_hole", "psnr_band", "ssim_hole", "ssim_band"),
        steps=2000,
    ),
}


@dataclass(frozen=True)
class Job:
    """An ablation with what was typed.

    Attributes:
        ablation: What is compared.
        run: The finished run.
        work: Where the trainings go.
        steps: Steps of each training.
        seeds: One training of each variant for each.
        limit: How many scenes.
    """

    ablation: Ablation
    run: Path
    work: Path
    steps: int
    seeds: tuple[int, ...] = SEEDS
    limit: int = SCENES

    @property
    def base(self) -> Path:
        """The copy of what all variants share."""
        return self.work / "base"

    def shared(self, stage: str) -> Path:
        """The weights of a stage that all variants share."""
        return self.base / stage / WEIGHTS

    @property
    def last(self) -> str:
        """The stage that is trained."""
        return resolve(self.ablation.method).stages[-1]

    def label(self, variant: Variant, seed: int) -> str:
        """The name of a training in the plan."""
        return f"{self.ablation.method}@{variant.label}-{seed}"

    def weights(self, variant: Variant, seed: int) -> Path:
        """Where the weights of a training lie."""
        return self.work / f"{variant.label}-{seed}" / self.last / WEIGHTS


# --- training --------------------------------------------------------------------------------------------------------


def share(job: Job) -> None:
    """Copies what all variants share out of the run, so that a run that is trained on changes nothing here.

    Raises:
        WeightsError: The run is not finished, or of another method.
        UsageError: The copies that are here are of another run.
    """
    name = job.ablation.method
    files = [Path(stage, WEIGHTS) for stage in job.ablation.kept]
    for file in files:
        if not (job.run / file).is_file():
            remedy = f"zoo fit --model {name} --out {job.run}"
            raise WeightsError(f"stage '{file.parent}' of this run is not finished", str(job.run / file), remedy)
        header = read_header(job.run / file)
        if resolve(header.class_path) is not resolve(name):
            raise WeightsError(f"this run is of '{header.method}', not of '{name}'", str(job.run / file))
    files += [Path(found) for found in ("config.yaml", f"config.{job.last}.yaml") if (job.run / found).is_file()]
    if Path("config.yaml") not in files:
        raise WeightsError("this run has no settings", str(job.run / "config.yaml"), "name a folder of zoo fit")
    for file in files:
        content = (job.run / file).read_bytes()
        if not (job.base / file).is_file():
            write_atomically(job.base / file, content)
        elif (job.base / file).read_bytes() != content:
            what = f"what is trained here is of another run than {job.run}, or that run has changed"
            raise UsageError(what, str(job.base / file), "choose another --work, or delete this one")


def train(job: Job, variant: Variant, seed: int) -> bool:
    """Trains one variant with one seed, unless it is finished; an interrupted training goes on.

    Returns:
        Whether anything was to be done.

    Raises:
        UsageError: What is here was trained otherwise.
        ZooError: The training failed.
    """
    weights = job.weights(variant, seed)
    folder = weights.parents[1]
    if weights.is_file():
        check(job, variant, seed)
        return False
    folder.mkdir(parents=True, exist_ok=True)
    for stage in job.ablation.kept:
        if not (folder / stage).is_symlink():
            (folder / stage).symlink_to(Path("..", job.base.name, stage), target_is_directory=True)
    words = ["--config", str(job.base / "config.yaml"), "--stage", job.last, "--out", str(folder), "--seed", str(seed)]
    words += ["--trainer.max_steps", str(job.steps), "--trainer.limit_val_batches", "0", "--resume", "auto"]
    average = ema(job)
    words += [] if average is None else ["--ema", str(average)]
    zoo("fit", *words, *options(variant.arguments))
    check(job, variant, seed)
    return True


def options(arguments: Mapping[str, Any]) -> list[str]:
    """Constructor arguments as they are typed: `--model.sail=false`."""
    return [f"--model.{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in arguments.items()]


def ema(job: Job) -> float | None:
    """The decay of the moving average of weights, for fewer steps than the run's; None where it has none.

    The average spans the same share of the training as in the run. With the run's own decay it would, after 500 of
    8,000 steps, mostly be what the training started from.
    """
    from omegaconf import OmegaConf

    own = job.base / f"config.{job.last}.yaml"
    settings: Any = OmegaConf.load(own if own.is_file() else job.base / "config.yaml")
    if settings.get("ema") is None:
        return None
    spans: float = max(1.0, settings.trainer.max_steps / job.steps)
    return max(0.0, round(1.0 - (1.0 - float(settings.ema)) * spans, 6))


def check(job: Job, variant: Variant, seed: int) -> None:
    """Refuses weights that were not trained as this variant, with this seed, for so many steps.

    Raises:
        UsageError: They were trained otherwise.
    """
    path = job.weights(variant, seed)
    header = read_header(path)
    asked = {**variant.arguments, "--seed": seed, "--trainer.max_steps": job.steps}
    story = {"--seed": header.provenance.get("seed"), "--trainer.max_steps": header.provenance.get("iterations")}
    there = {**header.config, **story}
    for name, value in asked.items():
        if there.get(name) != value:
            what = f"these weights were trained with {name} {there.get(name)}, not {value}"
            raise UsageError(what, str(path), "choose another --work, or delete this training")


def zoo(*words: str) -> str:
    """Runs a command in a process of its own, as typed, and returns what it wrote to stdout.

    Raises:
        ZooError: It failed; its exit code is the error's.
    """
    child = subprocess.Popen([sys.executable, "-m", "zoo", *words], stdout=subprocess.PIPE, text=True)
    try:
        said, _ = child.communicate()
    except KeyboardInterrupt:  # a terminal sends Ctrl-C to the child too, which saves a checkpoint before it ends
        child.communicate()
        raise
    if child.returncode != EXIT_OK:
        raise failure(child.returncode, words)
    return said


def failure(code: int, words: Sequence[str]) -> ZooError:
    """The error for a command that ended with an exit code other than 0."""
    remedy = "what it says above; the same ablation goes on from there"
    error = ZooError(f"zoo {words[0]} ended with exit code {code}", shlex.join(["zoo", *words]), remedy)
    error.exit_code = code
    return error


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(job: Job) -> Path:
    """Completes the scenes with every training and returns the folder of the benchmark."""
    trained = [(variant, seed) for variant in job.ablation.variants for seed in job.seeds]
    models = ",".join(f"{job.label(*one)}={job.weights(*one)}" for one in trained)
    words = ["--dataset", "shapes", "--mask", "object", "--limit", str(job.limit), "--models", models, "--json"]
    return Path(json.loads(zoo("benchmark", *words))["run"])


# --- the command -----------------------------------------------------------------------------------------------------


def run(job: Job, out: Path, command: str) -> str:
    """Trains what is not trained, measures what is not measured, writes the results; returns the table."""
    share(job)
    for seed in job.seeds:
        for variant in job.ablation.variants:
            done = "trained" if train(job, variant, seed) else "finished before"
            print(f"ablation: {job.label(variant, seed)} {done}", file=sys.stderr, flush=True)
    return write(job, out, command, measure(job))


def seeds_of(text: str) -> tuple[int, ...]:
    """`0,1,2` as numbers.

    Raises:
        UsageError: They are no seeds, or one is there twice.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"'{text}' are no seeds", remedy="--seeds 0,1,2") from error
    if len(set(found)) < len(found) or min(found) < 0:
        raise UsageError(f"'{text}' are no seeds", remedy="different numbers from 0 on: --seeds 0,1,2")
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ", ".join(f"{name}: {ablation.steps}" for name, ablation in ABLATIONS.items())
    parser.add_argument("name", help=", ".join(ABLATIONS))
    parser.add_argument("--run", metavar="RUN", type=Path, required=True, help="a finished run of zoo fit")
    parser.add_argument("--steps", metavar="N", type=int, help=f"of the last stage ({default})")
    parser.add_argument("--seeds", metavar="A,B", default=",".join(map(str, SEEDS)), help="default: 0,1,2")
    parser.add_argument("--limit", metavar="N", type=int, default=SCENES, help="the first N scenes")
    parser.add_argument("--work", metavar="DIR", type=Path, help="where the trainings go")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where the results go")
    words = sys.argv[1:] if argv is None else argv
    typed = parser.parse_args(words)
    try:
        if typed.name not in ABLATIONS:
            raise unknown_name("ablation", typed.name, list(ABLATIONS))
        ablation = ABLATIONS[typed.name]
        steps, seeds = ablation.steps if typed.steps is None else typed.steps, seeds_of(typed.seeds)
        if steps < 1 or not 1 <= typed.limit <= SCENES:
            raise UsageError(f"{steps} steps and {typed.limit} scenes", remedy=f"from 1 on; at most {SCENES} scenes")
        work = typed.work or Path("runs") / f"{typed.name}-ablation-{steps}"
        whole = (steps, seeds, typed.limit) == (ablation.steps, SEEDS, SCENES)
        out = typed.out or (ROOT / "benchmarks/results" / f"{typed.name}-ablation" if whole else work / "results")
        command = shlex.join(["python", "-m", "benchmarks.ablation", *words])
        print(run(Job(ablation, typed.run, work, steps, seeds, typed.limit), out, command))
    except ZooError as error:
        print(f"ablation: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ablation: interrupted; the same command goes on from there", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())
