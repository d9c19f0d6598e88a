// Asks again and again: quickly while somebody looks, not at all while nobody does, ever slower while there is no answer.

const SLOWEST_MS = 60_000;

/**
 * Call `load` now and every `everyMs`; `report(error | null)` after each. Returns {stop, now}.
 * `load` gets an AbortSignal, and what it raises doubles the pause.
 */
export function poll(load, everyMs, report) {
  let timer = 0, failures = 0, stopped = false, running = null;

  async function run() {
    clearTimeout(timer);
    if (stopped) return;
    running?.abort();
    const mine = (running = new AbortController());
    try {
      await load(mine.signal);
      if (stopped || mine !== running) return;
      failures = 0;
      report(null);
    } catch (error) {
      if (stopped || mine !== running || error.name === "AbortError") return;
      failures += 1;
      report(error);
    }
    plan();
  }

  function plan() {
    clearTimeout(timer);
    if (stopped || document.hidden) return;
    // Apart by some per cent, so that open pages do not ask in step.
    const pause = Math.min(SLOWEST_MS, everyMs * 2 ** failures) * (0.9 + Math.random() * 0.2);
    timer = setTimeout(run, pause);
  }

  const shown = () => (document.hidden ? clearTimeout(timer) : run());
  document.addEventListener("visibilitychange", shown);
  run();
  return {
    now: run,
    stop() {
      stopped = true;
      running?.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", shown);
    },
  };
}
