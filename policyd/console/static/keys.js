// Keys that lead: to the sections, through the rows of tables, and to what a page offers.

import { $, $$ } from "./dom.js";
import { fit, zoom } from "./view.js";

const ROWS = "table.rows tbody tr";
const LONG = { PageDown: 1, PageUp: -1 };
const NEXT = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 };
const GRAPH = { "+": () => zoom(0.8), "=": () => zoom(0.8), "-": () => zoom(1.25), 0: fit };

$("#help").addEventListener("click", () => $("#keys").showModal());
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "Escape") {
    if (typing) typing.blur();
    else $(".edge-panel .close")?.click();
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || $("dialog[open]")) return;
  if (walked(event) || pressed(event)) event.preventDefault();
});

function pressed({ key, target }) {
  const link = $(`.side nav a[data-key="${CSS.escape(key)}"]`);
  if (link) link.click();
  else if (key === "?") $("#keys").showModal();
  else if (key === "/" && $("[data-search]")) $("[data-search]").focus();
  else if (key === "n" && $("[data-fresh]:not([hidden])")) $("[data-fresh]").click();
  else if (key === " " && $("[data-hold]") && target === document.body) $("[data-hold]").click();
  else if (Object.hasOwn(GRAPH, key) && $("svg.graph")) GRAPH[key]();
  else return false;
  return true;
}

// From row to row of those that are shown; from outside of all tables only j and k lead in, for the others scroll the page.
function walked({ key, target, shiftKey }) {
  if (shiftKey) return false;
  const here = target.closest(ROWS), table = here?.closest("table") || target.querySelector(":scope > table.rows");
  if (!table && key !== "j" && key !== "k") return false;
  const rows = $$(table ? "tbody tr" : ROWS, table || document).filter((one) => one.getClientRects().length);
  const to = rows.length ? reached(key, rows, here) : null;
  if (to === null) return false;
  reach(rows[Math.min(Math.max(to, 0), rows.length - 1)]);
  return true;
}

// To which row a key leads, null where to none; a page of them is as many as have the height of the one it begins at.
function reached(key, rows, here) {
  const page = (one) => Math.max(Math.floor(innerHeight / one.offsetHeight) - 2, 1);
  if (key === "Home") return 0;
  if (key === "End") return rows.length - 1;
  if (!Object.hasOwn(NEXT, key) && !Object.hasOwn(LONG, key)) return null;
  if (!here) return firstInSight(rows);
  return rows.indexOf(here) + (NEXT[key] || LONG[key] * page(here));
}

const firstInSight = (rows) => Math.max(rows.findIndex((one) => one.getBoundingClientRect().top >= 0), 0);

function reach(row) {
  const link = $("a[href]:not([hidden]), summary", row);
  if (!link) row.tabIndex = -1;
  (link || row).focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}
