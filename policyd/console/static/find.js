// Of many services those that are looked for, or pointed at, stand apart with who calls them and whom they call.

import { $, $$ } from "./dom.js";
import { svg } from "./view.js";

let pointedAt = ""; // the node below the pointer, where there are many
let apart = false;

export function seek() {
  const one = svg(), field = $("#find");
  if (!one || !field) return;
  const wanted = field.value.trim().toLowerCase() || pointedAt;
  one.classList.toggle("seeking", Boolean(wanted));
  if (!wanted && !apart) return;
  apart = Boolean(wanted);
  const nodes = $$(".node", one), near = new Set();
  const isHit = ({ key, name }) => (wanted === pointedAt ? key === wanted : name.includes(wanted) || key.toLowerCase().includes(wanted));
  const hits = new Set(nodes.filter((node) => wanted && isHit(node.dataset)).map((node) => node.dataset.key));
  for (const edge of $$("[data-ends]", one)) {
    const ends = edge.dataset.ends.split(" "), touches = ends.some((end) => hits.has(end));
    if (touches) for (const end of ends) near.add(end);
    edge.classList.toggle("dim", apart && !touches);
  }
  for (const node of nodes) {
    node.classList.toggle("hit", hits.has(node.dataset.key));
    node.classList.toggle("dim", apart && !hits.has(node.dataset.key) && !near.has(node.dataset.key));
  }
}
export function point(node) {
  const now = node ? node.dataset.key : "";
  if (now === pointedAt) return;
  pointedAt = now;
  seek();
}
