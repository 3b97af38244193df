// The mask itself: one byte for each pixel of the full picture, what can be done to it, and how it is undone.

const TILE = 128; // pixels a side of what is remembered at once
const REMEMBERED = 96 << 20; // bytes of history

/**
 * A mask of the full picture: 1 is missing. Changes lie between `begin()` and `end()`; each such edit is undone as one.
 * Pixel (x, y) covers [x, x + 1) × [y, y + 1), and belongs to a shape that its centre lies in.
 */
export class Mask {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.data = new Uint8Array(width * height);
    this.painted = 0; // pixels
    this.changed = null; // [x0, y0, x1, y1) changed since `taken()`
    this.done = []; // edits that can be undone: {before: Map(tile → its bits), inverted}
    this.undone = [];
    this.edit = null;
    this.columns = Math.ceil(width / TILE);
  }

  get fraction() {
    return this.painted / this.data.length;
  }

  begin() {
    this.edit = { before: new Map(), inverted: false };
  }

  /** Keep the edit; false where it changed nothing. */
  end() {
    const edit = this.edit;
    this.edit = null;
    for (const [tile, before] of edit.before) {
      if (same(before, this.#tile(tile))) edit.before.delete(tile);
      else edit.before.set(tile, pack(before));
    }
    if (!edit.inverted && edit.before.size === 0) return false;
    this.done.push(edit);
    this.undone = [];
    let bytes = 0;
    for (let k = this.done.length - 1; k >= 0; k--) {
      bytes += this.done[k].before.size * ((TILE * TILE) / 8);
      if (bytes > REMEMBERED && k < this.done.length - 1) {
        this.done.splice(0, k + 1);
        break;
      }
    }
    return true;
  }

  /** Give the edit up, as if it had not begun. */
  abandon() {
    const edit = this.edit;
    this.edit = null;
    for (const [tile, before] of edit.before) this.#put(tile, before);
  }

  undo() {
    return this.#turn(this.done, this.undone);
  }

  redo() {
    return this.#turn(this.undone, this.done);
  }

  /** Everything within `radius` of the line from (x0, y0) to (x1, y1) gets `value`. */
  line(x0, y0, x1, y1, radius, value) {
    const top = Math.max(0, Math.ceil(Math.min(y0, y1) - radius - 0.5));
    const bottom = Math.min(this.height - 1, Math.floor(Math.max(y0, y1) + radius - 0.5));
    const left = Math.max(0, Math.ceil(Math.min(x0, x1) - radius - 0.5));
    const right = Math.min(this.width - 1, Math.floor(Math.max(x0, x1) + radius - 0.5));
    if (top > bottom || left > right) return;
    this.#remember(left, top, right + 1, bottom + 1);
    const length = Math.hypot(x1 - x0, y1 - y0);
    // half of the band's width, as a vector square to the line
    const [nx, ny] = length ? [(-(y1 - y0) * radius) / length, ((x1 - x0) * radius) / length] : [0, 0];
    const corners = [[x0 + nx, y0 + ny], [x1 + nx, y1 + ny], [x1 - nx, y1 - ny], [x0 - nx, y0 - ny]];
    for (let row = top; row <= bottom; row++) {
      const y = row + 0.5;
      let low = Infinity;
      let high = -Infinity;
      for (const [cx, cy] of [[x0, y0], [x1, y1]]) {
        const square = radius * radius - (y - cy) * (y - cy);
        if (square < 0) continue;
        low = Math.min(low, cx - Math.sqrt(square));
        high = Math.max(high, cx + Math.sqrt(square));
      }
      for (let k = 0; length && k < 4; k++) {
        const [ax, ay] = corners[k];
        const [bx, by] = corners[(k + 1) % 4];
        if (ay === by || (y - ay) * (y - by) > 0) continue;
        const x = ax + ((y - ay) / (by - ay)) * (bx - ax);
        low = Math.min(low, x);
        high = Math.max(high, x);
      }
      this.#span(row, Math.max(left, Math.ceil(low - 0.5)), Math.min(right, Math.floor(high - 0.5)), value);
    }
  }

  rectangle(x, y, width, height, value) {
    const [x0, y0] = [Math.max(0, x), Math.max(0, y)];
    const [x1, y1] = [Math.min(this.width, x + width), Math.min(this.height, y + height)];
    if (x0 >= x1 || y0 >= y1) return;
    this.#remember(x0, y0, x1, y1);
    for (let row = y0; row < y1; row++) this.#span(row, x0, x1 - 1, value);
  }

  invert() {
    for (let i = 0; i < this.data.length; i++) this.data[i] ^= 1;
    this.painted = this.data.length - this.painted;
    if (this.edit) this.edit.inverted = !this.edit.inverted;
    this.#see(0, 0, this.width, this.height);
  }

  clear() {
    this.rectangle(0, 0, this.width, this.height, 0);
  }

  /** Another mask of the same size in the place of this one. */
  replace(data) {
    this.#remember(0, 0, this.width, this.height);
    this.data.set(data);
    this.painted = data.reduce((sum, value) => sum + value, 0);
  }

  /** What changed since the last call, or null. */
  taken() {
    const changed = this.changed;
    this.changed = null;
    return changed;
  }

  #span(row, from, to, value) {
    let changed = 0;
    for (let i = row * this.width + from, end = row * this.width + to; i <= end; i++) {
      if (this.data[i] !== value) {
        this.data[i] = value;
        changed++;
      }
    }
    this.painted += value ? changed : -changed;
  }

  #remember(x0, y0, x1, y1) {
    this.#see(x0, y0, x1, y1);
    for (let row = Math.floor(y0 / TILE); row * TILE < y1; row++) {
      for (let column = Math.floor(x0 / TILE); column * TILE < x1; column++) {
        const tile = row * this.columns + column;
        if (!this.edit.before.has(tile)) this.edit.before.set(tile, this.#tile(tile));
      }
    }
  }

  #see(x0, y0, x1, y1) {
    const [a, b, c, d] = this.changed || [x0, y0, x1, y1];
    this.changed = [Math.min(a, x0), Math.min(b, y0), Math.max(c, x1), Math.max(d, y1)];
  }

  #box(tile) {
    const x = (tile % this.columns) * TILE;
    const y = Math.floor(tile / this.columns) * TILE;
    return [x, y, Math.min(x + TILE, this.width), Math.min(y + TILE, this.height)];
  }

  #tile(tile) {
    const [x0, y0, x1, y1] = this.#box(tile);
    const copy = new Uint8Array((x1 - x0) * (y1 - y0));
    for (let y = y0, at = 0; y < y1; y++, at += x1 - x0) {
      copy.set(this.data.subarray(y * this.width + x0, y * this.width + x1), at);
    }
    return copy;
  }

  #put(tile, copy) {
    const [x0, y0, x1, y1] = this.#box(tile);
    const size = x1 - x0;
    for (let y = y0, at = 0; y < y1; y++, at += size) {
      const start = y * this.width + x0;
      for (let k = 0; k < size; k++) {
        this.painted += copy[at + k] - this.data[start + k];
        this.data[start + k] = copy[at + k];
      }
    }
    this.#see(x0, y0, x1, y1);
  }

  #turn(from, to) {
    const edit = from.pop();
    if (!edit) return false;
    if (edit.inverted) this.invert();
    for (const [tile, bits] of edit.before) {
      const now = this.#tile(tile);
      this.#put(tile, unpack(bits, now.length));
      edit.before.set(tile, pack(now));
    }
    to.push(edit);
    return true;
  }
}

function pack(pixels) {
  const bits = new Uint8Array(Math.ceil(pixels.length / 8));
  for (let i = 0; i < pixels.length; i++) bits[i >> 3] |= pixels[i] << (i & 7);
  return bits;
}

function unpack(bits, length) {
  const pixels = new Uint8Array(length);
  for (let i = 0; i < length; i++) pixels[i] = (bits[i >> 3] >> (i & 7)) & 1;
  return pixels;
}

function same(a, b) {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** A mask of one size as one of another: each pixel takes that of the nearest centre. */
export function scaled(data, width, height, newWidth, newHeight) {
  const result = new Uint8Array(newWidth * newHeight);
  for (let y = 0, at = 0; y < newHeight; y++) {
    const row = Math.floor(((y + 0.5) * height) / newHeight) * width;
    for (let x = 0; x < newWidth; x++) result[at++] = data[row + Math.floor(((x + 0.5) * width) / newWidth)];
  }
  return result;
}
