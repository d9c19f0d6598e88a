// The frame around the pages: which page the address names, the key, the theme, whether the proxy answers.
import { ApiError, get, key, keyFromAddress, setKey } from "./api.js";
import { h, s, show } from "./dom.js";
import { poll } from "./poll.js";

const PAGES = [
  [/^\/dashboard\/?$/, "overview", "Overview"],
  [/^\/dashboard\/conversations\/?$/, "conversations", "Conversations"],
  [/^\/dashboard\/conversations\/([^/]+)$/, "conversation", "Conversation"],
  [/^\/dashboard\/backends\/?$/, "backends", "Backends"],
  [/^\/dashboard\/searches\/?$/, "searches", "Search"],
];
const content = document.getElementById("content");
const live = document.getElementById("live");
const keyButton = document.getElementById("key");
const dialog = document.getElementById("keydialog");
let page = null, session = null, visit = 0;

/** Show the page that the address names. */
async function open({ focus = false } = {}) {
  const mine = ++visit;
  page?.stop();
  page = null;
  const [, name, title, argument] = route();
  document.title = `${title} · Sluice`;
  for (const link of document.querySelectorAll("#nav a")) {
    const path = link.getAttribute("href");
    const isHere = path === "/dashboard" ? name === "overview" : location.pathname.startsWith(path);
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    session ??= await get("/session");
  } catch (error) {
    if (mine === visit) locked(error);
    return;
  }
  showKey();
  const { start } = await import(`./views/${name}.js`);
  if (mine !== visit) return;
  const place = h("div");
  const view = start({ place, session, argument, go, askForKey, retitle: (text) => { document.title = `${text} · Sluice`; } });
  let isFirst = true;
  page = poll((signal) => view.load(signal), view.everyMs ?? 5000, (error) => {
    if (isFirst) {
      isFirst = false;
      show(content, place);
      content.setAttribute("aria-busy", "false");
      performance.mark("sluice-shown");
      if (focus) content.focus({ preventScroll: true });
    }
    state(error);
    if (error) failed(error, place, view);
  });
}

function route() {
  for (const [pattern, name, title] of PAGES) {
    const match = pattern.exec(location.pathname);
    if (match) return [pattern, name, title, match[1] && decodeURIComponent(match[1])];
  }
  return [null, "overview", "Overview"];
}

function go(path) {
  history.pushState(null, "", path);
  scrollTo(0, 0);
  open({ focus: true });
}

function state(error) {
  live.className = `live ${error ? "off" : "on"}`;
  live.lastElementChild.textContent = error ? "no answer, trying again" : "live";
}

function failed(error, place, view) {
  if (error instanceof ApiError && (error.status === 401 || error.status === 403)) {
    page?.stop();
    session = null;
    locked(error);
  } else if (!view.hasShown?.()) {
    show(place, h("div", { class: "card empty" }, h("h2", null, error.status === 404 ? "Not here" : "No figures"), h("p", null, error.message)));
  }
}

/** Nothing can be shown yet: say why, and what to do. */
function locked(error) {
  state(error);
  content.setAttribute("aria-busy", "false");
  const wantsKey = error.status === 401;
  show(content, h("div", { class: "card empty" },
    h("h2", null, wantsKey ? "This proxy wants a key" : "The proxy does not answer"),
    h("p", null, wantsKey
      ? "Show a proxy key, or the dashboard key, to see its figures. The key stays in this tab."
      : error.message),
    h("p", { class: "row center" }, h("button", { class: "primary", type: "button", onclick: () => (wantsKey ? askForKey() : open()) }, wantsKey ? "Show a key" : "Try again"))));
  performance.mark("sluice-shown");
  if (wantsKey && key()) askForKey(error.message);
}

function showKey() {
  keyButton.dataset.on = String(session.role !== "guest");
  keyButton.textContent = session.role === "guest" ? "Key" : session.name;
  keyButton.title = session.role === "guest" ? "Read-only: no key was shown" : `Seen with the key ${session.name}`;
}

function askForKey(error = "") {
  document.getElementById("keytext").textContent =
    session && !session.stores_content
      ? "With a key you can see your own conversations. This proxy keeps no content: start it with --store-content to see any."
      : "Content is shown to the key that a conversation ran under, and pins are set with it. It stays in this tab.";
  document.getElementById("keyerror").textContent = error;
  document.getElementById("keyforget").hidden = !key();
  dialog.showModal();
}

document.getElementById("keyform").addEventListener("submit", async (event) => {
  event.preventDefault();
  const before = key();
  setKey(document.getElementById("keyinput").value.trim());
  try {
    session = await get("/session");
    document.getElementById("keyinput").value = "";
    dialog.close();
    open();
  } catch (error) {
    setKey(before);
    document.getElementById("keyerror").textContent = error.message;
  }
});
document.getElementById("keycancel").addEventListener("click", () => dialog.close());
document.getElementById("keyforget").addEventListener("click", () => {
  setKey("");
  session = null;
  dialog.close();
  open();
});
keyButton.addEventListener("click", () => askForKey());

// The theme: the system's, or the one that was chosen last.
const THEMES = { system: "M4 5h16v11H4zM9 20h6", light: "M12 4V2M12 22v-2M4 12H2M22 12h-2M6 6 4.7 4.7M19.3 19.3 18 18M6 18l-1.3 1.3M19.3 4.7 18 6M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8", dark: "M20 14A8.5 8.5 0 0 1 10 4a8 8 0 1 0 10 10" };
const themeButton = document.getElementById("theme");
function showTheme() {
  const chosen = document.documentElement.dataset.theme ?? "system";
  themeButton.setAttribute("aria-label", `Theme: ${chosen === "system" ? "as the system" : chosen}`);
  themeButton.replaceChildren(s("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: THEMES[chosen] })));
}
themeButton.addEventListener("click", () => {
  const order = ["system", "light", "dark"];
  const next = order[(order.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % 3];
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try { localStorage.setItem("sluice.theme", next); } catch { /* then it lasts as long as the page */ }
  showTheme();
  dispatchEvent(new Event("themechange"));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-link]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go(link.getAttribute("href"));
});
addEventListener("popstate", () => open());

keyFromAddress();
showTheme();
open();
