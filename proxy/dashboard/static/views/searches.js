// What was searched for in the configured repositories, and what it came to.
import { get } from "../api.js";
import { h, show } from "../dom.js";
import { ago, count, duration, minute, when } from "../format.js";
import { empty, kpis, table } from "../parts.js";

export function start({ place, session, askForKey }) {
  let shown = "";
  return {
    everyMs: 4000,
    hasShown: () => shown !== "",
    async load(signal) {
      const { searches } = await get("/searches", signal);
      const text = JSON.stringify(searches) + minute();
      if (text === shown) return;
      shown = text;
      show(place, h("div", { class: "head" }, h("div", null, h("h1", null, "Search"), h("p", null, "The latest code searches, over HTTP and MCP"))), searches.length ? list(searches) : nothing());
    },
  };

  function list(searches) {
    const times = searches.map((one) => one.took_ms).sort((a, b) => a - b);
    const isHidden = searches.every((one) => one.query == null);
    return [
      isHidden ? h("p", { class: "notice" }, session.stores_content ? ["What was asked for is content: ", h("button", { class: "link", type: "button", onclick: () => askForKey() }, "show a key"), " to see it."] : ["What was asked for is content, and is not kept; ", h("code", null, "--store-content"), " keeps it."]) : null,
      kpis([
        ["Searches", count(searches.length), searches.length === 200 ? "the latest 200" : "since the start"],
        ["Median time", duration(times[Math.floor(times.length / 2)]), `slowest ${duration(times.at(-1))}`],
        ["Tokens an answer", count(searches.reduce((sum, one) => sum + one.num_tokens, 0) / searches.length), "mean"],
        ["Found nothing", count(searches.filter((one) => !one.num_results).length), null],
      ]),
      h("section", { class: "card grid" }, table([
        { name: "Question", full: true, cell: (row) => (row.query != null ? h("span", { class: "title" }, row.query) : h("span", { class: "faint" }, "not shown")) },
        { name: "Repository", label: true, cell: (row) => row.root },
        { name: "Mode", label: true, cell: (row) => row.mode },
        { name: "Results", num: true, label: true, cell: (row) => count(row.num_results) },
        { name: "Tokens", num: true, label: true, cell: (row) => count(row.num_tokens) },
        { name: "Time", num: true, label: true, cell: (row) => duration(row.took_ms) },
        { name: "When", num: true, label: true, cell: (row) => h("time", { datetime: new Date(row.at_s * 1000).toISOString(), title: when(row.at_s), class: "soft" }, ago(row.at_s)) },
      ], searches, { caption: "Recent searches, newest first", cards: true })),
    ];
  }

  function nothing() {
    return session.has_search
      ? empty("Nothing was searched for yet", "Agents ask over MCP, programs over HTTP.", `curl ${location.origin}/v1/search -H 'content-type: application/json' \\\n  -d '{"query": "where is the session token checked"}'`)
      : empty("Code search is not set up", "Name a repository, and agents can ask questions about it outside their own context.", "sluice serve --search-root PATH");
  }
}
