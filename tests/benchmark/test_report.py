"""Summary, tables, strip and page of a run."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.speed.report import make_run
from tests.benchmark.test_plan import plan
from zoo.benchmark import render_table, run, summarize, to_json, write_report
from zoo.benchmark.latex import escape, latex
from zoo.benchmark.page_gallery import Budget, data_uri
from zoo.benchmark.page_pairs import matrices
from zoo.benchmark.plots import Costed, against_cost, curves, forest
from zoo.benchmark.report import cell, counted, markdown
from zoo.benchmark.store import read_rows
from zoo.benchmark.tables_pairs import SideBySide
from zoo.errors import DataError
from zoo.metrics.comparison import Band, compare
from zoo.metrics.definitions import DEFINITIONS
from zoo.metrics.statistics import Interval


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    run(plan("truth", "mean", "Crashing", batch_size=4), folder)
    return folder


def test_means_and_counts_are_those_of_the_rows(folder: Path) -> None:
    content = to_json(summarize(folder))
    assert (content["n"], content["failed"], content["run"]) == (21, 2, str(folder))
    by_method: dict[str, list[float]] = {}
    for row in read_rows(folder):
        if "error" not in row:
            by_method.setdefault(row["method"], []).append(row["l1_hole"])
    for method, values in by_method.items():
        found = content["methods"][method]["l1_hole"]
        assert found["mean"] == pytest.approx(np.mean(values))
        assert found["n"] == len(values)
        assert found["lo"] <= found["mean"] <= found["hi"]
    assert content["methods"]["truth"]["psnr"] == {"mean": 100.0, "lo": 100.0, "hi": 100.0, "n": 21}
    json.dumps(content, allow_nan=False)


def test_the_interval_is_the_bootstraps(folder: Path) -> None:
    values = [row["l1_hole"] for row in read_rows(folder) if row["method"] == "mean"]
    found = to_json(summarize(folder))["methods"]["mean"]["l1_hole"]
    half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values))
    assert found["hi"] - found["lo"] == pytest.approx(2 * half, rel=0.25)


def test_the_tables_say_n_intervals_and_failures(folder: Path) -> None:
    files = {path.name: path for path in write_report(folder)}
    assert {"table.md", "table.csv", "summary.json", "strip.png", "index.html"} <= set(files)
    for text in (render_table(summarize(folder), width=160), files["table.md"].read_text()):
        assert "n = 21" in text
        assert "Crashing" in text
        assert "fail" in text
    with files["table.csv"].open(newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["method"] for row in table} >= {"truth", "mean"}


class Loads(HTMLParser):
    """Everything in a page that a browser would fetch, and the scripts in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []
        self.feed(page)
        self.found += re.findall(r"url\(([^)]*)\)", page) + re.findall(r"@import.*", page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = ("src", "href", "xlink:href", "srcset", "poster", "data", "action", "background", "formaction")
        self.found += [value or "" for name, value in attrs if name in names]

    @property
    def outside(self) -> list[str]:
        return [target for target in self.found if not target.strip("\"'").startswith(("data:", "#"))]


def test_the_page_is_self_contained_and_escapes_captions(folder: Path) -> None:
    write_report(folder)
    page = (folder / "index.html").read_text()
    loads = Loads(page)
    assert loads.outside == []
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(loads.tags)
    assert "http:" not in page
    assert "https:" not in page
    assert "default-src 'none'" in page
    assert "&lt;script&gt;alert(" in page
    assert 'name="viewport"' in page
    assert page.count("data:image/png") >= 3
    assert loads.tags.count("svg") >= 3
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "of several plots in one page no two may share an id"
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_labels_are_text_in_plots_too() -> None:
    label = "<script>alert(1)</script>"
    value = Interval(1.0, 0.9, 1.1, 3)
    bands = [Band(low, low + 0.1, (value,)) for low in (0.0, 0.1)]
    for svg in (
        forest({label[:20]: value}, [label[:20]], "a"),
        curves("psnr", bands, [label], "b"),
        against_cost("psnr", [Costed(label, 0.1, value)], "c", "$x<y$"),
    ):
        assert svg.startswith("<svg")
        assert "<script" not in svg
        assert "http" not in svg
        assert "#010203" not in svg
        assert "currentColor" in svg
    assert "$x&lt;y$" in svg


def test_methods_of_ones_own_are_named_in_legends() -> None:
    value = Interval(1.0, 0.9, 1.1, 3)
    bands = [Band(low, low + 0.1, (value, value)) for low in (0.0, 0.1)]
    labels = ["_mine.Method", "other"]
    for svg in (
        curves("psnr", bands, labels, "a"),
        against_cost("psnr", [Costed(label, 0.1, value) for label in labels], "b", "s"),
    ):
        assert all(f">{label}<" in svg for label in labels)


def test_a_mark_in_the_matrix_needs_the_test_and_the_share_to_agree() -> None:
    small, large = np.full(55, 0.1), np.full(45, -1.0)
    values = {"often": np.concatenate([small, large]), "rarely": np.zeros(100)}
    found = compare(values, "higher")
    assert found[0].wins == 0.55
    assert found[0].holm_p < 0.05
    assert found[0].signed_ranks < 0
    side = SideBySide(("often", "rarely"), {"psnr": found}, {}, {})
    assert [[c["text"] for c in row["cells"]] for row in matrices(side)[0]["rows"]] == [["", "55 %"], ["45 %", ""]]
    side = SideBySide(
        ("often", "rarely"), {"psnr": compare(values | {"often": -values["rarely"] - 1}, "higher")}, {}, {}
    )
    cells = [row["cells"] for row in matrices(side)[0]["rows"]]
    assert (cells[0][1], cells[1][0]) == ({"text": "0 %*", "kind": "loss"}, {"text": "100 %*", "kind": "win"})


def test_a_cell_of_fewer_images_than_its_line_says_so(folder: Path) -> None:
    value = Interval(0.5, 0.4, 0.6, 7)
    assert counted("ssim", value, 7) == cell("ssim", value) == "0.5000 [0.4000, 0.6000]"
    assert counted("ssim", value, 9) == "0.5000 [0.4000, 0.6000], n = 7"
    assert counted("ssim", value, 9, "\n") == "0.5000\n[0.4000, 0.6000]\nn = 7"
    assert counted("ssim", value._replace(lo=math.nan), 9) == "0.5000, n = 7"
    assert counted("ssim", None, 9) == counted("ssim", value._replace(n=0), 9) == "-"
    summary = summarize(folder)
    mean = summary.methods["mean"]
    fewer = mean.metrics | {"psnr": mean.metrics["psnr"]._replace(n=20)}
    changed = replace(summary, methods=summary.methods | {"mean": replace(mean, metrics=fewer)})
    for text in (markdown(changed), render_table(changed, 160), latex(changed)):
        assert "n = 20" in text
    assert "n = 20" not in markdown(summary)


def test_brackets_are_no_markup_on_the_terminal(folder: Path) -> None:
    summary = summarize(folder)
    method = summary.methods["mean"]
    strange = replace(method.method, settings={"tag": "[/x] [bold]b"})
    changed = replace(summary, methods=summary.methods | {"mean": replace(method, method=strange)})
    assert "tag=[/x] [bold]b" in render_table(changed, 300)


def test_plots_of_the_same_numbers_are_the_same_bytes_and_of_nothing_none() -> None:
    value, nothing = Interval(1.0, 0.9, 1.1, 3), Interval(math.nan, math.nan, math.nan, 0)
    assert forest({"a": value}, ["a"], "k") == forest({"a": value}, ["a"], "k")
    assert forest({"a": nothing}, ["a"], "k") == ""
    assert curves("psnr", [Band(0, 0.1, (value,)), Band(0.1, 0.2, (nothing,))], ["a"], "k") == ""
    assert against_cost("psnr", [Costed("a", math.nan, value)], "k", "s") == ""
    whole = Interval(5.0, math.nan, math.nan, 3)  # a metric of sets without an interval
    assert "<svg" in forest({"a": whole}, ["a"], "k")
    assert cell("fid_tf", whole) == "5.000"


def test_the_page_compares_every_two_methods(folder: Path) -> None:
    write_report(folder)
    page = (folder / "index.html").read_text()
    with (folder / "pairs.csv").open(newline="") as file:
        pairs = list(csv.DictReader(file))
    assert {(pair["first"], pair["second"]) for pair in pairs} == {("mean", "tests.fakes_benchmark.Crashing")}
    rows = {(row["method"].rpartition(".")[2], row["id"]): row for row in read_rows(folder) if "error" not in row}
    both = [i for m, i in rows if m == "Crashing"]
    for pair in pairs:
        name = pair["metric"]
        values = [(rows["mean", i].get(name), rows["Crashing", i].get(name)) for i in both]
        values = [(a, b) for a, b in values if a is not None and b is not None]
        assert int(pair["n"]) == len(values)
        assert float(pair["difference"]) == pytest.approx(np.mean([a - b for a, b in values]))
        sign = 1 if DEFINITIONS[name].better == "higher" else -1
        wins = np.mean([(sign * (a - b) > 0) + 0.5 * (a == b) for a, b in values])
        assert float(pair["wins"]) == pytest.approx(wins)
        assert f"{100 * wins:.0f} %" in page
    assert "Mean ranks" in page
    assert "not every one" in page  # two images crashed one of the methods


def test_bands_are_means_over_images_of_a_hole_ratio(tmp_path: Path) -> None:
    make_run(tmp_path / "run", 60, 2, seed=3)
    write_report(tmp_path / "run")
    with (tmp_path / "run" / "bands.csv").open(newline="") as file:
        bands = [band for band in csv.DictReader(file) if band["metric"] == "psnr" and band["method"] == "telea"]
    rows = [row for row in read_rows(tmp_path / "run") if row["method"] == "telea"]
    assert sum(int(band["n"]) for band in bands) == len(rows)
    assert len(bands) > 3
    for band in bands:
        inside = [r["psnr"] for r in rows if float(band["above"]) < r["hole_ratio"] <= float(band["to"])]
        assert float(band["mean"]) == pytest.approx(np.mean(inside))
    assert "Against the size of the hole" in (tmp_path / "run" / "index.html").read_text()


def test_every_picture_stands_with_its_numbers(folder: Path) -> None:
    write_report(folder)
    page = (folder / "index.html").read_text()
    for title in ("Worst of each method", "Most disputed", "Random"):
        group = page.partition(f"<h3>{title}")[2].partition("<h3>")[0]
        articles = group.split('<article class="image">')[1:]
        assert articles
        for article in articles:
            assert article.count("<figure>") == 4, "input, two methods, truth"
            failures = article.count('<div class="none">failed')
            assert article.count("<img ") + article.count('<div class="none">') == 4
            assert article.count("<span>l1_hole ") == 2 - failures
    worst = sorted(
        (row for row in read_rows(folder) if row["method"] == "mean"), key=lambda r: (r["l1_hole"], r["id"])
    )[-1]
    group = page.partition("<h3>Worst of each method")[2].partition("<h3>")[0]
    (article,) = (a for a in group.split("<article")[1:] if f"{worst['id']} ·" in a)
    assert f"l1_hole {worst['l1_hole']:.4f}" in article
    assert "among the worst of mean" in article


def test_pictures_of_a_page_are_small_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 384, 3)).astype(np.uint8)
    uri = data_uri(noise)
    assert uri.startswith("data:image/webp;base64,")
    small = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert small.size == (192, 256)
    exact = Image.open(io.BytesIO(base64.b64decode(data_uri(noise[:64, :64]).partition(",")[2])))
    assert np.array_equal(np.asarray(exact), noise[:64, :64]), "small pictures are lossless"
    budget = Budget(left=3 * len(uri) - 1)
    assert budget.row([noise, None]) == [uri, ""]
    assert budget.row([noise, noise]) is None
    assert budget.row([noise]) == [uri]
    assert (budget.left, budget.refused) == (len(uri) - 1, 1)


