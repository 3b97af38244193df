// Forms from JSON schemas: `form(schema, settings)` draws one and holds plain JSON of the description it stands for.

import { make, style } from "./api.js";

/** What the two forms of a page share: the value of the first. */
export const page = { problem: null };

let made = 0;
const fresh = (name) => `pi-form-${name}-${(made += 1)}`;

/** A schema with its reference looked up; what stands beside the reference wins. */
export function resolved(schema, defs) {
  if (!schema.$ref) return schema;
  const { $ref, ...beside } = schema;
  const { title, description, ...rest } = resolved(defs[$ref.split("/").pop()], defs);
  return { title, description, about: description, ...rest, ...beside };
}

/** Whether two JSON values are equal, in whatever order their names are. */
export function equal(a, b) {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => equal(a[name], b[name]));
}

/** The value that a schema begins with. */
export function blank(schema, defs) {
  if ("default" in schema) return structuredClone(schema.default);
  const whole = resolved(schema, defs);
  if ("default" in whole) return structuredClone(whole.default);
  if ("const" in whole) return whole.const;
  if (whole.enum) return whole.enum[0];
  if (whole.oneOf) return blank(whole.oneOf[0], defs);
  if (whole.anyOf) return whole.anyOf.some((part) => part.type === "null") ? null : blank(whole.anyOf[0], defs);
  if (isFile(whole)) return null;
  if (whole.properties) {
    return Object.fromEntries(Object.entries(whole.properties).map(([name, part]) => [name, blank(part, defs)]));
  }
  if (whole.type === "array") return (whole.prefixItems || []).map((part) => blank(part, defs));
  return whole.type === "boolean" ? false : whole.type === "string" ? "" : (whole.minimum ?? 1);
}

const isFile = (schema) => "path" in (schema.properties || {}) && "sha256" in schema.properties;

/**
 * Draw a form.
 *
 * `settings`: `defs` of the schema; `value` to begin with; `onchange(name)` after every change; `upload(file)` of
 * Gradio; `hidden` names of fields that are not shown; `sliders` whether numbers get a slider too; `plain` fields have
 * no frame. For a choice of kinds: `kinds` that are offered, in this order, or `groups` of them; their `titles`;
 * `hiddenOf(kind)` as `hidden`.
 * Returns `{element, get(), set(value), valid()}`.
 */
export function form(schema, settings) {
  style("form");
  const whole = resolved(schema, settings.defs);
  const value = settings.value === undefined ? blank(schema, settings.defs) : settings.value;
  const given = { ...settings, value };
  if (whole.oneOf) return variants(whole, given);
  if (whole.anyOf) return optional(whole, given);
  if (isFile(whole)) return file(whole, given);
  if (whole.properties) return fields(whole, given);
  if (whole.enum || "const" in whole) return choice(whole, whole.enum || [whole.const], given);
  if (whole.type === "array") return several(whole, given);
  if (whole.type === "boolean") return yesNo(whole, given);
  if (whole.type === "integer" || whole.type === "number") return number(whole, given);
  return text(whole, given);
}

// one field

function labelled(schema, control, settings, extra = []) {
  const help = make("div", { class: "pi-f-help", id: fresh("help") }, schema.description || "");
  const fault = make("div", { class: "pi-f-field-fault", id: fresh("fault") });
  control.id = fresh("field");
  control.setAttribute("aria-describedby", `${help.id} ${fault.id}`);
  const unit = schema["x-unit"];
  const label = make("label", { for: control.id }, schema.title || "", unit ? make("span", { class: "pi-f-unit" }, ` (${unit})`) : null);
  const back = make("button", { type: "button", class: "pi-f-reset", hidden: true }, "↺");
  const row = make("div", { class: "pi-f-control" }, control, ...extra, back);
  const element = make("div", { class: "pi-f-field", "data-name": settings.name || "" }, label, row, help, fault);
  const first = "default" in schema ? schema.default : settings.value;
  back.setAttribute("aria-label", `Reset ${schema.title} to ${words(first)}`);
  back.title = `Reset to ${words(first)}`;
  const say = (sentence) => {
    fault.textContent = sentence;
    if (sentence) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
  };
  return { element, label, back, first, say };
}

const words = (value) => (value === null || value === undefined || value === "" ? "empty" : Array.isArray(value) ? value.join(", ") : typeof value === "object" ? "its beginning" : String(value));

