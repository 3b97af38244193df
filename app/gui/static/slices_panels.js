// The pictures: a canvas of one pixel a voxel for the grey levels, another for the overlay, scaled by the browser.

import { make } from "./api.js";
import { TITLES } from "./slices_look.js";
import { paint, paintDifference } from "./slices_paint.js";
import { pixel, place, voxel } from "./slices_planes.js";

const DEPTHS = ["x", "y", "z"];

/** One picture of one image in one plane. */
export class Panel {
  constructor(look, name, plane) {
    this.look = look;
    this.name = name;
    this.plane = plane;
    this.grey = make("canvas", { class: "pi-sl-image", "data-image": name, "data-plane": plane });
    this.over = make("canvas", { class: "pi-sl-over", "data-image": name, "data-plane": plane });
    this.film = make("div", { class: "pi-sl-film" }, this.grey, this.over);
    this.lines = [make("i", { class: "pi-sl-line pi-sl-upright" }), make("i", { class: "pi-sl-line pi-sl-flat" })];
    this.ghost = make("i", { class: "pi-sl-ghost" });
    this.texts = {};
    const text = (where) => (this.texts[where] = make("span", { class: `pi-sl-text pi-sl-${where}` }));
    const where = ["title", "window", "slice", "left", "right", "top", "bottom"];
    this.element = make(
      "div",
      { class: "pi-sl-panel", "data-image": name, "data-plane": plane },
      this.film,
      ...this.lines,
      this.ghost,
      ...where.map(text)
    );
    const { columns, rows, letters } = this.geometry;
    for (const canvas of [this.grey, this.over]) [canvas.width, canvas.height] = [columns, rows];
    for (const side of ["left", "right", "top", "bottom"]) this.texts[side].textContent = letters[side];
    this.image = new ImageData(columns, rows);
    this.keys = {};
  }

  get geometry() {
    return this.look.planes[this.plane];
  }

  get slice() {
    return this.look.at[this.geometry.normal];
  }

  /** Where the film is in the panel: left, top, width and height in CSS pixels. */
  get box() {
    const { width, height } = this.geometry;
    const { clientWidth: w, clientHeight: h } = this.element;
    const scale = Math.min(w / width, h / height) * this.look.zoom;
    const [filmWidth, filmHeight] = [width * scale, height * scale];
    const [x, y] = this.look.pan[this.plane];
    return [(w - filmWidth) / 2 + x * filmWidth, (h - filmHeight) / 2 + y * filmHeight, filmWidth, filmHeight];
  }

  /** The voxel at a place of the window, or null beside the picture; `near` takes the nearest. */
  voxelAt(event, near = false) {
    const bounds = this.element.getBoundingClientRect();
    const [left, top, width, height] = this.box;
    const { columns, rows } = this.geometry;
    let column = Math.floor(((event.clientX - bounds.left - left) / width) * columns);
    let row = Math.floor(((event.clientY - bounds.top - top) / height) * rows);
    if (near) [column, row] = [clamp(column, columns), clamp(row, rows)];
    if (column < 0 || row < 0 || column >= columns || row >= rows) return null;
    return voxel(this.geometry, column, row, this.slice);
  }

  /** The pan that keeps a place of the window where it is under another zoom. */
  panFor(event, zoom) {
    const bounds = this.element.getBoundingClientRect();
    const [x, y] = [event.clientX - bounds.left, event.clientY - bounds.top];
    const [left, top, width, height] = this.box;
    const ratio = Math.max(1, zoom) / this.look.zoom;
    const [w, h] = [width * ratio, height * ratio];
    const { clientWidth, clientHeight } = this.element;
    return [
      (x - ((x - left) / width) * w - (clientWidth - w) / 2) / w,
      (y - ((y - top) / height) * h - (clientHeight - h) / 2) / h,
    ];
  }

  draw() {
    const { look, geometry, slice } = this;
    const name = look.comparing && look.volumes.before ? "before" : this.name;
    const paints = (canvas, key, write) => {
      if (this.keys[canvas.className] === key) return;
      this.keys[canvas.className] = key;
      const context = canvas.getContext("2d");
      if (write) {
        write();
        context.putImageData(this.image, 0, 0);
      } else context.clearRect(0, 0, canvas.width, canvas.height);
    };
    paints(this.grey, `${name} ${slice} ${look.width} ${look.level}`, () =>
      paint(this.image, look.volumes[name], geometry, slice, look.greys(name))
    );
    const over = this.overlay();
    this.over.style.opacity = look.overlay.opacity;
    this.over.style.visibility = look.hidden || look.comparing ? "hidden" : "visible";
    const pair = over && look.pair(over);
    const key = over ? `${over} ${slice} ${look.overlay.map} ${over === "labels" ? "" : look.high(over)}` : "";
    paints(this.over, key, over && (() =>
      pair
        ? paintDifference(this.image, pair[0], pair[1], geometry, slice, look.high(over))
        : paint(this.image, look.volumes[over], geometry, slice, look.heat(over))));
    this.lay();
    this.say(name);
  }

  /** The overlay that belongs on this panel: labels on all, the others on the restored image. */
  overlay() {
    const { name } = this.look.overlay;
    if (name === "none" || (name !== "labels" && !this.look.volumes[name] && !this.look.pair(name))) return "";
    return name === "labels" || this.name === "mean" || !this.look.volumes.mean ? name : "";
  }

  lay() {
    const [left, top, width, height] = this.box;
    Object.assign(this.film.style, { left: px(left), top: px(top), width: px(width), height: px(height) });
    const { look, geometry } = this;
    const at = (voxelAt) => {
      const [column, row] = pixel(geometry, voxelAt);
      return [left + ((column + 0.5) / geometry.columns) * width, top + ((row + 0.5) / geometry.rows) * height];
    };
    const crossed = look.mode === "cursor" || look.plane === "all";
    const [x, y] = at(look.at);
    for (const line of this.lines) line.hidden = !crossed;
    this.lines[0].style.left = px(x);
    this.lines[1].style.top = px(y);
    const hovered = look.hover && look.hover.panel !== this && look.hover.voxel[geometry.normal] === this.slice;
    this.ghost.hidden = !hovered;
    if (hovered) {
      const [gx, gy] = at(look.hover.voxel);
      Object.assign(this.ghost.style, { left: px(gx), top: px(gy) });
    }
  }

  say(name) {
    const { look, geometry, slice, texts } = this;
    const middle = voxel(geometry, (geometry.columns - 1) / 2, (geometry.rows - 1) / 2, slice);
    const depth = place(look.first.affine, middle)[geometry.depth];
    const title = name === this.name ? look.volumes[name].view.title || TITLES[name] : `${TITLES.before} (C held)`;
    texts.title.textContent = look.plane === "all" ? `${title} · ${this.plane}` : title;
    texts.window.textContent = `W ${signed(look.width)}  L ${signed(look.level)} ${look.unit}`;
    texts.slice.textContent = `${slice + 1} / ${geometry.count}  ${DEPTHS[geometry.depth]} ${millimetres(depth)} mm`;
  }
}

/** A number with a proper minus. */
function signed(value) {
  return String(value).replace("-", "−");
}

/** "−14.0". */
export function millimetres(value) {
  return value.toFixed(1).replace(/^-0\.0$/, "0.0").replace("-", "−");
}

function clamp(n, count) {
  return Math.min(count - 1, Math.max(0, n));
}

function px(value) {
  return `${value.toFixed(2)}px`;
}
