// In what settings runs differ.

/** The values of a JSON object by path, such as "method.schedule.steps". Short lists are one value. */
function leaves(value, path = "", out = new Map()) {
  if (value !== null && typeof value === "object" && !(Array.isArray(value) && value.every((v) => typeof v !== "object"))) {
    for (const [key, part] of Object.entries(value)) leaves(part, path ? `${path}.${key}` : key, out);
  } else out.set(path, Array.isArray(value) ? value.join(", ") : String(value));
  return out;
}

/**
 * Settings that are not the same in all runs: [[path, value of the first, ...]]. `jobs` have `recipe` and `options`.
 * What is only said for people, and what only serves the page, is no setting.
 */
export function differing(jobs) {
  const found = jobs.map(({ recipe, options }) => {
    const { title, reference, version, ...settings } = recipe;
    const { views, ...others } = options;
    return leaves({ ...settings, options: others });
  });
  const paths = [...new Set(found.flatMap((map) => [...map.keys()]))];
  return paths
    .map((path) => [path, ...found.map((map) => map.get(path) ?? "–")])
    .filter(([, first, ...others]) => others.some((value) => value !== first));
}

/** A run in few words: what, by which method, with which seeds. */
export function words({ recipe }) {
  const steps = recipe.method?.schedule?.steps;
  const seeds = recipe.seeds ?? [];
  const part = seeds.length === 1 ? `seed ${seeds[0]}` : `${seeds.length} samples`;
  return [recipe.method?.kind, steps && `${steps} steps`, part].filter(Boolean).join(" · ");
}
