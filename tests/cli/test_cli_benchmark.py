"""`zoo benchmark` and `zoo report` as typed."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from conftest import SMALL, Run

from tests.fakes import tiny_coco
from tests.fakes_benchmark import TrainedDrawing
from zoo.cli.benchmark import asked_runs
from zoo.cli.parsers import benchmark_parser
from zoo.weights import save_weights

QUICK = ("benchmark", "--models", "truth,mean", "--limit", "4", "--size", "32", "--batch-size", "2")


def _options(*words: str) -> dict[str, object]:
    [one] = asked_runs(benchmark_parser().parse_all(list(words)))
    return one.options


def test_a_table_on_stdout_progress_on_stderr(zoo: Run, place: Path) -> None:
    done = zoo(*QUICK, "--out", "run")
    assert done.code == 0, done.err
    for word in ("truth", "mean", "run:", "strip:", "page:"):
        assert word in done.out
    assert "4 images of shapes, object masks, 32 pixels" in done.err
    assert "benchmark 8/8" in done.err
    for name in ("strip.png", "index.html", "table.csv", "table.md"):
        assert (place / "run" / name).is_file()


def test_json_is_all_that_stdout_gets(zoo: Run, place: Path) -> None:
    done = zoo(*QUICK, "--json")
    facts = json.loads(done.out)
    assert (facts["n"], facts["failed"]) == (4, 0)
    truth = facts["methods"]["truth"]
    assert truth["l1"]["mean"] == 0.0
    assert truth["psnr"]["mean"] == 100.0
    assert set(truth["ssim_hole"]) == {"mean", "lo", "hi", "n"}
    assert (place / facts["run"]).is_dir()
    assert json.loads(zoo("report", facts["run"], "--json").out) == facts
    assert "truth" in zoo("report", facts["run"]).out


ASKED = "tdanet_l1,lpips_alex_stand-in,fid_tf_stand-in,kid_stand-in"


def test_metrics_that_are_asked_for(zoo: Run, place: Path) -> None:
    words = (*QUICK, "--metrics", ASKED, "--json", "--offline")
    whole = zoo(*words)
    assert whole.code == 0, whole.err
    facts = json.loads(whole.out)
    truth, mean = facts["methods"]["truth"], facts["methods"]["mean"]
    assert (truth["lpips_alex_stand-in"]["mean"], truth["tdanet_l1"]["mean"]) == (0.0, 0.0)
    assert abs(truth["fid_tf_stand-in"]["mean"]) < 1e-6
    assert mean["fid_tf_stand-in"]["mean"] > truth["fid_tf_stand-in"]["mean"]
    assert truth["fid_tf_stand-in"].keys() == {"mean", "lo", "hi", "n"}
    assert not {"fid_tf", "lpips_alex", "kid"} & truth.keys()
    assert "skipped" not in facts
    rows = [json.loads(line) for path in (place / facts["run"] / "rows").iterdir() for line in path.open()]
    assert len(rows) == 8
    assert all("lpips_alex_stand-in" in row and "lpips_alex" not in row for row in rows)
    assert json.loads(zoo(*words).out) == facts  # resumed: there is nothing to do
    for part in ("2/2", "1/2"):
        done = zoo(*words, "--out", "parts", "--shard", part)
        assert done.code == 0, done.err
    assert {**json.loads(done.out), "run": facts["run"]} == facts
    assert json.loads(zoo("report", facts["run"], "--json").out) == facts


def test_metrics_that_cannot_be_taken_are_skipped(zoo: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(place / "torch"))
    done = zoo(*QUICK, "--metrics", "lpips,tdanet_l1,fid", "--offline", "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert list(facts["skipped"]) == [
        *("lpips_alex", "lpips_alex_hole", "lpips_vgg", "lpips_vgg_hole"),
        *("fid_tf", "fid_clean"),
    ]
    assert all("downloads are forbidden" in reason for reason in facts["skipped"].values())
    assert "zoo benchmark: fid_tf, fid_clean: skipped: Inception" in done.err
    for metrics in facts["methods"].values():
        assert "tdanet_l1" in metrics
        assert not facts["skipped"].keys() & metrics.keys()


def test_metrics_on_the_command_line() -> None:
    assert _options("--metrics", "lpips, fid")["metrics"] == ["lpips", "fid"]
    assert _options("--features-files", "inception=a.pth,alexnet=b=c")["features_files"] == {
        "inception": "a.pth",
        "alexnet": "b=c",
    }


def test_a_protocol_on_a_coco_tree(zoo: Run, place: Path) -> None:
    root = tiny_coco(place / "tree", ("val2017",))
    words = ("benchmark", "--models", "truth,mean", "--protocol", "ecdm", "--data.root", root, "--limit", "2")
    done = zoo(*words, "--mask", "irregular:30-40", "--offline", "--json")
    assert done.code == 0, done.err
    assert "irregular:30-40 masks, 512 pixels, protocol ecdm" in done.err
    facts = json.loads(done.out)
    assert facts["protocol"]["name"] == "ecdm"
    assert set(facts["skipped"]) == {"lpips_alex", "lpips_vgg"}
    plan = json.loads((place / facts["run"] / "plan.json").read_text())
    assert (plan["protocol"], plan["protocol_sha256"]) == ("ecdm", facts["protocol"]["sha256"])
    assert (plan["dataset"], plan["size"], plan["split"]) == ("coco", 512, "test")
    assert plan["data_options"] == {"variant": "2017"}
    assert "-ecdm-" in facts["run"]
    assert _options("--protocol", "ecdm")["mask"] == "irregular:10-20"
    assert _options("--protocol", "zoo") == {"protocol": "zoo"}


def test_options_of_a_dataset(zoo: Run, place: Path) -> None:
    assert _options("--dataset", "coco", "--option", "variant=2014")["data_options"] == {"variant": "2014"}
    chosen = _options("--protocol", "tdanet", "--option", "variant=2014")
    assert (chosen["dataset"], chosen["data_options"]) == ("coco", {"variant": "2014"})
    folder = _options("--dataset", "folder", "--data.mask_root", "m", "--option", "mask_invert=true")
    assert folder["data_options"] == {"mask_root": "m", "mask_invert": True}
    (place / "mine.yaml").write_text("dataset: coco\ndata_options: {variant: karpathy}\n")
    assert _options("--suite", "mine.yaml", "--option", "variant=2014")["data_options"] == {"variant": "2014"}
    assert _options("--suite", "mine.yaml", "--protocol", "tdanet")["data_options"] == {"variant": "karpathy"}
    dots = ("--dataset", "tests.fakes_benchmark:Dots", "--mask", "center", "--models", "mean", "--limit", 3)
    assert zoo("benchmark", *dots, "--option", "broken=1").code == 5
    assert zoo("benchmark", *dots, "--option", "silent=true").code == 0


def test_protocols_are_listed(zoo: Run) -> None:
    facts = json.loads(zoo("list", "protocols", "--json").out)
    assert list(dict.fromkeys(fact["name"] for fact in facts)) == ["zoo", "ecdm", "mminvertfill", "tdanet"]
    assert [fact["dataset"] for fact in facts if fact["name"] == "ecdm"] == ["coco", "openimages"]
    assert facts[1]["masks"] == [f"irregular:{band}" for band in ("10-20", "30-40", "50-60")]
    assert "the tables of ECDM" in zoo("list", "protocols").out


def test_edited_captions_show_whether_a_method_obeys(zoo: Run, place: Path) -> None:
    obedient = "tests.fakes_benchmark.Obedient"
    words = ("benchmark", "--models", f"telea,{obedient}", "--limit", "12", "--size", "32")
    own = json.loads(zoo(*words, "--json").out)
    assert "colour_given" not in own["methods"][obedient]
    assert own["methods"][obedient]["colour_fidelity"]["mean"] == 1.0
    assert own["by_objects"][obedient]["colour_fidelity"]["1"]["mean"] == 1.0
    done = zoo(*words, "--captions", "deranged")
    assert done.code == 0, done.err
    assert "object masks, deranged captions, 32 pixels" in done.err
    assert "captions deranged" in done.out
    assert "colour_given" in done.out
    deranged = json.loads(zoo(*words, "--captions", "deranged", "--json").out)
    assert deranged["run"] != own["run"]
    found = deranged["methods"]
    assert (found[obedient]["colour_given"]["mean"], found[obedient]["colour_fidelity"]["mean"]) == (1.0, 0.0)
    telea = found["telea"]
    assert telea["moved"]["mean"] == telea["moved_hole"]["mean"] == telea["moved_known"]["mean"] == 0.0
    added = {name for name in telea if name.startswith("moved") or name.endswith("given")}
    assert {name: value for name, value in telea.items() if name not in added} == own["methods"]["telea"]
    assert _options("--captions", "deranged") == {"captions": "deranged"}


def test_the_same_command_again_does_only_what_is_missing(zoo: Run, place: Path) -> None:
    assert zoo(*QUICK, "--out", "run").code == 0
    rows = {path: path.read_bytes() for path in (place / "run/rows").glob("*.jsonl")}
    again = zoo(*QUICK, "--out", "run")
    assert again.code == 0
    assert {path: path.read_bytes() for path in (place / "run/rows").glob("*.jsonl")} == rows
    other = zoo(*QUICK[:-2], "--batch-size", 4, "--out", "run")
    assert other.code == 2
    assert "another plan" in other.err


def test_shards_fill_one_folder(zoo: Run, place: Path) -> None:
    whole = json.loads(zoo(*QUICK, "--json", "--out", "whole").out)
    for part in ("1/2", "2/2"):
        done = zoo(*QUICK, "--out", "parts", "--shard", part, "--json")
        assert done.code == 0, done.err
    assert json.loads(done.out)["methods"] == whole["methods"]


def test_a_third_partys_method_by_its_dotted_path(zoo: Run, place: Path) -> None:
    assert zoo("fit", "--model", "toymethod.Toy", *SMALL).code == 0
    words = ("--models", "toymethod.Toy,mean", "--limit", 4)
    done = zoo("benchmark", *words, "--json")
    assert done.code == 0, done.err
    assert "toymethod.Toy: preset nano, trained on shapes" in done.err
    facts = json.loads(done.out)
    assert facts["methods"]["toymethod.Toy"]["l1_hole"]["n"] == 4
    weights = "runs/toymethod.Toy-nano/inpaint/weights.safetensors"
    variant = zoo("benchmark", "--models", f"mean,toymethod.Toy@mine={weights}", "--limit", 2, "--size", 32)
    assert variant.code == 0, variant.err
    assert "toymethod.Toy@mine" in variant.out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--models", "deepfill", "--preset", "paper"), 4, "no 'paper' weights"),
        (("--models", "deepfill", "--weights", "deepfill=nowhere"), 4, "no such weights file"),
        (("--models", "mean,mean"), 2, "twice"),
        (("--models", "mean", "--mask", "objcet"), 2, "did you mean 'object'"),
        (("--models", "mean", "--dataset", "folder"), 2, "--data.root"),
        (("--models", "mean", "--dataset", "folder", "--data.root", "nowhere"), 3, "no such folder"),
        (("--models", "mean", "--set", "mean.steps=5"), 2, "steps"),
        (("--models", "mean", "--set", "mean.siez=32"), 2, "did you mean 'size'"),
        (("--models", "mean", "--set", "maen.size=32"), 2, "did you mean 'mean'"),
        (("--models", "mean", "--set", "mean.size=NaN"), 2, "takes a number"),
        (("--models", "mean", "--set", "mean.size=16", "--set", "mean.size=32"), 2, "set twice"),
        (("--models", "mean", "--set", "size=32"), 2, "not METHOD.OPTION=VALUE"),
        (("--models", "mean,telea", "--samples", "4"), 2, "none of these methods is stochastic"),
        (("--models", "mean", "--samples", "-1"), 2, "at least 0"),
        (("--models", "mean", "--guidance", "edges"), 2, "did you mean 'edge'"),
        (("--models", "mean", "--precision", "half"), 2, "unknown precision"),
        (("--models", "mean", "--captions", "recolored"), 2, "did you mean 'recoloured'"),
        (("--models", "mean", "--captions", "deranged", "--mask", "center"), 2, "only under object masks"),
        (("--metrics", "psnr"), 2, "unknown metric 'psnr'"),
        (("--metrics", "lpips_alx"), 2, "did you mean 'lpips_alex'"),
        (("--features-files", "inception"), 2, "names no file"),
        (("--features-files", "inceptoin=a"), 2, "did you mean 'inception'"),
        (("--metrics", "kid", "--features-files", "inception=nowhere"), 4, "no such file of Inception"),
        (("--option", "variant=2014"), 2, "option"),
        (("--dataset", "coco", "--option", "varaint=2014"), 2, "did you mean 'variant'"),
        (("--dataset", "folder", "--data.mask_root", "a", "--option", "mask_root=b"), 2, "mask_root is set twice"),
        (("--protocol", "tdanett"), 2, "did you mean 'tdanet'"),
        (("--protocol", "tdanet", "--size", "64"), 2, "on coco has size 256, not 64"),
        (("--protocol", "tdanet", "--dataset", "shapes"), 2, "has dataset coco or flickr30k or cub, not shapes"),
        (("--protocol", "ecdm", "--option", "variant=2014"), 2, "--option variant=2014"),
        (("--protocol", "ecdm", "--suite", "quick"), 2, "has dataset coco or openimages, not shapes"),
    ],
)
def test_bad_input(words: tuple[str, ...], code: int, message: str, zoo: Run, place: Path) -> None:
    done = zoo("benchmark", *words)
    assert done.code == code, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (place / "runs").exists()


def test_wrong_names_are_refused_before_torch_is_imported(place: Path) -> None:
    code = """
