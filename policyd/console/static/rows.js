// Decisions as they are made. Law: no row moves below who reads it. What comes meanwhile is counted, and waits.

import { $, $$, parse } from "./dom.js";
import { on } from "./live.js";
import { isRead, keepingFocus } from "./patch.js";

const MOST = 300; // rows that a page has
const AFTER_MS = 250; // that a reader is gone, before rows move
const rows = $("#rows"), fresh = $("[data-fresh]");
let waiting = [], count = 0, omitted = 0, leaving = 0;

const above = () => rows.getBoundingClientRect().top < 0; // the newest are out of sight: somebody reads further down
const isHeld = () => isRead(rows) || fresh.matches(":hover, :focus-visible") || above();

function take(html) {
  const found = $$("tr", parse(`<table><tbody>${html}</tbody></table>`));
  waiting = [...found, ...waiting].slice(0, MOST);
  count += found.length;
  if (isHeld()) tell();
  else release();
}
function tell() {
  fresh.hidden = count === 0;
  fresh.textContent = `${count.toLocaleString("en")} new`;
}
function release() {
  const by = document.activeElement?.closest("#rows tr"), before = by?.getBoundingClientRect().top;
  waiting.forEach((row) => row.classList.add("new"));
  rows.prepend(...waiting);
  keepingFocus(() => { while (rows.childElementCount > MOST) rows.lastElementChild.remove(); });
  if (by?.isConnected) scrollBy(0, by.getBoundingClientRect().top - before);
  waiting = [];
  count = 0;
  tell();
  rows.closest("[hidden]")?.removeAttribute("hidden");
  $$(".empty").forEach((one) => one.remove());
}
function gone() {
  clearTimeout(leaving);
  leaving = setTimeout(() => { if (count && !isHeld()) release(); }, AFTER_MS);
}

if (rows && fresh) {
  fresh.addEventListener("click", () => {
    const byKeys = fresh.matches(":focus");
    release();
    if (above()) rows.closest(".scroll").scrollIntoView({ block: "start" });
    if (byKeys) $("a[href]:not([hidden])", rows)?.focus({ preventScroll: true });
  });
  for (const kind of ["pointerout", "focusout"]) for (const part of [rows, fresh]) part.addEventListener(kind, gone);
  addEventListener("scroll", gone, { passive: true });
  on("decisions", take);
  on("omitted", (data) => {
    omitted += Number(data);
    $("#omitted").textContent = `${omitted.toLocaleString("en")} more passed by too fast to show; search finds them`;
  });
}