function number(schema, settings, empty = false) {
  const whole = schema.type === "integer";
  const low = schema.minimum ?? schema.exclusiveMinimum;
  const high = schema.maximum ?? schema.exclusiveMaximum;
  const control = make("input", { type: "number", step: whole ? 1 : "any", inputmode: whole ? "numeric" : "decimal", min: low, max: high > 1e12 ? undefined : high });
  if (empty) control.placeholder = "automatic";
  const extra = [];
  let slider = null;
  if (settings.sliders && low !== undefined && high !== undefined && high < 1e6) {
    slider = track(low, high, schema["x-scale"] === "log", whole, schema);
    extra.push(slider.element);
  }
  let dice = null;
  if (settings.name === "seed") {
    dice = make("button", { type: "button", class: "pi-f-small", "aria-label": `New ${schema.title}`, title: "Draw another" }, "⚄");
    extra.push(dice);
  }
  const parts = labelled(schema, control, settings, extra);
  const read = () => (control.value.trim() === "" ? null : Number(control.value));
  const wrong = () => {
    if (control.validity.badInput) return `${kindOf(schema)}.`;
    const value = read();
    if (value === null) return empty ? "" : `${kindOf(schema)}.`;
    const out = !Number.isFinite(value) || (whole && !Number.isInteger(value));
    const beyond = value < schema.minimum || value <= schema.exclusiveMinimum || value > schema.maximum || value >= schema.exclusiveMaximum;
    return out || beyond ? `${kindOf(schema)}${limits(schema)}.` : "";
  };
  const show = () => {
    parts.say(wrong());
    parts.back.hidden = equal(read(), parts.first ?? null);
    if (slider && read() !== null) slider.set(read());
  };
  const set = (value) => {
    control.value = value ?? "";
    show();
  };
  const changed = (value) => {
    set(value);
    settings.onchange?.(settings.name);
  };
  control.addEventListener("input", () => (show(), settings.onchange?.(settings.name)));
  parts.back.addEventListener("click", () => (changed(parts.first), control.focus()));
  slider?.listen(changed);
  dice?.addEventListener("click", () => changed(drawSeed()));
  set(settings.value);
  return { element: parts.element, get: read, set, valid: () => wrong() === "", focus: () => control.focus() };
}

/** A seed as this page draws them: below 2^31, which every number format holds. */
export function drawSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
}

const kindOf = (schema) => (schema.type === "integer" ? "Give a whole number" : "Give a number");

const shown = (value) => (Math.abs(value) >= 1e12 ? value.toExponential(0).replace("+", "") : String(value));

function limits(schema) {
  const low = schema.minimum !== undefined ? ` from ${shown(schema.minimum)}` : schema.exclusiveMinimum !== undefined ? ` above ${shown(schema.exclusiveMinimum)}` : "";
  const joint = low.startsWith(" above") ? " and" : "";
  const most = schema.maximum !== undefined ? (low ? `${joint} ${joint ? "at most" : "to"} ${shown(schema.maximum)}` : ` of at most ${shown(schema.maximum)}`) : "";
  return low + (schema.exclusiveMaximum !== undefined ? `${low ? " and" : ""} below ${shown(schema.exclusiveMaximum)}` : most);
}

/** A slider of 0 to 1000 that stands for numbers from low to high, even or by their logarithm. */
function track(low, high, log, whole, schema) {
  const least = log && low <= 0 ? Math.min(0.001, high / 1000) : low;
  const top = schema["x-top"] ?? high;
  const element = make("input", { type: "range", min: 0, max: 1000, step: 1, class: "pi-f-slider", "aria-label": `${schema.title}, slider` });
  const forth = (value) => (log ? Math.log(value / least) / Math.log(top / least) : (value - least) / (top - least));
  const back = (share) => (log ? least * (top / least) ** share : least + share * (top - least));
  const tidy = (value) => (whole ? Math.round(value) : Number(value.toPrecision(log ? 2 : 3)));
  const tell = (value) => element.setAttribute("aria-valuetext", String(value));
  return {
    element,
    set: (value) => {
      element.value = String(1000 * Math.min(1, Math.max(0, forth(Math.max(value, log ? least : value)))));
      tell(value);
    },
    listen: (f) =>
      element.addEventListener("input", () => {
        const value = tidy(back(element.value / 1000));
        f(schema.exclusiveMinimum !== undefined && value <= schema.exclusiveMinimum ? tidy(back(0.002)) : value);
      }),
  };
}

