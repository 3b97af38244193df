// The keyboard of the page: one table, which Help shows and `?` opens.

import { make, style } from "./api.js";

/** Where a key works, the keys, and what they do. A widget has its keys only while the focus is inside of it. */
export const KEYS = [
  ["Everywhere", "Tab, Shift+Tab", "next and previous control"],
  ["In a widget", "?", "this table"],
  ["Restore", "Ctrl+Enter", "run"],
  ["Result", "Esc", "stop the run"],
  ["Result, Compare", "hold C", "show the original"],
  ["Result, Compare", "F", "flip between before and after"],
  ["Result, Compare", "0, Z, + −", "fit, one pixel for one pixel, zoom"],
  ["Result, Compare", "arrows", "move the divider, or the picture when it is zoomed"],
  ["Result", "D", "download"],
  ["Painter", "B, E", "brush, eraser"],
  ["Painter", "[ , ]", "smaller, larger brush"],
  ["Painter", "Ctrl+Z, Ctrl+Shift+Z", "undo, redo"],
  ["Painter", "I, X", "invert, clear"],
  ["Painter", "Space+drag, wheel, 0, + −", "move, zoom, fit"],
  ["Painter", "arrows, then Space or Enter", "move the brush, paint with it"],
  ["Slices", "↑ ↓ or wheel", "one slice on or back"],
  ["Slices", "Page up, Page down", "five slices"],
  ["Slices", "Home, End", "first, last slice"],
  ["Slices", "1 to 6", "window presets"],
  ["Slices", "W, X", "left drag sets the window, or the cursor"],
  ["Slices", "Shift+arrows", "move the cursor"],
  ["Slices", "+ − 0", "zoom in, out, fit"],
  ["Slices", "hold C", "show the measurement"],
  ["Slices", "hold H", "hide the overlay"],
];

/** The table as an element. */
export function keyTable() {
  const row = ([where, keys, what]) =>
    make("tr", {}, make("th", { scope: "row" }, where), make("td", {}, make("kbd", {}, keys)), make("td", {}, what));
  const heads = ["Where", "Keys", "What"].map((text) => make("th", { scope: "col" }, text));
  return make(
    "table",
    { class: "pi-keys" },
    make("caption", {}, "Keys. Single letters work only while the focus is in their widget."),
    make("thead", {}, make("tr", {}, ...heads)),
    make("tbody", {}, ...KEYS.map(row)),
  );
}

/** Show the table over the page; Esc or Close ends it and gives the focus back. */
export function showKeys() {
  style("keys");
  const dialog = make("dialog", { class: "pi-dialog", "aria-label": "Keyboard" });
  const close = make("button", { type: "button", class: "pi-button", onclick: () => dialog.close() }, "Close");
  dialog.append(keyTable(), close);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  close.focus();
}

/** Let `?` show the table while the focus is inside `element`, but not while somebody writes text there. */
export function keysOn(element) {
  element.addEventListener("keydown", (event) => {
    if (event.key !== "?" || event.ctrlKey || event.altKey || event.metaKey) return;
    const { tagName, type, isContentEditable } = event.target;
    const writing =
      tagName === "TEXTAREA" || isContentEditable || (tagName === "INPUT" && !/^(button|checkbox|radio|range|file)$/.test(type));
    if (writing) return;
    event.preventDefault();
    showKeys();
  });
}
