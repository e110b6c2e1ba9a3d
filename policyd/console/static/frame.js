// What stands around every page: the theme, the session, and forms that leave clean addresses.

import { $, $$ } from "./dom.js";

const THEMES = ["system", "light", "dark"];
const theme = () => localStorage.getItem("theme") || "system";
function showTheme() {
  if (theme() === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme();
  $("#theme").textContent = `theme: ${theme()}`;
}
$("#theme").addEventListener("click", () => {
  localStorage.setItem("theme", THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
  showTheme();
});
showTheme();

$("#you")?.addEventListener("click", () => $("#session").showModal());
for (const button of $$("[data-leave]")) button.addEventListener("click", async () => {
  const proof = $("meta[name=policyd-proof]").content, path = button.dataset.leave;
  const answer = await fetch(path, { method: "POST", headers: { "x-policyd-proof": proof } }).catch(() => null);
  if (answer?.ok && path === "/leave") location.href = "/enter";
  else $("#left").textContent = answer ? await answer.text() : "the console does not answer";
});

for (const form of $$("form[data-tidy]")) {
  form.addEventListener("submit", () => {
    for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
  });
  if (form.dataset.auto !== undefined) form.addEventListener("change", () => form.requestSubmit());
}
addEventListener("pageshow", () => $$("form[data-tidy] [disabled]").forEach((field) => { field.disabled = false; }));
