// A look at one result of a batch: before and after in a dialog; volumes are shown by the Medical tab.

import { ask, at, make } from "./api.js";

/** Show case `number` of a job. */
export async function look(job, number, name) {
  let found;
  try {
    const views = await ask(`api/v1/jobs/${job}/views`);
    found = views.find((entry) => entry.number === number);
  } catch (error) {
    return tell(name, error.message);
  }
  if (found && found.kind !== "picture") {
    const detail = { id: job, tab: "medical", case: found.case };
    window.dispatchEvent(new CustomEvent("preimage:job", { detail }));
    return;
  }
  const after = found?.views.find((one) => one.name === "mean" || one.name.startsWith("sample"));
  const before = found?.views.find((one) => one.name === "before");
  if (!after) return tell(name, "There are no pictures of this file. Save it to look at it.");
  const address = (one) => at(`api/v1/jobs/${job}/views/${encodeURIComponent(found.case)}/${encodeURIComponent(one.file)}`);
  const picture = make("img", { src: address(after), alt: after.alt, width: after.width, height: after.height });
  const caption = make("p", { role: "status" }, after.title);
  const flip = make("button", { type: "button", class: "pi-button", "aria-pressed": "false" }, "Show before");
  flip.addEventListener("click", () => {
    const original = flip.getAttribute("aria-pressed") === "false";
    const shown = original ? before : after;
    flip.setAttribute("aria-pressed", String(original));
    picture.src = address(shown);
    picture.alt = shown.alt;
    caption.textContent = shown.title;
  });
  open(name, make("div", { class: "pi-batch-picture" }, picture), caption, before ? flip : null);
}

function tell(name, sentence) {
  open(name, make("p", {}, sentence));
}

function open(name, ...children) {
  const dialog = make("dialog", { class: "pi-dialog pi-batch-look", "aria-label": name });
  const close = make("button", { type: "button", class: "pi-button", onclick: () => dialog.close() }, "Close");
  dialog.append(make("h3", {}, name), ...children.filter(Boolean), close);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
