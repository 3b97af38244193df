// What is seen of the picture and its mask: zoom, pan, and drawing on a canvas of the screen's own resolution.

const LARGEST = 32; // screen pixels for each pixel of the picture
const SMALLEST = 0.02;

/** Draws a picture with its mask, and says which pixel of the full picture lies under which point of the canvas. */
export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.layer = document.createElement("canvas");
    this.coverage = document.createElement("canvas"); // the mask at the proxy's size, as opacity
    this.picture = null;
    this.mask = null;
    this.scale = 1; // CSS pixels for each pixel of the full picture
    this.left = 0; // of the picture, in CSS pixels of the canvas
    this.top = 0;
    this.fitted = true;
    this.style = "red";
    this.cursor = null; // {x, y, radius, keyboard, erases} in pixels of the picture
    this.onzoom = () => {};
    this.frame = 0;
    new ResizeObserver(() => this.#resize()).observe(canvas.parentElement);
    matchMedia("(resolution: 1dppx)").addEventListener?.("change", () => this.#resize());
  }

  show(picture, mask, proxyWidth, proxyHeight) {
    this.picture = picture;
    this.coverage.width = proxyWidth;
    this.coverage.height = proxyHeight;
    this.setMask(mask);
    this.#resize();
    this.fit();
  }

  setMask(mask) {
    this.mask = mask;
    mask.changed = [0, 0, mask.width, mask.height];
    this.draw();
  }

  get width() {
    return this.canvas.clientWidth;
  }

  get height() {
    return this.canvas.clientHeight;
  }

  /** Place of a pointer in pixels of the full picture. */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left - this.left) / this.scale, (event.clientY - box.top - this.top) / this.scale];
  }

  fit() {
    if (!this.mask || !this.width) return;
    this.fitted = true;
    this.scale = this.#fitting();
    this.#settle();
  }

  /** Zoom by a factor around a point of the canvas, by default its middle. */
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    if (!this.mask) return;
    const least = Math.min(this.#fitting(), 1);
    const scale = Math.min(LARGEST, Math.max(least, SMALLEST, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.fitted = Math.abs(scale / this.#fitting() - 1) < 1e-6;
    this.#settle();
  }

  pan(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.#settle();
  }

  /** Pan as little as makes a pixel of the picture visible. */
  reveal(x, y) {
    const [cx, cy] = [x * this.scale + this.left, y * this.scale + this.top];
    const edge = 24;
    const dx = Math.max(0, edge - cx) - Math.max(0, cx - (this.width - edge));
    const dy = Math.max(0, edge - cy) - Math.max(0, cy - (this.height - edge));
    if (dx || dy) this.pan(dx, dy);
  }

  /** Draw before the next frame. */
  draw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.#draw();
    });
  }

  #fitting() {
    return Math.min(this.width / this.mask.width, this.height / this.mask.height);
  }

  #settle() {
    const within = (start, size, room) => (size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, start)));
    this.left = within(this.left, this.mask.width * this.scale, this.width);
    this.top = within(this.top, this.mask.height * this.scale, this.height);
    this.onzoom();
    this.draw();
  }

  #resize() {
    if (!this.mask) return;
    const room = this.canvas.parentElement.clientWidth;
    if (!room) return; // hidden
    const tallest = Math.max(240, Math.min(640, window.innerHeight * 0.62));
    const height = Math.round(Math.min(tallest, Math.max(200, (room * this.mask.height) / this.mask.width)));
    this.canvas.style.height = `${height}px`;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = this.layer.width = Math.round(room * ratio);
    this.canvas.height = this.layer.height = Math.round(height * ratio);
    if (this.fitted) this.fit();
    else this.#settle();
  }

  #draw() {
    const { canvas, context, mask } = this;
    if (!mask || !this.picture || !this.width || !canvas.width) return; // hidden
    const changed = mask.taken();
    if (changed) this.#cover(changed);
    const ratio = canvas.width / this.width;
    const place = [this.left, this.top, mask.width * this.scale, mask.height * this.scale].map((v) => v * ratio);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    const proxyScale = (this.scale * mask.width) / this.coverage.width;
    context.imageSmoothingEnabled = proxyScale < 3;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.picture, ...place);
    if (mask.painted) this.#drawMask(place, proxyScale, ratio);
    if (this.cursor) this.#drawCursor(ratio);
  }

  #drawMask(place, proxyScale, ratio) {
    const layer = this.layer.getContext("2d");
    layer.globalCompositeOperation = "source-over";
    layer.clearRect(0, 0, this.layer.width, this.layer.height);
    if (this.scale >= 1 && this.coverage.width < this.mask.width) this.#drawPixels(layer, ratio);
    else {
      layer.imageSmoothingEnabled = proxyScale < 1;
      layer.drawImage(this.coverage, ...place);
    }
    layer.globalCompositeOperation = "source-in";
    layer.fillStyle = this.#pattern(ratio);
    layer.fillRect(0, 0, this.layer.width, this.layer.height);
    this.context.globalAlpha = this.style === "red" ? 0.62 : 1;
    this.context.drawImage(this.layer, 0, 0);
    this.context.globalAlpha = 1;
  }

  /** Single pixels of the full picture, where they are large enough to be seen. */
  #drawPixels(layer, ratio) {
    const { mask, scale } = this;
    const x0 = Math.max(0, Math.floor(-this.left / scale));
    const y0 = Math.max(0, Math.floor(-this.top / scale));
    const x1 = Math.min(mask.width, Math.ceil((this.width - this.left) / scale));
    const y1 = Math.min(mask.height, Math.ceil((this.height - this.top) / scale));
    const pixels = new ImageData(x1 - x0, y1 - y0);
    for (let y = y0, at = 3; y < y1; y++) {
      for (let x = x0; x < x1; x++, at += 4) pixels.data[at] = 255 * mask.data[y * mask.width + x];
    }
    const part = new OffscreenCanvas(x1 - x0, y1 - y0);
    part.getContext("2d").putImageData(pixels, 0, 0);
    layer.imageSmoothingEnabled = false;
    const place = [this.left + x0 * scale, this.top + y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale];
    layer.drawImage(part, ...place.map((v) => v * ratio));
  }

  /** Bring the changed part of the coverage up to date: how much of each of its pixels is missing. */
  #cover([left, top, right, bottom]) {
    const { width, height } = this.coverage;
    const { mask } = this;
    const [kx, ky] = [mask.width / width, mask.height / height];
    const [x0, x1] = [Math.floor(left / kx), Math.min(width, Math.ceil(right / kx))];
    const [y0, y1] = [Math.floor(top / ky), Math.min(height, Math.ceil(bottom / ky))];
    if (x0 >= x1 || y0 >= y1) return;
    const pixels = new ImageData(x1 - x0, y1 - y0);
    for (let y = y0, at = 3; y < y1; y++) {
      const [fromRow, toRow] = [Math.floor(y * ky), Math.floor((y + 1) * ky)];
      for (let x = x0; x < x1; x++, at += 4) {
        const [from, to] = [Math.floor(x * kx), Math.floor((x + 1) * kx)];
        let sum = 0;
        for (let row = fromRow; row < toRow; row++) {
          for (let i = row * mask.width + from, end = row * mask.width + to; i < end; i++) sum += mask.data[i];
        }
        // the root keeps lines visible that are thinner than a pixel of the proxy
        pixels.data[at] = 255 * Math.sqrt(sum / ((toRow - fromRow) * (to - from)));
      }
    }
    this.coverage.getContext("2d").putImageData(pixels, x0, y0);
  }

  /** What marks missing pixels: red with stripes, which are seen on red pictures too, or a checkerboard. */
  #pattern(ratio) {
    const side = Math.round(12 * ratio);
    const tile = new OffscreenCanvas(side, side);
    const context = tile.getContext("2d");
    if (this.style === "red") {
      context.fillStyle = "#f5333f";
      context.fillRect(0, 0, side, side);
      context.strokeStyle = "#ffd3d6";
      context.lineWidth = side / 8;
      for (const shift of [-side, 0, side]) {
        context.beginPath();
        context.moveTo(shift - 1, side + 1);
        context.lineTo(shift + side + 1, -1);
        context.stroke();
      }
    } else {
      context.fillStyle = "#f4f5f7";
      context.fillRect(0, 0, side, side);
      context.fillStyle = "#aab0ba";
      context.fillRect(0, 0, side / 2, side / 2);
      context.fillRect(side / 2, side / 2, side / 2, side / 2);
    }
    return this.context.createPattern(tile, "repeat");
  }

  #drawCursor(ratio) {
    const { context } = this;
    const { x, y, radius, keyboard, erases } = this.cursor;
    const [cx, cy] = [x * this.scale + this.left, y * this.scale + this.top];
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const size = Math.max(2, radius * this.scale);
    const trace = () => {
      context.beginPath();
      context.arc(cx, cy, size, 0, 2 * Math.PI);
      const arm = keyboard ? 6 : 3;
      for (const [dx, dy] of [[1, 0], [0, 1]]) {
        context.moveTo(cx - dx * arm, cy - dy * arm);
        context.lineTo(cx + dx * arm, cy + dy * arm);
      }
      context.stroke();
    };
    for (const [colour, width] of [["rgba(0, 0, 0, .85)", 3.5], ["#fff", 1.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.setLineDash(erases && colour === "#fff" ? [5, 4] : []);
      trace();
    }
    context.setLineDash([]);
  }
}
