// Decisions as they are made. Law: no row moves below who reads it. What comes meanwhile is counted, and waits.

import { $, $$, parse } from "./dom.js";
import { goOn, isPaused, on } from "./live.js";
import { isRead, keepingFocus } from "./patch.js";

const MOST = 300; // rows that a page has, or as many as it came with
const AFTER_MS = 250; // that a reader is gone, before rows move
const rows = $("#rows"), fresh = $("[data-fresh]");
const most = Math.max(MOST, rows?.childElementCount || 0);
let waiting = [], count = 0, omitted = 0, leaving = 0;
let missed = "0"; // while the page is held: what came, and is still in the journal alone; "20+" is at least so many
let isAsked = false; // to show what is missing as soon as it is here

const above = () => rows.getBoundingClientRect().top < 0; // the newest are out of sight: somebody reads further down
const isHeld = () => isPaused() || isRead(rows) || fresh.matches(":hover, :focus-visible") || above();

function take(html) {
  const found = $$("tr", parse(`<table><tbody>${html}</tbody></table>`));
  waiting = [...found, ...waiting].slice(0, most);
  count += found.length;
  missed = "0"; // it is among these
  if (isAsked) show();
  else if (isHeld()) tell();
  else release();
}
function tell() {
  const all = count + Number.parseInt(missed), number = all.toLocaleString("en") + (missed.endsWith("+") ? "+" : "");
  fresh.hidden = all === 0;
  fresh.textContent = isPaused() ? `${number} more since you paused` : `${number} new`;
}
function release() {
  const by = document.activeElement?.closest("#rows tr"), before = by?.getBoundingClientRect().top;
  waiting.forEach((row) => row.classList.add("new"));
  rows.prepend(...waiting);
  keepingFocus(() => { while (rows.childElementCount > most) rows.lastElementChild.remove(); });
  if (by?.isConnected) scrollBy(0, by.getBoundingClientRect().top - before);
  waiting = [];
  count = 0;
  isAsked = false;
  tell();
  rows.closest("[hidden]")?.removeAttribute("hidden");
  $$(".empty").forEach((one) => one.remove());
}
function gone() {
  clearTimeout(leaving);
  leaving = setTimeout(() => { if (count && !isHeld()) release(); }, AFTER_MS);
}

function show() {
  const byKeys = fresh.matches(":focus");
  release();
  if (above()) rows.closest(".scroll").scrollIntoView({ block: "start" });
  if (byKeys) $("a[href]:not([hidden])", rows)?.focus({ preventScroll: true });
}

if (rows && fresh) {
  fresh.addEventListener("click", () => {
    const isHere = Number.parseInt(missed) === 0;
    goOn();
    if (isHere) show();
    else isAsked = true;
  });
  $("[data-hold]").addEventListener("click", () => { tell(); gone(); });
  for (const kind of ["pointerout", "focusout"]) for (const part of [rows, fresh]) part.addEventListener(kind, gone);
  addEventListener("scroll", gone, { passive: true });
  on("decisions", take);
  on("passed", () => {});
  on("missed", (data) => { missed = data; tell(); });
  on("omitted", (data) => {
    omitted += Number.parseInt(data);
    const said = omitted ? [`${omitted.toLocaleString("en")} more are not shown`] : [];
    if (data.endsWith("+")) said.push("the journal was not read further back");
    $("#omitted").textContent = `${said.join(", ")}; search finds them`;
  });
}
