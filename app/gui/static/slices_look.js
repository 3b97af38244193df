// What is looked at: one state for all panels, so that they scroll, zoom and window together.

import { sameGrid } from "./slices_volume.js";
import { greyTable, heatTable, labelTable, roundUp } from "./slices_paint.js";
import { PLANES, nativePlane, planesOf } from "./slices_planes.js";

export const TITLES = { before: "Measurement", mean: "Restored", truth: "Reference" };

/** Windows with names: width and level in HU by key, the last two for every unit. */
export const PRESETS = [
  { key: "1", name: "Soft", width: 400, level: 40 },
  { key: "2", name: "Lung", width: 1500, level: -600 },
  { key: "3", name: "Bone", width: 1800, level: 400 },
  { key: "4", name: "Brain", width: 80, level: 40 },
  { key: "5", name: "Full" },
  { key: "6", name: "Auto p1–p99" },
];

const MOST_ZOOM = 24;

/** The state, and what follows from it. `changed` is called after every change with nothing. */
export class Look {
  constructor(changed) {
    this.changed = changed;
    this.volumes = {};
    this.shown = ["before"];
    this.plane = "axial"; // or "all"
    this.main = "axial"; // the plane that keys and the slider move through
    this.at = [0, 0, 0];
    this.hover = null;
    this.width = 1;
    this.level = 0;
    this.zoom = 1;
    this.pan = { axial: [0, 0], coronal: [0, 0], sagittal: [0, 0] };
    this.mode = "window";
    this.overlay = { name: "none", opacity: 0.4, map: "viridis" };
    this.highs = {};
    this.hidden = false;
    this.comparing = false;
    this.tables = new Map();
  }

  /** Show other images; the place and the window stay where the grid does. */
  show(volumes, window) {
    const before = this.first;
    this.volumes = volumes;
    this.tables.clear();
    this.highs = {};
    const first = this.first;
    this.shown = ["before", "mean", "truth"].filter((name) => volumes[name]);
    if (!before || !sameGrid(before, first)) {
      this.planes = planesOf(first.affine, first.shape);
      this.plane = this.main = nativePlane(this.planes, first.shape);
      this.at = first.shape.map((n) => Math.floor(n / 2));
      this.fit();
    }
    if (!before || before.unit !== first.unit || !sameGrid(before, first)) {
      if (window) this.setWindow(window[0], window[1]);
      else this.preset("6");
    }
    if (!this.overlays.includes(this.overlay.name)) this.overlay.name = volumes.spread ? "spread" : "none";
    this.changed();
  }

  /** An image that came later, such as a map. */
  add(name, volume) {
    this.volumes[name] = volume;
    this.changed();
  }

  get first() {
    return this.volumes.before || this.volumes.mean || this.volumes.truth;
  }

  get unit() {
    return this.first?.unit || "";
  }

  /** The windows that make sense for the unit. */
  get presets() {
    return this.unit === "HU" ? PRESETS : PRESETS.slice(4);
  }

  /** Planes that are pictures and not lines. */
  get usable() {
    return PLANES.filter((name) => this.planes[name].columns > 1 && this.planes[name].rows > 1);
  }

  get overlays() {
    const found = ["none"];
    const { before, mean, truth, spread, imagined, labels } = this.volumes;
    if (spread) found.push("spread");
    if (imagined) found.push("imagined");
    if (before && mean) found.push("difference");
    if (truth && mean) found.push("error");
    if (labels) found.push("labels");
    return found;
  }

  get slice() {
    return this.at[this.planes[this.main].normal];
  }

  // place

  goTo(slice, plane = this.main) {
    const { normal, count } = this.planes[plane];
    this.at[normal] = Math.min(count - 1, Math.max(0, Math.round(slice)));
    this.main = plane;
    this.changed();
  }

  move(voxel) {
    this.at = voxel.map((n, axis) => Math.min(this.first.shape[axis] - 1, Math.max(0, n)));
    this.changed();
  }

  choosePlane(plane) {
    this.plane = plane;
    if (plane !== "all") this.main = plane;
    this.changed();
  }

