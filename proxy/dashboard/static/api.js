// Asks the proxy. The key is kept for this tab alone, and goes nowhere but into the header of these requests.

const KEY = "sluice.key";

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function key() {
  try { return sessionStorage.getItem(KEY) ?? ""; } catch { return ""; }
}

export function setKey(value) {
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch { /* storage may be switched off: then the key lasts as long as the page */ }
}

/** Take a key out of the address (`#key=…`), so that it stays in no history. */
export function keyFromAddress() {
  const found = new URLSearchParams(location.hash.slice(1)).get("key");
  if (!found) return;
  setKey(found);
  history.replaceState(history.state, "", location.pathname + location.search);
}

/** GET `/dashboard/api/…`; raises ApiError. */
export const get = (path, signal) => ask(path, { signal });

/** POST a JSON body. */
export const post = (path, body) =>
  ask(path, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } });

async function ask(path, options) {
  const headers = { ...options.headers, ...(key() ? { "x-sluice-key": key() } : {}) };
  let answer;
  try {
    answer = await fetch(`/dashboard/api${path}`, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The proxy does not answer.");
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  throw new ApiError(answer.status, body.error?.code ?? "", body.error?.message ?? `The proxy answered ${answer.status}.`);
}
