// Section in view: marked in the list of sections.
const links = new Map([...document.querySelectorAll(".contents a")].map(a => [a.hash.slice(1), a]));
const seen = new IntersectionObserver(entries => {
  for (const entry of entries) entry.target.inView = entry.isIntersecting;
  const first = [...links.keys()].find(id => document.getElementById(id)?.inView);
  for (const [id, link] of links) id === first ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
}, { rootMargin: "-10% 0px -60%" });
for (const id of links.keys()) if (document.getElementById(id)) seen.observe(document.getElementById(id));

// Tables: sorted by a click on a column, and only rows with the words asked for.
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
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
      count += !row.hidden;
    }
    shown.textContent = count + " of " + rows.length;
  });
}

// Pictures: an object, its number and its line in the list belong together, and so do a detection and what it found.
for (const scene of document.querySelectorAll(".scene")) {
  const parts = [...scene.querySelectorAll("[data-object]")];
  const keys = element => {
    const part = element.closest?.("[data-object]");
    if (!part || !scene.contains(part)) return new Set();
    const row = scene.querySelector(`li[data-object="${part.dataset.object}"]`), all = new Set([part.dataset.object]);
    if (row.dataset.match) all.add(row.dataset.match);
    for (const other of scene.querySelectorAll(`li[data-match="${part.dataset.object}"]`)) all.add(other.dataset.object);
    return all;
  };
  const light = event => {
    const hot = event.type === "pointerleave" || event.type === "focusout" ? new Set() : keys(event.target);
    for (const part of parts) part.classList.toggle("hot", hot.has(part.dataset.object));
  };
  for (const type of ["pointerover", "pointerleave", "focusin", "focusout"]) scene.addEventListener(type, light);
  scene.addEventListener("keydown", event => {
    const row = event.target.closest?.("li"), step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!row || !step) return;
    const rows = [...row.parentElement.children].filter(other => !other.classList.contains("off"));
    const next = rows[rows.indexOf(row) + step];
    if (!next) return;
    event.preventDefault();
    row.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

// Pictures: detections by score and by verdict; an object whose detection is below the score is not found.
for (const gallery of document.querySelectorAll(".gallery")) {
  const form = gallery.querySelector(".controls"), shown = form.querySelector("output");
  form.hidden = false;
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("input", () => {
    const least = Number(form.elements.score.value);
    shown.textContent = least.toFixed(2);
    for (const scene of gallery.querySelectorAll(".scene")) {
      const found = new Set();
      for (const row of scene.querySelectorAll("li[data-kind]")) {
        const high = Number(row.dataset.score) >= least;
        if (high && row.dataset.match) found.add(row.dataset.match);
        const off = !high || !form.elements[row.dataset.kind].checked;
        for (const part of scene.querySelectorAll(`[data-object="${row.dataset.object}"]`)) part.classList.toggle("off", off);
      }
      for (const row of scene.querySelectorAll("li:not([data-kind])")) {
        const right = found.has(row.dataset.object), shape = scene.querySelector(`.shape[data-object="${row.dataset.object}"]`);
        const mark = row.querySelector(".mark");
        mark.textContent = right ? "✓" : "○";
        for (const element of [mark, shape]) {
          element.classList.toggle("true", right);
          element.classList.toggle("missed", !right);
        }
      }
      scene.querySelector(".found").textContent = found.size;
    }
  });
  // On a page of its own nothing stands below the pictures.
  if (!gallery.closest("section")) for (const part of gallery.querySelectorAll("details")) part.open = true;
}
const open = () => document.querySelector(`details[id="${CSS.escape(location.hash.slice(1))}"]`)?.setAttribute("open", "");
addEventListener("hashchange", open);
open();
