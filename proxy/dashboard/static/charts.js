// Charts over time on uPlot, in the page's own colours; sparklines and intervals as plain SVG.
import { h, s } from "./dom.js";

const uPlot = globalThis.uPlot;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const HEIGHT = 220;

/**
 * A chart that keeps the width of its place.
 *   x: numbers (seconds, or turns from 1); isTime: how to read them; label: of an x value in the tip
 *   series: [{name, values, shown, color, fill, kind, format}], drawn one over the other
 *     shown: what the tip tells where it is not what is drawn; color, fill: CSS variables; kind: "area" or "bars"
 *   axis: {x, y} write a tick; marks: [{x, label, color}] vertical lines
 * Returns the element; `summary` is what a screen reader is told.
 */
export function chart({ x, isTime, label, series, summary, axis, marks = [] }) {
  const place = h("div", { class: "chart" });
  const figure = h("figure", { role: "group", "aria-label": summary },
    place,
    h("figcaption", { class: "hidden" }, summary));
  const keys = h("div", { class: "legend", "aria-hidden": "true" },
    series.map((one) => h("span", null, h("i", { vars: { "--c": `var(${one.color})` } }), one.name)),
    marks.length ? h("span", null, h("i", { class: "dash", vars: { "--c": `var(${marks[0].color})` } }), marks[0].label) : null);
  let plot = null;

  function draw() {
    const width = place.clientWidth;
    if (!width) return;
    if (plot) plot.destroy();
    else addEventListener("themechange", draw);
    plot = new uPlot(options(width), [x, ...series.map((one) => one.values)], place);
  }

  function options(width) {
    const font = `11.5px ${css("--sans")}`;
    const paint = { stroke: css("--faint"), font, ticks: { show: false }, grid: { stroke: css("--line-soft"), width: 1 } };
    const bars = uPlot.paths.bars({ size: [0.64, 34], radius: 0.12 });
    return {
      width,
      height: HEIGHT,
      padding: [10, 22, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { size: 6, width: 1.5 }, drag: { x: false, y: false } },
      scales: {
        x: { time: isTime, range: (_, low, high) => (series[0].kind === "bars" ? [low - pad(x), high + pad(x)] : [low, Math.max(high, low + 1)]) },
        y: { range: (_, low, high) => [0, high > 0 ? high * 1.06 : 1] },
      },
      axes: [
        { ...paint, grid: { show: false }, size: 28, gap: 6, space: 72, splits: series[0].kind === "bars" ? () => everyFew(x, width) : undefined, values: (_, ticks) => ticks.map((tick) => (isTime ? axis.x(tick) : tick % 1 ? "" : axis.x(tick))) },
        { ...paint, size: 58, gap: 6, values: (_, ticks) => ticks.map(axis.y) },
      ],
      series: [
        {},
        ...series.map((one) => ({
          label: one.name,
          stroke: css(one.color),
          width: one.kind === "bars" ? 0 : 1.75,
          fill: css(one.fill ?? one.color),
          paths: one.kind === "bars" ? bars : undefined,
          points: { show: x.length === 1 && one.kind !== "bars", size: 5 },
        })),
      ],
      plugins: [tip(label, series), lines(marks)],
    };
  }

  // A page is drawn anew with every change: what a chart hangs on the window, and its canvas, must go with it. A page
  // that waits for the last of its figures is nowhere yet: its charts are drawn once it is there.
  const observer = new ResizeObserver(() => {
    if (!place.isConnected) plot && leave();
    else if (!plot) draw();
    else if (place.clientWidth && place.clientWidth !== plot.width) plot.setSize({ width: place.clientWidth, height: HEIGHT });
  });
  observer.observe(place);

  function leave() {
    observer.disconnect();
    removeEventListener("themechange", draw);
    plot.destroy();
  }
  return h("div", null, keys, figure);
}

/** Under every bar, or under as many as there is room for; the newest among them. */
function everyFew(x, width) {
  const step = Math.max(1, Math.ceil((x.length * 64) / width));
  return x.filter((_, index) => (x.length - 1 - index) % step === 0);
}

