// The graph: it changes in place, leads into its edges and back, and is moved by keys and the pointer.

import { $, $$, keyed, parse } from "./dom.js";
import { point, seek } from "./find.js";
import { listen, on } from "./live.js";
import { inOldOrder, isRead, keepingFocus, patch, patchByKey } from "./patch.js";
import { center, drag, fit, inSight, isChosen, look, middle, pointed, see, svg, zoom } from "./view.js";

const parts = $("#parts");
const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
let opener = null; // the link that opened what is beside the graph: where it leads, and whether from a row or the picture

function show(html) {
  const fresh = parse(html), canvas = $("[data-part=canvas]", parts), next = $("[data-part=canvas]", fresh);
  canvas.className = next.className;
  canvas.dataset.look = next.dataset.look;
  keepingFocus(() => {
    showPicture(canvas, next);
    showPanel(canvas, next);
    showTable($("[data-part=links]", parts), $("[data-part=links]", fresh));
  });
  if (!isChosen()) look();
  seek();
}
function showPicture(canvas, next) {
  const fresh = $("svg.graph", next);
  if (svg() && fresh) patchByKey(svg(), fresh);
  else $("[data-part=picture]", canvas).replaceWith($("[data-part=picture]", next));
}
function showPanel(canvas, next) {
  const panel = $("[data-part=edge]", canvas), fresh = $("[data-part=edge]", next);
  if (!panel || !fresh) { panel?.remove(); if (fresh) canvas.append(fresh); return; }
  const at = panel.scrollTop, latest = $(".latest", panel), later = $(".latest", fresh);
  if (latest && later && panel.dataset.edge === fresh.dataset.edge && isRead(latest)) { // no decision moves below who reads it
    const news = [...later.children].filter((one) => !keyed("li", one.dataset.key, latest)).length;
    if (news) $("[data-part=waiting]", fresh).textContent = `${news} new`;
    later.replaceWith(latest.cloneNode(true));
  }
  patch(panel, fresh);
  panel.scrollTop = at;
}
function showTable(section, fresh) {
  const rows = $("tbody", section), later = $("tbody", fresh);
  if (rows && later && isRead(rows)) inOldOrder(rows, later);
  patch(section, fresh);
}

// Who opens an edge is led into what is told of it, and back to where it was opened.
function lead(before) {
  const panel = $(".edge-panel"), now = panel?.dataset.edge || "";
  if (now === before) return;
  if (panel) { panel.focus({ preventScroll: true }); panel.scrollIntoView({ block: "nearest" }); return; }
  const back = $$("a[data-soft]", parts).find((one) => one.tagName === opener?.tag && one.getAttribute("href") === opener.href) || keyed(".edge", before);
  (back || $("#content")).focus({ preventScroll: true });
}
async function go(url, push = true) {
  const address = new URL(url, location.href), begun = performance.now();
  const answer = await fetch(`/graph/part${address.search}`).catch(() => null);
  if (!answer?.ok) { location.href = url; return; }
  if (push) history.pushState(null, "", address);
  const before = svg()?.dataset.width, edge = $(".edge-panel")?.dataset.edge || "";
  show(await answer.text());
  if (svg()?.dataset.width !== before) see(null);
  lead(edge);
  for (const pill of $$(".graph-page .pills a")) retarget(pill);
  listen();
  requestAnimationFrame(() => performance.measure("policyd.graph", { start: begun }));
}

// The pills say what is chosen, and lead on from what the address says now.
function retarget(pill) {
  const now = new URLSearchParams(location.search), next = new URLSearchParams(now);
  const { name, standard } = pill.closest("nav").dataset;
  const value = new URL(pill.href).searchParams.get(name);
  if (name === "by") { next.delete("edge"); next.delete("focus"); }
  if (value === null) next.delete(name); else next.set(name, value);
  pill.href = `/?${next}`;
  if ((now.get(name) || standard) === (value || standard)) pill.setAttribute("aria-current", "true");
  else pill.removeAttribute("aria-current");
}

// The next in a direction: what is far to the side of it counts as farther.
function nearest(from, [across, down]) {
  const [x, y] = middle(from);
  let best = null, least = Infinity;
  for (const one of $$(".node, .edge", svg())) {
    if (one === from) continue;
    const [mx, my] = middle(one), dx = mx - x, dy = my - y;
    const along = dx * across + dy * down, aside = Math.abs(dx * down) + Math.abs(dy * across);
    if (along > 4 && along + 2 * aside < least) { least = along + 2 * aside; best = one; }
  }
  return best;
}

function byKeys() {
  $("#find").addEventListener("input", seek);
  $("#find").addEventListener("keydown", (event) => {
    const hit = event.key === "Enter" && $(".node.hit");
    if (hit) { event.preventDefault(); hit.focus(); center(hit); }
  });
  parts.addEventListener("focusin", (event) => {
    const one = event.target.closest("svg.graph .node, svg.graph .edge");
    if (!one) return;
    for (const other of $$('svg.graph [tabindex="0"]')) if (other !== one) other.setAttribute("tabindex", "-1");
    one.setAttribute("tabindex", "0");
    if (one.matches(":focus-visible") && !inSight(one)) center(one);
  });
  parts.addEventListener("keydown", (event) => {
    const from = event.target.closest("svg.graph .node, svg.graph .edge"), way = WAYS[event.key];
    if (!from || !way || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    nearest(from, way)?.focus({ preventScroll: true });
  });
}
function byPointer() {
  let held = null, moved = false;
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-zoom]");
    if (button) { if (button.dataset.zoom === "fit") fit(); else zoom(button.dataset.zoom === "in" ? 0.8 : 1.25); return; }
    const link = event.target.closest("a[data-soft]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    if (moved) { moved = false; return; }
    if (!link.closest(".edge-panel")) opener = { tag: link.tagName, href: link.getAttribute("href") };
    go(link.getAttribute("href"));
  });
  for (const kind of ["pointerover", "focusin"]) parts.addEventListener(kind, (event) => point(event.target.closest("svg.small .node")));
  parts.addEventListener("pointerdown", (event) => { if (event.target.closest("svg.graph") && !event.button) { held = pointed(event); moved = false; } });
  addEventListener("pointermove", (event) => {
    if (!held || !svg() || !drag(held, event, moved)) return;
    moved = true;
    svg().classList.add("moving");
  });
  addEventListener("pointerup", () => { held = null; svg()?.classList.remove("moving"); setTimeout(() => { moved = false; }, 0); });
  parts.addEventListener("dragstart", (event) => event.preventDefault());
  parts.addEventListener("wheel", (event) => {
    if (!event.target.closest("svg.graph") || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.12 : 0.89, pointed(event));
  }, { passive: false });
}

if (parts) {
  look();
  addEventListener("resize", () => { if (!isChosen()) look(); });
  addEventListener("popstate", () => go(location.href, false));
  byKeys();
  byPointer();
  on("graph", show);
}
