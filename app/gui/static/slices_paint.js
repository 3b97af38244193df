// Numbers to colours.
//
// Grey: g = floor(255 * clip((v - (level - width / 2)) / width, 0, 1) + 0.5), in double precision, where
// v = slope * stored + intercept.

// Sixteen evenly spaced colours of matplotlib's viridis and inferno (CC0), straight lines in between.
const SCALES = {
  viridis: "440154481a6c472f7d41448739568c31688e2a788e23888e1f988b22a88435b77954c5687ad151a5db36d2e21bfde725",
  inferno: "0000040c0826240c4f420a685d126e781c6d932667ae305cc73e4cdd513aed6925f8850ffca50afac62df2e661fcffa4",
  grey: "000000ffffff",
};
// Lightness rises evenly (OKLab) from the dark middle to blue (less) and orange (more).
const DIVERGING =
  "97d5ff75bcf751a3e4378bca3472a3305b7e2a455b232f391b1b1b382a22563a27774b2c995c2fbd6d31d7864aeba16effbd90";
const LABELS = "e63c3c3cbe5a4678f0e6be28be50d23cc8d2ff8c32c8c8c896e66ef078b4";

export const MAPS = Object.keys(SCALES);

/** 256 colours [r, g, b] of a map; "diverging" is that of differences. */
export function colours(map) {
  const hex = map === "diverging" ? DIVERGING : SCALES[map];
  const anchors = parts(hex);
  return Array.from({ length: 256 }, (_, n) => {
    const where = (n / 255) * (anchors.length - 1);
    const low = Math.min(Math.floor(where), anchors.length - 2);
    return anchors[low].map((v, c) => Math.round(v + (where - low) * (anchors[low + 1][c] - v)));
  });
}

/** The colour of a label from 1. */
export function labelColour(label) {
  const all = parts(LABELS);
  return all[(label - 1) % all.length];
}

function parts(hex) {
  return hex.match(/.{6}/g).map((one) => one.match(/../g).map((two) => parseInt(two, 16)));
}

function packed([r, g, b], alpha) {
  return ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0; // little-endian RGBA
}

/** Colours of all 65536 stored numbers under a window. */
export function greyTable(volume, width, level) {
  const table = new Uint32Array(65536);
  const low = level - width / 2;
  for (let n = 0; n < 65536; n++) {
    const value = volume.slope * (n - 32768) + volume.intercept;
    const grey = Math.floor(255 * Math.min(1, Math.max(0, (value - low) / width)) + 0.5);
    table[n] = packed([grey, grey, grey], 255);
  }
  return table;
}

/** Colours of all stored numbers of a map from 0 to `high`; what is below a fifth of it fades out. */
export function heatTable(volume, high, map) {
  const scale = colours(map);
  const table = new Uint32Array(65536);
  for (let n = 0; n < 65536; n++) {
    const share = Math.min(1, Math.max(0, (volume.slope * (n - 32768) + volume.intercept) / high));
    table[n] = packed(scale[Math.round(255 * share)], Math.round(255 * Math.min(1, share / 0.2)));
  }
  return table;
}

/** Colours of labels: 0 is nothing. */
export function labelTable(volume) {
  const table = new Uint32Array(65536);
  for (let n = 0; n < 65536; n++) {
    const label = Math.round(volume.slope * (n - 32768) + volume.intercept);
    if (label > 0) table[n] = packed(labelColour(label), 255);
  }
  return table;
}

/** Write a slice through a table into an ImageData of the plane's columns and rows. */
export function paint(image, volume, plane, slice, table) {
  const out = new Uint32Array(image.data.buffer);
  const { data, strides } = volume;
  walk(plane, strides, slice, (from, step, row) => {
    let n = row * plane.columns;
    for (let c = 0, p = from; c < plane.columns; c++, p += step) out[n++] = table[data[p] + 32768];
  });
}

/** Write the difference `first - second`, from -high to high. */
export function paintDifference(image, first, second, plane, slice, high) {
  const out = new Uint32Array(image.data.buffer);
  const table = differenceTable();
  const [a, b] = [first.data, second.data];
  const offset = first.intercept - second.intercept;
  walk(plane, first.strides, slice, (from, step, row) => {
    let n = row * plane.columns;
    for (let c = 0, p = from; c < plane.columns; c++, p += step) {
      const share = (first.slope * a[p] - second.slope * b[p] + offset) / high;
      out[n++] = table[Math.round(255 * (0.5 + 0.5 * Math.min(1, Math.max(-1, share))))];
    }
  });
}

let _differences = null;
function differenceTable() {
  _differences ||= Uint32Array.from(colours("diverging"), (colour, n) =>
    packed(colour, Math.round(255 * Math.min(1, Math.abs(n - 127.5) / 12.75)))
  );
  return _differences;
}

function walk(plane, strides, slice, row) {
  const across = plane.flips[0] ? -strides[plane.across] : strides[plane.across];
  const down = plane.flips[1] ? -strides[plane.down] : strides[plane.down];
  let start = slice * strides[plane.normal];
  if (plane.flips[0]) start += (plane.columns - 1) * strides[plane.across];
  if (plane.flips[1]) start += (plane.rows - 1) * strides[plane.down];
  for (let r = 0; r < plane.rows; r++) row(start + r * down, across, r);
}

/** A round number not below `value`: 1, 1.5, 2, 3, 4, 5, 6 or 8 times a power of ten. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const ten = 10 ** Math.floor(Math.log10(value));
  return Number(([1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((m) => m * ten >= value * (1 - 1e-9)) * ten).toPrecision(3));
}