function text(schema, settings, empty = false) {
  const control = make("input", { type: "text", maxlength: schema.maxLength });
  const parts = labelled(schema, control, settings);
  const read = () => (empty && control.value === "" ? null : control.value);
  const wrong = () => (schema.pattern && read() !== null && !new RegExp(schema.pattern).test(read()) ? "Give text of plain characters, at least one." : "");
  const show = () => {
    parts.say(wrong());
    parts.back.hidden = equal(read(), parts.first ?? null);
  };
  const set = (value) => {
    control.value = value ?? "";
    show();
  };
  control.addEventListener("input", () => (show(), settings.onchange?.(settings.name)));
  parts.back.addEventListener("click", () => (set(parts.first), settings.onchange?.(settings.name)));
  set(settings.value);
  return { element: parts.element, get: read, set, valid: () => wrong() === "" };
}

function choice(schema, values, settings) {
  const control = make("select", {}, ...values.map((value) => make("option", { value: JSON.stringify(value) }, value === null ? "automatic" : sayChoice(value))));
  const parts = labelled(schema, control, settings);
  const read = () => JSON.parse(control.value);
  const show = () => (parts.back.hidden = equal(read(), parts.first));
  const set = (value) => {
    control.value = JSON.stringify(value ?? null);
    show();
  };
  control.addEventListener("change", () => (show(), settings.onchange?.(settings.name)));
  parts.back.addEventListener("click", () => (set(parts.first), settings.onchange?.(settings.name), control.focus()));
  set(settings.value);
  return { element: parts.element, get: read, set, valid: () => true };
}

const sayChoice = (value) => {
  const said = String(value);
  return /^[a-z]+(-[a-z]+)*$/.test(said) ? said.replaceAll("-", " ") : said;
};

function yesNo(schema, settings) {
  const control = make("input", { type: "checkbox" });
  const parts = labelled(schema, control, settings);
  parts.element.classList.add("pi-f-check");
  const show = () => (parts.back.hidden = equal(control.checked, parts.first));
  const set = (value) => {
    control.checked = Boolean(value);
    show();
  };
  control.addEventListener("change", () => (show(), settings.onchange?.(settings.name)));
  parts.back.addEventListener("click", () => (set(parts.first), settings.onchange?.(settings.name), control.focus()));
  set(settings.value);
  return { element: parts.element, get: () => control.checked, set, valid: () => true };
}

/** A file of the person's. Its value is {path, sha256}: the path as uploaded, or the name of one that was used before. */
function file(schema, settings) {
  const control = make("input", { type: "file", class: "pi-f-hidden-file" });
  const pick = make("button", { type: "button", class: "pi-f-small" }, "Choose a file …");
  const name = make("span", { class: "pi-f-file-name" });
  const parts = labelled(schema, pick, settings, [name, control]);
  parts.back.remove();
  control.tabIndex = -1;
  control.setAttribute("aria-hidden", "true");
  let value = null;
  let failed = "";
  const show = () => {
    name.textContent = value ? value.path.split("/").pop() : "No file yet.";
    parts.say(failed);
  };
  const set = (given) => {
    value = given ?? null;
    failed = "";
    show();
  };
  pick.addEventListener("click", () => control.click());
  control.addEventListener("change", async () => {
    const chosen = control.files[0];
    if (!chosen) return;
    try {
      const { path } = await settings.upload(chosen);
      value = { path, sha256: null };
      failed = "";
      settings.onfile?.(chosen);
    } catch {
      failed = `"${chosen.name}" could not be sent. Try again, or choose a smaller file.`;
    }
    show();
    settings.onchange?.(settings.name);
  });
  set(settings.value);
  return { element: parts.element, get: () => value, set, valid: () => value !== null };
}

// fields together

