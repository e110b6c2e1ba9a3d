// What is live: parts of the page come as the server makes them, unless it is held or nobody sees it. Law: who listens
// again begins where the page is, so that what came meanwhile is neither left out nor shown twice.

import { $ } from "./dom.js";

const page = $("[data-live]"), hold = $("[data-hold]");
const takers = new Map();
let stream = null, held = false;
let place = page?.dataset.place; // in the journal, up to which the page has what there is

// Have a kind of event taken; before the first `listen`.
export function on(kind, take) { takers.set(kind, take); }

export const isPaused = () => held;
export const goOn = () => { if (held) hold.click(); };

// Listen to what the address asks for, from what is shown already.
export function listen() {
  stream?.close();
  stream = null;
  if (!page || document.hidden || (held && place === undefined)) return; // of pages without a place the next look is all
  const asked = new URLSearchParams(location.search), shown = $("[data-look]");
  if (shown) asked.set("look", shown.dataset.look);
  if (place !== undefined) asked.set("after", place);
  if (held) asked.set("held", "1");
  stream = new EventSource(`${page.dataset.live}?${asked}`);
  stream.addEventListener("open", () => hold?.classList.remove("lost"));
  stream.addEventListener("error", () => hold?.classList.add("lost"));
  for (const [kind, take] of takers) stream.addEventListener(kind, (event) => {
    place = event.lastEventId || place;
    take(event.data);
  });
}

hold?.addEventListener("click", () => {
  held = !held;
  hold.setAttribute("aria-pressed", String(held));
  hold.textContent = held ? "held" : "live";
  listen();
});
document.addEventListener("visibilitychange", listen);
