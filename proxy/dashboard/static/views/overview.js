// What it costs and what it saved, where the tokens go, what the caches and the proxy itself did.
import { get } from "../api.js";
import { chart, interval } from "../charts.js";
import { h, show } from "../dom.js";
import { ago, compact, count, duration, minute, money, percent, span, utcDay, when } from "../format.js";
import { REASONS, card, empty, kpis, measured, quiet, range, saved, shares, table } from "../parts.js";

const RANGES = [[1, "Today (UTC)"], [7, "7 days"], [30, "30 days"], [90, "90 days"]];

export function start({ place, session, go, askForKey }) {
  let days = Number(new URLSearchParams(location.search).get("days")) || 30;
  let shown = "";
  return {
    everyMs: 5000,
    hasShown: () => shown !== "",
    async load(signal) {
      const asked = days;
      const data = await get(`/overview?days=${asked}`, signal);
      const text = `${JSON.stringify(data)} ${asked} ${minute()}`;
      if (text === shown || asked !== days) return;
      shown = text;
      show(place, draw(data));
    },
  };

  function draw(data) {
    const head = h("div", { class: "head" },
      h("div", null, h("h1", null, "Overview"),
        h("p", null, `Mode ${session.mode}, ${upstreams(session)}${data.scope === "this process" && session.state === "redis" ? ", this process only: Redis does not answer" : ""}`)),
      data.totals.num_turns || days !== 30
        ? h("label", { class: "row" }, h("span", { class: "hidden" }, "Time range"),
            h("select", { id: "range", onchange: (event) => { days = Number(event.target.value); go(`/dashboard?days=${days}`); } },
              RANGES.map(([value, name]) => h("option", { value, selected: value === days }, name))))
        : null);
    if (!data.totals.num_turns) return [head, nothing()];
    return [
      head,
      hero(data),
      figures(data),
      h("div", { class: "grid" }, byDayChart(data)),
      h("div", { class: "grid two" }, groups("By model", data.by_model, data.measured.model), groups("By key", data.by_key, data.measured.key)),
      composition(data, session, askForKey),
      h("div", { class: "grid wide" }, cache(data), overhead(data)),
      h("div", { class: "grid" }, epochs(data, go)),
    ];
  }
}

const upstreams = (session) => (session.upstreams.length === 1 ? "one upstream" : `${session.upstreams.length} upstreams`);

function nothing() {
  const origin = location.origin;
  const url = origin === "http://127.0.0.1:8790" ? "" : ` --url ${origin}`;
  return empty("Nothing has come through yet",
    "Point an agent at this proxy; its first request shows up here within seconds.",
    `sluice connect claude-code --write${url}     # or codex, opencode, aider, mini-swe-agent …\n\n`
    + `export ANTHROPIC_BASE_URL=${origin}\nexport OPENAI_BASE_URL=${origin}/v1`);
}

