// Step 2 of Restore: what is wrong with the picture. See ProblemForm in app/gui/form.py for the props.

import { make, style } from "./api.js";
import { blank, equal, form, page, resolved } from "./form.js";
import { drawKernel, drawKernelFile } from "./form_kernel.js";

const KERNELS = ["gaussian", "disk", "line", "motion", "file", "oriented-gaussian", "airy", "zernike"];
const KERNEL_TITLES = {
  gaussian: "Soft all over (Gaussian)",
  disk: "Out of focus (disk)",
  line: "Moved along a straight line",
  motion: "Camera shake, path from a seed",
  file: "A kernel of your own, from a file",
};
// the side of a kernel that holds the blur; others are given by the person
const SIDES = {
  gaussian: (k) => 2 * Math.ceil(4 * k.std) + 1,
  disk: (k) => 2 * Math.ceil(k.radius) + 3,
  line: (k) => 2 * Math.ceil(k.length / 2) + 3,
};
const SOURCES = [
  ["paint", "I paint it, or load a mask", "Brush, rectangle, mask file or all pixels of one value, in the picture above."],
  ["pattern", "A regular or random pattern", "Lines, boxes, dropout: known without painting."],
];

/** The widget. */
export function mount(element, g) {
  style("form");
  const { schema, cards } = g.props;
  const defs = schema.$defs;
  const operatorSchema = (kind) => ({ $ref: resolved(schema.operator, defs).discriminator.mapping[kind] });
  const state = { problem: null, source: "paint", form: null, kernelFile: null, touched: false, meant: false, asked: null, kept: null };

  // what can be wrong
  const radio = (name, value, title, help) => {
    const input = make("input", { type: "radio", name, value });
    return { input, label: make("label", { class: "pi-f-card" }, input, make("span", {}, make("strong", {}, title), make("small", {}, help))) };
  };
  const group = `pi-problem-${Math.random().toString(36).slice(2)}`;
  const choices = cards.map((card) => ({ card, ...radio(group, card.id, card.title, card.help) }));
  for (const { input, card } of choices) input.addEventListener("change", () => (choose(card.id), changed()));
  const status = make("p", { class: "pi-f-status", role: "status" });
  const suggest = make("button", { type: "button", class: "pi-f-small", onclick: () => wish("all") }, "Suggest");
  const detail = make("div", { class: "pi-f-detail" });

  // noise
  const noise = form(schema.noise, {
    defs,
    sliders: true,
    value: { kind: "gaussian", sigma: 0.02 },
    titles: { gaussian: "Even grain (Gaussian): the usual choice" },
    onchange: () => ((state.touched = true), changed()),
  });
  const estimate = make("button", { type: "button", class: "pi-f-small", onclick: () => wish("noise") }, "Estimate");
  const kind = noise.element.querySelector(".pi-f-field");
  kind.querySelector("label").textContent = "Kind of noise";
  const grain = make("p", { class: "pi-f-help" });
  const noiseBox = make(
    "fieldset",
    { class: "pi-f-fields pi-f-noise", hidden: true },
    make("legend", {}, "Noise"),
    make("div", { class: "pi-f-row" }, estimate, grain),
    noise.element,
  );
  // the choice of another kind is for few
  const rare = make("details", { class: "pi-f-more" }, make("summary", {}, "Another kind of noise"), kind);
  noiseBox.append(rare);
  const clean = make("input", { type: "checkbox", id: `${group}-clean`, "aria-describedby": `${group}-clean-help` });
  clean.addEventListener("change", () => changed());
  const trial = make(
    "details",
    { class: "pi-f-more", hidden: true },
    make("summary", {}, "Only trying it out?"),
    make("div", { class: "pi-f-field pi-f-check" }, make("label", { for: clean.id }, "My picture is clean: damage it like this first"), make("div", { class: "pi-f-control" }, clean)),
    make("div", { class: "pi-f-help", id: `${group}-clean-help` }, "The picture is degraded as described, restored, and compared with what it was."),
  );

  const root = make(
    "div",
    { class: "pi-problem", "data-state": "empty" },
    make("fieldset", { class: "pi-f-cards" }, make("legend", { class: "pi-f-sr" }, "What is wrong with the picture?"), ...choices.map((c) => c.label)),
    make("div", { class: "pi-f-row" }, suggest, status),
    detail,
    noiseBox,
    trial,
  );
  element.replaceChildren(root);

  // what belongs to the chosen card

  function choose(id, operator = null, source = null) {
    state.problem = id;
    state.form = state.kernelFile = state.kept = null;
    for (const { input, card, label } of choices) {
      input.checked = card.id === id;
      label.classList.toggle("pi-f-chosen", card.id === id);
    }
    noiseBox.hidden = trial.hidden = id === null;
    const card = cards.find((c) => c.id === id);
    const parts = id === null ? [] : (({ missing, blur, small, phase, other })[id] || plain)(operator, card, source);
    detail.replaceChildren(...(parts.length ? [make("fieldset", { class: "pi-f-fields" }, make("legend", {}, card.title.replace(" …", "")), ...parts)] : []));
  }

  function draw(what, settings) {
    state.form = form(what, { defs, sliders: true, upload: g.upload, onchange: changed, ...settings });
    return state.form.element;
  }

  function plain(operator, card) {
    const bare = Object.keys(resolved(operatorSchema(card.kinds[0]), defs).properties).length === 1;
    const drawn = draw(operatorSchema(card.kinds[0]), { value: operator ?? undefined });
    return bare ? [] : [drawn];
  }

  function missing(operator, card, source) {
    state.source = operator && operator.mask?.kind !== "file" ? "pattern" : source === "pattern" ? "pattern" : "paint";
    state.kept = operator;
    const inside = make("div", {});
    const show = () => {
      state.form = null;
      if (state.source === "pattern") {
        const kinds = Object.keys(resolved(operatorSchema("inpainting"), defs).properties.mask.discriminator.mapping).filter((k) => k !== "file");
        const mask = resolved(operatorSchema("inpainting"), defs).properties.mask;
        const value = state.kept?.mask && state.kept.mask.kind !== "file" ? state.kept.mask : { ...blank({ $ref: mask.discriminator.mapping.lines }, defs) };
        inside.replaceChildren(draw({ ...mask, title: "Pattern" }, { value, kinds, sliders: false }));
      } else {
        inside.replaceChildren(...(state.kept?.mask?.kind === "file" ? [make("p", { class: "pi-f-help" }, "That run had a mask of its own: load it again above, or paint a new one.")] : []));
      }
    };
    const radios = SOURCES.map(([id, title, help]) => {
      const { input, label } = radio(`${group}-source`, id, title, help);
      input.checked = id === state.source;
      label.classList.toggle("pi-f-chosen", input.checked);
      input.addEventListener("change", () => {
        state.source = id;
        for (const other of label.parentElement.children) other.classList.toggle("pi-f-chosen", other === label);
        show();
        changed();
      });
      return label;
    });
    show();
    return [make("div", { class: "pi-f-sources", role: "radiogroup", "aria-label": "Which pixels are missing" }, ...radios), inside];
  }

  function blur(operator) {
    const whole = resolved(operatorSchema("blur"), defs);
    const value = operator ?? blank(operatorSchema("blur"), defs);
    const view = make("canvas", { class: "pi-f-kernel", width: 96, height: 96, role: "img" });
    const caption = make("figcaption", { class: "pi-f-help" });
    state.view = { view, caption };
    const side = () => {
      const inner = kernel.inner();
      const now = kernel.get();
      if (SIDES[now.kind] && inner.valid()) inner.put("size", Math.min(255, Math.max(3, SIDES[now.kind](now))));
    };
    const kernel = form(
      { ...whole.properties.kernel, title: "What kind of blur", description: "" },
      {
        defs,
        sliders: true,
        upload: g.upload,
        kinds: KERNELS,
        titles: KERNEL_TITLES,
        hiddenOf: (tag) => (tag in SIDES ? ["size"] : []),
        value: value.kernel,
        onfile: (file) => ((state.kernelFile = file), show()),
        onchange: () => {
          side();
          changed();
          show();
        },
      },
    );
    if (operator === null) side();
    const boundary = form(whole.properties.boundary, { defs, value: value.boundary, onchange: changed });
    const show = () => {
      if (kernel.get().kind === "file") drawKernelFile(view, caption, state.kernelFile);
      else drawKernel(view, caption, g.props.advice?.kernel ?? null);
    };
    state.form = {
      get: () => ({ kind: "blur", kernel: kernel.get(), boundary: boundary.get() }),
      valid: () => kernel.valid() && boundary.valid(),
      show,
    };
    show();
    return [make("div", { class: "pi-f-beside" }, kernel.element, make("figure", {}, view, caption)), make("details", { class: "pi-f-more" }, make("summary", {}, "More settings"), boundary.element)];
  }

  function small(operator) {
    const text = make("p", { class: "pi-f-help" });
    const drawn = draw(operatorSchema("downsample"), { value: operator ?? undefined });
    state.form.show = () => {
      const { picture } = g.props;
      const times = state.form.get().factor;
      text.textContent = picture && times ? `${picture.width} × ${picture.height} becomes ${picture.width * times} × ${picture.height * times}.` : "";
    };
    state.form.show();
    return [drawn, text];
  }

  function phase(operator, card) {
    return [draw({ ...schema.operator, title: "What was measured" }, { kinds: card.kinds, value: operator ?? blank(operatorSchema(card.kinds[0]), defs) })];
  }

  function other(operator) {
    return [draw({ ...schema.operator, title: "What happened" }, { groups: g.props.groups, value: operator ?? blank(operatorSchema("unknown-width"), defs) })];
  }

  // values

  function value() {
    if (state.problem === null) return { problem: null };
    const paint = state.problem === "missing" && state.source === "paint";
    let operator = state.form ? state.form.get() : null;
    if (state.problem === "missing") operator = state.source === "pattern" ? { kind: "inpainting", mask: operator } : paint && state.kept?.mask?.kind === "file" ? state.kept : null;
    return { problem: state.problem, source: state.problem === "missing" ? state.source : "paint", paint, operator, noise: noise.get(), truth: clean.checked };
  }

  function valid() {
    return (!state.form || state.form.valid()) && noise.valid();
  }

  let timer = 0;
  function changed() {
    const now = value();
    g.props.value = state.said = now;
    state.form?.show?.();
    root.dataset.state = state.problem === null ? "empty" : valid() ? "ready" : "invalid";
    root.dataset.problem = state.problem ?? "";
    const { sigma, kind: law } = now.noise || {};
    estimate.hidden = law !== undefined && law !== "gaussian";
    grain.textContent = law === "gaussian" && sigma > 0 ? `${sayGrain(sigma)} (${(100 * sigma).toPrecision(2)} % of the step from black to white).` : "";
    page.problem = now;
    window.dispatchEvent(new CustomEvent("preimage:problem", { detail: now }));
    clearTimeout(timer);
    timer = setTimeout(() => g.trigger("change"), 150);
  }

  function put(given) {
    choose(given.problem, given.operator ?? null, given.source);
    if (given.noise) {
      noise.set(given.noise);
      // these settings are meant, also for the picture that comes after them
      state.touched = state.meant = true;
    }
    clean.checked = Boolean(given.truth);
    changed();
  }

  // guesses
  function wish(what) {
    if (!g.props.picture) {
      status.textContent = "Step 1 first: add an image, or try the example.";
      return;
    }
    state.asked = what;
    status.textContent = "Looking at the picture …";
    root.dataset.guess = "asked";
    g.trigger("suggest");
  }

  // what Python put in may still wait for its turn when something else comes with it: never write over it unread
  function unread() {
    const given = g.props.value;
    if (given?.problem && !equal(given, state.said)) put(given);
  }

  function heard() {
    const guess = g.props.guess;
    if (!guess) return;
    unread();
    const { asked } = state;
    state.asked = null;
    if (guess.sigma && (asked || !state.touched) && noise.get().kind === "gaussian") noise.set({ kind: "gaussian", sigma: guess.sigma });
    if (asked === "all" && guess.value) put(guess.value);
    else if (!asked && guess.missing && state.problem === null) choose("missing");
    status.textContent = asked || guess.missing ? guess.sentence : "";
    changed();
    root.dataset.guess = "ready";
  }

  function fromRecipe({ recipe, options }) {
    if (!recipe?.operator) return;
    const card = cards.find((c) => c.kinds.includes(recipe.operator.kind)) || cards[cards.length - 1];
    state.touched = true;
    put({ problem: card.id, operator: recipe.operator, noise: recipe.noise ?? { kind: "gaussian", sigma: 0.025 }, truth: options?.truth });
    status.textContent = "";
  }

  // a widget in a tab that was never opened missed what was sent to it; the quality's form hears the same event
  window.addEventListener("preimage:settings", (event) => fromRecipe(event.detail));
  g.watch(["picture"], () => {
    state.form?.show?.();
    if (!state.meant) state.touched = false;
    if (g.props.picture) state.meant = false;
    status.textContent = "";
  });
  g.watch(["guess"], heard);
  g.watch(["advice"], () => state.form?.show?.());
  g.watch(["value"], unread);
  if (g.props.value?.problem) put(g.props.value);
  else {
    choose(null);
    changed();
  }
  const missed = window.preimage?.pending?.["preimage:settings"];
  if (missed) fromRecipe(missed);
  root.dataset.ready = "true";
}

const sayGrain = (sigma) => (sigma < 0.008 ? "Hardly any noise" : sigma < 0.02 ? "A little noise" : sigma < 0.06 ? "Clearly visible noise" : sigma < 0.15 ? "Strong noise" : "Very strong noise");