import sys
from zoo.cli.main import main
for words in ("--metrics psnr", "--features-files a", "--protocol x", "--protocol ecdm --size 9", "--option x=1"):
    assert main(["benchmark", *words.split()]) == 2, words
assert not {"torch", "lightning"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_failures_are_rows_and_exit_5(zoo: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.models.controls import Mean

    def fails(self: Mean, batch: object, noise: object) -> None:
        raise RuntimeError("no paint left")

    monkeypatch.setattr(Mean, "inpaint", fails)
    done = zoo(*QUICK, "--json")
    assert done.code == 5, done.err
    facts = json.loads(done.out)
    assert facts["failed"] == 4
    assert facts["methods"]["truth"]["l1"]["n"] == 4
    assert "4 of 8 rows failed" in done.err
    assert zoo("report", facts["run"]).code == 5


def test_options_over_a_suite(place: Path) -> None:
    assert _options("--suite", "quick")["limit"] == 32
    assert _options("--suite", "quick", "--limit", "3")["limit"] == 3
    assert _options("--suite", "freeform")["mask"] == "freeform"
    (place / "mine.yaml").write_text("mask: center\nmodels: [mean]\n")
    assert _options("--suite", "mine.yaml") == {"mask": "center", "models": ["mean"]}


def test_settings_are_read_as_values() -> None:
    words = ("--set", "ecdm.steps=50", "--set", "ecdm.scale=7.5", "--set", "a.b.C.mode=fast")
    assert _options(*words)["settings"] == {"ecdm": {"steps": 50, "scale": 7.5}, "a.b.C": {"mode": "fast"}}


def test_settings_reach_the_method_and_name_another_run(zoo: Run, place: Path) -> None:
    name = "tests.fakes_benchmark.TrainedDrawing"
    save_weights(TrainedDrawing(), place / "w.safetensors", preset="nano")
    words = ("benchmark", "--models", f"{name}=w.safetensors", "--limit", 4, "--size", 32, "--json")
    plain, drawn, again = (zoo(*words, *more) for more in ((), ("--set", f"{name}.k=1"), ("--set", f"{name}.k=1")))
    assert [done.code for done in (plain, drawn, again)] == [0, 0, 0], drawn.err
    assert "w.safetensors, k=1\n" in drawn.err
    assert "k=1" not in plain.err
    mean, sample = json.loads(plain.out), json.loads(drawn.out)
    assert mean["run"] != sample["run"]
    assert json.loads(again.out) == sample
    assert mean["methods"][name]["l1_hole"] != sample["methods"][name]["l1_hole"]
    assert mean["methods"][name]["raw_known_l1"] != sample["methods"][name]["raw_known_l1"]


def test_another_size_than_that_of_the_training_is_said(zoo: Run, place: Path) -> None:
    name = "tests.fakes_benchmark.TrainedDrawing"
    for size in (32, 48):
        save_weights(TrainedDrawing(size=size), place / f"{size}.safetensors", preset="nano")
    words = ("benchmark", "--models", f"mean,{name}@small=32.safetensors,{name}@large=48.safetensors", "--limit", 2)
    done = zoo(*words)
    assert done.code == 0, done.err
    assert f"{name}@large: preset nano, trained on unknown data at 48 pixels, 48.safetensors\n" in done.err
    assert f"{name}@small: preset nano, trained on unknown data, 32.safetensors\n" in done.err
    line = f"zoo benchmark: {name}@large: not measured at the size of their training; for that: --size 48\n"
    assert line in done.err
    own = zoo(*words, "--size", 48)
    assert "trained on unknown data at 32 pixels" in own.err
    assert "for that: --size 32\n" in own.err
    alone = zoo("benchmark", "--models", f"mean,{name}=48.safetensors", "--limit", 2)
    assert " at 48 pixels" not in alone.err
    assert "for that" not in alone.err


def test_samples_have_a_table_and_facts_of_their_own(zoo: Run, place: Path) -> None:
    name = "tests.fakes_benchmark.Drawing"
    words = ("benchmark", "--models", f"mean,{name}", "--limit", 4, "--size", 32)
    without, facts = (json.loads(zoo(*words, *more, "--json").out) for more in ((), ("--samples", 3)))
    assert without["run"] != facts["run"]
    assert facts["methods"] == without["methods"]
    assert "samples" not in without
    assert (facts["samples"]["n"], list(facts["samples"]["methods"])) == (3, [name])
    found = facts["samples"]["methods"][name]
    assert found["l1_hole"]["oracle_best"]["mean"] < found["l1_hole"]["mean"]["mean"]
    assert {"mean", "lo", "hi", "n"} == set(found["diversity"])
    done = zoo(*words, "--samples", 3)
    assert "4 images of shapes, 3 samples of each" in done.err
    assert "3 samples per image: mean, oracle best of 3 (chosen with the truth), diversity" in done.out
    report = zoo("report", facts["run"])
    assert report.out == done.out
    assert _options("--samples", "3") == {"samples": 3}


def test_what_is_not_typed_is_left_to_the_plan() -> None:
    assert _options() == {}
    typed = benchmark_parser().parse_all(["--shard", "2/4", "--devices", "3"])
    assert isinstance(typed, Namespace)
    assert (typed.shard, typed.devices) == ((1, 4), 3)


def test_report_of_nothing(zoo: Run, place: Path) -> None:
    assert zoo("report", "nowhere").code == 3
    (place / "empty").mkdir()
    done = zoo("report", "empty")
    assert done.code == 3
    assert "plan.json" in done.err
