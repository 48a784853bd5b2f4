"""The script of the page: sorting tables, showing values, moving and zooming the graph.

Without it the page says the same: values then show where the mouse rests, and tables stand in their first order.
"""

SCRIPT = """
"use strict";
// Sorting: the first click shows the largest numbers, or the first words; the third brings back the order of the page.
const number = text => text === "–" ? NaN : Number(text.replace(/[,×%<~*]|dB/g, ""));
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], first = [...body.rows];
  table.tHead.addEventListener("click", event => {
    const head = event.target.closest("button")?.closest("th");
    if (!head) return;
    const place = head.cellIndex;
    const key = row => row.cells[place].dataset.v ?? row.cells[place].textContent.trim();
    const words = first.every(row => isNaN(number(key(row) || "–")));
    const steps = words ? ["ascending", "descending"] : ["descending", "ascending"];
    const next = steps[steps.indexOf(head.getAttribute("aria-sort")) + 1];
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    if (!next) { body.append(...first); return; }
    head.setAttribute("aria-sort", next);
    const sign = next === "ascending" ? 1 : -1;
    const order = (a, b) => {
      if (words) return sign * key(a).localeCompare(key(b));
      const x = number(key(a) || "–"), y = number(key(b) || "–");
      return isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : sign * (x - y);
    };
    body.append(...[...first].sort(order));
  });
}

// Values: what stands in a `title` shows under mouse, finger and keyboard; arrow keys go from mark to mark.
const tip = document.body.appendChild(document.createElement("div"));
tip.className = "tip";
tip.setAttribute("role", "status");
let shown = null;
const show = mark => {
  shown?.classList.remove("shown");
  shown = mark;
  tip.textContent = mark ? mark.dataset.tip : "";
  if (!mark) return;
  mark.classList.add("shown");
  const box = mark.getBoundingClientRect(), width = tip.offsetWidth, height = tip.offsetHeight;
  const room = document.documentElement.clientWidth - width - 8;
  tip.style.left = `${Math.max(8, Math.min(box.left + box.width / 2 - width / 2, room))}px`;
  tip.style.top = `${box.top > height + 14 ? box.top - height - 8 : box.bottom + 8}px`;
};
for (const title of document.querySelectorAll("svg title")) {
  title.parentNode.dataset.tip = title.textContent;
  title.closest("a")?.setAttribute("aria-label", title.textContent);
  title.remove();
}
for (const named of document.querySelectorAll("body [title]")) {
  named.dataset.tip = named.title;
  if (named.matches("button")) named.setAttribute("aria-description", named.title);
  named.removeAttribute("title");
}
for (const kind of ["pointerover", "pointerdown"])
  document.addEventListener(kind, event => show(event.target.closest?.("[data-tip]")));
document.addEventListener("scroll", () => show(null), {capture: true, passive: true});
document.addEventListener("keydown", event => { if (event.key === "Escape") show(null); });
document.addEventListener("focusin", event => {
  const mark = event.target.matches("svg a") ? event.target.querySelector("[data-tip]") : event.target;
  if (mark?.dataset.tip && event.target.matches(":focus-visible")) show(mark);
});
document.addEventListener("focusout", () => show(null));
for (const chart of document.querySelectorAll("svg, .track, abbr")) {
  const marks = [...chart.querySelectorAll("[data-tip]")];
  if (!marks.length && !chart.dataset.tip) continue;
  chart.tabIndex = 0;
  if (!marks.length) continue;
  chart.setAttribute("role", "application");
  chart.setAttribute("aria-roledescription", "chart");
  let place = -1;
  chart.addEventListener("focus", () => { if (chart.matches(":focus-visible")) show(marks[Math.max(0, place)]); });
  chart.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    place = Math.min(Math.max(0, Math.max(0, place) + step), marks.length - 1);
    show(marks[place]);
  });
}

// What scrolls sideways can be reached by keyboard; what does not is no stop.
const boxes = document.querySelectorAll(".scroll");
const stops = new ResizeObserver(entries => {
  for (const {target} of entries) {
    const box = target.closest(".scroll"), scrolls = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle("more", scrolls);
    if (scrolls) box.tabIndex = 0; else box.removeAttribute("tabindex");
  }
});
for (const box of boxes) { stops.observe(box); stops.observe(box.firstElementChild); }

// The graph: drag to move, buttons to zoom, and one file at a time gives it its colors.
for (const graph of document.querySelectorAll(".graph")) {
  const drawings = [...graph.querySelectorAll(".scroll > svg")];
  let zoom = 1;
  const scale = wanted => {
    zoom = Math.min(Math.max(wanted, 1), 5);
    for (const drawing of drawings) {
      const box = drawing.parentNode, middle = (box.scrollLeft + box.clientWidth / 2) / (box.scrollWidth || 1);
      drawing.style.width = `${100 * zoom}%`;
      drawing.classList.toggle("near", zoom >= 2);
      box.scrollLeft = middle * box.scrollWidth - box.clientWidth / 2;
    }
  };
  graph.addEventListener("click", event => {
    const by = event.target.closest("button")?.dataset.zoom;
    if (by) scale(by === "all" ? 1 : zoom * Number(by));
  });
  graph.addEventListener("wheel", event => {
    if (!event.ctrlKey || !event.target.closest(".scroll")) return;
    event.preventDefault();
    scale(zoom * (event.deltaY < 0 ? 1.2 : 1 / 1.2));
  }, {passive: false});
  graph.addEventListener("pointermove", event => {
    if (event.pointerType === "mouse" && event.buttons === 1)
      event.target.closest(".scroll")?.scrollBy(-event.movementX, -event.movementY);
  });
  graph.addEventListener("change", event => {
    const [kinds, bits] = [event.target.dataset.kinds.split(" "), event.target.dataset.bits.split(" ")];
    const words = event.target.dataset.words.split("\\n");
    for (const drawing of drawings) drawing.querySelectorAll(".node[data-layer]").forEach((node, i) => {
      node.setAttribute("class", `node ${kinds[i]}`);
      node.querySelector("text").textContent = bits[i];
      node.dataset.tip = words[i];
    });
  });
}
"""
