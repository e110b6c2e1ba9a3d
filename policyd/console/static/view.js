// What part of the graph is looked at: x, y, width and height, in the graph's own units.

import { $, $$, keyed } from "./dom.js";

const LARGEST = 1.15; // small pictures are not blown up
let seen = null; // null: what there is to see first
let begins = ""; // the edge that the view began at, and stays at while it is there

export const svg = () => $("svg.graph");
export const isChosen = () => seen !== null;
const now = () => seen || fitted();

function whole() { const one = svg(); return [Number(one.dataset.width), Number(one.dataset.height)]; }

// Small pictures as they are; large ones at a size that can be read, from what is chosen or denied on, else from their
// middle left.
function fitted() {
  const [width, height] = whole(), box = svg().getBoundingClientRect();
  const fits = Math.min(box.width / width, box.height / height);
  const scale = Math.min(LARGEST, Math.max(fits, svg().classList.contains("small") ? 0.72 : 0.45));
  if (fits < 0.5 || scale > fits) { // it is cut, or its print too small beside what it is about
    const about = $(".edge.chosen", svg()) || (begins && keyed(".edge", begins, svg())) || $$(".edge.denied", svg()).at(-1);
    if (about) return around(about, Math.max(scale, about.matches(".chosen") ? 0.8 : 0.72));
  }
  const [w, h] = [box.width / scale, box.height / scale];
  return [w >= width ? (width - w) / 2 : 0, (height - h) / 2, w, h];
}
function around(edge, scale) {
  begins = edge.dataset.key;
  const [width, height] = whole(), box = svg().getBoundingClientRect(), at = middle(edge);
  const [w, h] = [box.width / scale, box.height / scale];
  const within = (center, long, all) => (long >= all ? (all - long) / 2 : Math.min(Math.max(center - long / 2, 0), all - long));
  return [within(at[0], w, width), within(at[1], h, height), w, h];
}

export function look() {
  if (!svg()) return;
  svg().setAttribute("viewBox", now().map((one) => one.toFixed(1)).join(" "));
  svg().dataset.moved = "";
}
export function see(part) { seen = part; look(); }

export function zoom(by, at) {
  if (!svg()) return;
  const [x, y, w, h] = now(), [mx, my] = at || [x + w / 2, y + h / 2];
  const bounded = Math.min(Math.max(by, 120 / w), 12000 / w);
  see([mx - (mx - x) * bounded, my - (my - y) * bounded, w * bounded, h * bounded]);
}
export function fit() {
  if (!svg()) return;
  const [width, height] = whole(), box = svg().getBoundingClientRect();
  const scale = Math.min(LARGEST, box.width / width, box.height / height);
  const [w, h] = [box.width / scale, box.height / scale];
  see([(width - w) / 2, (height - h) / 2, w, h]);
}
export function center(one) {
  const [x, y] = middle(one), [, , w, h] = now();
  see([x - w / 2, y - h / 2, w, h]);
}

export function pointed(event) {
  const box = svg().getBoundingClientRect(), [x, y, w, h] = now();
  return [x + ((event.clientX - box.left) / box.width) * w, y + ((event.clientY - box.top) / box.height) * h];
}

// Drag what is looked at by the point that is held; a little is no drag yet.
export function drag(held, event, begun) {
  const [px, py] = pointed(event), [x, y, w, h] = now();
  if (!begun && Math.hypot(px - held[0], py - held[1]) / w < 0.006) return false;
  see([x - (px - held[0]), y - (py - held[1]), w, h]);
  return true;
}

export function middle(one) {
  const box = $(".line, rect", one).getBBox();
  return [box.x + box.width / 2, box.y + box.height / 2];
}
export function inSight(one) {
  const [x, y, w, h] = now(), [mx, my] = middle(one);
  return mx > x + w * 0.05 && mx < x + w * 0.95 && my > y + h * 0.05 && my < y + h * 0.95;
}