function hero(data) {
  const { totals, holdout } = data;
  const worked = !hasMoney(totals) ? unpriced(totals) : h("div", null,
    h("p", { class: "label" }, "Saved"),
    h("p", { class: "figure" }, money(totals.saved)),
    h("p", null, money(totals.cost), " spent instead of ", money(totals.cost_untouched), " untouched",
      totals.cost_untouched > 0 ? h("span", null, ", ", h("b", { class: totals.saved < 0 ? "bad" : "good" }, `${percent(Math.abs(totals.saved / totals.cost_untouched))} ${totals.saved < 0 ? "more" : "less"}`)) : null,
      ". Worked out from each turn's usage, as the upstreams measured it."),
    totals.num_unmetered || totals.num_unpriced
      ? h("p", { class: "faint" }, [totals.num_unmetered ? `${count(totals.num_unmetered)} turns came without usage` : null, totals.num_unpriced ? `${count(totals.num_unpriced)} turns are of models without a price` : null].filter(Boolean).join(", "), ".")
      : null);
  const result = holdout.per_turn;
  const proof = h("div", null, h("p", { class: "label" }, "Measured against the holdout"));
  if (!result) {
    proof.append(h("p", { class: "figure small faint" }, "not measured"), h("p", null, note(holdout.note),
      holdout.num_held_out ? null : h("span", null, " ", h("code", null, "holdout = 0.05"), " sends one conversation in twenty through untouched, so that the difference is measured.")));
  } else {
    proof.append(
      h("p", { class: "figure small" }, shownDifference(result)),
      h("p", null, result.low == null ? note(holdout.note) : h("span", null, `95 % interval ${range(result.low, result.high)}, `,
        `${count(holdout.num_treated)} conversations against ${count(holdout.num_held_out)} held out`)));
    if (result.low != null) proof.append(interval(result, (value) => percent(value, 0), `Measured saving ${percent(result.share)}, from ${percent(result.low)} to ${percent(result.high)}`));
  }
  return h("section", { class: "card hero", "aria-label": "Savings" }, worked, proof);
}

/** Whether anything has a price: what is not sold is counted in tokens. */
const hasMoney = (totals) => totals.cost_untouched > 0 || totals.cost > 0;

function unpriced({ tokens_in: came, tokens_out: went, num_unmetered: unmetered }) {
  return h("div", null,
    h("p", { class: "label" }, "Kept out of the context"),
    h("p", { class: "figure" }, `${compact(came - went)} tokens`),
    h("p", null, came ? `${percent((came - went) / came)} of ${compact(came)} that agents sent. ` : null,
      unmetered ? "The upstream tells no usage, so that nothing can be priced." : ["No model here has a price; ", h("code", null, "prices_file"), " can give them one."]));
}

/** An interval that holds 0 shows no difference, whatever its middle is. */
function shownDifference({ share, low, high }) {
  if (low != null && low <= 0 && high >= 0) return "No difference shown yet";
  return `${percent(Math.abs(share))} ${share < 0 ? "dearer" : "less"} per turn`;
}

const note = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

function figures({ totals, overhead_ms: overhead, arms, answers }) {
  const treated = arms.treated;
  const dropped = treated.tokens_in - treated.tokens_out;
  return kpis([
    ["Turns", count(totals.num_turns), totals.num_errors ? `${count(totals.num_errors)} failed` : answers.num_hits ? `${count(answers.num_hits)} from the prompt cache` : "none failed"],
    ["Kept out of context", treated.tokens_in ? percent(dropped / treated.tokens_in) : "–", `${compact(dropped)} tokens of what was compressed`],
    ["Read from the cache", percent(totals.cache_read_share), `${compact(totals.usage.cache_read)} input tokens`],
    ["Overhead, median", duration(overhead.p50), `p95 ${duration(overhead.p95)}, p99 ${duration(overhead.p99)}`],
  ]);
}

function byDayChart(data) {
  return hasMoney(data.totals) ? moneyByDay(data) : tokensByDay(data);
}

function tokensByDay({ by_day: byDay, since, until }) {
  const days = filled(byDay, since, until);
  const came = days.map((one) => one.sums.tokens_in ?? 0), went = days.map((one) => one.sums.tokens_out ?? 0);
  return card("Tokens per day", "of the messages, by our tokenizer, UTC days", chart({
    x: days.map((one) => Date.parse(`${one.name}T12:00:00Z`) / 1000), isTime: true,
    label: (_, index) => utcDay(days[index].name),
    axis: { x: (tick) => utcDay(new Date(tick * 1000).toISOString().slice(0, 10)), y: compact },
    series: [
      { name: "as sent", values: came, color: "--ghost", kind: "bars", format: compact },
      { name: "forwarded", values: went, color: "--flow", kind: "bars", format: compact },
    ],
    summary: `Tokens per day over ${days.length} days.`,
  }));
}

