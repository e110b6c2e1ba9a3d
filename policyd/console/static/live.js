// What is live: parts of the page come as the server makes them, unless it is held or nobody sees it.

import { $ } from "./dom.js";

const page = $("[data-live]"), hold = $("[data-hold]");
const takers = new Map();
let stream = null, held = false;

// Have a kind of event taken; before the first `listen`.
export function on(kind, take) { takers.set(kind, take); }

// Listen to what the address asks for, from what is shown already.
export function listen() {
  stream?.close();
  stream = null;
  if (!page || held || document.hidden) return;
  const asked = new URLSearchParams(location.search), shown = $("[data-look]");
  if (shown) asked.set("look", shown.dataset.look);
  stream = new EventSource(`${page.dataset.live}?${asked}`);
  stream.addEventListener("open", () => hold?.classList.remove("lost"));
  stream.addEventListener("error", () => hold?.classList.add("lost"));
  for (const [kind, take] of takers) stream.addEventListener(kind, (event) => take(event.data));
}

hold?.addEventListener("click", () => {
  held = !held;
  hold.setAttribute("aria-pressed", String(held));
  hold.textContent = held ? "held" : "live";
  listen();
});
document.addEventListener("visibilitychange", listen);
