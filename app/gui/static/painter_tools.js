// Everything around the canvas: buttons, fields and lines of text. What they do is `painter.js`.

import { make } from "./api.js";

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  brush: "M13.5 2.5 7 9m-1.6.6c-2 0-2 2.9-3.9 3.4 1.6 1 5.4.7 5.4-1.7a1.6 1.6 0 0 0-1.5-1.7Z",
  eraser: "m6 13.5-3.5-3.5 7-7 4 4-6.500 6.500H6Zm-.5-7 4 4M3 13.500h10",
  undo: "M3 6.500h6.500a3.500 3.500 0 0 1 0 7H6M3 6.500l3-3m-3 3 3 3",
  redo: "M13 6.500H6.500a3.500 3.500 0 0 0 0 7H10m3-7-3-3m3 3-3 3",
  invert: "M8 2.500a5.500 5.500 0 1 0 0 11v-11Zm0 0a5.500 5.500 0 0 1 0 11",
  clear: "m4 4 8 8m0-8-8 8",
  load: "M8 10.500V3m0 0L5 6m3-3 3 3M3 10.500V13h10v-2.500",
  save: "M8 3v7.500m0 0 3-3m-3 3-3-3M3 10.500V13h10v-2.500",
};

function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

let counted = 0;

/** Build the widget inside `element`: an object with the parts that have a life of their own. */
export function build(element) {
  const id = `pi-painter-${++counted}`;
  const tool = (name, text, keys, shortcut, more = {}) =>
    make("button", { type: "button", title: `${text} (${keys})`, "aria-keyshortcuts": shortcut, ...more }, icon(name), text);
  const number = (name, text, least) => {
    const field = make("input", { type: "number", id: `${id}-${name}`, step: 1, min: least, inputmode: "numeric" });
    return [field, make("label", { for: `${id}-${name}` }, make("span", {}, text), field)];
  };

  const ui = {
    empty: make("p", { class: "pi-painter-empty" }, "Add a picture in step 1. Here you then paint over what is missing in it."),
    brush: tool("brush", "Brush", "B", "B", { "aria-pressed": "true" }),
    eraser: tool("eraser", "Eraser", "E", "E", { "aria-pressed": "false" }),
    size: make("input", { type: "range", id: `${id}-size`, min: 0, max: 100, step: 1, "aria-keyshortcuts": "[ ]" }),
    sizeWord: make("output", { for: `${id}-size` }),
    undo: tool("undo", "Undo", "Ctrl+Z", "Control+Z"),
    redo: tool("redo", "Redo", "Ctrl+Shift+Z", "Control+Shift+Z"),
    invert: tool("invert", "Invert", "I", "I"),
    clear: tool("clear", "Clear", "X", "X"),
    load: make("button", { type: "button", title: "Load a mask from a picture file" }, icon("load"), "Load mask"),
    file: make("input", { type: "file", accept: "image/*", hidden: true, tabindex: -1, "aria-label": "Mask file" }),
    save: make("button", { type: "button", title: "Save the mask as a PNG of the full size" }, icon("save"), "Save mask"),
    canvas: make("canvas", {
      tabindex: 0,
      role: "application",
      "aria-label": "Picture to paint on",
      "aria-describedby": `${id}-keys`,
    }),
    less: make("button", { type: "button", "aria-label": "Zoom out", title: "Zoom out" }, "−"),
    level: make("output", { "aria-label": "Zoom" }, "100 %"),
    more: make("button", { type: "button", "aria-label": "Zoom in", title: "Zoom in" }, "+"),
    fit: make("button", { type: "button", title: "Whole picture (0)", "aria-keyshortcuts": "0" }, "Fit"),
    mismatch: make("p", { role: "alert" }),
    scaleMask: make("button", { type: "button" }, "Scale mask"),
    another: make("button", { type: "button" }, "Choose another"),
    fault: make("p", { class: "pi-painter-fault", role: "alert", hidden: true }),
    painted: make("p", { class: "pi-painter-painted", role: "status" }),
    word: make("p", { class: "pi-painter-word", role: "status" }),
    full: make("p", { class: "pi-painter-full" }),
    spoken: make("p", { class: "pi-painter-spoken", role: "status" }),
    markBox: make("button", { type: "button" }, "Mark rectangle"),
    eraseBox: make("button", { type: "button" }, "Erase rectangle"),
    equal: make("input", { type: "number", id: `${id}-equal`, step: "any", value: 0 }),
    markEqual: make("button", { type: "button" }, "Mark these pixels"),
    style: make(
      "select",
      { id: `${id}-style` },
      make("option", { value: "red" }, "Red, see-through"),
      make("option", { value: "checker" }, "Checkerboard"),
    ),
  };
  const boxes = [number("x", "x", 0), number("y", "y", 0), number("w", "Width", 1), number("h", "Height", 1)];
  ui.box = boxes.map(([field]) => field);
  const set = (...parts) => make("div", { class: "pi-painter-set" }, ...parts);

  ui.bar = make(
    "div",
    { class: "pi-painter-bar", role: "group", "aria-label": "Painting tools" },
    set(ui.brush, ui.eraser),
    make("label", { class: "pi-painter-size", for: `${id}-size` }, make("span", {}, "Size"), ui.size, ui.sizeWord),
    set(ui.undo, ui.redo),
    set(ui.invert, ui.clear),
    set(ui.load, ui.save),
    ui.file,
  );
  ui.question = make("div", { class: "pi-painter-question", hidden: true }, ui.mismatch, set(ui.scaleMask, ui.another));
  ui.body = make(
    "div",
    { class: "pi-painter-body" },
    ui.bar,
    ui.question,
    ui.fault,
    make(
      "div",
      { class: "pi-painter-stage" },
      ui.canvas,
      make("div", { class: "pi-painter-zoom", role: "group", "aria-label": "Zoom" }, ui.less, ui.level, ui.more, ui.fit),
    ),
    make("div", { class: "pi-painter-foot" }, ui.painted, ui.full),
    ui.word,
    ui.spoken,
    make(
      "details",
      { class: "pi-painter-details" },
      make("summary", {}, "Without drawing, and keys"),
      make(
        "fieldset",
        {},
        make("legend", {}, "Rectangle, in pixels of the full picture"),
        make("div", { class: "pi-painter-numbers" }, ...boxes.map(([, label]) => label)),
        set(ui.markBox, ui.eraseBox),
      ),
      make(
        "fieldset",
        {},
        make("legend", {}, "Pixels of one value"),
        make("label", { for: `${id}-equal` }, make("span", {}, "Value in the file, in every channel"), ui.equal),
        set(ui.markEqual),
      ),
      make(
        "fieldset",
        {},
        make("legend", {}, "View"),
        make("label", { for: `${id}-style` }, make("span", {}, "Show what is missing as"), ui.style),
        make("p", { class: "pi-painter-note" }, "In mask files white is kept and black is missing."),
      ),
      make(
        "p",
        { class: "pi-painter-note", id: `${id}-keys` },
        "With the picture in focus: B brush, E eraser, [ and ] size, Ctrl+Z undo, Ctrl+Shift+Z redo, I invert, X clear, ",
        "wheel or + and − zoom, 0 whole picture, Space and drag (or two fingers) move it. Arrow keys move a cursor ",
        "(with Shift by one pixel), Enter or Space paints there.",
      ),
    ),
  );
  element.classList.add("pi-painter");
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", "Mark missing parts");
  element.append(ui.empty, ui.body);
  return ui;
}
