// The last request of a conversation: the original beside what the model saw, dropped spans folded, each with a pin.
import { get, post } from "./api.js";
import { h, show } from "./dom.js";
import { chance, compact, count, when } from "./format.js";

const CHARS_PER_TOKEN = 4;
const LONG_LINES = 24;
const SHOWN_LINES = 10;
const WHY = {
  "seen above": "the request shows the same lines elsewhere",
  repeated: "repeats the line before it",
  "not needed": "judged not to be worth its tokens",
};

/** Returns {element, update(at_s)}: loads once, then says when there is a newer request. */
export function request({ id, session, askForKey }) {
  const element = h("section", { class: "request", "data-side": "both", "aria-label": "The last request" });
  let loadedAt = null;
  return {
    element,
    async update(newest, signal) {
      if (!session.may_read_content) {
        if (loadedAt == null) show(element, closed(session, askForKey));
        loadedAt = newest;
        return;
      }
      if (loadedAt == null) await load(signal);
      else if (newest > loadedAt) fresh();
      loadedAt = newest;
    },
  };

  async function load(signal) {
    try {
      const data = await get(`/conversations/${id}/request`, signal);
      show(element, draw(data));
    } catch (error) {
      if (error.name === "AbortError") throw error;
      show(element, bar("The request"), h("p", { class: "notice" }, error.message));
    }
  }

  function fresh() {
    if (element.querySelector("#fresh")) return;
    element.querySelector(".bar2 .row")?.prepend(h("button", { class: "ghost", id: "fresh", type: "button", onclick: () => load() }, "Show the newer request"));
  }

  function bar(title, note, ...tools) {
    return h("div", { class: "bar2" }, h("div", null, h("h2", null, title), note ? h("p", null, note) : null), h("div", { class: "row" }, tools));
  }

  function draw(data) {
    const texts = data.messages.flatMap((message) => message.texts);
    const spans = texts.flatMap((text) => text.parts.filter((part) => part.type === "dropped"));
    const came = texts.reduce((sum, text) => sum + text.num_chars_in, 0), went = texts.reduce((sum, text) => sum + text.num_chars_out, 0);
    const note = spans.length
      ? `${count(spans.length)} spans dropped, ${count(spans.reduce((sum, part) => sum + part.stop - part.start, 0))} lines, about ${compact((came - went) / CHARS_PER_TOKEN)} tokens · ${when(data.at_s)}`
      : `Nothing was dropped · ${when(data.at_s)}`;
    const sides = [["both", "Side by side"], ["original", "Original"], ["forwarded", "As the model saw it"]];
    const buttons = sides.map(([side, name]) =>
      h("button", { type: "button", class: side, "aria-pressed": String(element.dataset.side === side), onclick: (event) => {
        element.dataset.side = side;
        for (const one of event.target.parentElement.children) one.setAttribute("aria-pressed", String(one === event.target));
      } }, name));
    const onlyDropped = h("button", { class: "ghost", type: "button", "aria-pressed": "false", onclick: (event) => {
      const isOn = event.target.getAttribute("aria-pressed") !== "true";
      event.target.setAttribute("aria-pressed", String(isOn));
      event.target.textContent = isOn ? "Close all" : "Open what was shortened";
      for (const one of element.querySelectorAll("details[data-dropped]")) one.open = isOn;
    } }, "Open what was shortened");
    return [
      bar("The last request", note, spans.length ? onlyDropped : null, h("div", { class: "segmented", role: "group", "aria-label": "What to show" }, buttons)),
      h("div", { class: "card messages" }, data.messages.map((one) => message(one))),
    ];
  }

  function message(one) {
    const num = one.texts.reduce((sum, text) => sum + text.parts.filter((part) => part.type === "dropped").length, 0);
    const called = one.calls.reduce((sum, call) => sum + call.name.length + call.arguments.length, 0);
    const came = one.texts.reduce((sum, text) => sum + text.num_chars_in, called), went = one.texts.reduce((sum, text) => sum + text.num_chars_out, called);
    const first = one.texts.find((text) => text.tool) ?? one.texts[0];
    const what = one.calls.length ? one.calls.map((call) => `${call.name} ${call.arguments}`).join(" · ") : first ? (first.path ?? first.command ?? first.parts[0]?.text.trimStart().split("\n", 1)[0] ?? "") : "";
    const details = h("details", { "data-dropped": num ? "" : null },
      h("summary", null,
        h("span", { class: "pos num" }, one.position ?? ""),
        h("span", { class: "who" }, first?.tool || one.role),
        h("span", { class: "what" }, what.slice(0, 300)),
        num ? h("span", { class: "tag drop" }, `${num} dropped`) : null,
        one.texts.some((text) => text.parts.some((part) => part.type === "added")) ? h("span", { class: "tag add" }, "given back") : null,
        h("span", { class: "size" }, came === went ? `${compact(came / CHARS_PER_TOKEN)} tok` : `${compact(came / CHARS_PER_TOKEN)} → ${compact(went / CHARS_PER_TOKEN)} tok`)));
    details.addEventListener("toggle", () => {
      // Filled when it is first opened: a long conversation has thousands of parts.
      if (details.open && !details.querySelector(".sides")) details.append(body(one));
    });
    return h("article", { class: "message" }, details);
  }

  function body(one) {
    const grid = h("div", { class: "sides" }, h("div", { class: "cap l", }, "Original"), h("div", { class: "cap r" }, "As the model saw it"));
    for (const text of one.texts) {
      if (text.tool || text.path) grid.append(h("div", { class: "about" }, text.tool ? h("b", null, text.tool) : null, h("span", { class: "tag" }, text.kind), h("code", null, text.path ?? text.command ?? ""), wholePin(one, text)));
      for (const part of text.parts) grid.append(...pair(one, text, part));
    }
    for (const call of one.calls) {
      const line = () => h("div", { class: "call" }, h("b", null, call.name), " ", call.arguments);
      grid.append(h("div", { class: "left" }, line()), h("div", { class: "right" }, line()));
    }
    return grid;
  }

  function pair(one, text, part) {
    const cell = (side, ...children) => h("div", { class: side }, children);
    if (part.type === "kept") return [cell("left", folded(part.text)), cell("right", folded(part.text))];
    if (part.type === "added") return [cell("left"), cell("right", h("div", { class: "added" }, h("pre", null, part.text)))];
    if (part.type === "replaced") return [cell("left", h("pre", null, part.text)), cell("right", h("pre", null, part.forwarded))];
    return [cell("left", dropped(one, text, part)), cell("right", h("div", { class: "marker" }, part.marker))];
  }

  function dropped(one, text, part) {
    const lines = part.stop - part.start;
    const source = h("pre", { hidden: true }, part.text);
    const toggle = h("button", { class: "toggle", type: "button", "aria-expanded": "false", onclick: () => {
      source.hidden = !source.hidden;
      toggle.setAttribute("aria-expanded", String(!source.hidden));
    } }, `${count(lines)} lines dropped`);
    return h("div", { class: "dropped" },
      h("div", { class: "line" }, toggle,
        h("span", { class: "tag drop", title: WHY[part.reason] }, part.reason),
        part.score != null ? h("span", { class: "score", title: "Keep probability of the line most likely to be needed" }, `score ${chance(part.score)}`) : null,
        pinButton(one, text, part.start, part.stop, part.is_pinned, "Pin")),
      source);
  }

  function pinButton(one, text, start, stop, isPinned, name) {
    const title = isPinned
      ? "These lines are pinned: a later rewrite may drop them again once they are not"
      : "Never drop these lines; what was dropped of them is given back with the next tool result";
    const button = h("button", { class: "pin", type: "button", title, onclick: async () => {
      button.disabled = true;
      try {
        await post(`/conversations/${id}/pins`, { message: one.index, text: text.index, start, stop, pinned: !isPinned });
        button.textContent = isPinned ? "Unpinned: may be dropped again" : "Pinned: comes back with the next result";
      } catch (error) {
        button.disabled = false;
        button.textContent = error.message;
      }
    } }, isPinned ? "Unpin" : name);
    return button;
  }

  function wholePin(one, text) {
    return h("span", { class: "push" }, pinButton(one, text, 0, text.num_lines, text.num_pinned > 0, "Pin the whole result"));
  }
}

/** A text, its middle folded away where it is long. */
function folded(text) {
  const lines = text.split("\n");
  if (lines.length <= LONG_LINES) return h("pre", null, text);
  const place = h("div");
  const hidden = lines.length - 2 * SHOWN_LINES;
  show(place,
    h("pre", null, lines.slice(0, SHOWN_LINES).join("\n")),
    h("button", { class: "more", type: "button", onclick: () => show(place, h("pre", null, text)) }, `Show ${count(hidden)} more lines`),
    h("pre", null, lines.slice(-SHOWN_LINES).join("\n")));
  return place;
}

function closed(session, askForKey) {
  return h("div", { class: "card empty" },
    h("h2", null, session.stores_content ? "The request itself needs a key" : "Content is not kept"),
    session.stores_content
      ? h("p", null, "It is shown to the key that the conversation ran under. ", h("button", { class: "link", type: "button", onclick: () => askForKey() }, "Show a key"))
      : h("p", null, "Start the proxy with ", h("code", null, "--store-content"), " to see requests as the model saw them, beside the original."));
}
