"""The cost pass: what is counted is right, and nothing but `cost.json` changes."""

from __future__ import annotations

import contextlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import fakes_cost
from tests.fakes_benchmark import DATA, Fake, Hungry
from zoo.benchmark import Plan, make_plan, measure_cost, run, write_report
from zoo.benchmark.cost import FACTS, FILE, _write_items
from zoo.benchmark.cost_method import count, measure
from zoo.benchmark.cost_method import run as run_method
from zoo.benchmark.masks import ensure_masks
from zoo.benchmark.tables_cost import _read
from zoo.benchmark.work import Bench, Item
from zoo.errors import DataError

FAKES = "tests.fakes_cost."


def plan(*models: str, **options: Any) -> Plan:
    return make_plan(DATA, "center", list(models), limit=6, size=24, batch_size=4, **options)


def bench(module: Fake, made: Plan) -> Bench:
    return Bench(made, made.methods[0], module.eval(), torch.device("cpu"), contextlib.nullcontext)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    folder = tmp_path_factory.mktemp("items")
    made = plan("mean")
    ensure_masks(folder, made)
    found: list[Item] = torch.load(_write_items(folder, made, folder), weights_only=True)
    assert [item["id"] for item in found] == [f"dots/{n}" for n in range(4)]
    return found


@pytest.mark.parametrize("name", ["Convolving", "Sampling", "Reading", "Silent"])
def test_what_is_counted_is_what_paper_says(name: str, items: list[Item]) -> None:
    cls = getattr(fakes_cost, name)
    found = count(bench(cls(), plan("mean")), items[0])
    assert found._asdict() == {
        "parameters": cls.parameters_read, "macs": cls.macs, "evaluations": cls.evaluations
    }  # fmt: skip


def test_counting_leaves_no_trace(items: list[Item]) -> None:
    from torch.nn.modules import module as hooks

    one = bench(fakes_cost.Convolving(), plan("mean"))
    before = one.complete(items, 0)[1]
    there = (len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks))
    count(one, items[0])
    assert there == (len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks))
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.enabled
    assert torch.equal(one.complete(items, 0)[1], before)


def test_all_facts_are_measured(items: list[Item]) -> None:
    facts = measure(bench(fakes_cost.Convolving(), plan("mean")), items, repeats=10)
    assert facts.keys() == FACTS.keys()
    assert 0 < facts["latency_median_s"] <= facts["latency_p95_s"]
    assert facts["images_per_second"] > 0
    assert facts["peak_mb"] > 50
    assert facts["batch"] == 4


def test_a_batch_is_halved_until_memory_holds_it(items: list[Item]) -> None:
    facts = measure(bench(Hungry(), plan("mean")), items, repeats=1)
    assert facts["batch"] == 2


def test_images_without_what_the_method_needs_do_not_count(items: list[Item]) -> None:
    made = plan("tests.fakes_benchmark.Reader")
    from tests.fakes_benchmark import Reader

    mute = [{name: value for name, value in item.items() if name != "caption"} for item in items]
    assert measure(bench(Reader(), made), [*mute, items[0]], repeats=1)["evaluations"] == 0
    with pytest.raises(DataError, match="caption"):
        measure(bench(Reader(), made), mute, repeats=1)


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a run folder but when it was made."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_the_pass_adds_one_file_and_fails_method_by_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moody = FAKES + "Moody"
    made, folder, said = plan("mean", moody), tmp_path / "run", []
    run(made, folder)
    write_report(folder)
    before = files(folder)
    monkeypatch.setenv("ZOO_TEST_MOOD", "raise")
    place = tmp_path / "items"
    place.mkdir()
    answer = run_method(folder, moody, _write_items(folder, made, place), 1)
    assert answer == {"error": "RuntimeError: not today"}
    monkeypatch.setenv("ZOO_TEST_MOOD", "exit")
    failed = measure_cost(folder, 10, lambda *now: said.append(now))
    assert failed.keys() == {moody}
    assert "ended with code 3" in failed[moody]
    assert said == [(0, 2, "mean"), (1, 2, moody), (2, 2, "cost")]
    first = json.loads((folder / FILE).read_text())
    assert first["methods"].keys() == {"mean"}
    assert first["methods"]["mean"].keys() == FACTS.keys()
    assert first["failed"] == failed
    assert (first["threads"], first["torch"], first["repeats"]) == (1, version("torch"), 10)
    monkeypatch.delenv("ZOO_TEST_MOOD")
    assert measure_cost(folder, 10) == {}
    second = json.loads((folder / FILE).read_text())
    assert second["methods"]["mean"] == first["methods"]["mean"], "what was measured stays"
    assert second["methods"][moody]["macs"] == fakes_cost.Moody.macs
    assert second["methods"][moody]["parameters"] == fakes_cost.Moody.parameters_read
    assert _read(folder / FILE) == second
    write_report(folder)
    after = files(folder)
    assert {name for name in after if after[name] != before.get(name)} == {FILE, "index.html", "table.md"}
    page = after["index.html"].decode().partition('<h2 id="cost">')[2].partition("<h2")[0]
    assert f"{fakes_cost.Moody.macs:,}" in page
    assert "10 repeats" in page
    assert "1 thread" in page
    (folder / FILE).unlink()
    write_report(folder)
    assert files(folder) == before


def test_facts_of_elsewhere_are_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def measured(folder: Path, label: str, *rest: object) -> dict[str, Any] | str:
        calls.append(label)
        return {"parameters": 0} if label == "mean" else "no"

    monkeypatch.setattr("zoo.benchmark.cost._measured", measured)
    run(plan("mean", "truth"), tmp_path / "run")
    path = tmp_path / "run" / FILE
    assert measure_cost(tmp_path / "run", 5) == {"truth": "no"}
    assert measure_cost(tmp_path / "run", 5) == {"truth": "no"}
    assert calls == ["mean", "truth", "truth"]
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "device": "another"}))
    measure_cost(tmp_path / "run", 5)
    path.write_text("{")
    measure_cost(tmp_path / "run", 5)
    assert calls == ["mean", "truth", "truth", *2 * ["mean", "truth"]]
    write_report(tmp_path / "run")
    assert "Not measured: truth (no)." in (tmp_path / "run" / "index.html").read_text()


def test_a_run_without_a_readable_image(tmp_path: Path) -> None:
    made = plan("mean", data_options={"broken": ",".join(map(str, range(6)))})
    run(made, tmp_path / "run")
    with pytest.raises(DataError, match="no image of the run can be read"):
        measure_cost(tmp_path / "run")
