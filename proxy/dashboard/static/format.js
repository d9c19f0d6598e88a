// Figures for people: with units, in the browser's own language and time zone.

const whole = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumSignificantDigits: 3 });
const plain = (digits) => new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
const three = plain(3), two = plain(2), one = plain(1), none = plain(0);
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const date = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const utc = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });

export const NOTHING = "–";

export const count = (value) => (value == null ? NOTHING : whole.format(Math.round(value)));
export const compact = (value) => (value == null ? NOTHING : Math.abs(value) < 10_000 ? whole.format(Math.round(value)) : short.format(value));
export const tokens = (value) => `${compact(value)} tok`;

export const LEAST_MONEY = 0.0005;

/** Dollars: cents where they are enough, tenths of a cent below a dollar. */
export function money(value) {
  if (value == null) return NOTHING;
  const size = Math.abs(value);
  if (size > 0 && size < LEAST_MONEY) return "< $0.001";
  const digits = size >= 1000 ? none : size >= 1 || size === 0 ? two : three;
  return `${value < 0 ? "−" : ""}$${digits.format(size)}`;
}

/** A share as percent. */
export function percent(value, digits = 1) {
  if (value == null || Number.isNaN(value)) return NOTHING;
  const shown = value * 100;
  return `${(digits ? one : none).format(shown).replace("-", "−")} %`;
}

/** A probability as percent: what is nearly nothing is said to be less than the least that is told. */
export const chance = (value) => (value < 0.0005 ? `< ${one.format(0.1)} %` : percent(value));

/** Milliseconds, seconds above a second. */
export function duration(ms) {
  if (ms == null) return NOTHING;
  if (ms >= 60_000) return `${one.format(ms / 60_000)} min`;
  if (ms >= 1000) return `${two.format(ms / 1000)} s`;
  return `${ms >= 100 ? none.format(ms) : ms >= 10 ? one.format(ms) : two.format(ms)} ms`;
}

/** A stretch of time in its largest unit. */
export function span(seconds) {
  if (seconds == null) return NOTHING;
  if (seconds < 90) return `${none.format(seconds)} s`;
  if (seconds < 5400) return `${none.format(seconds / 60)} min`;
  if (seconds < 129_600) return `${one.format(seconds / 3600)} h`;
  return `${one.format(seconds / 86_400)} days`;
}

export const when = (seconds) => moment.format(seconds * 1000);
export const time = (seconds) => clock.format(seconds * 1000);
export const day = (seconds) => date.format(seconds * 1000);
/** The name of a UTC day such as 2026-11-23. */
export const utcDay = (name) => utc.format(Date.parse(`${name}T00:00:00Z`));

/** Changes every minute, and with it what is told as `ago`. */
export const minute = () => Math.floor(Date.now() / 60_000);

/** How long ago: `3 min ago`. */
export function ago(seconds) {
  const past = seconds - Date.now() / 1000;
  const size = Math.abs(past);
  if (size < 45) return "just now";
  if (size < 3600) return relative.format(Math.round(past / 60), "minute");
  if (size < 86_400) return relative.format(Math.round(past / 3600), "hour");
  return relative.format(Math.round(past / 86_400), "day");
}
