// What pages do by themselves: keys, the theme, forms that leave clean addresses, and what is live.
// Every part of a page comes from the server as it is to be shown; here it is only put in its place.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const parse = (html) => new DOMParser().parseFromString(html, "text/html");

// ---- the theme
const themes = ["system", "light", "dark"];
function showTheme() {
  const now = localStorage.getItem("theme") || "system";
  if (now === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = now;
  $("#theme").textContent = `theme: ${now}`;
}
$("#theme").addEventListener("click", () => {
  const now = localStorage.getItem("theme") || "system";
  localStorage.setItem("theme", themes[(themes.indexOf(now) + 1) % themes.length]);
  showTheme();
});
showTheme();

// ---- the session
$("#you")?.addEventListener("click", () => $("#session").showModal());
for (const button of $$("[data-leave]")) button.addEventListener("click", async () => {
  const proof = $("meta[name=policyd-proof]").content, path = button.dataset.leave;
  const answer = await fetch(path, { method: "POST", headers: { "x-policyd-proof": proof } }).catch(() => null);
  if (answer?.ok && path === "/leave") location.href = "/enter";
  else $("#left").textContent = answer ? await answer.text() : "the console does not answer";
});

// ---- keys
$("#help").addEventListener("click", () => $("#keys").showModal());
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "Escape") {
    if (typing) typing.blur();
    else if ($(".edge-panel .close")) $(".edge-panel .close").click();
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
  const link = $(`.side nav a[data-key="${CSS.escape(event.key)}"]`);
  if (link) link.click();
  else if (event.key === "?") $("#keys").showModal();
  else if (event.key === "/" && $("[data-search]")) $("[data-search]").focus();
  else if (event.key === " " && $("[data-hold]") && event.target === document.body) $("[data-hold]").click();
  else if (event.key === "+" || event.key === "=") zoom(0.8);
  else if (event.key === "-") zoom(1.25);
  else if (event.key === "0") fit();
  else return;
  event.preventDefault();
});

// ---- forms
for (const form of $$("form[data-tidy]")) {
  form.addEventListener("submit", () => {
    for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
  });
  if (form.dataset.auto !== undefined) form.addEventListener("change", () => form.requestSubmit());
}
addEventListener("pageshow", () => $$("form[data-tidy] [disabled]").forEach((field) => { field.disabled = false; }));

// ---- putting parts in their places
function replace(before, after) {
  // what has a key and says the same stays, so that focus and motion do
  if (before.tagName !== after.tagName || before.childElementCount === 0) {
    if (before.outerHTML !== after.outerHTML) before.replaceWith(after);
    return;
  }
  for (const { name } of [...before.attributes]) if (!after.hasAttribute(name) && !keeps(before, name)) before.removeAttribute(name);
  for (const { name, value } of after.attributes) if (!keeps(before, name) && before.getAttribute(name) !== value) before.setAttribute(name, value);
  keyed(before, after);
}
function keyed(before, after) {
  const known = new Map([...before.children].filter((one) => one.dataset.key).map((one) => [one.dataset.key, one]));
  let place = before.firstElementChild;
  for (const child of [...after.children]) {
    const same = child.dataset.key ? known.get(child.dataset.key) : null;
    if (same) {
      known.delete(child.dataset.key);
      if (same !== place) before.insertBefore(same, place);
      else place = place.nextElementSibling;
      inner(same, child);
    } else before.insertBefore(child, place);
  }
  while (place) { const gone = place; place = place.nextElementSibling; gone.remove(); }
}
function keepingFocus(change) {
  // what has the focus has it afterwards too; where it is gone, its page has it
  const had = document.activeElement, key = had?.dataset.key, href = had?.getAttribute("href");
  change();
  if (!had || had === document.body || document.activeElement === had) return;
  const again = had.isConnected ? had : $$("[data-key], a[href]").find((one) => (key ? one.dataset.key === key : href && one.getAttribute("href") === href));
  (again || $("#content")).focus({ preventScroll: true });
}
const keeps = (element, name) => name === "tabindex" || (element.tagName === "svg" && name === "viewBox" && element.dataset.moved !== undefined);
function inner(before, after) {
  // only what differs is touched: what stays is neither laid out nor painted again
  for (const { name } of [...before.attributes]) if (!after.hasAttribute(name) && !keeps(before, name)) before.removeAttribute(name);
  for (const { name, value } of after.attributes) if (!keeps(before, name) && before.getAttribute(name) !== value) before.setAttribute(name, value);
  if (before.firstElementChild?.dataset.key && after.firstElementChild?.dataset.key) { keyed(before, after); return; }
  const old = [...before.childNodes], fresh = [...after.childNodes];
  if (old.length !== fresh.length || old.some((one, at) => one.nodeName !== fresh[at].nodeName)) before.replaceChildren(...fresh);
  else old.forEach((one, at) => {
    if (one.nodeType === Node.ELEMENT_NODE) inner(one, fresh[at]);
    else if (one.data !== fresh[at].data) one.data = fresh[at].data;
  });
}