function moneyByDay({ by_day: byDay, measured: groups, since, until }) {
  const days = filled(byDay, since, until);
  const x = days.map((one) => Date.parse(`${one.name}T12:00:00Z`) / 1000);
  const cost = days.map((one) => one.sums.cost);
  const without = days.map((one) => Math.max(one.sums.cost, one.sums.cost_untouched));
  const total = cost.reduce((sum, value) => sum + value, 0);
  return card("Money per day", "US dollars, UTC days", chart({
    x, isTime: true,
    label: (_, index) => `${utcDay(days[index].name)}${measuredText(groups.day?.[days[index].name])}`,
    axis: { x: (tick) => utcDay(new Date(tick * 1000).toISOString().slice(0, 10)), y: (tick) => money(tick) },
    series: [
      { name: "untouched", values: without, shown: days.map((one) => one.sums.cost_untouched), color: "--ghost", kind: "bars", format: money },
      { name: "spent", values: cost, color: "--flow", kind: "bars", format: money },
    ],
    summary: `Money per day: ${money(total)} spent over ${days.length} days.`,
  }));
}

const measuredText = (comparison) => (comparison?.per_turn?.low != null ? `, measured ${percent(comparison.per_turn.share)} ${range(comparison.per_turn.low, comparison.per_turn.high)}` : "");

/** Every day of the range from the first that has figures: a quiet day is a zero, not a gap. */
function filled(byDay, since, until) {
  const known = new Map(byDay.map((one) => [one.name, one]));
  const first = byDay[0]?.name ?? since;
  const days = [];
  for (let at = Date.parse(`${first}T00:00:00Z`); at <= Date.parse(`${until}T00:00:00Z`); at += 864e5) {
    const name = new Date(at).toISOString().slice(0, 10);
    days.push(known.get(name) ?? { name, sums: { cost: 0, cost_untouched: 0, usage: {} } });
  }
  return days;
}

function groups(title, rows, measuredBy) {
  const top = [...rows].sort((a, b) => b.sums.cost - a.sums.cost).slice(0, 8);
  return h("section", { class: "card" },
    h("header", null, h("h2", null, title), h("p", null, rows.length > top.length ? `${top.length} dearest of ${rows.length}` : "spent, saved, measured")),
    table([
      { name: title.slice(3).replace(/^./, (letter) => letter.toUpperCase()), full: true, cell: (row) => h("span", { class: "title" }, row.name || "none") },
      { name: "Turns", num: true, label: true, cell: (row) => count(row.sums.num_turns) },
      { name: "Spent", num: true, label: true, cell: (row) => money(row.sums.cost) },
      { name: "Saved", num: true, label: true, cell: (row) => saved(row.sums.saved, row.sums.cost_untouched) },
      { name: "Measured, 95 %", num: true, full: true, label: true, cell: (row) => measured(measuredBy?.[row.name]) },
    ], top, { caption: `Spent and saved ${title.toLowerCase()}`, cards: true }));
}

function composition(data, session, askForKey) {
  const files = data.files.length
    ? shares(data.files, { isPath: true })
    : quiet(!session.stores_content
        ? ["Paths are content. Start the proxy with ", h("code", null, "--store-content"), " to see them."]
        : session.role === "guest" ? ["Paths are content: ", h("button", { class: "link", type: "button", onclick: () => askForKey() }, "show a key"), " to see them."] : "No request of this key is kept yet.");
  const legend = "forwarded of what came in";
  return h("div", { class: "grid three" },
    card("Tokens by tool", legend, data.by_tool.length ? shares(data.by_tool) : quiet("No tool results yet.")),
    card("By kind", legend, data.by_kind.length ? shares(data.by_kind) : quiet("Nothing yet.")),
    card("By file", data.files.length ? "in the last requests" : null, files));
}

