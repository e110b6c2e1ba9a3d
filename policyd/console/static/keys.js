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

// From row to row; from outside of all tables only j and k lead in, for the others scroll the page.
function walked({ key, target, shiftKey }) {
  if (shiftKey) return false;
  const here = target.closest(ROWS), table = here?.closest("table") || target.querySelector(":scope > table.rows");
  if (!table && key !== "j" && key !== "k") return false;
  const rows = table ? $$("tbody tr", table) : $$(ROWS).filter((one) => one.getClientRects().length);
  const at = here ? rows.indexOf(here) : -1;
  const long = () => Math.max(Math.floor(innerHeight / (here || rows[0]).offsetHeight) - 2, 1);
  const steps = key in NEXT ? NEXT[key] : key in LONG ? LONG[key] * long() : null;
  if (!rows.length || (steps === null && key !== "Home" && key !== "End")) return false;
  const to = key === "Home" ? 0 : key === "End" ? rows.length - 1 : here ? at + steps : firstInSight(rows);
  reach(rows[Math.min(Math.max(to, 0), rows.length - 1)]);
  return true;
}

const firstInSight = (rows) => Math.max(rows.findIndex((one) => one.getBoundingClientRect().top >= 0), 0);

function reach(row) {
  const link = $("a[href]:not([hidden]), summary", row);
  if (!link) row.tabIndex = -1;
  (link || row).focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}
