"""Two pictures for the README: the pipeline, from the workflow's rules, and the equalization loss, from its code."""

import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import networkx as nx
import torch

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.modeling.losses import equalization_weights, sigmoid_classification_loss
from pipeline_steps.report.page import render
from pipeline_steps.report.run_page.rule_graph import STAGES, read_graph

WORDS = {
    "download_lvis": "download LVIS, COCO, OpenImages",
    "download_coco_annotations": "download LVIS, COCO, OpenImages",
    "download_coco_images": "download LVIS, COCO, OpenImages",
    "download_openimages_tables": "download LVIS, COCO, OpenImages",
    "download_weights": "download ImageNet weights",
    "check_data": "check every file",
    "choose_openimages": "pick OpenImages boxes of shared categories",
    "choose_openimages_own": "pick OpenImages boxes of shared categories",
    "download_openimages_images": "pick OpenImages boxes of shared categories",
    "download_openimages_own_images": "pick OpenImages boxes of shared categories",
    "select_openimages": "pick OpenImages boxes of shared categories",
    "select_openimages_own": "pick OpenImages boxes of shared categories",
    "index_coco_boxes": "find objects that only COCO annotates",
    "convert_weights": "convert weights",
    "pretrain_coco": "pre-train on COCO",
    "finetune_lvis": "fine-tune on LVIS with the equalization loss",
    "train_expert": "train experts on COCO and OpenImages",
    "predict_boxes": "predict boxes at five scales",
    "gather_boxes": "gather the shards",
    "rescore_ensemble": "merge all models, raise scores of rare categories",
    "predict_masks": "predict masks of the merged boxes at five scales",
    "gather_masks": "gather the masks",
    "evaluate_lvis": "AP of rare, common, frequent categories",
    "measure_ensemble_gain": "what members and re-scoring bring",
    "sweep_rescoring": "what members and re-scoring bring",
    "judge_detections": "scores of right and wrong detections",
    "compare_results": "compare systems on the same images",
    "write_submission": "write and check submission.json",
    "tabulate_summary": "tables, the paper's beside ours",
    "tabulate_table": "tables, the paper's beside ours",
    "count_samples": "count what the loss learns from",
    "draw_predictions": "pictures of predictions",
    "plot_figures": "plots",
    "write_report": "one page for all",
}
"""Every rule of the challenge recipe in plain words; rules with the same words are one step of the picture."""

WIDTH, GAP, LINE, LETTERS = 172, 26, 20, 18
"""Width of a column, distance between columns, height of a line, and letters that fit on it."""

EXAMPLE = (("dog", "f", 1122), ("cat", "f", 1074), ("polar bear", "c", 94), ("puppy", "r", 9), ("wolf", "r", 1))
"""Categories with their group and train images (LVIS v0.5); a proposal of the first is looked at."""

ABSENT = "puppy"  # verified to be absent in the image of the proposal (S_N)


def workflow_rules(root: Path, configfile: str = "config/challenge.yaml") -> dict[str, Any]:
    """Rules of a recipe and what needs what, from Snakemake: ``rules`` (name -> jobs, stage) and ``edges``.

    Args:
        configfile: the recipe; its data are taken to be missing.

    Raises:
        UserError: Snakemake cannot plan the recipe.
    """
    with tempfile.TemporaryDirectory() as empty:
        command = [sys.executable, "-m", "snakemake", "--configfile", configfile, "--cores", "1"]
        command += ["--config", f"datasets_root={empty}", "--rulegraph", "mermaid-js", "--", "all"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"Snakemake does not plan {configfile}: {done.stderr.strip()[-500:]}")
    stages = {
        names[1] or names[0]: path.stem
        for path in sorted(root.glob("workflow/rules/*.smk"))
        for names in re.findall(r"^ *(?:use )?rule (\w+)(?: as (\w+) with)?:", path.read_text(encoding="utf-8"), re.M)
    }
    names = dict(re.findall(r"^\s*(id\d+)\[(\w+)\]$", done.stdout, re.M))
    edges = re.findall(r"^\s*(id\d+) --> (id\d+)$", done.stdout, re.M)
    rules = {name: {"jobs": 1, "stage": stages[name]} for name in names.values() if name in stages}
    return {"rules": rules, "edges": sorted([names[a], names[b]] for a, b in edges)}


