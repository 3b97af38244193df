// A volume of int16 voxels as the server sends it: fetched, looked into, and counted.

import { at } from "./api.js";

const LOWEST = -32768;

/** Voxels (x fastest), what their numbers mean, and where they are. */
export class Volume {
  constructor(view, data) {
    this.view = view;
    this.data = data;
    this.shape = view.shape;
    this.strides = [1, view.shape[0], view.shape[0] * view.shape[1]];
    this.slope = view.slope;
    this.intercept = view.intercept;
    this.unit = view.unit;
    this.affine = view.affine;
  }

  /** The number of a voxel, in the volume's unit. */
  value([i, j, k]) {
    return this.slope * this.data[i + this.strides[1] * j + this.strides[2] * k] + this.intercept;
  }

  /** How many voxels hold each stored number, from -32768. */
  get counts() {
    if (!this._counts) {
      this._counts = new Uint32Array(65536);
      for (let n = 0; n < this.data.length; n++) this._counts[this.data[n] - LOWEST]++;
    }
    return this._counts;
  }

  /** The smallest number that a share `p` of the voxels does not exceed (nearest rank). */
  percentile(p) {
    const wanted = Math.max(1, Math.ceil(p * this.data.length));
    const counts = this.counts;
    let seen = 0;
    for (let n = 0; n < 65536; n++) {
      seen += counts[n];
      if (seen >= wanted) return this.slope * (n + LOWEST) + this.intercept;
    }
    return 0;
  }

  /** Smallest and largest number. */
  get range() {
    return [this.percentile(0), this.percentile(1)];
  }

  /** Mean of each slice across a stored axis. */
  means(axis) {
    this._means ||= {};
    if (!this._means[axis]) {
      const sums = new Float64Array(this.shape[axis]);
      const [nx, ny, nz] = this.shape;
      let n = 0;
      for (let k = 0; k < nz; k++) {
        for (let j = 0; j < ny; j++) {
          if (axis === 0) {
            for (let i = 0; i < nx; i++) sums[i] += this.data[n++];
          } else {
            let row = 0;
            for (let i = 0; i < nx; i++) row += this.data[n++];
            sums[axis === 1 ? j : k] += row;
          }
        }
      }
      const count = (nx * ny * nz) / this.shape[axis];
      this._means[axis] = Array.from(sums, (sum) => (this.slope * sum) / count + this.intercept);
    }
    return this._means[axis];
  }
}

/** Fetch a view (`url` or, of a job, the address made by the caller); `progress` hears the share from 0 to 1. */
export async function load(view, progress, signal) {
  const size = 2 * view.shape.reduce((a, b) => a * b, 1);
  const answer = await fetch(at(view.url), { signal });
  if (!answer.ok) throw new Error("The voxels are not on the server any more; load the file again.");
  let stream = answer.body;
  const unpacked = (answer.headers.get("content-encoding") || "").includes("gzip");
  if (view.file.endsWith(".gz") && !unpacked) stream = stream.pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(size);
  let filled = 0;
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (filled + value.length > size) throw wrong();
    bytes.set(value, filled);
    filled += value.length;
    progress?.(filled / size);
  }
  if (filled !== size) throw wrong();
  return new Volume(view, new Int16Array(bytes.buffer));
}

function wrong() {
  return new Error("The voxels came with another size than was promised; load the file again.");
}

/** Whether two views are on the same grid, so that their voxels can be shown and counted together. */
export function sameGrid(a, b) {
  return (
    a.shape.every((n, axis) => n === b.shape[axis]) &&
    a.affine.every((row, r) => row.every((v, c) => Math.abs(v - b.affine[r][c]) < 1e-3))
  );
}
