"""The page of a run: whole and self-contained, and with what is there when something is missing."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup

import pipeline_steps
from pipeline_steps.common.cli import call_step
from pipeline_steps.recipe import load_recipe
from pipeline_steps.report.figures.captions import CAPTIONS
from pipeline_steps.report.page import html_page
from pipeline_steps.report.run_page.rule_graph import draw_graph, read_graph
from pipeline_steps.report.run_page.sections import SECTIONS
from pipeline_steps.run.result_files import ResultFiles
from pipeline_steps.write_report import main, parser

ANCHORS = set(SECTIONS) - {"ablations", "report"}
"""Sections that every page has."""


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> ResultFiles:
    """A private copy of the run's results; the data stay where they are."""
    shutil.copytree(finished / "results", tmp_path / "results")
    return ResultFiles(load_recipe(finished / "recipe.yaml"), tmp_path / "results")


def write(finished: Path, run: ResultFiles, redraw: bool = False) -> str:
    page = run.root / "report/index.html"
    arguments = ["--recipe", str(finished / "recipe.yaml"), "--results", str(run.root), "--output", str(page)]
    figures = [] if redraw else ["--figures", str(run.figures)]
    assert call_step(parser, main, [*arguments, *figures]) == 0
    return page.read_text()


def section_html(page: str, anchor: str) -> str:
    """One section."""
    return page[page.index(f'<section id="{anchor}"') :].partition("</section>")[0]


def section(page: str, anchor: str) -> str:
    """Text of one section, tags taken out."""
    return re.sub(r"<[^>]*>", " ", section_html(page, anchor))