function cache({ by_day: byDay, since, until, totals }) {
  const days = filled(byDay, since, until);
  const x = days.map((one) => Date.parse(`${one.name}T12:00:00Z`) / 1000);
  const read = days.map((one) => one.sums.usage.cache_read ?? 0);
  const write = days.map((one) => (one.sums.usage.cache_write_5m ?? 0) + (one.sums.usage.cache_write_1h ?? 0));
  const plain = days.map((one) => one.sums.usage.input_tokens ?? 0);
  const add = (...many) => many[0].map((_, index) => many.reduce((sum, one) => sum + one[index], 0));
  return card("Input by what the cache did", "tokens by the upstreams' count", chart({
    x, isTime: true,
    label: (_, index) => utcDay(days[index].name),
    axis: { x: (tick) => utcDay(new Date(tick * 1000).toISOString().slice(0, 10)), y: compact },
    series: [
      { name: "neither", values: add(read, write, plain), shown: plain, color: "--plain", kind: "bars", format: compact },
      { name: "written", values: add(read, write), shown: write, color: "--write", kind: "bars", format: compact },
      { name: "read", values: read, color: "--flow", kind: "bars", format: compact },
    ],
    summary: `${percent(totals.cache_read_share)} of all input was read from the providers' caches.`,
  }));
}

function overhead({ overhead_ms: at, overhead_histogram: buckets }) {
  const top = Math.max(1, ...buckets.map(([, num]) => num));
  const total = buckets.reduce((sum, [, num]) => sum + num, 0);
  return card("Time that is ours", "per request",
    h("dl", { class: "facts three" }, ["p50", "p95", "p99"].map((name) => h("div", null, h("dt", null, name === "p50" ? "median" : name), h("dd", null, duration(at[name]))))),
    buckets.length
      ? [h("div", { class: "histogram", role: "img", "aria-label": `${count(total)} requests, half of them below ${duration(at.p50)}, 99 in 100 below ${duration(at.p99)}` },
           buckets.map(([ms, num]) => h("i", { title: `up to ${duration(ms)}: ${count(num)}`, vars: { "--h": num / top } }))),
         h("div", { class: "scale" }, h("span", null, duration(buckets[0][0])), h("span", null, duration(buckets.at(-1)[0])))]
      : quiet("Nothing was measured yet."));
}

function epochs({ epochs: reasons, bypasses, rewritten }, go) {
  const told = Object.entries(reasons).map(([reason, num]) => `${count(num)} ${reason}`).join(", ");
  const skipped = Object.entries(bypasses).map(([reason, num]) => `${count(num)} ${reason}`).join(", ");
  const notes = [told ? `epochs: ${told}` : null, skipped ? `compression skipped: ${skipped}` : null].filter(Boolean).join(" · ");
  if (!rewritten.length)
    return card("Rewrites of earlier messages", notes, quiet("None yet. What was forwarded once is forwarded again byte for byte, until a rewrite pays for itself."));
  return h("section", { class: "card" },
    h("header", null, h("h2", null, "Rewrites of earlier messages"), h("p", null, notes)),
    table([
      { name: "When", full: true, cell: (row) => h("a", { class: "link", id: `epoch-${row.conversation}-${row.at_s}`, "data-link": true, href: `/dashboard/conversations/${row.conversation}`, title: when(row.at_s) }, ago(row.at_s)) },
      { name: "Why", full: true, cell: (row) => [h("span", { class: "tag" }, row.reason), " ", h("span", { class: "soft" }, REASONS[row.reason] ?? "")] },
      { name: "Idle before", num: true, label: true, cell: (row) => span(row.idle_s) },
      { name: "Turn before", num: true, label: true, cell: (row) => compact(row.tokens_before) },
      { name: "This turn", num: true, label: true, cell: (row) => compact(row.tokens_after) },
    ], rewritten.slice(0, 10), { caption: "The latest rewrites and why each was made", cards: true, go: (row) => go(`/dashboard/conversations/${row.conversation}`) }));
}
