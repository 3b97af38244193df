// Dialogs of the list of jobs.

import { make } from "./api.js";
import { clock } from "./running.js";

/** Ask; true when the person wants it. Esc means no. */
export function confirmDelete(job) {
  return new Promise((resolve) => {
    const dialog = make("dialog", { class: "pi-dialog", "aria-labelledby": "pi-jobs-question" });
    const end = (answer) => {
      resolve(answer);
      dialog.close();
    };
    const keep = make("button", { type: "button", class: "pi-button", onclick: () => end(false) }, "Keep it");
    const remove = make("button", { type: "button", class: "pi-button pi-danger", onclick: () => end(true) }, "Delete");
    dialog.append(
      make("h3", { id: "pi-jobs-question" }, `Delete the run from ${clock(job.created)}?`),
      make("p", {}, "Its uploads, results and settings are removed from this machine. This cannot be undone."),
      make("p", {}, "What was added on a page stays in the page's own cache for about a day, or until the server ends."),
      make("div", { class: "pi-jobs-tools" }, keep, remove),
    );
    dialog.addEventListener("close", () => {
      resolve(false);
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
    keep.focus();
  });
}

/** Show a text that could not be copied. */
export function showText(title, text) {
  const dialog = make("dialog", { class: "pi-dialog", "aria-label": title });
  const close = make("button", { type: "button", class: "pi-button", onclick: () => dialog.close() }, "Close");
  dialog.append(make("h3", {}, title), make("pre", { tabindex: "0", class: "pi-jobs-text" }, text), close);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