class Links(HTMLParser):
    """Addresses and names of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name == "id" and value:
                self.ids.append(value)


def test_page_of_a_finished_run_has_every_section_and_figure_and_needs_no_other_file(
    finished: Path, run: ResultFiles
) -> None:
    page = write(finished, run)
    links = Links(page)
    assert set(links.ids) >= ANCHORS
    assert {f"figure-{name}" for name in CAPTIONS} <= set(links.ids)
    assert len(links.ids) == len(set(links.ids))
    assert all(link.startswith(("#", "data:")) for link in links.links)
    assert {link[1:] for link in links.links if link.startswith("#")} <= set(links.ids)
    assert "url(" not in page.replace("url(#arrow)", "")
    assert 'class="absent"' not in page


def test_tables_of_the_report_stand_beside_ours_on_lvis(finished: Path, run: ResultFiles, tmp_path: Path) -> None:
    settings = json.loads((finished / "recipe.yaml").read_text())
    settings["data"] = {**settings.get("data", {}), "source": "download"}
    settings |= {"evaluation": {"max_detections": 300}, "report": {"tables": {"table5": {"val": ["ensemble"]}}}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(settings))
    ours = json.loads(run.metrics.of(name="ensemble").read_text()) | {"max_detections": 300}
    run.metrics.of(name="ensemble").write_text(json.dumps(ours))
    text = section(write(tmp_path, run), "report")
    assert "Table 5 of the paper" in text
    assert "ours: missing" in text
    assert "36.4" in text
    assert f"{ours['AP_fixed']:.1f}" in text
    assert f"{ours['AP'] - 36.4:+.1f}" in text


def test_page_of_other_data_compares_nothing_with_the_report(finished: Path, run: ResultFiles) -> None:
    page = write(finished, run)
    assert '<section id="report"' not in page
    for said in ("36.4", "ours: missing", "LVIS val", "Challenge entry"):
        assert said not in page, said
    assert "masks, mini val" in section(page, "results")


def test_category_table_counts_the_images_of_the_train_file(finished: Path, run: ResultFiles) -> None:
    page = write(finished, run)
    train = json.loads((finished / "datasets/lvis/lvis_v0.5_train.json").read_text())["categories"]
    table = page[page.index('<section id="categories"') :].partition("</table>")[0]
    heads = re.findall(r"<button[^>]*>(.*?)</button>", table)
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.partition("<tbody>")[2].split("</tr>")[:-1]]
    shown = {row[0]: row[heads.index("train images")] for row in rows}
    assert shown == {category["name"]: f"{category['image_count']:,}" for category in train}


def test_category_table_has_a_row_for_every_category_with_the_ap_of_every_evaluation(
    finished: Path, run: ResultFiles
) -> None:
    page = write(finished, run)
    table = page[page.index('<section id="categories">') :].partition("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table.partition("<tbody>")[2])
    expected = run.metrics.of(name="ensemble").with_name("categories.csv").read_text().splitlines()
    assert len(rows) == len(expected) - 1
    for name in run.recipe.evaluations:
        assert f">AP {name}</button>" in table
    best = max(float(line.split(",")[-2] or 0) for line in expected[1:])
    assert f'data-value="{best:g}"' in table


def test_figures_drawn_before_are_used_as_they_are(finished: Path, run: ResultFiles) -> None:
    folder = run.figures
    (folder / "long_tail.svg").unlink()
    (folder / "figures.json").write_text(json.dumps({"scores": "", "training": "no curves", "long_tail": ""}))
    (folder / "scores.svg").write_text('<svg width="72pt"></svg>')
    page = write(finished, run)
    assert set(re.findall(r'id="figure-(\w+)"', page)) == {"scores"}
    assert 'width="120"' in page
    assert "Training curves: not drawn. no curves" in page
    assert "The long tail of the training data: not drawn." in page


def test_comparison_over_seeds_is_part_of_the_page_if_there_is_one(finished: Path, run: ResultFiles) -> None:
    assert '<section id="ablations">' not in write(finished, run)
    run.ablations.mkdir(parents=True)
    (run.ablations / "index.html").write_text(html_page("Own title", Markup("<h3>EQL</h3>"), heading="Own heading"))
    page = write(finished, run)
    assert "<h3>EQL</h3>" in section_html(page, "ablations")
    assert "Own" not in page
    assert sorted(set(Links(page).ids)) == sorted(Links(page).ids)


def damage(run: ResultFiles, what: str) -> None:
    match what:
        case "missing model":
            run.model("basic").unlink()
            run.beside_model("basic", "metrics.jsonl").unlink()
        case "interrupted training":
            run.model("bottleneck").unlink()
        case "metrics of another recipe":
            metrics = json.loads(run.metrics.of(name="basic").read_text())
            run.metrics.of(name="basic").write_text(json.dumps(metrics | {"recipe": "other"}))
        case "no sweep of re-scoring":
            run.rescoring.unlink()
        case "truncated sweep of re-scoring":
            run.rescoring.write_bytes(run.rescoring.read_bytes()[:500])
        case "no pictures":
            run.gallery.unlink()
        case "truncated page of pictures":
            run.gallery.write_text(run.gallery.read_text()[:5000])
        case "no list of rules":
            run.rule_graph.unlink()
        case "damaged list of rules":
            run.rule_graph.write_text('{"rules": [1]}')
        case "damaged manifest":
            run.metrics.of(name="ensemble").with_name("metrics.manifest.json").write_text('{"code": 3}')


DAMAGE = {
    "missing model": ("missing", "basic: the model is missing; it has not been trained yet"),
    "interrupted training": ("missing", "bottleneck: the training was interrupted after 40 of 6,400 images"),
    "metrics of another recipe": ("missing", "belongs to recipe &#39;other&#39;, not &#39;tiny&#39;"),
    "no sweep of re-scoring": ("ensemble", "not drawn. no results of sweep_rescoring"),
    "truncated sweep of re-scoring": ("ensemble", "not drawn."),
    "no pictures": ("pictures", "python -m pipeline_steps.draw_predictions makes it"),
    "truncated page of pictures": ("pictures", "truncated"),
    "no list of rules": ("workflow", "a run of the workflow writes it"),
    "damaged list of rules": ("workflow", "is not a list of rules"),
    "damaged manifest": ("origin", "Recipe tiny"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_page_of_a_damaged_run_is_written_and_says_what_is_missing(finished: Path, run: ResultFiles, what: str) -> None:
    damage(run, what)
    anchor, told = DAMAGE[what]
    page = write(finished, run, redraw="sweep" in what)
    if anchor == "missing":
        assert told in page[page.index('<section id="missing">') :].partition("</section>")[0]
    else:
        assert told in section(page, anchor)
    assert set(Links(page).ids) >= ANCHORS


def test_page_of_a_run_that_has_not_begun_names_everything_that_is_missing(finished: Path, tmp_path: Path) -> None:
    run = ResultFiles(load_recipe(finished / "recipe.yaml"), tmp_path / "nothing")
    page = write(finished, run, redraw=True)
    missing = page[page.index('<section id="missing">') :].partition("</section>")[0]
    assert all(f"{name}: the model is missing" in missing for name in run.trained)
    assert all(f"{name}: not evaluated" in missing for name in run.recipe.evaluations)
    assert "figure-long_tail" in page  # the data are there


def test_run_without_openimages_says_so_and_draws_the_long_tail(
    finished: Path, run: ResultFiles, tmp_path: Path
) -> None:
    settings = json.loads((finished / "recipe.yaml").read_text())
    settings |= {"data": {"openimages": {"enabled": False}}, "experts": []}
    models = [{"name": "basic", "detector": "config/detectors/mini_basic_fpn.yaml", "init": "basic_coco"}]
    settings |= {"models": models, "ensemble": {"members": [{"name": "basic"}]}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(settings))
    page = write(tmp_path, ResultFiles(load_recipe(tmp_path / "recipe.yaml"), run.root))
    assert "uses no OpenImages images" in section(page, "data")
    assert "figure-long_tail" in page
    assert "openimages_expert" not in page


def test_graph_puts_every_rule_below_what_it_needs_and_leaves_out_implied_edges() -> None:
    names = "abcdef"
    edges = [("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d"), ("e", "d"), ("d", "f"), ("b", "f")]
    rules = {name: {"jobs": 1, "stage": "data"} for name in names}
    drawn = draw_graph(read_graph({"rules": rules, "edges": edges}), {"a": 75.0}, "caption")
    tops = dict(zip(names, map(int, re.findall(r'<rect x="-?\d+" y="(\d+)"', drawn))))
    assert all(tops[a] < tops[b] for a, b in edges)
    assert tops["e"] == tops["c"]  # just above what needs it
    assert drawn.count("marker-end") == len({("a", "b"), ("b", "c"), ("c", "d"), ("e", "d"), ("d", "f")})
    assert "1 job, 1m15s" in drawn


def test_nodes_of_a_layer_do_not_overlap() -> None:
    rules = {f"r{k}": {"jobs": 1, "stage": "data"} for k in range(14)}
    edges = [[f"r{k}", f"r{n}"] for k in range(14) for n in range(k + 1, 14) if (k * 7 + n * 5) % 4 == 0]
    drawn = draw_graph(read_graph({"rules": rules, "edges": edges}), {}, "caption")
    boxes = re.findall(r'<rect x="(-?\d+)" y="(\d+)" width="(\d+)"', drawn)
    by_row: dict[int, list[int]] = {}
    for x, y, _ in boxes:
        by_row.setdefault(int(y), []).append(int(x))
    assert max(len(row) for row in by_row.values()) > 1
    for row in by_row.values():
        assert all(b - a >= int(boxes[0][2]) for a, b in itertools.pairwise(sorted(row)))


def test_html_stands_in_templates_only() -> None:
    package = Path(pipeline_steps.__file__).parent
    mixed = [
        path.name for path in package.rglob("*.py") if re.search(r"</\w+>|<(br|img|rect|path)\b", path.read_text())
    ]
    assert mixed == []
    assert {path.name for path in package.rglob("*.css")} == {"page.css", "colours.css"}  # pictures share the colours
    assert len(list(package.rglob("*.js"))) == 1


def test_the_page_tells_how_sure_its_figures_are(finished: Path, run: ResultFiles) -> None:
    metrics = json.loads(run.metrics.of(name="ensemble").read_text())
    half = metrics["bootstrap"]["intervals"]["APr"]["half_width"]
    page = write(finished, run)
    shown = f"{metrics['APr']:.1f} ± {half:.1f}"
    assert shown in section(page, "results")
    assert shown in page.partition("<section")[0]  # the headline
    told = section(page, "sure")
    low, high = (metrics["bootstrap"]["intervals"]["AP_fixed"][end] for end in ("low", "high"))
    assert f"{low:.1f} to {high:.1f}" in told
    assert "+0.0 (+0.0 to +0.0): no difference shown" in told  # the same detections as both systems
    run.comparison.write_text('{"first": 3}')
    assert "is no comparison of systems" in section(write(finished, run), "sure")
    run.comparison.unlink()
    assert "python -m pipeline_steps.compare_results does it" in section(write(finished, run), "sure")


def test_the_page_tells_what_errors_cost_and_draws_the_worst_confusions(finished: Path, run: ResultFiles) -> None:
    errors = json.loads(run.metrics.of(name="ensemble").read_text())["errors"]
    page = write(finished, run)
    told = " ".join(section(page, "errors").split())
    cost = errors["groups"]["all"]["errors"]["classification"]["cost"]
    assert f"wrong category {cost:+.1f}" in told
    assert "near-synonyms" not in told.partition("What is taken for what")[0]  # no table of parents was given
    pairs = errors["confusions"][:8]
    assert pairs
    html = section_html(page, "errors")
    assert html.count('class="positive" d="M') == html.count('class="called" d="M') == len(pairs)
    for pair in pairs:
        assert f"{pair['true_name']}, called {pair['predicted_name']}" in told
    run.ensemble("val").unlink()
    assert "Not drawn" in section(write(finished, run), "errors")


def test_the_page_tells_what_scores_mean(finished: Path, run: ResultFiles) -> None:
    scores = json.loads(run.metrics.of(name="ensemble").read_text())["calibration"]
    told = section(write(finished, run), "calibration").split()
    assert f"{scores['score']['all']['ece']:.1f}" in told
    assert f"{scores['rank_score']['f']['ece']:.1f}" in told


def test_without_analyses_the_sections_say_what_is_off(finished: Path, run: ResultFiles) -> None:
    for name in run.recipe.evaluations:
        path = run.metrics.of(name=name)
        metrics = json.loads(path.read_text())
        path.write_text(
            json.dumps({k: v for k, v in metrics.items() if k not in ("bootstrap", "errors", "calibration")})
        )
    page = write(finished, run)
    assert "±" not in section(page, "results")
    for anchor, key in (("sure", "bootstrap"), ("errors", "errors"), ("calibration", "calibration")):
        assert f"evaluation.{key} is" in section(page, anchor)
