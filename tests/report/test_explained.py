"""The pictures of the README: made from the workflow and the loss as they are, and committed as they are made."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline_steps.common.errors import UserError
from pipeline_steps.report.explained import ABSENT, EXAMPLE, WORDS, eql_svg, pipeline_svg, pulls, workflow_rules
from tests.workflow.checkout import ROOT, Checkout

PICTURES = ROOT / "docs/pictures"
SVG = "{http://www.w3.org/2000/svg}"
AGAIN = "run: python -m pipeline_steps.document_pictures"


def test_pipeline_is_drawn_from_the_rules_of_the_workflow(tmp_path: Path) -> None:
    rules = workflow_rules(Checkout(tmp_path).folder)
    assert set(rules["rules"]) == set(WORDS)  # every rule has its words, and no words are left over
    drawn = pipeline_svg(rules)
    assert drawn == (PICTURES / "pipeline.svg").read_text(), AGAIN
    columns: dict[str, float] = {}
    steps: dict[str, str] = {}
    for group in ElementTree.fromstring(drawn).iter(f"{SVG}g"):
        stage, text = group.attrib["class"].removeprefix("stage-"), group.find(f"{SVG}text")
        assert text is not None
        if "class" in text.attrib:
            columns[stage] = float(group[0].attrib["x"])
        else:
            steps[" ".join(span.text or "" for span in text)] = stage
            assert float(group[0].attrib["x"]) == columns[stage]
    assert set(steps) == set(WORDS.values())
    for one, other in ((rules["rules"].get(name, {}).get("stage") for name in edge) for edge in rules["edges"]):
        assert one == other or other is None or columns[one] < columns[other], (one, other)


@pytest.mark.parametrize("change", ["lost", "new"])
def test_changed_rules_give_another_picture(tmp_path: Path, change: str) -> None:
    rules = {name: {"jobs": 1, "stage": "data" if name == "check_data" else "train"} for name in WORDS}
    if change == "new":
        with pytest.raises(UserError, match="rule_without_words"):
            pipeline_svg({"rules": rules | {"rule_without_words": {"jobs": 1, "stage": "data"}}, "edges": []})
    else:
        edges = [["check_data", "pretrain_coco"]]
        whole = pipeline_svg({"rules": rules, "edges": edges})
        assert whole != pipeline_svg({"rules": {k: v for k, v in rules.items() if k != "train_expert"}, "edges": edges})


def test_picture_of_the_equalization_loss_shows_its_gradients() -> None:
    sigmoid, equalized, weights = pulls()
    for k, (name, letter, _) in enumerate(EXAMPLE):
        gradient = 1 / (1 + math.exp(0)) - (k == 0)  # sigmoid(0) - y
        assert sigmoid[k] == gradient
        spared = letter in "rc" and k > 0 and name != ABSENT  # equation 4
        assert weights[k] == (not spared)
        assert equalized[k] == (0 if spared else gradient)
    drawn = eql_svg()
    assert drawn == (PICTURES / "eql.svg").read_text(), AGAIN
    root = ElementTree.fromstring(drawn)
    pushed = [path for path in root.iter(f"{SVG}path") if path.attrib.get("class") == "down"]
    spared = list(root.iter(f"{SVG}circle"))
    assert len(pushed) == sum(value > 0 for value in [*sigmoid, *equalized])
    assert len(spared) == weights.count(0) > 0