function fields(schema, settings) {
  const wanted = Object.entries(schema.properties).filter(([name]) => name !== "kind" && !(settings.hidden || []).includes(name));
  const parts = {};
  for (const [name, part] of wanted) {
    const value = settings.value?.[name];
    const onchange = () => settings.onchange?.(name);
    parts[name] = form(part, { ...settings, name, hidden: [], value: value === undefined ? blank(part, settings.defs) : value, onchange, plain: false });
  }
  const rest = {};
  const keep = (value) => {
    for (const name of Object.keys(schema.properties)) {
      if (!(name in parts)) rest[name] = value && name in value ? value[name] : blank(schema.properties[name], settings.defs);
    }
  };
  keep(settings.value);
  const simple = wanted.filter(([, part]) => !part["x-advanced"]).map(([name]) => parts[name].element);
  const expert = wanted.filter(([, part]) => part["x-advanced"]).map(([name]) => parts[name].element);
  const more = expert.length ? make("details", { class: "pi-f-more" }, make("summary", {}, "More settings"), ...expert) : null;
  const legend = settings.plain || !settings.name ? null : make("legend", {}, schema.title || "");
  const element = make(legend ? "fieldset" : "div", { class: "pi-f-fields" }, legend, ...simple, more);
  return {
    element,
    parts,
    put: (name, value) => (parts[name] ? parts[name].set(value) : (rest[name] = value)),
    get: () => Object.fromEntries(Object.keys(schema.properties).map((name) => [name, name in parts ? parts[name].get() : rest[name]])),
    set: (value) => {
      keep(value);
      for (const [name, part] of Object.entries(parts)) part.set(value && name in value ? value[name] : blank(schema.properties[name], settings.defs));
    },
    valid: () => Object.values(parts).every((part) => part.valid()),
  };
}

/** One of several kinds: a choice, and the fields of what was chosen. */
function variants(schema, settings) {
  const mapping = schema.discriminator.mapping;
  const tags = settings.kinds ? settings.kinds.filter((tag) => tag in mapping) : Object.keys(mapping);
  const of = (tag) => ({ $ref: mapping[tag] });
  const begun = (tag) => {
    const first = schema.default;
    return first && first.kind === tag ? structuredClone(first) : blank(of(tag), settings.defs);
  };
  const titles = settings.groups
    ? settings.groups.map((group) => make("optgroup", { label: group.title }, ...group.kinds.filter((k) => tags.includes(k.kind)).map((k) => make("option", { value: k.kind }, k.title))))
    : tags.map((tag) => make("option", { value: tag }, settings.titles?.[tag] || resolved(of(tag), settings.defs).title));
  const control = make("select", {}, ...titles);
  const holder = { title: schema.title || settings.label || "Kind", description: "" };
  const parts = labelled(holder, control, { ...settings, value: undefined });
  parts.back.remove();
  const help = parts.element.querySelector(".pi-f-help");
  const inside = make("div", { class: "pi-f-inside" });
  const element = make("div", { class: "pi-f-variant" }, parts.element, inside);
  let inner = null;
  const draw = (value) => {
    const tag = value?.kind ?? tags[0];
    control.value = tag;
    const whole = resolved(of(tag), settings.defs);
    help.textContent = [schema.description, whole.description].filter(Boolean).join(" ");
    inner = form(of(tag), { ...settings, value, kinds: undefined, groups: undefined, titles: undefined, hidden: settings.hiddenOf?.(tag), plain: true, name: undefined });
    inside.replaceChildren(inner.element);
  };
  control.addEventListener("change", () => (draw(begun(control.value)), settings.onchange?.(settings.name, true)));
  draw(settings.value);
  return {
    element,
    get: () => inner.get(),
    set: (value) => (value && value.kind === control.value ? inner.set(value) : draw(value)),
    valid: () => inner.valid(),
    inner: () => inner,
  };
}

function optional(schema, settings) {
  const { anyOf, ...around } = schema;
  const some = anyOf.filter((part) => part.type !== "null").map((part) => resolved(part, settings.defs));
  const values = some.flatMap((part) => part.enum || ("const" in part ? [part.const] : [undefined]));
  const empty = anyOf.length > some.length;
  if (!values.includes(undefined)) return choice(around, empty ? [null, ...values] : values, settings);
  const part = { ...some[0], ...around };
  if (part.type === "number" || part.type === "integer") return number(part, settings, empty);
  if (part.type === "string") return text(part, settings, empty);
  if (isFile(part)) {
    const inner = file(part, settings);
    return { ...inner, valid: () => true };
  }
  if (part.type === "array") return several(part, settings, empty);
  return given({ ...some[0], title: around.title || some[0].title, description: around.description || some[0].description }, settings);
}

