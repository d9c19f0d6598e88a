// Pieces that several pages are made of.
import { h } from "./dom.js";
import { LEAST_MONEY, compact, count, money, percent } from "./format.js";

export const card = (title, note, ...body) =>
  h("section", { class: "card" },
    h("header", null, h("h2", null, title), note ? h("p", null, note) : null),
    h("div", { class: "body" }, body));

/** A table in a card: columns are [{name, num, cell(row), full, label}]. */
export function table(columns, rows, { caption, go, cards = false } = {}) {
  return h("div", { class: "table" },
    h("table", { class: cards ? "cards" : null },
      h("caption", { class: "hidden" }, caption),
      h("thead", null, h("tr", null, columns.map((one) => h("th", { scope: "col", class: one.num ? "num" : null }, one.name)))),
      h("tbody", { onkeydown: go ? moveFocus : null }, rows.map((row) =>
        h("tr", { class: go ? "go" : null, onclick: go ? (event) => event.target.closest("a, button") || go(row, event) : null },
          columns.map((one) =>
            h("td", { class: [one.num ? "num" : "", one.full ? "full" : ""].join(" ").trim() || null, "data-label": cards && one.label ? one.name : null }, one.cell(row))))))));
}

/** Arrow keys move from row to row. */
function moveFocus(event) {
  const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
  const row = event.target.closest("tr");
  if (!row || (!step && event.key !== "Home" && event.key !== "End")) return;
  const rows = [...row.parentElement.children];
  const to = event.key === "Home" ? 0 : event.key === "End" ? rows.length - 1 : rows.indexOf(row) + step;
  const link = rows[to]?.querySelector("a");
  if (!link) return;
  event.preventDefault();
  link.focus();
}

export const kpis = (items, extra = "") =>
  h("dl", { class: `card kpis ${extra}` }, items.filter(Boolean).map(([name, value, note]) =>
    h("div", null, h("dt", null, name), h("dd", null, value, note ? h("small", null, note) : null))));

export const empty = (title, text, code) =>
  h("div", { class: "card empty" }, h("h2", null, title), h("p", null, text), code ? h("pre", null, code) : null);

export const quiet = (...text) => h("p", { class: "quiet" }, text);

/** What was saved, in the colour of its sign. */
export function saved(value, base) {
  if (Math.abs(value) < LEAST_MONEY) return h("span", { class: "faint" }, "0");
  const share = base > 0 ? value / base : null;
  const tone = value > 0 ? "good" : value < 0 ? "bad" : "faint";
  return h("span", { class: tone }, money(value), share == null || value === 0 ? null : h("span", { class: "pct" }, percent(share)));
}

/** The measured saving of a group: with its interval, or why there is none. */
export function measured(comparison) {
  if (!comparison?.per_turn) return null;
  const { share, low, high } = comparison.per_turn;
  const arms = `${count(comparison.num_treated)} conversations compressed, ${count(comparison.num_held_out)} held out`;
  if (low == null) return h("span", { class: "faint", title: `${arms}; 20 of each are needed for an interval` }, "too few");
  return h("span", { title: arms }, percent(share), h("span", { class: "sub" }, range(low, high)));
}

export const range = (low, high) => `[${percent(low).replace(" %", "")} to ${percent(high)}]`;

/** Shares of tokens as bars: pale what came in, full what was forwarded. */
export function shares(rows, { isPath = false, max = 8 } = {}) {
  const top = Math.max(1, ...rows.map((row) => row.tokens_in));
  return h("ul", { class: "shares" }, rows.slice(0, max).map((row) =>
    h("li", null,
      h("span", { class: isPath ? "name path mono" : "name", title: row.name }, isPath ? h("bdi", null, row.name) : row.name),
      // Where more went out than came in, lines dropped earlier were given back behind it.
      h("span", { class: "num soft" }, row.tokens_out > row.tokens_in
        ? `${compact(row.tokens_in)}, and ${compact(row.tokens_out - row.tokens_in)} given back`
        : `${compact(row.tokens_out)} of ${compact(row.tokens_in)}`),
      h("span", { class: "track", "aria-hidden": "true", vars: { "--in": row.tokens_in / top, "--out": row.tokens_out / top } }))));
}

export const ARMS = { treated: "compressed", holdout: "held out", off: "untouched" };
export const armTag = (arm) => h("span", { class: `tag ${arm === "holdout" ? "holdout" : arm === "treated" ? "flow" : ""}` }, ARMS[arm] ?? arm);

export const REASONS = {
  cold: "the provider's cache had expired, so that rewriting cost nothing extra",
  pays: "what it saves on the turns to come outweighs writing the rest of the prefix anew",
  need: "the request had to become shorter: a budget or the model's window",
};
