// What the self-hosted backends are doing now; rates come from two looks at their counters.
import { get } from "../api.js";
import { trend } from "../charts.js";
import { h, show } from "../dom.js";
import { compact, count, duration, percent } from "../format.js";
import { empty } from "../parts.js";

const KEPT = 60;

export function start({ place }) {
  const looks = new Map(); // by name: [{at, output, prefill}], and rates over time
  let hasShown = false;
  return {
    everyMs: 2000,
    hasShown: () => hasShown,
    async load(signal) {
      const { backends } = await get("/backends", signal);
      for (const one of backends) if (one.figures) look(one.name, one.figures);
      hasShown = true;
      show(place, h("div", { class: "head" }, h("div", null, h("h1", null, "Backends"), h("p", null, "Self-hosted servers, as they describe themselves"))), backends.length ? backends.map((one) => panel(one)) : nothing());
    },
  };

  function look(name, figures) {
    const known = looks.get(name) ?? { last: null, output: [], prefill: [] };
    const now = { at: performance.now() / 1000, output: figures.output_tokens, prefill: figures.prefill_tokens };
    if (known.last && now.at > known.last.at) {
      for (const kind of ["output", "prefill"]) {
        // A counter that fell began anew: the server was restarted.
        if (now[kind] == null || known.last[kind] == null || now[kind] < known.last[kind]) continue;
        known[kind].push((now[kind] - known.last[kind]) / (now.at - known.last.at));
        known[kind].splice(0, known[kind].length - KEPT);
      }
    }
    known.last = now;
    looks.set(name, known);
  }

  function panel({ name, figures }) {
    if (!figures)
      return h("section", { class: "card grid" }, h("header", null, h("h2", null, name), h("span", { class: "tag drop" }, "says nothing")), h("div", { class: "body" }, h("p", { class: "quiet" }, "It does not answer, or gives no metrics.")));
    const rates = looks.get(name);
    const rate = (kind) => (rates[kind].length ? `${compact(rates[kind].at(-1))} tok/s` : "…");
    const facts = [
      ["Output", [rate("output"), rates.output.length > 1 ? trend(rates.output, "Output tokens per second") : null]],
      ["Prompts computed", [rate("prefill"), rates.prefill.length > 1 ? trend(rates.prefill, "Prompt tokens computed per second") : null]],
      ["KV cache in use", [percent(figures.kv_usage), figures.kv_usage != null ? h("div", { class: "gauge", role: "img", "aria-label": percent(figures.kv_usage), vars: { "--v": figures.kv_usage } }) : null]],
      ["Prefix cache hits", [percent(figures.prefix_hit_rate), figures.prefix_hit_rate != null ? h("div", { class: "gauge", role: "img", "aria-label": percent(figures.prefix_hit_rate), vars: { "--v": figures.prefix_hit_rate } }) : null]],
      ["Drafts accepted", percent(figures.draft_acceptance)],
      ["Running, waiting", `${count(figures.num_running)}, ${count(figures.num_waiting)}`],
      ["First token, p50", [duration(figures.ttft_p50_ms), figures.ttft_p95_ms != null ? h("small", { class: "faint" }, `p95 ${duration(figures.ttft_p95_ms)}`) : null]],
      ["Between tokens, p50", [duration(figures.itl_p50_ms), figures.itl_p95_ms != null ? h("small", { class: "faint" }, `p95 ${duration(figures.itl_p95_ms)}`) : null]],
    ];
    const about = [figures.kv_capacity_tokens != null ? `room for ${compact(figures.kv_capacity_tokens)} tokens` : null, figures.preemptions ? `${count(figures.preemptions)} preemptions` : null].filter(Boolean).join(" · ");
    return h("section", { class: "card grid" }, h("header", null, h("h2", null, name), h("p", null, about)), h("dl", { class: "facts" }, facts.map(([term, value]) => h("div", null, h("dt", null, term), h("dd", null, value)))));
  }
}

const nothing = () =>
  empty("No backend of your own", "Requests go to providers. Sluice can start its own engine or a vLLM, and then shows here how full its cache is and how fast it answers.",
    "sluice serve --backend embedded\nsluice serve --backend vllm --model Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8");