// ---- the graph
const parts = $("#parts");
let seen = null; // x, y, width and height of what is looked at; null: all of it
let begins = ""; // the edge that the view began at, and stays at while it is there
const svg = () => $("svg.graph");
const begun = () => begins && $(`.edge[data-key="${CSS.escape(begins)}"]`, svg());
function whole() { const one = svg(); return [0, 0, Number(one.dataset.width), Number(one.dataset.height)]; }
function fitted() {
  // small pictures are not blown up; large ones are shown at a size that can be read, from what is chosen or denied on,
  // else from their middle left
  const [, , width, height] = whole();
  const box = svg().getBoundingClientRect();
  const scale = Math.min(1.15, Math.max(Math.min(box.width / width, box.height / height), svg().classList.contains("small") ? 0.72 : 0.45));
  const fits = Math.min(box.width / width, box.height / height);
  if (fits < 0.5 || scale > fits) { // it is cut, or its print too small beside what it is about
    const about = $(".edge.chosen", svg()) || begun() || $$(".edge.denied", svg()).at(-1);
    if (about) {
      begins = about.dataset.key;
      const by = Math.max(scale, about.matches(".chosen") ? 0.8 : 0.72);
      const at = $(".line", about).getBBox(), [w, h] = [box.width / by, box.height / by];
      const within = (middle, long, all) => (long >= all ? (all - long) / 2 : Math.min(Math.max(middle - long / 2, 0), all - long));
      return [within(at.x + at.width / 2, w, width), within(at.y + at.height / 2, h, height), w, h];
    }
  }
  const [w, h] = [box.width / scale, box.height / scale];
  const x = w >= width ? (width - w) / 2 : 0;
  return [x, (height - h) / 2, w, h];
}
function look() {
  if (!svg()) return;
  svg().setAttribute("viewBox", (seen || fitted()).map((one) => one.toFixed(1)).join(" "));
  svg().dataset.moved = "";
}
function zoom(by, at) {
  if (!svg()) return;
  const [x, y, w, h] = seen || fitted();
  const [mx, my] = at || [x + w / 2, y + h / 2];
  const bounded = Math.min(Math.max(by, 120 / w), 12000 / w);
  seen = [mx - (mx - x) * bounded, my - (my - y) * bounded, w * bounded, h * bounded];
  look();
}
function fit() {
  if (!svg()) return;
  const [, , width, height] = whole();
  const box = svg().getBoundingClientRect();
  const scale = Math.min(1.15, box.width / width, box.height / height);
  const [w, h] = [box.width / scale, box.height / scale];
  seen = [(width - w) / 2, (height - h) / 2, w, h];
  look();
}
function pointed(event) {
  const box = svg().getBoundingClientRect();
  const [x, y, w, h] = seen || fitted();
  return [x + ((event.clientX - box.left) / box.width) * w, y + ((event.clientY - box.top) / box.height) * h];
}
let pointedAt = ""; // the node below the pointer, where there are many
let sought = false; // whether anything stands apart now
function seek() {
  const one = svg(); const field = $("#find");
  if (!one || !field) return;
  const wanted = field.value.trim().toLowerCase() || pointedAt;
  one.classList.toggle("seeking", Boolean(wanted));
  if (!wanted && !sought) return;
  sought = Boolean(wanted);
  const nodes = $$(".node", one), hits = new Set(), near = new Set();
  for (const node of nodes) {
    const hit = wanted && (wanted === pointedAt ? node.dataset.key === wanted : node.dataset.name.includes(wanted) || node.dataset.key.toLowerCase().includes(wanted));
    if (hit) hits.add(node.dataset.key);
    node.classList.toggle("hit", Boolean(hit));
  }
  for (const edge of $$(".edge", one)) {
    const ends = edge.dataset.ends.split(" "), touches = ends.some((end) => hits.has(end));
    if (touches) for (const end of ends) near.add(end);
    edge.classList.toggle("dim", sought && !touches);
  }
  for (const node of nodes) node.classList.toggle("dim", sought && !hits.has(node.dataset.key) && !near.has(node.dataset.key));
}
function showParts(html) {
  const document_ = parse(html);
  const canvas = $("[data-part=canvas]", parts), next = $("[data-part=canvas]", document_);
  const panel = $("[data-part=edge]", canvas), nextPanel = $("[data-part=edge]", next);
  canvas.className = next.className;
  canvas.dataset.look = next.dataset.look;
  const old = svg(), fresh = $("svg.graph", next);
  keepingFocus(() => {
    if (old && fresh) replace(old, fresh);
    else $("[data-part=picture]", canvas).replaceWith($("[data-part=picture]", next));
    if (panel && nextPanel) { const at = panel.scrollTop; inner(panel, nextPanel); panel.scrollTop = at; }
    else if (panel) panel.remove();
    else if (nextPanel) canvas.append(nextPanel);
    inner($("[data-part=links]", parts), $("[data-part=links]", document_));
  });
  if (!seen) look();
  seek();
}
let opener = null; // the link that opened what is beside the graph: where it leads, and whether from a row or the picture
function lead(before) {
  // who opens an edge is led into what is told of it, and back to where it was opened
  const panel = $(".edge-panel"), now = panel?.dataset.edge || "";
  if (now === before) return;
  if (panel) { panel.focus({ preventScroll: true }); panel.scrollIntoView({ block: "nearest" }); return; }
  const back = $$("a[data-soft]", parts).find((one) => one.tagName === opener?.tag && one.getAttribute("href") === opener.href)
    || $(`.edge[data-key="${CSS.escape(before)}"]`);
  (back || $("#content")).focus({ preventScroll: true });
}
async function go(url, push = true) {
  const address = new URL(url, location.href);
  const begun = performance.now();
  const answer = await fetch(`/graph/part${address.search}`);
  if (!answer.ok) { location.href = url; return; }
  if (push) history.pushState(null, "", address);
  const before = svg()?.dataset.width, edge = $(".edge-panel")?.dataset.edge || "";
  showParts(await answer.text());
  if (svg()?.dataset.width !== before) { seen = null; look(); }
  lead(edge);
  for (const pill of $$(".graph-page .pills a")) retarget(pill);
  listen();
  requestAnimationFrame(() => performance.measure("policyd.graph", { start: begun }));
}
function retarget(pill) {
  // the pills say what is chosen, and lead on from what the address says now
  const now = new URLSearchParams(location.search);
  const target = new URL(pill.href);
  const nav = pill.closest("nav");
  const name = nav.getAttribute("aria-label") === "Range of time" ? "range" : nav.getAttribute("aria-label") === "Nodes" ? "by" : "busy";
  const value = target.searchParams.get(name);
  const next = new URLSearchParams(now);
  if (name === "by") { next.delete("edge"); next.delete("focus"); }
  if (value === null) next.delete(name); else next.set(name, value);
  pill.href = `/?${next}`;
  const chosen = name === "range" ? (now.get("range") || "1m") === value : name === "busy" ? now.get("busy") === value : now.has("by") ? now.get("by") === value : pill.hasAttribute("aria-current");
  if (chosen) pill.setAttribute("aria-current", "true"); else pill.removeAttribute("aria-current");
}
if (parts) {
  look();
  addEventListener("resize", () => { if (!seen) look(); });
  addEventListener("popstate", () => go(location.href, false));
  $("#find").addEventListener("input", seek);
  $("#find").addEventListener("keydown", (event) => { if (event.key === "Enter") { const hit = $(".node.hit"); if (hit) { event.preventDefault(); hit.focus(); center(hit); } } });
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
  for (const kind of ["pointerover", "focusin"]) parts.addEventListener(kind, (event) => {
    const node = event.target.closest("svg.small .node");
    const now = node ? node.dataset.key : "";
    if (now !== pointedAt) { pointedAt = now; seek(); }
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
  let held = null, moved = false;
  parts.addEventListener("pointerdown", (event) => { if (event.target.closest("svg.graph") && !event.button) { held = pointed(event); moved = false; } });
  addEventListener("pointermove", (event) => {
    if (!held || !svg()) return;
    const [px, py] = pointed(event);
    const [x, y, w, h] = seen || fitted();
    const far = Math.hypot(px - held[0], py - held[1]) / w;
    if (!moved && far < 0.006) return;
    moved = true; svg().classList.add("moving");
    seen = [x - (px - held[0]), y - (py - held[1]), w, h];
    look();
  });
  addEventListener("pointerup", () => { held = null; svg()?.classList.remove("moving"); setTimeout(() => { moved = false; }, 0); });
  parts.addEventListener("dragstart", (event) => event.preventDefault());
  parts.addEventListener("wheel", (event) => {
    if (!event.target.closest("svg.graph") || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.12 : 0.89, pointed(event));
  }, { passive: false });
}
const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
function middle(one) {
  const box = $(".line, rect", one).getBBox();
  return [box.x + box.width / 2, box.y + box.height / 2];
}
function nearest(from, [across, down]) {
  // the next in a direction: what is far to the side of it counts as farther
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
function inSight(one) {
  const [x, y, w, h] = seen || fitted(), [mx, my] = middle(one);
  return mx > x + w * 0.05 && mx < x + w * 0.95 && my > y + h * 0.05 && my < y + h * 0.95;
}
function center(node) {
  const [x, y] = middle(node), [, , w, h] = seen || fitted();
  seen = [x - w / 2, y - h / 2, w, h];
  look();
}

// ---- what is live
const page = $("[data-live]");
const hold = $("[data-hold]");
let stream = null, held = false, omitted = 0;
function onward() {
  // what the address asks for, and which look is shown already
  const asked = new URLSearchParams(location.search), canvas = $("[data-look]");
  if (canvas) asked.set("look", canvas.dataset.look);
  return `?${asked}`;
}
function listen() {
  stream?.close();
  stream = null;
  if (!page || held) return;
  stream = new EventSource(`${page.dataset.live}${onward()}`);
  stream.addEventListener("open", () => hold?.classList.remove("lost"));
  stream.addEventListener("error", () => hold?.classList.add("lost"));
  stream.addEventListener("graph", (event) => showParts(event.data));
  stream.addEventListener("proxies", (event) => keepingFocus(() => $("#proxies").replaceChildren(...parse(event.data).body.childNodes)));
  stream.addEventListener("decisions", (event) => {
    const rows = $("#rows");
    const fresh = [...parse(`<table><tbody>${event.data}</tbody></table>`).querySelectorAll("tr")];
    fresh.forEach((row) => row.classList.add("new"));
    rows.prepend(...fresh);
    keepingFocus(() => { while (rows.childElementCount > 300) rows.lastElementChild.remove(); });
    $$(".empty").forEach((one) => one.remove());
  });
  stream.addEventListener("omitted", (event) => { omitted += Number(event.data); $("#omitted").textContent = `${omitted.toLocaleString("en")} more passed by too fast to show; search finds them`; });
}
hold?.addEventListener("click", () => {
  held = !held;
  hold.setAttribute("aria-pressed", String(held));
  hold.textContent = held ? "held" : "live";
  listen();
});
document.addEventListener("visibilitychange", () => { if (document.hidden) { stream?.close(); stream = null; } else listen(); });
listen();
