"""Tables as HTML: as they are in Markdown, and a large one that is sorted and searched in the browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import pandas as pd

from pipeline_steps.report.markdown import MISSING, Grid, figure
from pipeline_steps.report.page import data_uri

STYLE = """
.wide { overflow-x: auto; margin: 0.8rem 0; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: 0.32rem 0.6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { background: var(--panel); font-weight: 600; } tbody tr:last-child td { border-bottom: 0; }
th.text, td.text { text-align: left; } td.text { white-space: normal; min-width: 6.5rem; }
td.text:first-child { font-weight: 600; }
tbody tr:hover td { background: var(--panel); } .notes { font-size: 0.92rem; color: var(--soft); padding-left: 1.2rem; }
.notes li { max-width: 80ch; } .tall { max-height: 34rem; overflow: auto; } .tall th { position: sticky; top: 0; }
.tall table { border-collapse: separate; border-spacing: 0; }
th button { all: unset; cursor: pointer; white-space: nowrap; }
th button:focus-visible { outline: 2px solid var(--link); }
th button::after { content: " \\2195"; color: var(--soft); }
th[aria-sort="ascending"] button::after { content: " \\2191"; }
th[aria-sort="descending"] button::after { content: " \\2193"; }
.search { display: flex; flex-wrap: wrap; gap: 0.6rem; align-items: center; font-size: 0.92rem; }
.search input { font: inherit; padding: 0.25rem 0.5rem; border: 1px solid var(--line); border-radius: 6px;
  background: var(--paper); color: var(--ink); max-width: 100%; }
"""

SCRIPT = """
for (const box of document.querySelectorAll(".sortable")) {
  const body = box.querySelector("tbody"), heads = [...box.querySelectorAll("th")], rows = [...body.rows];
  const shown = box.querySelector("output"), input = box.querySelector("input");
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const text = head.classList.contains("text"), was = head.getAttribute("aria-sort");
    const up = was === null ? text : was === "descending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    rows.sort((one, two) => {
      const a = key(one), b = key(two);
      if (!text && (a === "" || b === "")) return (a === "") - (b === "");
      return (up ? 1 : -1) * (text ? a.localeCompare(b) : a - b);
    });
    body.append(...rows);
  }));
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
      count += !row.hidden;
    }
    shown.textContent = count + " of " + rows.length;
  });
}
"""


def _cell(text: str, is_text: bool, value: str | None = None) -> str:
    kind = ' class="text"' if is_text else ""
    data = "" if value is None else f' data-value="{escape(value)}"'
    return f"<td{kind}{data}>{escape(text)}</td>"


def _head(names: Sequence[str], text_columns: int, buttons: bool = False) -> str:
    cells = []
    for column, name in enumerate(names):
        label = f'<button type="button">{escape(name)}</button>' if buttons else escape(name)
        kind = ' class="text"' if column < text_columns else ""
        cells.append(f'<th scope="col"{kind}>{label}</th>')
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def notes_list(notes: Sequence[str]) -> str:
    """Sentences below a table."""
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>' if notes else ""


def grid_table(grid: Grid) -> str:
    """A table with its notes, without its heading."""
    rows = "".join(
        f"<tr>{''.join(_cell(cell, column < grid.text_columns) for column, cell in enumerate(row))}</tr>"
        for row in grid.rows
    )
    head = _head(grid.header, grid.text_columns)
    return f'<div class="wide"><table>{head}<tbody>{rows}</tbody></table></div>{notes_list(grid.notes)}'


def _shown(value: object, is_text: bool) -> str:
    if is_text:
        return _cell(str(value), True)
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return _cell(MISSING, False, "")
    text = figure(float(value)) if isinstance(value, float) else f"{value:,}"
    return _cell(text, False, f"{value:g}" if isinstance(value, float) else str(value))


def sortable_table(frame: pd.DataFrame, text_columns: int, label: str) -> str:
    """A table whose columns sort on a click, with a field that shows only rows with certain words.

    Args:
        frame: text columns first; floats are shown with one decimal, missing values sort last.
        text_columns: number of text columns.
        label: what the rows are.
    """
    rows = "".join(
        f"<tr>{''.join(_shown(value, column < text_columns) for column, value in enumerate(row))}</tr>"
        for row in frame.astype(object).itertuples(index=False)
    )
    head = _head(list(frame.columns), text_columns, buttons=True)
    return (
        f'<div class="sortable"><div class="search"><label>Show only <input type="search" placeholder="words"></label>'
        f"<span><output>{len(frame)} of {len(frame)}</output> {escape(label)}</span>{download(frame, 'CSV')}</div>"
        f'<div class="wide tall"><table>{head}<tbody>{rows}</tbody></table></div></div>'
    )


def download(frame: pd.DataFrame, text: str, name: str = "categories.csv") -> str:
    """A link that saves ``frame``, unrounded, as CSV."""
    uri = data_uri(frame.to_csv(index=False).encode(), "text/csv")
    return f'<a href="{uri}" download="{escape(name)}">{escape(text)}</a>'
