"""`python -m benchmarks.ablation`: from a tiny finished run to the table, for every ablation and for any method."""

from __future__ import annotations

import gzip
import inspect
import io
import json
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks import ablation
from benchmarks.ablation import ABLATIONS, Ablation, Job, Variant, failure, main, options, seeds_of
from benchmarks.ablation_table import figures, shown, values_of
from tests.fakes_ecdm import TINY as TINY_ECDM
from tests.fakes_mminvertfill import TINY as TINY_MMINVERTFILL
from zoo.cli.main import main as zoo_main
from zoo.errors import DataError, UsageError, ZooError
from zoo.metrics.definitions import DEFINITIONS
from zoo.metrics.statistics import interval, paired_difference
from zoo.models import resolve
from zoo.weights import read_header, sha256

PAINTER = "tests.toys_stages.Painter"
COLOURS = Ablation(
    PAINTER,
    ("match",),
    (Variant("slow", "w/o haste", {"lr": 0.01}), Variant("fast", "w/ haste", {"lr": 0.2})),
    ("l1_hole", "colour_fidelity"),
    steps=9,
)
BRIEF = {"data": {"train_count": 8, "batch_size": 2}, "trainer": {"limit_val_batches": 0, "max_steps": 1}}
Commands = list[tuple[str, ...]]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Commands:
    """The commands given, which run in this process: importing everything anew takes seconds."""
    given: Commands = []

    def zoo(*words: str) -> str:
        given.append(words)
        said = io.StringIO()
        with redirect_stdout(said):
            code = zoo_main(list(words))
        if code:
            raise failure(code, words)
        return said.getvalue()

    monkeypatch.setattr(ablation, "zoo", zoo)
    monkeypatch.chdir(tmp_path)
    return given


def trained(method: str, stages: tuple[str, ...], **arguments: Any) -> Path:
    """A run whose first stages are finished, as `zoo fit` leaves it."""
    # Not all as options: each that is typed is looked up in the source text.
    Path("tiny.yaml").write_text(json.dumps({"model": {"init_args": arguments}, **BRIEF}))
    for stage in stages:
        ablation.zoo(
            "fit", "--model", method, "--config", "tiny.yaml", "--size", "32", "--out", "run", "--stage", stage
        )
    return Path("run")


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return content


def rows_of(folder: Path) -> list[dict[str, Any]]:
    lines = gzip.decompress((folder / "rows.jsonl.gz").read_bytes()).decode().splitlines()
    return [json.loads(line) for line in lines]


# --- the ablations that are there -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_names_stages_arguments_and_metrics_that_exist(name: str) -> None:
    asked = ABLATIONS[name]
    cls = resolve(asked.method)
    assert asked.kept == cls.stages[:-1]
    assert len({variant.label for variant in asked.variants}) == len(asked.variants) > 1
    for variant in asked.variants:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", variant.label)
        assert set(variant.arguments) == set(asked.variants[0].arguments) <= set(inspect.signature(cls).parameters)
    assert set(asked.metrics) <= set(DEFINITIONS)


@pytest.mark.parametrize(
    ("name", "tiny", "shared"),
    [("ecdm", TINY_ECDM, "unet"), ("mminvertfill", {**TINY_MMINVERTFILL, "classes": 9}, "generator")],
)
def test_a_dry_run_compares_the_variants(name: str, tiny: dict[str, Any], shared: str, commands: Commands) -> None:
    asked = ABLATIONS[name]
    run = trained(name, asked.kept, **{k: v for k, v in tiny.items() if k not in ("size", "vocabulary")})
    assert main([name, "--run", str(run), "--steps", "2", "--seeds", "0", "--limit", "4"]) == 0
    work = Path("runs") / f"{name}-ablation-2"
    found = results(work / "results")
    assert (found["method"], found["steps"], found["seeds"], found["n"]) == (name, 2, [0], 4)
    files = {stage: run / stage / "weights.safetensors" for stage in asked.kept}
    assert {stage: shared["sha256"] for stage, shared in found["shared"].items()} == {
        stage: sha256(file) for stage, file in files.items()
    }
    before = {k: v for k, v in load_file(files[asked.kept[-1]]).items() if k.startswith(f"{shared}.")}
    assert before
    after = [load_file(work / f"{v.label}-0" / "inpaint" / "weights.safetensors") for v in asked.variants]
    for key, tensor in before.items():
        torch.testing.assert_close(after[0][key], tensor, atol=0, rtol=1e-6)  # a moving average rounds
        assert all(tensors[key].equal(after[0][key]) for tensors in after)
    for variant in asked.variants:
        header = read_header(work / f"{variant.label}-0" / "inpaint" / "weights.safetensors")
        assert {name: header.config[name] for name in variant.arguments} == variant.arguments
        assert header.provenance["iterations"] == 2
    table = (work / "results" / "table.md").read_text()
    assert [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")] == [
        "| variant", "| ---", *(f"| {v.title}" for v in asked.variants),
        "| variant", "| ---", *(f"| {v.title}" for v in asked.variants[1:]),
    ]  # fmt: skip


