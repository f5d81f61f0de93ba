"""The page as a whole: what is missing first, then the sections."""

from __future__ import annotations

from html import escape

from pipeline_steps.report.page import html_page
from pipeline_steps.report.run_page import html_tables, rule_graph
from pipeline_steps.report.run_page.sections import SECTIONS, Run

_STYLE = """
.plot { overflow-x: auto; background: #fff; border-radius: 4px; padding: 0.4rem; }
.plot img { display: block; min-width: min(34rem, 130vw); max-width: 100%; height: auto; margin: 0 auto; }
@media (max-width: 36rem) { .plot::before, .graph::before, .wide::before { content: "scrolls sideways \\2192";
  position: sticky; left: 0.4rem; display: block; width: max-content; font-size: 0.78rem; color: #59636e; } }
.absent { color: var(--soft); border-left: 3px solid var(--bad); padding-left: 0.7rem; max-width: 80ch; }
section > h2 { border-top: 1px solid var(--line); padding-top: 1.2rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 0.3rem; }
"""


def _problems(run: Run) -> list[str]:
    """What of the recipe is not there, in the order in which it is made."""
    problems = [state.problem for state in run.states if state.problem]
    problems += [f"{entry.name}: not evaluated. {entry.missing}" for entry in run.measured if entry.missing]
    return problems


def run_page(run: Run) -> str:
    """The page of a run as HTML, one file that needs no network."""
    recipe = run.files.recipe
    title = f"Recipe {recipe.name}: report"
    parts = [(section, run_html) for section in SECTIONS if (run_html := section.make(run))]
    links = "".join(f'<a href="#{section.anchor}">{escape(section.title)}</a>' for section, _ in parts)
    notes = []
    if recipe.data.source == "mini":
        notes.append("Data: the embedded mini world, not LVIS. Its figures compare models with each other only.")
    problems = _problems(run)
    missing = ""
    if problems:
        items = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
        missing = f'<section id="missing"><h2>Missing in this run</h2><ul class="absent">{items}</ul></section>'
        links = f'<a href="#missing">Missing in this run</a>{links}'
    body = (
        f"<h1>{escape(title)}</h1>{''.join(f'<p>{escape(note)}</p>' for note in notes)}<nav>{links}</nav>{missing}"
        + "".join(f'<section id="{s.anchor}"><h2>{escape(s.title)}</h2>{content}</section>' for s, content in parts)
    )
    style = "".join([_STYLE, html_tables.STYLE, rule_graph.STYLE, *dict.fromkeys(run.styles)])
    return html_page(title, body, style, html_tables.SCRIPT)
