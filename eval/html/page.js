"use strict";
const copies = JSON.parse(document.getElementById("copies").textContent);
const status = document.getElementById("copied");
function copyByHand(text) {
  // A page opened from a file has no clipboard of its own in some browsers.
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = copies[button.dataset.copy];
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      done = copyByHand(text);
    }
    status.textContent = done ? "Copied." : "The browser did not allow it.";
    button.focus();
  });
}
