// Step 3 of Restore: how good, how many, and for experts by what method. See QualityForm in app/gui/form.py.

import { ask, duration, make, style } from "./api.js";
import { drawSeed, equal, form, page, resolved } from "./form.js";

const NAMES = [
  ["quick", "Quick look", "Few steps at full size: is this going the right way?"],
  ["balanced", "Balanced", "The usual choice."],
  ["best", "Best", "Many more steps, for the last bit of detail."],
];
const PRECISIONS = { auto: "automatic", fp32: "fp32: bytes repeat on another machine" };
// seconds of a pullback through the network, in those of a call
const PULLBACK = 1.2;

/** The widget. */
export function mount(element, g) {
  style("form");
  const { schema, table, models, precisions, outputs } = g.props;
  const defs = schema.$defs;
  const mapping = schema.method.discriminator.mapping;
  const state = { problem: page.problem, speed: null, form: null, method: null, seeds: null, drawn: null };
  const group = `pi-quality-${Math.random().toString(36).slice(2)}`;

  // the three qualities, and one's own settings
  const card = (value, title, help) => {
    const input = make("input", { type: "radio", name: group, value, onchange: () => (pick(value), changed()) });
    const cost = make("small", { class: "pi-f-cost" });
    return { value, input, cost, label: make("label", { class: "pi-f-card" }, input, make("span", {}, make("strong", {}, title), make("small", {}, help), cost)) };
  };
  const cards = NAMES.map((name) => card(...name));
  const own = card("custom", "Own settings", "The method chosen under Advanced.");
  own.label.hidden = true;
  const samples = field(
    { title: "Samples", type: "integer", minimum: 1, maximum: 64, default: 1, description: "Several answers that fit the data; where they differ, the picture is uncertain. Four give a spread map." },
    1,
    () => (state.seeds = null),
  );
  const seed = field(
    { title: "Seed", type: "integer", minimum: 0, exclusiveMaximum: 2 ** 53, description: "The same seed gives the same result." },
    drawSeed(),
    () => (state.seeds = null),
    "seed",
  );
  seed.element.querySelector(".pi-f-reset").remove(); // a seed has no default
  const listed = make("p", { class: "pi-f-help" });

  // advanced
  const select = make("select", { id: `${group}-method`, onchange: () => (begin(select.value), changed()) });
  const why = make("ul", { class: "pi-f-reasons" });
  const reason = make("div", { class: "pi-f-help", id: `${group}-why` });
  select.setAttribute("aria-describedby", reason.id);
  const inside = make("div", { class: "pi-f-inside" });
  const options = new Map();
  for (const title of [...new Set(table.methods.map((method) => method.group))]) {
    const members = table.methods.filter((method) => method.group === title);
    for (const method of members) options.set(method.kind, make("option", { value: method.kind }, method.title));
    select.append(make("optgroup", { label: title }, ...members.map((method) => options.get(method.kind))));
  }
  const pickOf = (id, title, help, entries) => {
    const box = make("select", { id: `${group}-${id}`, "aria-describedby": `${group}-${id}-help`, onchange: () => changed() }, ...entries.map(([value, said]) => make("option", { value: JSON.stringify(value) }, said)));
    const row = make("div", { class: "pi-f-field" }, make("label", { for: box.id }, title), make("div", { class: "pi-f-control" }, box), make("div", { class: "pi-f-help", id: `${group}-${id}-help` }, help));
    return { row, get: () => JSON.parse(box.value), box, set: (value) => choose(box, value) };
  };
  const model = pickOf("model", "Prior", "What the program knows of pictures.", [[null, "automatic"], ...models.map((m) => [m.model, m.title])]);
  const precision = pickOf("precision", "Precision", "Of the network; lower ones are faster where the machine has them.", precisions.map((p) => [p, PRECISIONS[p] ?? p]));
  const output = pickOf("output", "Save as", "Automatic keeps what suits your file.", [[null, "automatic"], ...outputs.map((kind) => [kind, kind.toUpperCase()])]);
  const advanced = make(
    "details",
    { class: "pi-f-more pi-f-advanced" },
    make("summary", {}, "Advanced: method, prior, precision"),
    make("div", { class: "pi-f-field" }, make("label", { for: select.id }, "Method"), make("div", { class: "pi-f-control" }, select), reason),
    inside,
    make("details", { class: "pi-f-more" }, make("summary", {}, "Why some methods are greyed"), why),
    model.row,
    precision.row,
    output.row,
  );
  const status = make("p", { class: "pi-f-status", role: "status" });
  const root = make(
    "div",
    { class: "pi-quality", "data-state": "ready" },
    make("fieldset", { class: "pi-f-cards pi-f-three" }, make("legend", { class: "pi-f-sr" }, "Quality"), ...cards.map((c) => c.label), own.label),
    make("div", { class: "pi-f-pair" }, samples.element, seed.element),
    listed,
    advanced,
    status,
  );
  element.replaceChildren(root);

  function field(what, value, touched, name) {
    return form(what, { defs, value, name, onchange: () => (touched(), changed()) });
  }

  // what goes together

  function offered() {
    const { operator, noise } = state.problem ?? {};
    const exact = g.props.advice?.offers;
    const kind = state.problem?.problem === "missing" ? "inpainting" : operator?.kind;
    const given = exact && g.props.advice.kind === kind ? exact : [...(table.offers.operator[kind] ?? []), ...(table.offers.noise[noise?.kind ?? "gaussian"] ?? [])];
    return { kind, all: new Set([...given, ...(table.offers.model[(model.get() ?? { kind: "trained" }).kind] ?? [])]) };
  }

  /** What a quality stands for at the present noise; as `Choice.at` of app/gui/quality.py. */
  function settingsOf(choice) {
    const { noise } = state.problem ?? {};
    if (!choice.follows || noise?.kind !== "gaussian" || !(noise.sigma > 0)) return choice.settings;
    const [low, high] = choice.bounds;
    const last = Number(Math.min(high, Math.max(low, choice.follows * noise.sigma)).toPrecision(2));
    return { ...choice.settings, schedule: { ...choice.settings.schedule, sigma_min: last } };
  }

  const lacking = (needs, all) => needs.filter((need) => !all.has(need));

  function row() {
    const { kind, all } = offered();
    const mask = state.problem?.operator?.mask?.kind ?? "file"; // a painted one is a file
    const name = kind === "inpainting" && table.holes.includes(mask) ? "holes" : kind;
    return kind ? table.rows.find((r) => (!r.kinds.length || r.kinds.includes(name)) && !lacking(r.needs, all).length) : null;
  }

  /** The settings of a method that go with the problem, or the first ones with the reason why none do. */
  function begun(method) {
    const { kind, all } = offered();
    if (!kind) return { beginning: method.beginnings[0], reason: "" };
    const fit = method.beginnings.find((b) => !lacking(b.needs, all).length);
    const reason = fit ? "" : lacking(method.beginnings[0].needs, all).map((need) => table.needs[need]).join(" ");
    return { beginning: fit ?? method.beginnings[0], reason };
  }

  function grey() {
    const reasons = new Map();
    for (const method of table.methods) {
      const { reason: because } = begun(method);
      const option = options.get(method.kind);
      option.disabled = because !== "";
      option.textContent = because ? `${method.title} (not here)` : method.title;
      option.title = because;
      if (because) reasons.set(because, [...(reasons.get(because) ?? []), method]);
    }
    const said = [...reasons].map(([because, methods]) =>
      make("li", { "data-kinds": methods.map((m) => m.kind).join(" ") }, `${because} `, make("strong", {}, `Not here: ${methods.map((m) => m.title).join(", ")}.`)),
    );
    why.replaceChildren(...(said.length ? said : [make("li", {}, "All methods go with this problem.")]));
  }

  // choosing

  function pick(value) {
    const custom = value === "custom";
    own.label.hidden = own.label.hidden && !custom;
    for (const c of [...cards, own]) {
      c.input.checked = c.value === value;
      c.label.classList.toggle("pi-f-chosen", c.value === value);
    }
    root.dataset.quality = value;
    state.quality = value;
    if (!custom) {
      const three = row();
      if (three) showMethod(settingsOf(three[value]));
    }
  }

  function begin(kind) {
    showMethod(begun(table.methods.find((method) => method.kind === kind)).beginning.settings);
    pick("custom");
  }

  function showMethod(settings) {
    if (state.form && equal(state.form.get(), settings)) return;
    select.value = settings.kind;
    state.form = form({ $ref: mapping[settings.kind] }, {
      defs,
      value: structuredClone(settings),
      plain: true,
      onchange: () => (pick("custom"), changed()),
    });
    inside.replaceChildren(state.form.element);
  }

  // what it costs

  function seconds(calls, vjps) {
    const { picture } = g.props;
    if (!state.speed?.seconds_per_call_megapixel || !picture) return null;
    const operator = state.problem?.operator;
    // a small picture becomes a large one, and that is what the network sees
    const times = operator && state.problem.problem === "small" ? (operator.factor ?? 1) ** 2 : 1;
    const megapixels = (picture.width * picture.height * times) / 1e6;
    return (calls + PULLBACK * vjps) * megapixels * state.speed.seconds_per_call_megapixel;
  }

  function sayCost(calls, vjps, count) {
    if (!calls) return "No network: seconds.";
    const time = seconds(calls, vjps);
    const steps = `${calls} network calls${count > 1 ? ` × ${count} samples` : ""}`;
    const device = (state.speed?.device ?? "").split(",")[0];
    return time === null ? steps : `About ${duration(Math.max(1, time * count))}${device ? `, ${device}` : ""}`;
  }

  function costs() {
    const three = row();
    const count = samples.get() ?? 1;
    for (const c of cards) {
      const of = three?.[c.value];
      c.input.disabled = Boolean(state.problem?.problem) && !three;
      c.cost.textContent = of && state.problem?.problem ? sayCost(of.calls, of.vjps, count) : "";
      c.cost.title = of ? `${of.title}, ${of.calls} network calls` : "";
    }
    const exact = g.props.advice;
    own.cost.textContent = state.quality === "custom" && exact?.calls !== null && exact?.calls !== undefined ? sayCost(exact.calls, exact.vjps, count) : "";
  }

  // values

  function value() {
    return {
      quality: state.quality,
      method: state.quality === "custom" ? state.form?.get() ?? null : null,
      model: model.get(),
      seed: seed.get(),
      samples: samples.get(),
      seeds: state.seeds,
      precision: precision.get(),
      output: output.get(),
    };
  }

  let timer = 0;
  function changed() {
    grey();
    const three = row();
    if (state.quality !== "custom" && three) showMethod(settingsOf(three[state.quality]));
    const method = table.methods.find((m) => m.kind === select.value);
    const impossible = method ? begun(method).reason : "";
    reason.textContent = impossible || resolved({ $ref: mapping[select.value] }, defs).about || "";
    costs();
    listed.textContent = state.seeds ? `Seeds of that run: ${state.seeds.join(", ")}.` : "";
    const usable = three || state.quality === "custom" || !state.problem?.problem;
    status.textContent = usable ? g.props.advice?.refusal && state.quality === "custom" ? g.props.advice.refusal : "" : "No ready-made quality suits this problem and noise. Choose a method under Advanced.";
    const valid = seed.valid() && samples.valid() && (state.quality !== "custom" || (state.form?.valid() && !impossible)) && usable;
    root.dataset.state = valid ? "ready" : "invalid";
    g.props.value = state.said = value();
    clearTimeout(timer);
    timer = setTimeout(() => g.trigger("change"), 150);
  }

  function put(given) {
    seed.set(given.seed ?? drawSeed());
    samples.set(given.samples ?? 1);
    state.seeds = given.seeds ?? null;
    model.set(given.model ?? null);
    precision.set(given.precision ?? "auto");
    output.set(given.output ?? null);
    if (given.method) showMethod(given.method);
    pick(given.quality ?? "balanced");
    changed();
  }

  function fromRecipe({ recipe, options }) {
    if (!recipe?.method) return;
    const seeds = recipe.seeds ?? [0];
    state.problem = { problem: "?", operator: recipe.operator, noise: recipe.noise };
    const automatic = recipe.model === undefined || equal(recipe.model, { kind: "trained", name: "photo" }) || recipe.model.kind === "none";
    model.set(automatic ? null : recipe.model);
    const three = row();
    const same = three && NAMES.map(([name]) => name).find((name) => equal(settingsOf(three[name]), recipe.method));
    const running = seeds.length <= 64 && seeds.every((s, k) => s === seeds[0] + k);
    put({
      quality: same ?? "custom",
      method: recipe.method,
      model: automatic ? null : recipe.model,
      seed: seeds[0],
      samples: Math.min(64, seeds.length),
      seeds: running ? null : seeds,
      precision: options?.precision,
      output: options?.output_types?.[0],
    });
  }

  // what Python put in may still wait for its turn here when the other form speaks: never write over it unread
  const unread = () => {
    const given = g.props.value;
    const fresh = Boolean(given?.quality) && !equal(given, state.said);
    if (fresh) put(given);
    return fresh;
  };
  window.addEventListener("preimage:problem", (event) => {
    state.problem = event.detail;
    if (!unread()) changed();
  });
  window.addEventListener("preimage:settings", (event) => fromRecipe(event.detail));
  g.watch(["value"], unread);
  g.watch(["advice"], () => changed.quiet());
  g.watch(["picture"], costs);
  // what Python says changes what is shown, never the value: no answer to an answer
  changed.quiet = () => {
    grey();
    costs();
    status.textContent = g.props.advice?.refusal && state.quality === "custom" ? g.props.advice.refusal : status.textContent;
  };
  put(g.props.value?.quality ? g.props.value : {});
  const missed = window.preimage?.pending?.["preimage:settings"];
  if (missed) fromRecipe(missed);
  root.dataset.ready = "true";
  hurry();

  // the worker measures when it starts: until then there is no speed yet
  function hurry(tries = 0) {
    ask("api/v1/speed")
      .then((speed) => {
        state.speed = speed;
        costs();
        if (speed.seconds_per_call_megapixel) root.dataset.speed = "true";
        else if (tries < 60) setTimeout(hurry, 2000, tries + 1);
      })
      .catch((error) => error.lost && tries < 60 && setTimeout(hurry, 5000, tries + 1));
  }
}

/** Choose a value of a list; one that is not there is added under its kind. */
function choose(box, value) {
  const wanted = [...box.options].find((option) => equal(JSON.parse(option.value), value));
  if (wanted) wanted.selected = true;
  else box.append(make("option", { value: JSON.stringify(value), selected: true }, value?.name ?? value?.kind ?? String(value)));
}
