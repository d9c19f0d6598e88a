// Runs before the first paint, so that a chosen theme never flashes: the choice is kept, the default is the system's.
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem("sluice.theme"); } catch { /* storage may be switched off */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
