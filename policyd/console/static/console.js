// What pages do by themselves. Every part of a page comes from the server as it is to be shown; these put it in its place.

import { $, parse } from "./dom.js";
import "./frame.js";
import "./graph.js";
import "./keys.js";
import { listen, on } from "./live.js";
import { keepingFocus, patch } from "./patch.js";
import "./rows.js";

const proxies = $("#proxies");
if (proxies) on("proxies", (html) => keepingFocus(() => {
  const fresh = proxies.cloneNode(false);
  fresh.append(...parse(html).body.childNodes);
  patch(proxies, fresh);
}));
listen();
