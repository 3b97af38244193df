// What belongs to no widget: tabs, messages between widgets of different tabs, and the run that the address names.

import { ask } from "./api.js";

const tabOf = { "preimage:settings": "Restore", "preimage:compare": "Compare", "preimage:batch": "Batch" };
const byName = { restore: "Restore", medical: "Medical", compare: "Compare", batch: "Batch" };

document.documentElement.lang = "en";

/**
 * A widget in a tab that was never opened is not there to hear an event: the last of each kind waits in `pending`
 * until the widget is mounted, which takes it away.
 */
window.preimage = { pending: {}, show };

/** Open a tab by its title. */
export function show(title) {
  // Gradio folds tabs for which there is no room into a menu, where they are no tabs to a reader of roles.
  const tabs = [...document.querySelectorAll("#tabs button[role=tab], #tabs .overflow-dropdown button")];
  tabs.find((tab) => tab.textContent.trim() === title)?.click();
}

for (const name of ["preimage:job", "preimage:settings", "preimage:compare", "preimage:batch"]) {
  window.addEventListener(name, (event) => {
    window.preimage.pending[name] = event.detail;
    const title = tabOf[name] || byName[event.detail?.tab];
    if (title) show(title);
  });
}

/** Show the run of `?job=`: in the tab that the address names, else where runs of its kind are shown. */
async function attach() {
  const asked = new URLSearchParams(location.search);
  const id = asked.get("job");
  if (!id) return;
  let tab = asked.get("tab");
  if (!byName[tab]) {
    const job = await ask(`api/v1/jobs/${encodeURIComponent(id)}`).catch(() => null);
    tab = job && job.status.total > 1 ? "batch" : "restore";
  }
  const until = Date.now() + 20000;
  const wait = setInterval(() => {
    if (document.querySelector("button[role=tab]") || Date.now() > until) {
      clearInterval(wait);
      window.dispatchEvent(new CustomEvent("preimage:job", { detail: { id, tab } }));
    }
  }, 50);
}

/** The banner of a run elsewhere, once the header is there. */
function banner() {
  const place = document.getElementById("pi-running");
  if (!place) return setTimeout(banner, 100);
  return import("./running.js").then((module) => module.mountRunning(place));
}

// Ctrl+Enter runs, wherever the focus is in a tab that has something to run.
document.addEventListener("keydown", (event) => {
  if (!event.ctrlKey || event.key !== "Enter") return;
  for (const [tab, button] of [["restore-tab", "start"], ["medical-tab", "medical-start"]]) {
    const place = document.getElementById(tab);
    if (place?.contains(event.target) || (event.target === document.body && place?.offsetParent)) {
      document.getElementById(button)?.click();
    }
  }
});

attach();
banner();