def pipeline_svg(rules: dict[str, Any]) -> str:
    """Stages as columns with their steps in plain words, as SVG.

    Args:
        rules: from :func:`workflow_rules`.

    Raises:
        UserError: a rule has no :data:`WORDS`.
    """
    graph = read_graph(rules)
    if new := [name for name in graph if name not in WORDS]:
        raise UserError(f"rules without plain words: {', '.join(new)}; add them to WORDS in {Path(__file__).name}")
    steps = nx.relabel_nodes(graph, {name: WORDS[name] for name in graph})
    stage_of = {WORDS[name]: stage for name, stage in graph.nodes(data="stage")}
    steps.remove_edges_from(list(nx.selfloop_edges(steps)))
    order = list(nx.lexicographical_topological_sort(steps))
    between = nx.DiGraph((stage_of[a], stage_of[b]) for a, b in steps.edges if stage_of[a] != stage_of[b])
    heads: dict[str, dict[str, Any]] = {}
    boxes = []
    bottom = 0
    for column, stages in enumerate(nx.topological_generations(between)):
        y = 20
        for stage in sorted(stages, key=list(STAGES).index):
            heads[stage] = {"stage": stage, "name": STAGES[stage], "x": 20 + column * (WIDTH + GAP), "y": y}
            y += 46
            for step in (step for step in order if stage_of[step] == stage):
                lines = textwrap.wrap(step, LETTERS)
                height = LINE * len(lines) + 14
                boxes.append({"stage": stage, "lines": lines, "x": heads[stage]["x"], "y": y, "height": height})
                y += height + 10
            y += 16
        bottom = max(bottom, y)
    arrows = [(heads[a], heads[b]) for a, b in sorted(nx.transitive_reduction(between).edges)]
    columns = max(head["x"] for head in heads.values()) + WIDTH + 20
    return render(
        "pipeline.svg", heads=heads.values(), boxes=boxes, arrows=arrows, size=(columns, bottom), width=WIDTH, line=LINE
    )


def pulls() -> tuple[list[float], list[float], list[int]]:
    """Gradients of the logits of :data:`EXAMPLE`, all at a score of one half, for one proposal of the first category.

    Returns:
        Those of the sigmoid loss, those of the equalization loss, and the weights of the latter.
    """
    tail = torch.tensor([letter != "f" for _, letter, _ in EXAMPLE])
    judged = torch.tensor([[name in (EXAMPLE[0][0], ABSENT) for name, *_ in EXAMPLE]])
    label = torch.tensor([0])
    weights = equalization_weights(label, torch.tensor([0]), tail, judged)
    gradients = []
    for chosen in (None, weights):
        logits = torch.zeros(1, len(EXAMPLE), requires_grad=True)
        sigmoid_classification_loss(logits, label, chosen).backward()
        assert logits.grad is not None
        gradients.append(logits.grad[0].tolist())
    return gradients[0], gradients[1], weights[0].int().tolist()


def eql_svg() -> str:
    """What one proposal of a frequent category does to rare ones, under both losses, as SVG."""
    sigmoid, equalized, weights = pulls()
    rows = []
    for k, (name, letter, images) in enumerate(EXAMPLE):
        known = "verified absent" if name == ABSENT else "frequent" if letter == "f" else "unknown here"
        why = f"{known}: weight {weights[k]}" if k else "its own category"
        row = {"name": name, "group": GROUPS[letter], "images": images, "why": why}
        rows.append({**row, "pulls": [sigmoid[k], equalized[k]]})
    return render("eql.svg", rows=rows)
