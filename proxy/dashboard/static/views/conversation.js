// One conversation: its context over the turns, what each turn cost, and the request as the model saw it.
import { get } from "../api.js";
import { chart } from "../charts.js";
import { h, show } from "../dom.js";
import { compact, count, duration, money, percent, span, time, when } from "../format.js";
import { REASONS, armTag, card, kpis, table } from "../parts.js";
import { request } from "../request.js";

export function start({ place, session, argument: id, askForKey, retitle }) {
  const figures = h("div");
  const content = request({ id, session, askForKey });
  show(place, figures, content.element);
  let shown = "";
  const asked = { allTurns: false };
  return {
    everyMs: 4000,
    hasShown: () => shown !== "",
    async load(signal) {
      const data = await get(`/conversations/${id}`, signal);
      const text = JSON.stringify(data);
      if (text !== shown) {
        shown = text;
        retitle(data.title || id.slice(0, 12));
        show(figures, draw(data));
      }
      await content.update(data.turns.length ? data.turns.at(-1).at_s : 0, signal);
    },
  };

  function draw(data) {
    const { sums, turns } = data;
    const last = turns.at(-1);
    const untouched = sums.cost_untouched ?? 0, cost = sums.cost ?? 0;
    return [
      h("div", { class: "head" }, h("div", null,
        h("h1", { class: "clamp" }, data.title || h("span", { class: "mono" }, id.slice(0, 12))),
        h("p", { class: "row" }, armTag(data.arm), h("span", null, `${data.model} · ${data.key} · ${data.mode} · ${data.upstream}`),
          h("span", { class: "faint" }, `${when(data.first_at_s)} to ${time(data.last_at_s)}`)))),
      kpis([
        ["Turns", count(sums.turns), `over ${span(data.last_at_s - data.first_at_s)}`],
        ["Context now", compact(last.tokens_out), `${compact(last.tokens_in)} as sent`],
        ["Spent", money(cost), `${money(untouched)} untouched`],
        ["Saved", data.arm === "treated" ? money(untouched - cost) : "–", data.arm === "treated" && untouched > 0 ? `${percent((untouched - cost) / untouched)} of untouched` : "goes through untouched"],
        ["Read from the cache", sums.num_prompt ? percent((sums.cache_read ?? 0) / sums.num_prompt) : "–", `${compact(sums.cache_read ?? 0)} tokens`],
      ], "five"),
      h("div", { class: "grid" }, sizes(data)),
      h("div", { class: "grid" }, turnTable(data, asked)),
    ];
  }
}

function sizes({ turns, rewritten }) {
  const counted = turns.map((turn, index) => [index + 1, turn]).filter(([, turn]) => turn.tokens_in);
  if (!counted.length) return card("Context over turns", null, h("p", { class: "quiet" }, "No turn has been counted yet."));
  const came = counted.map(([, turn]) => turn.tokens_in), went = counted.map(([, turn]) => turn.tokens_out);
  return card("Context over turns", "tokens of the messages, by our tokenizer", chart({
    x: counted.map(([number]) => number), isTime: false,
    label: (number, index) => `Turn ${number}, ${time(counted[index][1].at_s)}${counted[index][1].epoch ? `, epoch: ${counted[index][1].epoch}` : ""}`,
    axis: { x: (tick) => count(tick), y: compact },
    series: [
      { name: "as sent, without Sluice", values: came, color: "--plain", fill: "--plain-soft", kind: "area", format: count },
      { name: "forwarded", values: went, color: "--flow", fill: "--flow-soft", kind: "area", format: count },
    ],
    marks: counted.filter(([, turn]) => turn.epoch).map(([number]) => ({ x: number, color: "--write", label: "rewrite" })),
    summary: `Over ${counted.length} turns the context grew to ${count(came.at(-1))} tokens as sent and ${count(went.at(-1))} forwarded; ${rewritten.length} rewrites.`,
  }));
}

function turnTable({ turns, rewritten }, asked) {
  const why = new Map(rewritten.map((one) => [one.at_s, one]));
  const all = turns.map((turn, index) => ({ ...turn, number: index + 1 })).reverse();
  const few = 12;
  const body = h("div");
  const draw = (rows) => show(body, table([
    { name: "Turn", label: true, cell: (row) => row.number },
    { name: "Time", cell: (row) => h("span", { class: "soft nowrap", title: when(row.at_s) }, time(row.at_s)) },
    { name: "As sent", num: true, label: true, cell: (row) => count(row.tokens_in) },
    { name: "Forwarded", num: true, label: true, cell: (row) => count(row.tokens_out) },
    { name: "Cache read", num: true, label: true, cell: (row) => count(row.cache_read) },
    { name: "Written", num: true, label: true, cell: (row) => count(row.cache_write) },
    { name: "Spent", num: true, label: true, cell: (row) => money(row.cost) },
    { name: "Overhead", num: true, label: true, cell: (row) => duration(row.overhead_ms) },
    { name: "", full: true, cell: (row) => notes(row, why.get(row.at_s)) },
  ], rows, { caption: "Turns, newest first", cards: true }),
  rows.length < all.length ? h("div", { class: "pager" }, h("span", null, `The newest ${few} of ${count(all.length)}`), h("button", { class: "ghost", type: "button", id: "allturns", onclick: () => { asked.allTurns = true; draw(all); } }, "All turns")) : null);
  draw(asked.allTurns ? all : all.slice(0, few));
  return h("section", { class: "card" }, h("header", null, h("h2", null, "Turns"), h("p", null, "cache figures by the upstream's count")), body);
}

function notes(row, rewrite) {
  return [
    rewrite ? [h("span", { class: "tag", title: REASONS[row.epoch] }, `epoch: ${row.epoch}`), " ",
      h("span", { class: "soft" }, `${rewrite.idle_s != null && row.epoch === "cold" ? `idle ${span(rewrite.idle_s)}, ` : ""}${REASONS[row.epoch] ?? ""}`)] : null,
    row.bypass ? [h("span", { class: "tag" }, `bypass: ${row.bypass}`), " "] : null,
    row.status >= 400 ? h("span", { class: "tag drop" }, `status ${row.status}`) : null,
    row.source !== "upstream" ? h("span", { class: "tag" }, row.source === "hit" ? "prompt cache" : "shared answer") : null,
  ];
}
