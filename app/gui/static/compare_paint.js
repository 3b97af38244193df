// Pictures for CompareView: loading, what part of them a pane shows, drawing it, and numbers of their pixels.

import { at } from "./api.js";

const kept = new Map(); // pictures by address, the last used last
const MOST_KEPT = 16;

/**
 * A decoded picture: {bitmap, width, height}; its levels are those of the file, unless that has a colour profile.
 * `blob` has the contents of what has no address that may be asked, such as a file of the person's.
 */
export async function load(url, blob = null) {
  const found = kept.get(url) ?? decoded(url, blob);
  found.catch(() => kept.delete(url));
  kept.delete(url);
  kept.set(url, found);
  for (const old of [...kept.keys()].slice(0, -MOST_KEPT)) kept.delete(old);
  return found;
}

async function decoded(url, blob) {
  if (!blob) {
    const answer = await fetch(at(url));
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    blob = await answer.blob();
  }
  const bitmap = await createImageBitmap(blob, { premultiplyAlpha: "none" });
  return { bitmap, width: bitmap.width, height: bitmap.height };
}

/** RGBA levels of a loaded picture, row by row. */
export function levels(picture) {
  if (!picture.levels) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [picture.width, picture.height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture.bitmap, 0, 0);
    picture.levels = context.getImageData(0, 0, picture.width, picture.height).data;
  }
  return picture.levels;
}

/** |A - B| of two pictures of one size, `gain` times: {bitmap, width, height, mean, largest} with levels before gain. */
export function difference(a, b, gain) {
  const [first, second] = [levels(a), levels(b)];
  const out = new ImageData(a.width, a.height);
  let [sum, largest] = [0, 0];
  for (let k = 0; k < first.length; k += 4) {
    for (let c = k; c < k + 3; c += 1) {
      const apart = Math.abs(first[c] - second[c]);
      sum += apart;
      if (apart > largest) largest = apart;
      out.data[c] = apart * gain; // clamped by the array
    }
    out.data[k + 3] = 255;
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [a.width, a.height];
  canvas.getContext("2d").putImageData(out, 0, 0);
  return { bitmap: canvas, width: a.width, height: a.height, mean: sum / (0.75 * first.length), largest };
}

/**
 * Which part of a picture is seen, and how large; shared by all panes.
 *
 * `scale` is CSS pixels a picture pixel, `x`, `y` the point of the picture in the middle of a pane. While `fitted`, the
 * whole picture is shown, whatever size the pane takes.
 */
export class Camera {
  constructor() {
    Object.assign(this, { width: 1, height: 1, scale: 1, x: 0.5, y: 0.5, fitted: true });
    this.pane = { width: 1, height: 1 };
  }

  /** The size of the picture and of a pane; keeps what is seen where the picture's size is the same. */
  resize(width, height, pane) {
    if (width !== this.width || height !== this.height) this.fitted = true;
    Object.assign(this, { width, height, pane });
    this.settle();
  }

  get whole() {
    return Math.min(this.pane.width / this.width, this.pane.height / this.height);
  }

  fit() {
    this.fitted = true;
    this.settle();
  }

  /** Zoom to `scale`, keeping the picture's point under (px, py) of a pane where it is. */
  zoom(scale, px = this.pane.width / 2, py = this.pane.height / 2) {
    const limited = Math.min(64, Math.max(this.whole, scale));
    const [dx, dy] = [px - this.pane.width / 2, py - this.pane.height / 2];
    this.x += dx / this.scale - dx / limited;
    this.y += dy / this.scale - dy / limited;
    this.scale = limited;
    this.fitted = limited <= this.whole * 1.0001;
    this.settle();
  }

  move(dx, dy) {
    this.x -= dx / this.scale;
    this.y -= dy / this.scale;
    this.settle();
  }

  settle() {
    if (this.fitted) this.scale = this.whole;
    const inside = (at, size, pane) => {
      const half = pane / this.scale / 2;
      return 2 * half >= size ? size / 2 : Math.min(size - half, Math.max(half, at));
    };
    this.x = inside(this.x, this.width, this.pane.width);
    this.y = inside(this.y, this.height, this.pane.height);
  }

  /** The pixel of the picture under (px, py) of a pane, or null beside it. */
  pixel(px, py) {
    const x = Math.floor(this.x + (px - this.pane.width / 2) / this.scale);
    const y = Math.floor(this.y + (py - this.pane.height / 2) / this.scale);
    return x >= 0 && y >= 0 && x < this.width && y < this.height ? { x, y } : null;
  }
}

/** Draw a picture into a canvas as the camera sees it, between the shares `from` and `to` of its width. */
export function draw(canvas, picture, camera, from = 0, to = 1) {
  const ratio = window.devicePixelRatio || 1;
  const context = canvas.getContext("2d");
  const scale = camera.scale * ratio;
  // whole device pixels, so that a picture at 1:1 is shown as it is
  const left = Math.round(canvas.width / 2 - camera.x * scale);
  const top = Math.round(canvas.height / 2 - camera.y * scale);
  // only what is seen: pixels of a much enlarged picture would be drawn far outside otherwise
  const x0 = Math.max(0, Math.floor(-left / scale));
  const y0 = Math.max(0, Math.floor(-top / scale));
  const x1 = Math.min(camera.width, Math.ceil((canvas.width - left) / scale));
  const y1 = Math.min(camera.height, Math.ceil((canvas.height - top) / scale));
  if (x1 <= x0 || y1 <= y0) return;
  const [kx, ky] = [picture.width / camera.width, picture.height / camera.height];
  context.save();
  context.beginPath();
  context.rect(Math.round(from * canvas.width), 0, Math.round((to - from) * canvas.width) + 1, canvas.height);
  context.clip();
  context.imageSmoothingEnabled = scale < 1;
  context.imageSmoothingQuality = "high";
  context.drawImage(
    picture.bitmap,
    x0 * kx, y0 * ky, (x1 - x0) * kx, (y1 - y0) * ky,
    left + x0 * scale, top + y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale,
  );
  context.restore();
}
