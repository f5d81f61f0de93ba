"""The page as a whole: the figures that matter, what is missing, then the sections."""

from __future__ import annotations

from markupsafe import Markup

from pipeline_steps.report.page import html_page, part
from pipeline_steps.report.run_page.headline import headline
from pipeline_steps.report.run_page.sections import SECTIONS, Run


def _problems(run: Run) -> list[str]:
    """What of the recipe is not there, in the order in which it is made."""
    problems = [state.problem for state in run.states if state.problem]
    problems += [f"{entry.name}: not evaluated. {entry.missing}" for entry in run.measured if entry.missing]
    return problems


def run_page(run: Run) -> str:
    """The page of a run as HTML, one file that needs no network."""
    recipe = run.files.recipe
    shown = [(section.anchor, section.title, content) for section in SECTIONS if (content := section.make(run))]
    if problems := _problems(run):
        listed = Markup("").join(part("absent", problem) for problem in problems)
        shown.insert(0, ("missing", "Missing in this run", listed))
    lead = []
    if recipe.data.source == "mini":
        lead.append("Data: the embedded mini world, not LVIS. Its figures compare models with each other only.")
    content = part("headline", headline(run.measured)) + Markup("").join(part("section", *one) for one in shown)
    links = [(anchor, title) for anchor, title, _ in shown]
    return html_page(f"Recipe {recipe.name}: report", content, lead, links)