def test_a_page_says_how_many_images_did_not_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budget, "__init__", lambda self: self.__dict__.update(left=20_000, refused=0))
    write_report(folder)
    page = (folder / "index.html").read_text()
    shown = sum(map(len, re.findall(r"data:image[^\"]+", page)))
    assert 0 < shown <= 20_000
    assert re.search(r"\d+ more images are left out", page)


def test_skipped_metrics_and_failures_are_said_with_their_reasons(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped = {"fid_tf": "no <weights> here", "kid": "no <weights> here"}
    found = replace(summarize(folder), skipped=skipped)
    monkeypatch.setattr("zoo.benchmark.report_files.summarize_table", lambda *_: found)
    write_report(folder)
    page, table = (folder / "index.html").read_text(), (folder / "table.md").read_text()
    section = page.partition("<h2>Not measured</h2>")[2].partition("<h2")[0]
    assert "fid_tf, kid" in section
    assert "no &lt;weights&gt; here" in section
    assert "skipped: fid_tf, kid (no &lt;weights> here)" in table
    failures = page.partition('<h2 id="failures">')[2].partition("<h2")[0]
    assert "tests.fakes_benchmark.Crashing: 2 of 21 images" in failures
    assert "no idea what this is" in failures


def test_the_files_do_not_tell_how_many_processes_there_were(folder: Path, tmp_path: Path) -> None:
    made = plan("truth", "mean", "Crashing", batch_size=4)
    for part in (2, 0, 1):
        run(made, tmp_path / "run", shard=(part, 3))
    files = write_report(tmp_path / "run")
    write_report(folder)
    for path in files:
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def test_seconds_are_on_the_page_only_where_they_are_asked_for(folder: Path) -> None:
    write_report(folder)
    assert "Quality against cost" not in (folder / "index.html").read_text()
    write_report(folder, seconds=True)
    page = (folder / "index.html").read_text()
    assert "Quality against cost" in page
    assert "as rows were timed" in page


def test_a_cost_pass_is_shown(folder: Path) -> None:
    facts = {"latency_median_s": 0.25, "parameters": 1_234_567, "watts": 3.5}
    content = {"device": "a <fast> one", "methods": {"mean": facts}}
    (folder / "cost.json").write_text(json.dumps(content))
    try:
        write_report(folder)
        page = (folder / "index.html").read_text()
        section = page.partition('<h2 id="cost">')[2].partition("<h2")[0]
        for text in ("a &lt;fast&gt; one", "1,234,567", "0.25", "watts", "<svg"):
            assert text in section
        facts = (folder / "table.md").read_text().partition("Cost. ")[2]
        assert "a &lt;fast> one" in facts
        assert "| method | latency, median (s) | parameters | watts |" in facts
        assert "| mean | 0.25 | 1,234,567 | 3.5 |" in facts
        shown = render_table(summarize(folder), 120).partition("\ncost (table.md says how")[2]
        assert re.search(r"mean +0.25 +1,234,567 +3.5\n", shown)
        (folder / "cost.json").write_text('{"methods": {"mean": {"parameters": "many"}}}')
        with pytest.raises(DataError, match="cost pass"):
            write_report(folder)
    finally:
        (folder / "cost.json").unlink()
    write_report(folder)
    assert "Cost. " not in (folder / "table.md").read_text()


def test_latex_is_escaped_and_marks_the_best(folder: Path) -> None:
    write_report(folder)
    text = (folder / "table.tex").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    columns = lines[lines.index(r"\toprule") + 1].count(" & ") + 1
    assert [line.count(" & ") + 1 for line in body] == [columns] * 3
    assert r"tests.fakes\_benchmark.Crashing" in body[2]
    assert re.search(r"(?<!\\)[_%#&](?! )", "\n".join(body)) is None
    assert r"\textbf" not in body[0], "nothing can beat the truth"
    found = to_json(summarize(folder))["methods"]
    better = min(("mean", "tests.fakes_benchmark.Crashing"), key=lambda label: found[label]["l1_hole"]["mean"])
    assert rf"\textbf{{{found[better]['l1_hole']['mean']:.4f}}}" in text
    assert escape("a_b & 5 % {x} ~^ \\") == (r"a\_b \& 5 \% \{x\} \textasciitilde{}\textasciicircum{} \textbackslash{}")


def test_the_strip_has_a_column_per_picture(folder: Path) -> None:
    write_report(folder)
    strip = np.asarray(Image.open(folder / "strip.png").convert("RGB"))
    truth = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.rglob("images/truth/*.png"))]
    assert truth
    assert strip.shape[1] >= 4 * truth[0].shape[1], "input, mean, Crashing, truth"
    assert strip.shape[0] > truth[0].shape[0]


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    run(plan("mean", batch_size=4), tmp_path / "run", shard=(0, 2))
    text = render_table(summarize(tmp_path / "run"), width=120)
    assert re.search("incomplete|unfinished|missing", text)
