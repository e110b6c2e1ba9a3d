// Fresh parts of a page are put where the old ones are. Law: what has a key and says the same stays, so that focus and
// motion do; only what differs is touched, so that nothing else is laid out or painted again.

import { $, $$ } from "./dom.js";

const keeps = (element, name) => name === "tabindex" || (element.tagName === "svg" && name === "viewBox" && element.dataset.moved !== undefined);

export function patch(before, after) {
  attributes(before, after);
  if (before.firstElementChild?.dataset.key && after.firstElementChild?.dataset.key) { children(before, after); return; }
  const old = [...before.childNodes], fresh = [...after.childNodes];
  if (old.length !== fresh.length || old.some((one, at) => one.nodeName !== fresh[at].nodeName)) before.replaceChildren(...fresh);
  else old.forEach((one, at) => {
    if (one.nodeType === Node.ELEMENT_NODE) patch(one, fresh[at]);
    else if (one.data !== fresh[at].data) one.data = fresh[at].data;
  });
}

// Children by their keys; those without one are made anew.
export function patchByKey(before, after) {
  attributes(before, after);
  children(before, after);
}

// Keep the focus where it is through a change; where what had it is gone, the page has it.
export function keepingFocus(change) {
  const had = document.activeElement, key = had?.dataset.key, href = had?.getAttribute("href");
  change();
  if (!had || had === document.body || document.activeElement === had) return;
  const again = had.isConnected ? had : $$("[data-key], a[href]").find((one) => (key ? one.dataset.key === key : href && one.getAttribute("href") === href));
  (again || $("#content")).focus({ preventScroll: true });
}

// Whether somebody reads here: points at it, is in it by keys, or has marked some of it.
export function isRead(part) {
  const chosen = getSelection();
  return part.matches(":hover") || $(":focus-visible", part) !== null || (!chosen.isCollapsed && part.contains(chosen.anchorNode));
}

// Give fresh children the order that the old ones have; those that are new come last.
export function inOldOrder(before, after) {
  const places = new Map([...before.children].map((one, at) => [one.dataset.key, at]));
  const place = (one) => places.get(one.dataset.key) ?? places.size;
  after.append(...[...after.children].sort((one, other) => place(one) - place(other)));
}

function attributes(before, after) {
  for (const { name } of [...before.attributes]) if (!after.hasAttribute(name) && !keeps(before, name)) before.removeAttribute(name);
  for (const { name, value } of after.attributes) if (!keeps(before, name) && before.getAttribute(name) !== value) before.setAttribute(name, value);
}

function children(before, after) {
  const known = new Map([...before.children].filter((one) => one.dataset.key).map((one) => [one.dataset.key, one]));
  let place = before.firstElementChild;
  for (const child of [...after.children]) {
    const same = child.dataset.key ? known.get(child.dataset.key) : null;
    if (same) {
      known.delete(child.dataset.key);
      if (same !== place) before.insertBefore(same, place);
      else place = place.nextElementSibling;
      patch(same, child);
    } else before.insertBefore(child, place);
  }
  while (place) { const gone = place; place = place.nextElementSibling; gone.remove(); }
}
