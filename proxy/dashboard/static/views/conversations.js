// Recent conversations: searched, sorted, a page at a time.
import { get } from "../api.js";
import { sparkline } from "../charts.js";
import { h, show } from "../dom.js";
import { ago, compact, count, minute, money, when } from "../format.js";
import { armTag, empty, saved, table } from "../parts.js";

const PAGE = 50;
const SORTS = [["recent", "Newest first"], ["cost", "Dearest first"], ["saved", "Most saved first"], ["turns", "Longest first"], ["tokens", "Most tokens first"]];

export function start({ place, go }) {
  const query = new URLSearchParams(location.search);
  const asked = { q: query.get("q") ?? "", sort: query.get("sort") ?? "recent", start: Number(query.get("start")) || 0 };
  const list = h("div");
  const input = h("input", { class: "search", type: "search", id: "q", value: asked.q, placeholder: "Model, key, title or id", "aria-label": "Find conversations", oninput: () => later() });
  const sort = h("select", { id: "sort", "aria-label": "Order", onchange: (event) => change({ sort: event.target.value, start: 0 }) },
    SORTS.map(([value, name]) => h("option", { value, selected: value === asked.sort }, name)));
  const total = h("p", null, " ");
  show(place, h("div", { class: "head" }, h("div", null, h("h1", null, "Conversations"), total), h("div", { class: "row" }, input, sort)), list);
  let shown = "", timer = 0;

  function later() {
    clearTimeout(timer);
    timer = setTimeout(() => change({ q: input.value, start: 0 }), 180);
  }

  function change(to) {
    Object.assign(asked, to);
    const kept = Object.entries(asked).filter(([name, value]) => value && value !== (name === "sort" ? "recent" : ""));
    history.replaceState(null, "", `${location.pathname}${kept.length ? `?${new URLSearchParams(kept)}` : ""}`);
    view.load().catch(() => {});
  }

  const view = {
    everyMs: 4000,
    hasShown: () => shown !== "",
    async load(signal) {
      const mine = JSON.stringify(asked);
      const data = await get(`/conversations?${new URLSearchParams({ ...asked, limit: PAGE })}`, signal);
      if (mine !== JSON.stringify(asked)) return;
      const text = JSON.stringify(data) + minute();
      if (text === shown) return;
      shown = text;
      total.textContent = data.total ? `${count(data.total)} ${asked.q ? "found" : "in the last days"}` : " ";
      show(list, data.total ? rows(data) : nothing());
    },
  };
  return view;

  function nothing() {
    if (asked.q) return empty("Nothing fits", `No conversation holds “${asked.q}” in its model, key, mode, upstream, title or id.`);
    return empty("No conversations yet", "Each agent's work shows up here with its first request.",
      `export OPENAI_BASE_URL=${location.origin}/v1\nexport ANTHROPIC_BASE_URL=${location.origin}`);
  }

  function rows(data) {
    const last = Math.min(asked.start + PAGE, data.total);
    const to = (row) => `/dashboard/conversations/${row.id}`;
    return h("section", { class: "card" },
      table([
        { name: "Conversation", full: true, cell: (row) => h("a", { id: `c-${row.id}`, href: to(row), "data-link": true },
            h("span", { class: row.title ? "title" : "title mono" }, row.title || row.id.slice(0, 12)),
            h("span", { class: "sub" }, `${row.model} · ${row.key}`)) },
        { name: "", full: true, cell: (row) => armTag(row.arm) },
        { name: "Context", full: true, cell: (row) => sparkline(row.tokens_in, row.tokens_out, spoken(row)) },
        { name: "Tokens now", num: true, label: true, cell: (row) => compact(row.tokens_out.at(-1)) },
        { name: "Turns", num: true, label: true, cell: (row) => count(row.sums.turns) },
        { name: "Spent", num: true, label: true, cell: (row) => money(row.sums.cost ?? 0) },
        { name: "Saved", num: true, label: true, cell: (row) => (row.arm === "treated" ? saved((row.sums.cost_untouched ?? 0) - (row.sums.cost ?? 0), row.sums.cost_untouched ?? 0) : h("span", { class: "faint" }, "–")) },
        { name: "Last turn", num: true, label: true, cell: (row) => h("time", { datetime: new Date(row.last_at_s * 1000).toISOString(), title: when(row.last_at_s), class: "soft" }, ago(row.last_at_s)) },
      ], data.conversations, { caption: "Recent conversations", cards: true, go: (row) => go(to(row)) }),
      h("div", { class: "pager" },
        h("span", null, `${count(asked.start + 1)}–${count(last)} of ${count(data.total)}`),
        h("span", { class: "row" },
          h("button", { class: "ghost", id: "previous", type: "button", disabled: asked.start === 0, onclick: () => change({ start: Math.max(0, asked.start - PAGE) }) }, "Previous"),
          h("button", { class: "ghost", id: "next", type: "button", disabled: last >= data.total, onclick: () => change({ start: asked.start + PAGE }) }, "Next"))));
  }
}

const spoken = (row) => (row.tokens_in.length ? `Context from ${count(row.tokens_out[0])} to ${count(row.tokens_out.at(-1))} tokens, ${count(row.tokens_in.at(-1))} as sent` : "No counts");
