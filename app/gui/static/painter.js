// The mask painter: a person marks what is missing in a picture. Its mask has the full size of the picture, whatever
// the size of the proxy that is drawn, and goes to Python as a PNG (white is measured) in Gradio's cache.

import { make, style } from "./api.js";
import { keysOn } from "./keys.js";
import { listen } from "./painter_input.js";
import { Mask, scaled } from "./painter_mask.js";
import { decodeMask, encodeMask, loaded } from "./painter_png.js";
import { Saver } from "./painter_save.js";
import { build } from "./painter_tools.js";
import { View } from "./painter_view.js";

/**
 * Fill `element` with the painter. `data-state` of it is "empty", "ready" (nothing painted), "painting", "saving" or
 * "saved"; the props are described at `MaskPainter` in Python.
 */
export function mount(element, g) {
  style("painter");
  const ui = build(element);
  keysOn(element);
  const view = new View(ui.canvas);
  let mask = null;
  let source = null;
  let erases = false;
  let radius = 20; // in pixels of the full picture
  let stroking = false;
  let pending = null; // {data, width, height, name} of a mask file of another size
  let told = 0;

  const state = () => {
    const now = !source ? "empty" : stroking ? "painting" : !saver.saved ? "saving" : mask.painted ? "saved" : "ready";
    element.dataset.state = now;
  };
  const saver = new Saver(g, {
    state,
    fault: (sentence) => {
      ui.fault.hidden = !sentence;
      ui.fault.textContent = sentence || "";
    },
  });

  // Lines of text

  const say = (text) => {
    ui.word.textContent = text;
  };
  const share = (fraction) => {
    const percent = 100 * fraction;
    return percent === 0 ? "0 %" : percent < 0.1 ? "less than 0.1 %" : `${percent.toFixed(1)} %`;
  };
  const tellPainted = () => {
    clearTimeout(told);
    told = setTimeout(() => {
      ui.painted.textContent = mask ? `Painted: ${share(mask.fraction)} of the picture` : "";
    }, 150);
  };
  const tellZoom = () => {
    ui.level.textContent = `${Math.round(100 * view.scale)} %`;
  };

  // Edits

  const changed = () => {
    ui.undo.disabled = !mask?.done.length;
    ui.redo.disabled = !mask?.undone.length;
    ui.clear.disabled = !mask?.painted;
    ui.save.disabled = !mask;
    view.draw();
    tellPainted();
    if (mask) saver.changed(mask);
  };
  const edit = (change) => {
    if (!mask || stroking) return;
    say("");
    mask.begin();
    change(mask);
    if (mask.end()) changed();
    else view.draw();
  };
  const back = (name) => {
    if (!mask || stroking || !mask[name]()) return;
    say("");
    changed();
  };
  const hand = {
    radius: () => radius,
    erases: () => erases,
    begin() {
      stroking = true;
      saver.hold(true);
      mask.begin();
      state();
    },
    line(x0, y0, x1, y1, wipes) {
      // a brush of one or two pixels paints whole pixels, wherever in them it is
      const at = (v) => (radius <= 1 ? Math.floor(v) + 0.5 : v);
      mask.line(at(x0), at(y0), at(x1), at(y1), radius, wipes ? 0 : 1);
      view.draw();
    },
    end() {
      stroking = false;
      const kept = mask.end();
      saver.hold(false);
      if (kept) {
        say("");
        changed();
      }
      state();
    },
    abandon() {
      stroking = false;
      mask.abandon();
      saver.hold(false);
      view.draw();
      state();
    },
    moved(x, y) {
      clearTimeout(hand.telling);
      hand.telling = setTimeout(() => {
        const inside = mask.data[Math.floor(y) * mask.width + Math.floor(x)];
        ui.spoken.textContent = `Cursor at ${Math.floor(x)}, ${Math.floor(y)}${inside ? ", painted" : ""}`;
      }, 400);
    },
  };
  const input = listen(view, hand);

  // Tools

  const choose = (eraser) => {
    erases = eraser;
    ui.brush.setAttribute("aria-pressed", String(!eraser));
    ui.eraser.setAttribute("aria-pressed", String(eraser));
    input.refresh();
  };
  // the slider is logarithmic: from a brush of 1 pixel to one of half the longer side
  const widest = () => Math.max(8, Math.max(mask?.width || 0, mask?.height || 0) / 2);
  const resize = (diameter, moved = false) => {
    const size = Math.round(Math.min(widest(), Math.max(1, diameter)));
    radius = size / 2;
    if (!moved) ui.size.value = (100 * Math.log(size)) / Math.log(widest());
    ui.sizeWord.textContent = `${size} px`;
    ui.size.setAttribute("aria-valuetext", `${size} pixels`);
    input.refresh();
  };
  const larger = (way) => {
    const size = 2 * radius;
    resize(way > 0 ? Math.max(size + 1, size * 1.2) : Math.min(size - 1, size / 1.2));
  };
  ui.brush.onclick = () => choose(false);
  ui.eraser.onclick = () => choose(true);
  ui.size.oninput = () => resize(widest() ** (ui.size.value / 100), true);
  ui.undo.onclick = () => back("undo");
  ui.redo.onclick = () => back("redo");
  ui.invert.onclick = () => edit((m) => m.invert());
  ui.clear.onclick = () => edit((m) => m.clear());
  ui.less.onclick = () => view.zoom(1 / 1.5);
  ui.more.onclick = () => view.zoom(1.5);
  ui.fit.onclick = () => view.fit();
  ui.style.onchange = () => {
    view.style = ui.style.value;
    view.draw();
  };
  view.onzoom = tellZoom;

  const box = (value) => {
    const [x, y, width, height] = ui.box.map((field) => field.valueAsNumber);
    const whole = [x, y, width, height].every(Number.isInteger);
    if (!whole || width < 1 || height < 1 || x < 0 || y < 0 || x >= mask.width || y >= mask.height) {
      say(`Give whole numbers: x from 0 to ${mask.width - 1}, y from 0 to ${mask.height - 1}, a width and a height.`);
      return;
    }
    edit((m) => m.rectangle(x, y, width, height, value));
    const cut = x + width > mask.width || y + height > mask.height;
    say(`${value ? "Marked" : "Erased"} the rectangle${cut ? ", as far as it lies in the picture" : ""}.`);
  };
  ui.markBox.onclick = () => box(1);
  ui.eraseBox.onclick = () => box(0);
  ui.markEqual.onclick = () => {
    const value = ui.equal.valueAsNumber;
    if (Number.isFinite(value)) saver.ask("equal", { equal: value });
    else say("Give a value first, for example 0 for black.");
  };

  // Files

  const take = (data, word) => {
    edit((m) => m.replace(data));
    say(word);
    view.draw();
  };
  const loadedWord = (name) =>
    `Loaded "${name}": ${share(mask.fraction)} of it is black and taken as missing. Press Invert if it is the other way round.`;
  ui.load.onclick = () => ui.file.click();
  ui.file.onchange = async () => {
    const file = ui.file.files[0];
    ui.file.value = "";
    if (!file || !mask) return;
    ui.question.hidden = true;
    const into = mask;
    try {
      const found = await decodeMask(file, file.name);
      if (mask !== into) return;
      if (found.width !== mask.width || found.height !== mask.height) {
        pending = { ...found, name: file.name };
        ui.mismatch.textContent = `Mask is ${found.width} × ${found.height}, image is ${mask.width} × ${mask.height}.`;
        ui.question.hidden = false;
        ui.scaleMask.focus();
        return;
      }
      take(found.data, "");
      say(loadedWord(file.name));
    } catch (error) {
      say(error.message);
    }
  };
  ui.scaleMask.onclick = () => {
    const { data, width, height, name } = pending;
    ui.question.hidden = true;
    take(scaled(data, width, height, mask.width, mask.height), "");
    say(loadedWord(name));
    ui.canvas.focus();
  };
  ui.another.onclick = () => {
    ui.question.hidden = true;
    ui.file.click();
  };
  ui.save.onclick = async () => {
    const png = await encodeMask(mask.data, mask.width, mask.height);
    const stem = (source?.name || "picture").replace(/\.[^.]*$/, "");
    const href = URL.createObjectURL(png);
    make("a", { href, download: `${stem}-mask.png` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 10000);
    say("Saved the mask: white is kept, black is missing.");
  };

  // Keys that belong to the whole widget; those of the canvas are in painter_input.js

  const keys = {
    b: () => choose(false),
    e: () => choose(true),
    "[": () => larger(-1),
    "]": () => larger(1),
    i: () => ui.invert.click(),
    x: () => ui.clear.click(),
    0: () => view.fit(),
    "+": () => view.zoom(1.5),
    "-": () => view.zoom(1 / 1.5),
  };
  element.addEventListener("keydown", (event) => {
    const { target } = event;
    if (!mask || event.altKey || target.matches("select, input:not([type=range])")) return;
    const key = event.key.toLowerCase();
    let action = null;
    if (event.ctrlKey || event.metaKey) {
      if (key === "z") action = () => back(event.shiftKey ? "redo" : "undo");
      else if (key === "y") action = () => back("redo");
    } else action = keys[key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  // who leaves is likely to press Restore
  element.addEventListener("pointerleave", () => saver.now());
  element.addEventListener("focusout", (event) => element.contains(event.relatedTarget) || saver.now());

  // Props

  const show = async (given) => {
    if (!given) {
      source = null;
      element.toggleAttribute("data-picture", false);
      state();
      return;
    }
    const picture = await loaded(given.url);
    if (stroking) hand.abandon();
    const other = !mask || mask.width !== given.width || mask.height !== given.height;
    const dropped = mask?.painted && other;
    source = given;
    input.reset();
    ui.question.hidden = true;
    if (other) {
      mask = new Mask(given.width, given.height);
      resize(Math.max(given.width, given.height) / 25);
      // the middle of the picture, for a start
      [given.width / 4, given.height / 4, given.width / 2, given.height / 2].forEach((value, k) => {
        ui.box[k].value = Math.round(value);
        ui.box[k].max = [given.width - 1, given.height - 1, given.width, given.height][k];
      });
    }
    element.toggleAttribute("data-picture", true);
    ui.canvas.setAttribute(
      "aria-label",
      `${given.name}, ${given.width} by ${given.height} pixels. Paint what is missing; arrow keys and Enter do it too.`,
    );
    view.show(picture, mask, given.proxy_width, given.proxy_height);
    const longest = Math.max(given.proxy_width, given.proxy_height);
    const size = `${given.width} × ${given.height}`;
    ui.full.textContent =
      given.proxy_width < given.width ? `Editing view ${longest} px; result full size ${size}` : `Full size ${size}`;
    say(dropped ? `The mask was dropped: it belonged to a picture of another size.` : "");
    if (other) changed();
    else state();
  };

  const know = async (given) => {
    if (!given || !mask) return;
    const found = await decodeMask(given.url, "the mask");
    if (found.width !== mask.width || found.height !== mask.height) return; // of a picture that is gone
    if (given.add) mask.data.forEach((value, i) => (found.data[i] |= value));
    take(found.data, given.word || "");
  };

  let shown = null;
  let known = null;
  let queue = Promise.resolve();
  const update = () => {
    queue = queue
      .then(async () => {
        const { source: given, known: marks } = g.props;
        if (["url", "name", "width", "height"].some((key) => given?.[key] !== shown?.[key])) {
          await show((shown = given || null));
        }
        if (marks !== known && marks?.id !== known?.id) await know(marks);
        known = marks;
      })
      .catch(() => say("This picture cannot be shown here. Reload the page, or choose another."));
    return queue;
  };
  state();
  g.watch(["source", "known"], update);
  return update();
}
