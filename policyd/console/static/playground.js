// The playground's editor: what is typed is painted below a transparent field, checked by the server, asked and replayed.

const $ = (selector) => document.querySelector(selector);
const field = $("#text"), paint = $("#paint"), numbers = $("#numbers"), found = $("#findings"), answer = $("#answer");
let original = field.value;
const proof = document.head.querySelector("meta[name=policyd-proof]").content;
const WORD = /(\/\/[^\n]*)|("(?:[^"\\]|\\.)*"?)|(@[A-Za-z_]\w*)|(\.[A-Za-z_]\w*)|([A-Za-z_]\w*)|(\d+)/g;
const KEYWORDS = new Set(["when", "unless", "if", "then", "else", "in", "is", "has", "like", "true", "false"]);
const VARIABLES = new Set(["principal", "action", "resource", "context"]);
let levels = new Map();

function kindOf(match) {
  const [, comment, string, annotation, attribute, word] = match;
  if (comment) return "comment";
  if (string) return "string";
  if (annotation) return "annotation";
  if (attribute) return "attribute";
  if (!word) return "number";
  if (word === "permit" || word === "forbid") return `effect ${word}`;
  if (KEYWORDS.has(word)) return "keyword";
  if (VARIABLES.has(word)) return "variable";
  return /^[A-Z]/.test(word) ? "type" : "";
}
function repaint() {
  const text = field.value, pieces = [];
  let behind = 0;
  for (const match of text.matchAll(WORD)) {
    if (match.index > behind) pieces.push(text.slice(behind, match.index));
    const piece = document.createElement("span");
    piece.className = kindOf(match);
    piece.textContent = match[0];
    pieces.push(piece);
    behind = match.index + match[0].length;
  }
  pieces.push(text.slice(behind), "\n");
  paint.replaceChildren(...pieces);
  const count = text.split("\n").length;
  numbers.replaceChildren(...Array.from({ length: count }, (_, at) => {
    const line = document.createElement("span");
    line.textContent = `${at + 1}\n`;
    line.className = levels.get(at + 1) || "";
    return line;
  }));
  follow();
  $("#changed").textContent = text === original ? "as it is in force" : "a draft";
  $("#restore").disabled = text === original;
  if ($("#apply")) $("#apply").disabled = text === original;
}
function follow() {
  paint.scrollTop = numbers.scrollTop = field.scrollTop;
  paint.scrollLeft = field.scrollLeft;
}
function send(path, more = {}) {
  return fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-policyd-proof": proof },
    body: JSON.stringify({ file: field.dataset.file, text: field.value, ...more }),
  });
}
function goTo(line, column) {
  const before = field.value.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0) + Math.max(column - 1, 0);
  field.focus();
  field.setSelectionRange(before, before);
  field.scrollTop = Math.max((line - 6) * 21, 0);
  follow();
}
// A message with what stands in backticks as code.
function ticked(message) {
  return message.split(/`([^`\n]{1,300})`/).map((part, at) => {
    if (at % 2 === 0) return part;
    const code = document.createElement("code");
    code.textContent = part;
    return code;
  });
}
function shown(one) {
  const item = document.createElement("li"), level = document.createElement("span"), body = document.createElement("div");
  item.className = `finding ${one.severity}`;
  level.className = "level";
  level.textContent = one.severity;
  const text = document.createElement(one.line ? "button" : "p");
  text.append(...ticked(one.line ? `line ${one.line}: ${one.message}` : one.message));
  if (one.line) { text.type = "button"; text.addEventListener("click", () => goTo(one.line, one.column)); }
  const more = document.createElement("p");
  more.className = "muted";
  more.append(...ticked([one.code, one.remedy].filter(Boolean).join(" · ")));
  body.append(text, more);
  item.append(level, body);
  return item;
}
let asked = 0;
async function check() {
  const turn = ++asked;
  let findings;
  try {
    findings = (await (await send("/policies/playground/check")).json()).findings;
  } catch { return; }
  if (turn !== asked) return;
  const rank = { error: 2, warning: 1 };
  levels = new Map();
  for (const one of findings) if ((rank[one.severity] || 0) > (rank[levels.get(one.line)] || 0)) levels.set(one.line, one.severity);
  found.replaceChildren(...findings.filter((one) => one.severity !== "note").slice(0, 30).map(shown));
  repaint();
}
async function put(path, more) {
  answer.setAttribute("aria-busy", "true");
  try {
    const reply = await send(path, more);
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    answer.replaceChildren(...page.body.childNodes);
    return reply.ok;
  } catch {
    answer.textContent = "the console does not answer";
    return false;
  } finally {
    answer.removeAttribute("aria-busy");
  }
}
function decide() {
  const request = $("#request").value.trim(), headers = $("#headers").value;
  if (!request) { $("#request").focus(); return; }
  const address = new URL(location.href);
  address.searchParams.set("file", field.dataset.file);
  address.searchParams.set("request", request);
  if (headers.trim()) address.searchParams.set("headers", headers); else address.searchParams.delete("headers");
  history.replaceState(null, "", address);
  for (const name of ["request", "headers"]) for (const one of document.querySelectorAll(`input[type=hidden][name=${name}]`)) one.value = name === "request" ? request : headers;
  put("/policies/playground/decide", { request, headers });
}

let waiting = 0;
field.addEventListener("input", () => { repaint(); clearTimeout(waiting); waiting = setTimeout(check, 300); });
field.addEventListener("scroll", follow);
field.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); decide(); }
});
$("#restore").addEventListener("click", () => { field.value = original; repaint(); check(); });
$("#ask").addEventListener("submit", (event) => { event.preventDefault(); decide(); });
$("#replay").addEventListener("click", () => put("/policies/playground/replay", { since: $("#since").value }));
const sure = $("#sure");
$("#apply")?.addEventListener("click", () => { sure.returnValue = ""; sure.showModal(); });
sure?.addEventListener("close", async () => {
  if (sure.returnValue !== "yes") return;
  const text = field.value;
  if (!(await put("/policies/playground/apply", { before: field.dataset.before }))) return;
  const hash = await crypto.subtle?.digest("SHA-256", new TextEncoder().encode(text));
  if (!hash) { location.reload(); return; }
  field.dataset.before = [...new Uint8Array(hash)].map((one) => one.toString(16).padStart(2, "0")).join("");
  original = text;
  repaint();
});
repaint();
check();
if ($("#request").value) decide();
