// Words for what every module does with a page.

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
export const parse = (html) => new DOMParser().parseFromString(html, "text/html");
export const keyed = (selector, key, root = document) => $(`${selector}[data-key="${CSS.escape(key)}"]`, root);