  fit() {
    this.zoom = 1;
    for (const name of PLANES) this.pan[name] = [0, 0];
    this.changed();
  }

  zoomTo(zoom, plane, pan = this.pan[plane]) {
    this.zoom = Math.min(MOST_ZOOM, Math.max(1, zoom));
    const most = this.zoom > 1 ? 0.5 : 0;
    this.pan[plane] = pan.map((share) => Math.min(most, Math.max(-most, share)));
    if (this.zoom === 1) for (const name of PLANES) this.pan[name] = [0, 0];
    this.changed();
  }

  // window

  setWindow(width, level) {
    const [low, high] = this.first.range;
    const smallest = this.unit === "HU" ? 1 : Math.max((high - low) / 1e4, Math.abs(high) * 1e-6, 1e-12);
    this.width = rounded(Math.max(smallest, width), this.unit, width);
    this.level = rounded(level, this.unit, this.width);
    this.changed();
  }

  preset(key) {
    const found = this.presets.find((one) => one.key === key);
    if (!found) return false;
    if (found.width) this.setWindow(found.width, found.level);
    else {
      const [low, high] =
        key === "5" ? this.first.range : [this.first.percentile(0.01), this.first.percentile(0.99)];
      this.setWindow(high - low, (high + low) / 2);
    }
    return true;
  }

  // colours

  /** Grey levels of an image under the window. */
  greys(name) {
    return this._table(`grey ${name}`, `${this.width} ${this.level}`, () =>
      greyTable(this.volumes[name], this.width, this.level)
    );
  }

  /** Colours of an overlay that is a volume of its own. */
  heat(name) {
    const { map } = this.overlay;
    if (name === "labels") return this._table("labels", "", () => labelTable(this.volumes.labels));
    return this._table(`heat ${name}`, `${map} ${this.high(name)}`, () =>
      heatTable(this.volumes[name], this.high(name), map)
    );
  }

  /** The value at the end of an overlay's colours, one for all slices: the 99.5th percentile, rounded up. */
  high(name) {
    if (!this.highs[name]) {
      const pair = this.pair(name);
      this.highs[name] = roundUp(pair ? largest(...pair) : this.volumes[name].percentile(0.995));
    }
    return this.highs[name];
  }

  /** The two images that an overlay is the difference of. */
  pair(name) {
    const { before, mean, truth } = this.volumes;
    return { difference: [mean, before], error: [mean, truth] }[name] || null;
  }

  _table(place, key, make) {
    const known = this.tables.get(place);
    if (known && known.key === key) return known.table;
    const table = make();
    this.tables.set(place, { key, table });
    return table;
  }
}

/** The 99.5th percentile of the size of a difference, from at most a million evenly spread voxels. */
function largest(first, second) {
  const every = Math.max(1, Math.floor(first.data.length / 1e6));
  const sizes = new Float64Array(Math.ceil(first.data.length / every));
  for (let n = 0, m = 0; n < first.data.length; n += every, m++) {
    const [a, b] = [first.slope * first.data[n] + first.intercept, second.slope * second.data[n] + second.intercept];
    sizes[m] = Math.abs(a - b);
  }
  sizes.sort();
  return sizes[Math.floor(0.995 * (sizes.length - 1))];
}

/** Windows are whole in HU, and as fine as a thousandth of the width elsewhere. */
function rounded(value, unit, width) {
  if (unit === "HU" && Math.abs(width) >= 10) return Math.round(value);
  const step = 10 ** Math.floor(Math.log10(Math.abs(width) || 1) - 3);
  return Number((Math.round(value / step) * step).toPrecision(12));
}

/** A number for people: to a thousandth of `scale`, such as the window's width; at most tenths in HU. */
export function spoken(value, unit, scale) {
  if (!Number.isFinite(value)) return "–";
  const wanted = 3 - Math.floor(Math.log10(Math.abs(scale) || 1));
  const decimals = Math.min(8, Math.max(0, unit === "HU" ? Math.min(1, wanted - 2) : wanted));
  const text = value.toFixed(decimals);
  return (Number(text) === 0 ? "0" : text).replace("-", "−");
}