# --- any method -------------------------------------------------------------------------------------------------------


@pytest.fixture
def painted(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command line whose run is there: two variants of a toy, two seeds."""
    monkeypatch.setitem(ABLATIONS, "colours", COLOURS)
    trained(PAINTER, COLOURS.kept)
    commands.clear()
    return ["colours", "--run", "run", "--steps", "2", "--seeds", "0,3", "--limit", "6", "--work", "w", "--out", "o"]


def test_the_figures_are_those_of_the_rows(painted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(painted) == 0
    table = Path("o/table.md").read_text()
    assert capsys.readouterr().out == table + "\n"
    assert "`inpaint` trained for 2 steps with seeds 0, 3 on the same `match`" in table
    assert re.search(r"^\| w/o haste \| 0\.\d{4} \[0\.\d{4}, 0\.\d{4}\] ± 0\.\d{4} \| ", table, re.MULTILINE)
    found, rows = results(Path("o")), rows_of(Path("o"))
    plan = json.loads(Path("o/plan.json").read_text())
    assert found["plan"] == plan["hash"]
    assert str(Path.cwd()) not in Path("o/plan.json").read_text()
    assert [method["label"] for method in plan["methods"]] == [
        f"{PAINTER}@{label}-{seed}" for label in ("slow", "fast") for seed in (0, 3)
    ]
    by_seed = {
        label: np.array(
            [[row["l1_hole"] for row in rows if row["method"] == f"{PAINTER}@{label}-{seed}"] for seed in (0, 3)]
        )
        for label in ("slow", "fast")
    }
    assert by_seed["slow"].shape == (2, 6)
    for label, values in by_seed.items():
        cell = found["variants"][label]["l1_hole"]
        assert [cell[k] for k in ("mean", "lo", "hi", "n")] == pytest.approx(interval(values.mean(0)))
        assert cell["seeds"] == pytest.approx(values.mean(1).tolist())
        assert cell["spread"] == pytest.approx(abs(cell["seeds"][0] - cell["seeds"][1]) / 2**0.5)
        assert cell["spread"] > 0
    cell = found["differences"]["fast"]["l1_hole"]
    against = paired_difference(by_seed["fast"].mean(0), by_seed["slow"].mean(0))
    assert [cell[k] for k in ("mean", "lo", "hi", "n")] == pytest.approx(against)
    assert cell["seeds"] == pytest.approx((by_seed["fast"] - by_seed["slow"]).mean(1).tolist())
    trainings = found["trained"]["fast"]["trainings"]
    assert trainings["3"]["sha256"] == sha256("w/fast-3/inpaint/weights.safetensors")
    assert (trainings["3"]["provenance"]["seed"], trainings["3"]["provenance"]["data"]["seed"]) == (3, 3)
    assert found["command"] == f"python -m benchmarks.ablation {' '.join(painted)}"
    assert found["versions"]["torch"]
    assert found["environments"][0]["packages"]["torch"]


def test_what_is_finished_is_skipped(painted: list[str], commands: Commands) -> None:
    assert main(painted) == 0
    assert [words[0] for words in commands] == ["fit"] * 4 + ["benchmark"]
    assert {path.name for path in Path("o").iterdir()} == {"plan.json", "summary.json", "table.md", "rows.jsonl.gz"}
    before = results(Path("o"))
    commands.clear()
    shutil.rmtree("w/fast-0/inpaint")
    assert main(painted) == 0
    assert [words[0] for words in commands] == ["fit", "benchmark"]
    assert "w/fast-0" in commands[0]
    after = results(Path("o"))
    assert [after[part] for part in ("variants", "differences")] == [
        before[part] for part in ("variants", "differences")
    ]


def test_trainings_of_another_run_or_length_are_not_mixed(
    painted: list[str], commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(painted) == 0
    for option, value in (("--steps", "3"), ("--seeds", "0,4")):
        other = [*painted]
        other[other.index(option) + 1] = value
        code = main(other)
        if option == "--seeds":
            assert code == 0, "another seed is trained besides"
        else:
            assert code == 2
            assert "trained with --trainer.max_steps 2, not 3" in capsys.readouterr().err
    shutil.rmtree("run")
    trained(PAINTER, COLOURS.kept, lr=0.3)
    assert main(painted) == 2
    assert "that run has changed" in capsys.readouterr().err
    Path("run/match/weights.safetensors").unlink()
    assert main(painted) == 4
    assert f"zoo fit --model {PAINTER} --out run" in capsys.readouterr().err


def test_a_run_of_another_method_and_wrong_words_are_refused(
    painted: list[str], commands: Commands, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ABLATIONS, "other", Ablation("cma", ("match",), COLOURS.variants, COLOURS.metrics, 9))
    assert main(["other", *painted[1:]]) == 4
    assert f"this run is of '{PAINTER}', not of 'cma'" in capsys.readouterr().err
    assert main(["colors", *painted[1:]]) == 2
    assert "did you mean 'colours'" in capsys.readouterr().err
    assert main([*painted, "--limit", "0"]) == main([*painted, "--steps", "0"]) == 2
    Path("run/config.yaml").unlink()
    assert main(painted) == 4
    assert not commands


def test_a_training_that_fails_ends_it(painted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Ablation(PAINTER, ("match",), (Variant("a", "a", {"width": 9}),), (), 9)
    monkeypatch.setitem(ABLATIONS, "colours", broken)
    assert main(painted) == 4  # as `zoo fit` ends, for the shared stage is of another width
    assert not Path("o").exists()


def test_a_command_runs_in_a_process_and_its_failure_is_an_error() -> None:
    assert ablation.zoo("--version").startswith("inpainting-zoo")
    with pytest.raises(ZooError, match=r"zoo fit ended with exit code 2\n  where: zoo fit --modle x") as raised:
        ablation.zoo("fit", "--modle", "x")
    assert raised.value.exit_code == 2


# --- parts ------------------------------------------------------------------------------------------------------------


def test_an_image_that_a_seed_has_no_value_of_is_left_out() -> None:
    nan = float("nan")
    values, first = np.array([[1.0, 2.0, nan], [3.0, 6.0, 5.0]]), np.array([[0.0, 1.0, 1.0], [1.0, nan, 1.0]])
    found = figures(values)
    assert (found["mean"], found["n"], found["seeds"]) == (3.0, 2, [1.5, 4.5])
    assert found["spread"] == pytest.approx(4.5**0.5)
    against = figures(values, first)
    assert (against["mean"], against["n"], against["seeds"], against["spread"]) == (1.5, 1, [1.0, 2.0], 0.5**0.5)
    alone = figures(values[:1])
    assert (alone["mean"], alone["n"], alone["spread"]) == (1.5, 2, None)
    nothing = figures(np.full((2, 3), nan))
    assert (nothing["mean"], nothing["n"], nothing["seeds"]) == (None, 0, [])
    assert shown("l1", nothing) == "-"
    assert shown("psnr", {**found, "lo": 2.0, "hi": 4.0, "spread": 0.126}) == "3.00 [2.00, 4.00] ± 0.13"
    assert shown("psnr", {**alone, "lo": 1.0, "hi": 2.0}) == "1.50 [1.00, 2.00]"


def test_seeds_measured_on_other_images_are_refused() -> None:
    rows: list[dict[str, Any]] = [{"method": "a", "id": "1", "l1": 0.5}, {"method": "b", "id": "1", "l1": None}]
    assert np.array_equal(values_of(rows, ["a", "b"])["l1"], [[0.5], [float("nan")]], equal_nan=True)
    with pytest.raises(DataError, match="not measured on the same images"):
        values_of([*rows, {"method": "b", "id": "2", "l1": 0.1}], ["a", "b"])


@pytest.mark.parametrize(
    ("own", "steps", "expected"),
    [("0.999", 500, 0.976), ("0.999", 24_000, 0.999), ("0.999", 2, 0.0), ("null", 2, None)],
)
def test_the_average_spans_the_same_share_of_a_shorter_training(
    own: str, steps: int, expected: float | None, tmp_path: Path
) -> None:
    job = Job(COLOURS, tmp_path, tmp_path, steps)
    job.base.mkdir()
    (job.base / "config.yaml").write_text("ema: 0.5\ntrainer:\n  max_steps: 7\n")
    (job.base / "config.inpaint.yaml").write_text(f"ema: {own}\ntrainer:\n  max_steps: 12000\n")
    assert ablation.ema(job) == expected


def test_arguments_become_options() -> None:
    arguments = {"sail": False, "codec": "pca", "lr": 0.1, "widths": [4, 8], "blocks": None}
    typed = [
        "--model.sail=false",
        "--model.codec=pca",
        "--model.lr=0.1",
        "--model.widths=[4, 8]",
        "--model.blocks=null",
    ]
    assert options(arguments) == typed


@pytest.mark.parametrize("text", ["", "0,a", "1,1", "-1,2"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="are no seeds"):
        seeds_of(text)
