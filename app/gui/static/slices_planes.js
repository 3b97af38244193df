// Where the planes of a volume lie in the patient. Slices are along the stored axes; nothing is interpolated between.

export const PLANES = ["axial", "coronal", "sagittal"];

const POSITIVE = ["R", "A", "S"];
const NEGATIVE = ["L", "P", "I"];
const ORDERS = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]; // prettier-ignore

/** Millimetres (RAS) of a voxel. */
export function place(affine, [i, j, k]) {
  return [0, 1, 2].map((r) => affine[r][0] * i + affine[r][1] * j + affine[r][2] * k + affine[r][3]);
}

/**
 * The three planes of a volume, as a radiologist looks at them: the patient's right on the left of axial and coronal
 * pictures, the front at the top of axial and on the left of sagittal ones, the head at the top of both upright ones.
 *
 * Each has `normal`, `across` and `down` (stored axes), `flips` (whether the picture runs against the stored order),
 * `columns`, `rows`, `count`, `width` and `height` in mm, `letters` at its four edges, and `depth`: which of R, A, S
 * its slices are numbered along. `tilt` is the largest angle in degrees between a stored axis and the patient's.
 */
export function planesOf(affine, shape) {
  const spacing = [0, 1, 2].map((a) => Math.hypot(affine[0][a], affine[1][a], affine[2][a]));
  const towards = [0, 1, 2].map((a) => [0, 1, 2].map((r) => affine[r][a] / spacing[a]));
  // order[r]: the stored axis that leads most nearly along R, A or S
  const order = ORDERS.reduce((best, other) => (fit(towards, other) > fit(towards, best) ? other : best));
  const upward = order.map((axis, r) => towards[axis][r] > 0);
  const smallest = Math.min(...order.map((axis, r) => Math.abs(towards[axis][r])));
  const tilt = (Math.acos(Math.min(1, smallest)) * 180) / Math.PI;
  const make = (name, normal, across, down) => {
    const flips = [upward[across], upward[down]]; // pictures run from right, front and head
    const side = (r, flip) => towards[order[r]].map((v) => (flip ? -v : v));
    const [right, bottom] = [side(across, flips[0]), side(down, flips[1])];
    return {
      name,
      depth: normal,
      normal: order[normal],
      across: order[across],
      down: order[down],
      flips,
      columns: shape[order[across]],
      rows: shape[order[down]],
      count: shape[order[normal]],
      width: shape[order[across]] * spacing[order[across]],
      height: shape[order[down]] * spacing[order[down]],
      letters: {
        left: letters(right.map((v) => -v)),
        right: letters(right),
        top: letters(bottom.map((v) => -v)),
        bottom: letters(bottom),
      },
    };
  };
  return {
    spacing,
    tilt,
    axial: make("axial", 2, 0, 1),
    coronal: make("coronal", 1, 0, 2),
    sagittal: make("sagittal", 0, 1, 2),
  };
}

function fit(towards, order) {
  return order.reduce((sum, axis, r) => sum + Math.abs(towards[axis][r]), 0);
}

/** Where a direction leads: its strongest letter first, then others of more than 17 degrees. */
function letters(direction) {
  return [0, 1, 2]
    .filter((r) => Math.abs(direction[r]) > 0.3)
    .sort((a, b) => Math.abs(direction[b]) - Math.abs(direction[a]))
    .map((r) => (direction[r] > 0 ? POSITIVE[r] : NEGATIVE[r]))
    .join("");
}

/** The voxel in column and row of a plane's picture of a slice. */
export function voxel(plane, column, row, slice) {
  const found = [0, 0, 0];
  found[plane.normal] = slice;
  found[plane.across] = plane.flips[0] ? plane.columns - 1 - column : column;
  found[plane.down] = plane.flips[1] ? plane.rows - 1 - row : row;
  return found;
}

/** Column and row of a voxel in a plane's picture. */
export function pixel(plane, at) {
  const [column, row] = [at[plane.across], at[plane.down]];
  return [plane.flips[0] ? plane.columns - 1 - column : column, plane.flips[1] ? plane.rows - 1 - row : row];
}

/** The plane in which a volume was taken: across its clearly coarsest or only one voxel long axis, else axial. */
export function nativePlane(planes, shape) {
  const usable = PLANES.filter((name) => planes[name].columns > 1 && planes[name].rows > 1);
  const flat = usable.find((name) => shape[planes[name].normal] === 1);
  if (flat) return flat;
  const coarse = planes.spacing.indexOf(Math.max(...planes.spacing));
  const others = planes.spacing.filter((_, axis) => axis !== coarse);
  if (planes.spacing[coarse] > 1.1 * Math.max(...others)) {
    const found = usable.find((name) => planes[name].normal === coarse);
    if (found) return found;
  }
  return usable[0] || "axial";
}