const pad = (x) => (x.length > 1 ? (x[1] - x[0]) / 2 : 43_200);

/** What stands under the cursor. */
function tip(label, series) {
  let box;
  return {
    hooks: {
      init(plot) {
        box = h("div", { class: "tip" });
        plot.over.append(box);
        plot.over.addEventListener("mouseleave", () => box.classList.remove("on"));
      },
      setCursor(plot) {
        const { idx, left } = plot.cursor;
        if (idx == null || left < 0) return box.classList.remove("on");
        box.replaceChildren(
          h("b", null, label(plot.data[0][idx], idx)),
          ...series.map((one) =>
            h("span", null, h("em", null, one.name), one.format((one.shown ?? one.values)[idx]))));
        box.classList.add("on");
        const width = box.offsetWidth;
        const x = left + width + 18 > plot.over.clientWidth ? left - width - 12 : left + 12;
        box.style.setProperty("--x", `${Math.max(0, x)}px`);
        box.style.setProperty("--y", "6px");
      },
    },
  };
}

/** Vertical lines at moments that matter. */
function lines(marks) {
  return {
    hooks: {
      draw(plot) {
        const { ctx, bbox } = plot;
        ctx.save();
        for (const mark of marks) {
          const at = Math.round(plot.valToPos(mark.x, "x", true)) + 0.5;
          ctx.strokeStyle = css(mark.color);
          ctx.setLineDash([4, 4]);
          ctx.beginPath();
          ctx.moveTo(at, bbox.top);
          ctx.lineTo(at, bbox.top + bbox.height);
          ctx.stroke();
        }
        ctx.restore();
      },
    },
  };
}

/** The size of a context over its turns: what came in behind what was forwarded. */
export function sparkline(came, went, summary) {
  const W = 132, H = 26, n = came.length, top = Math.max(1, ...came, ...went);
  const at = (index) => (n > 1 ? (index / (n - 1)) * W : W);
  const y = (value) => H - 1 - (value / top) * (H - 3);
  const points = (values) => values.map((value, index) => `${at(index).toFixed(1)},${y(value).toFixed(1)}`);
  if (!n) return h("span", { class: "faint" }, "–");
  return s("svg", { class: "spark", viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", "aria-label": summary },
    s("polygon", { class: "in", points: [`${at(0)},${H}`, ...points(came), `${W},${H}`].join(" ") }),
    s("polyline", { class: "out", "vector-effect": "non-scaling-stroke", points: (n > 1 ? points(went) : [`0,${y(went[0])}`, `${W},${y(went[0])}`]).join(" ") }));
}

/** One series of figures, newest last. */
export function trend(values, summary) {
  return sparkline(values, values, summary);
}

/** A share with its interval on a line through zero. */
export function interval({ share, low, high }, format, summary) {
  const W = 420, H = 46, from = Math.min(0, low) - 0.03, to = Math.max(0, high) + 0.03;
  const at = (value) => ((value - from) / (to - from)) * W;
  const text = (value, anchor) => s("text", { x: at(value), y: 40, "text-anchor": anchor }, format(value));
  return s("svg", { class: "interval", viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "xMinYMin meet", role: "img", "aria-label": summary },
    s("line", { x1: 0, x2: W, y1: 16, y2: 16, stroke: "var(--line-strong)" }),
    s("line", { x1: at(0), x2: at(0), y1: 7, y2: 25, stroke: "var(--soft)" }),
    s("rect", { x: at(low), y: 12, width: Math.max(2, at(high) - at(low)), height: 8, rx: 4, fill: "var(--flow-soft)" }),
    s("circle", { cx: at(share), cy: 16, r: 5.5, fill: "var(--flow)" }),
    s("text", { x: at(0), y: 40, "text-anchor": "middle" }, "0"),
    Math.abs(at(low) - at(0)) > 40 ? text(low, "middle") : null,
    at(high) - at(low) > 50 ? text(high, "middle") : null);
}