/** Something that may be left out: a box to tick, and its fields. */
function given(schema, settings) {
  const { title, description } = schema;
  const tick = yesNo({ title, description }, { ...settings, value: settings.value !== null, onchange: () => toggled() });
  tick.element.querySelector(".pi-f-reset")?.remove();
  const inside = make("div", { class: "pi-f-inside" });
  let inner = null;
  const draw = (value) => {
    inner = value === null ? null : form(schema, { ...settings, value, plain: true, name: undefined });
    inside.replaceChildren(...(inner ? [inner.element] : []));
  };
  const toggled = () => {
    const { default: first, ...bare } = schema;
    draw(tick.get() ? (first ?? blank(bare, settings.defs)) : null);
    settings.onchange?.(settings.name);
  };
  draw(settings.value);
  return {
    element: make("div", {}, tick.element, inside),
    get: () => (inner ? inner.get() : null),
    set: (value) => (tick.set(value !== null), draw(value)),
    valid: () => !inner || inner.valid(),
  };
}

// several values

function several(schema, settings, empty = false) {
  const item = schema.items ? resolved(schema.items, settings.defs) : (schema.prefixItems || [])[0];
  if (item && (item.type === "number" || item.type === "integer")) return numbers(schema, item, settings, empty);
  return list(schema, settings);
}

/** Numbers in one line, with commas. */
function numbers(schema, item, settings, empty) {
  const control = make("input", { type: "text", inputmode: "text", spellcheck: "false" });
  const hint = { ...schema, description: `${schema.description || ""} Numbers with commas between them.`.trim() };
  const parts = labelled(hint, control, settings);
  const least = schema.prefixItems?.length ?? schema.minItems ?? 0;
  const most = schema.prefixItems?.length ?? schema.maxItems ?? Infinity;
  const read = () => {
    const said = control.value.trim();
    return said === "" ? (empty ? null : []) : said.split(/[,;\s]+/).map(Number);
  };
  const wrong = () => {
    const values = read();
    if (values === null) return "";
    if (values.some((v) => !Number.isFinite(v) || v < item.minimum || v <= item.exclusiveMinimum || v > item.maximum)) return `${item.type === "integer" ? "Give whole numbers" : "Give numbers"}${limits(item)}, with commas between them.`;
    return values.length < least || values.length > most ? `Give ${least === most ? least : `${least} to ${most}`} numbers.` : "";
  };
  const show = () => {
    parts.say(wrong());
    parts.back.hidden = equal(read(), parts.first ?? null);
  };
  const set = (value) => {
    control.value = (value ?? []).join(", ");
    show();
  };
  control.addEventListener("input", () => (show(), settings.onchange?.(settings.name)));
  parts.back.addEventListener("click", () => (set(parts.first), settings.onchange?.(settings.name), control.focus()));
  set(settings.value);
  return { element: parts.element, get: read, set, valid: () => wrong() === "" };
}

/** A list of descriptions that can grow, shrink and change its order. */
function list(schema, settings) {
  const most = schema.maxItems ?? 8;
  const rows = make("ol", { class: "pi-f-list" });
  const add = make("button", { type: "button", class: "pi-f-small" }, "Add one");
  const legend = make("legend", {}, schema.title || "");
  const element = make("fieldset", { class: "pi-f-fields" }, legend, make("div", { class: "pi-f-help" }, schema.description || ""), rows, add);
  let inside = [];
  const changed = () => (draw(), settings.onchange?.(settings.name));
  const move = (from, to) => {
    inside.splice(to, 0, ...inside.splice(from, 1));
    changed();
    rows.children[to]?.querySelector("button")?.focus();
  };
  const draw = () => {
    rows.replaceChildren(
      ...inside.map((part, k) => {
        const act = (sign, label, f, off) => make("button", { type: "button", class: "pi-f-small", "aria-label": `${label} number ${k + 1}`, title: label, disabled: off, onclick: f }, sign);
        const tools = make(
          "div",
          { class: "pi-f-tools" },
          act("↑", "Move up", () => move(k, k - 1), k === 0),
          act("↓", "Move down", () => move(k, k + 1), k === inside.length - 1),
          act("✕", "Remove", () => (inside.splice(k, 1), changed(), add.focus()), inside.length <= (schema.minItems ?? 0)),
        );
        return make("li", {}, tools, part.element);
      }),
    );
    add.disabled = inside.length >= most;
  };
  const one = (value) => form(schema.items, { ...settings, value, name: undefined, label: "Kind", onchange: () => settings.onchange?.(settings.name) });
  const set = (values) => {
    inside = (values ?? []).map(one);
    draw();
  };
  add.addEventListener("click", () => (inside.push(one(undefined)), changed()));
  set(settings.value);
  return { element, get: () => inside.map((part) => part.get()), set, valid: () => inside.every((part) => part.valid()) && inside.length >= (schema.minItems ?? 0) };
}
