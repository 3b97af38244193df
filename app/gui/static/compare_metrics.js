// Image quality against a reference, as `restoration.metrics` has it, from 8-bit levels.

import { levels } from "./compare_paint.js";

// Wang et al. 2004 as in scikit-image with gaussian_weights, sigma 1.5: the window ends at 3.5 sigma
const RADIUS = 5;
const WINDOW = (() => {
  const weights = Array.from({ length: 2 * RADIUS + 1 }, (_, k) => Math.exp(-((k - RADIUS) ** 2) / (2 * 1.5 ** 2)));
  const sum = weights.reduce((a, b) => a + b);
  return weights.map((w) => w / sum);
})();
const BAND = 64; // rows at a time; the page stays alive in between

/** Peak signal-to-noise ratio in dB of two loaded pictures of one size; infinite for equal ones. */
export function psnr(truth, image) {
  const [a, b] = [levels(truth), levels(image)];
  let sum = 0;
  for (let k = 0; k < a.length; k += 4) for (let c = k; c < k + 3; c += 1) sum += (a[c] - b[c]) ** 2;
  return sum ? 10 * Math.log10((255 ** 2 * 0.75 * a.length) / sum) : Infinity;
}

/** Structural similarity of two loaded pictures of one size, mean over channels; null where they are too small. */
export async function ssim(truth, image) {
  const { width, height } = truth;
  if (Math.min(width, height) <= 2 * RADIUS) return null;
  let sum = 0;
  for (let row = RADIUS; row < height - RADIUS; row += BAND) {
    const rows = Math.min(BAND, height - RADIUS - row);
    for (let channel = 0; channel < 3; channel += 1) sum += band(truth, image, channel, row - RADIUS, rows);
    await new Promise((resolve) => setTimeout(resolve));
  }
  return sum / (3 * (width - 2 * RADIUS) * (height - 2 * RADIUS));
}

/** The sum of SSIM over `rows` rows of windows, the first of which begins at row `top`. */
function band(truth, image, channel, top, rows) {
  const { width } = truth;
  const [a, b] = [levels(truth), levels(image)];
  const high = rows + 2 * RADIUS;
  const maps = Array.from({ length: 5 }, () => new Float64Array(width * high));
  for (let k = 0; k < width * high; k += 1) {
    const x = a[4 * (top * width + k) + channel] / 255;
    const y = b[4 * (top * width + k) + channel] / 255;
    [maps[0][k], maps[1][k], maps[2][k], maps[3][k], maps[4][k]] = [x, y, x * x, y * y, x * y];
  }
  const [mx, my, xx, yy, xy] = maps.map((map) => smoothed(map, width, high));
  const [c1, c2] = [0.01 ** 2, 0.03 ** 2];
  let sum = 0;
  for (let k = 0; k < mx.length; k += 1) {
    const product = mx[k] * my[k];
    const squares = mx[k] ** 2 + my[k] ** 2;
    sum +=
      ((2 * product + c1) * (2 * (xy[k] - product) + c2)) / ((squares + c1) * (xx[k] + yy[k] - squares + c2));
  }
  return sum;
}

/** Means over windows that lie wholly inside: (height, width) → (height - 2 RADIUS, width - 2 RADIUS). */
function smoothed(map, width, height) {
  const wide = width - 2 * RADIUS;
  const across = new Float64Array(wide * height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < wide; x += 1) {
      let sum = 0;
      for (let k = 0; k <= 2 * RADIUS; k += 1) sum += WINDOW[k] * map[y * width + x + k];
      across[y * wide + x] = sum;
    }
  }
  const out = new Float64Array(wide * (height - 2 * RADIUS));
  for (let k = 0; k < out.length; k += 1) {
    let sum = 0;
    for (let j = 0; j <= 2 * RADIUS; j += 1) sum += WINDOW[j] * across[k + j * wide];
    out[k] = sum;
  }
  return out;
}
