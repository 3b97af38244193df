// What stands around the pictures: planes, windows, slice slider with its strip of spread, overlay, cursor.

import { make } from "./api.js";
import { MAPS, colours, labelColour } from "./slices_paint.js";
import { millimetres } from "./slices_panels.js";
import { place } from "./slices_planes.js";
import { TITLES, spoken } from "./slices_look.js";

const OVERLAYS = {
  none: "none",
  spread: "spread",
  imagined: "imagined by the prior",
  difference: "restored − measurement",
  error: "restored − reference",
  labels: "segmentation",
};
const MEANINGS = {
  none: "",
  spread:
    "Where samples disagree. High: do not trust detail. Low does not prove correctness: all samples share the same learned prior.",
  imagined: "How much of the picture the prior added where the measurement said nothing.",
  difference: "What the restoration changed: blue is less, orange is more than was measured.",
  error: "How far the restoration is from the reference: blue is too low, orange is too high.",
  labels: "Labels of the segmentation that was loaded with the volume.",
};

let made = 0;

/** The controls of a look; `update()` brings them in line with it. */
export class Controls {
  constructor(look, root) {
    this.look = look;
    this.root = root;
    this.id = `pi-sl-${++made}`;
    this.bar = make("div", { class: "pi-sl-bar" }, this._planes(), this._images(), this._modes(), this._buttons());
    this.below = make(
      "div",
      { class: "pi-sl-below" },
      this._scroll(),
      this._readout(),
      this._windows(),
      this._overlay(),
      (this.high = make("p", { class: "pi-sl-high" }))
    );
  }

  _radios(legend, name, entries, choose) {
    const radios = entries.map(([value, text, title]) => {
      const input = make("input", { type: "radio", name: `${this.id}-${name}`, value, onchange: () => choose(value) });
      return [input, make("label", { title }, input, make("span", {}, text))];
    });
    const set = make("fieldset", { class: "pi-sl-radios" }, make("legend", {}, legend), ...radios.map(([, l]) => l));
    return { set, radios };
  }

  _planes() {
    const names = [["axial", "Axial"], ["coronal", "Coronal"], ["sagittal", "Sagittal"], ["all", "All three"]];
    this.planes = this._radios("Plane", "plane", names, (value) => this.look.choosePlane(value));
    return this.planes.set;
  }

  _images() {
    this.images = make("div", { class: "pi-sl-group", role: "group", "aria-label": "Images shown" });
    return this.images;
  }

  _modes() {
    const names = [
      ["window", "Window", "Key W: dragging sets width (sideways) and level (up and down)"],
      ["cursor", "Cursor", "Key X: dragging moves the cross in all planes"],
    ];
    this.modes = this._radios("Left drag", "mode", names, (value) => {
      this.look.mode = value;
      this.look.changed();
    });
    return this.modes.set;
  }

  _buttons() {
    const fit = make("button", { type: "button", onclick: () => this.look.fit(), title: "Key 0" }, "Fit");
    const full = make("button", { type: "button", onclick: () => this._full() }, "Full screen");
    return make("div", { class: "pi-sl-group" }, fit, full);
  }

  _full() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.root.requestFullscreen?.().catch(() => {});
  }

  _scroll() {
    this.slider = make("input", { type: "range", id: `${this.id}-slice`, min: 1, step: 1 });
    this.slider.addEventListener("input", () => this.look.goTo(this.slider.valueAsNumber - 1));
    this.strip = make("canvas", { class: "pi-sl-strip", height: 22, "aria-hidden": "true", title: "Mean spread of each slice" });
    this.strip.addEventListener("click", (event) => {
      const share = (event.clientX - this.strip.getBoundingClientRect().left) / this.strip.clientWidth;
      this.look.goTo(Math.floor(share * this.look.planes[this.look.main].count));
    });
    this.caption = make("span", { class: "pi-sl-caption" }, "spread per slice");
    this.number = make("output", { for: this.slider.id });
    return (this.scroll = make(
      "div",
      { class: "pi-sl-scroll" },
      make("label", { for: this.slider.id }, "Slice"),
      make("div", { class: "pi-sl-track" }, this.strip, this.slider),
      this.number,
      this.caption
    ));
  }

  _readout() {
    this.where = make("span", { class: "pi-sl-where", title: "RAS: x to the patient's right, y to the front, z to the head" });
    this.values = make("span", { class: "pi-sl-values" });
    return make("p", { class: "pi-sl-readout" }, make("b", {}, "Cursor "), this.where, " ", this.values);
  }

  _windows() {
    this.presets = make("div", { class: "pi-sl-group", role: "group", "aria-label": "Window presets" });
    const number = (name, text, set) => {
      const input = make("input", { type: "number", id: `${this.id}-${name}`, step: "any", class: "pi-sl-number" });
      input.addEventListener("change", () => Number.isFinite(input.valueAsNumber) && set(input.valueAsNumber));
      return [input, make("label", { for: input.id, title: text }, `${name} `, input)];
    };
    const { look } = this;
    const [width, w] = number("W", "Window width", (value) => look.setWindow(value, look.level));
    const [level, l] = number("L", "Window level (middle)", (value) => look.setWindow(look.width, value));
    Object.assign(this, { widthBox: width, levelBox: level });
    this.units = make("span", { class: "pi-sl-unit" });
    return make("div", { class: "pi-sl-row" }, make("b", {}, "Window"), this.presets, w, l, this.units);
  }

  _overlay() {
    const { look } = this;
    const change = (changes) => {
      Object.assign(look.overlay, changes);
      look.changed();
    };
    const choice = (name, text, onchange) => {
      const select = make("select", { id: `${this.id}-${name}`, onchange: () => onchange(select.value) });
      return [select, make("label", { for: select.id }, `${text} `, select)];
    };
    const [kinds, kindsLabel] = choice("overlay", "Overlay", (name) => change({ name }));
    const [maps, mapsLabel] = choice("map", "Colours", (map) => change({ map }));
    maps.append(...MAPS.map((name) => make("option", { value: name }, name)));
    this.opacity = make("input", { type: "range", id: `${this.id}-opacity`, min: 0, max: 100, step: 5 });
    this.opacity.addEventListener("input", () => change({ opacity: this.opacity.valueAsNumber / 100 }));
    const opacity = make("label", { for: this.opacity.id }, "Opacity ", this.opacity);
    this.most = make("input", { type: "number", id: `${this.id}-most`, step: "any", min: 0, class: "pi-sl-number" });
    this.most.addEventListener("change", () => {
      if (this.most.valueAsNumber > 0) look.highs[look.overlay.name] = this.most.valueAsNumber;
      look.changed();
    });
    this.mostLabel = make("label", { for: this.most.id, title: "The same for all slices" }, "Up to ", this.most);
    const hold = () => {
      look.hidden = true;
      look.changed();
    };
    const release = () => {
      look.hidden = false;
      look.changed();
    };
    const hide = make("button", { type: "button", title: "Key H", onpointerdown: hold, onpointerup: release, onpointerleave: release }, "Hold to hide (H)");
    this.legend = make("canvas", { class: "pi-sl-legend", width: 256, height: 1, "aria-hidden": "true" });
    this.ends = [make("span"), make("span"), make("span")];
    this.colourBar = make("div", { class: "pi-sl-colours", role: "img", "aria-label": "Colour scale" }, this.legend, make("div", {}, ...this.ends));
    this.names = make("div", { class: "pi-sl-names" });
    this.meaning = make("p", { class: "pi-sl-meaning" });
    Object.assign(this, { kinds, maps, mapsLabel });
    this.details = [opacity, mapsLabel, this.mostLabel, hide, this.colourBar, this.names, this.meaning];
    return (this.overlayRow = make("div", { class: "pi-sl-row" }, kindsLabel, ...this.details));
  }

  // in line with the look

  update() {
    const { look } = this;
    const { usable } = look;
    for (const [input, label] of this.planes.radios) {
      input.checked = input.value === look.plane;
      label.hidden = input.value === "all" ? usable.length < 3 : !usable.includes(input.value);
    }
    this.planes.set.hidden = usable.length < 2;
    for (const [input] of this.modes.radios) input.checked = input.value === look.mode;
    this._updateImages();
    this._updateScroll();
    this._updateWindows();
    this._updateOverlay();
    this.readout();
  }

  _updateImages() {
    const { look } = this;
    const names = Object.keys(TITLES).filter((name) => look.volumes[name]);
    refill(this.images, names.join(), () =>
      names.length < 2 ? [] : [make("b", {}, "Show"), ...names.map((name) => this._toggle(name, TITLES[name]))]
    );
    for (const button of this.images.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(look.shown.includes(button.dataset.name)));
  }

  _toggle(name, text) {
    const { look } = this;
    const flip = () => {
      const others = look.shown.filter((one) => one !== name);
      if (!others.length) return;
      look.shown = Object.keys(TITLES).filter((one) =>
        one === name ? others.length === look.shown.length : others.includes(one)
      );
      look.changed();
    };
    return make("button", { type: "button", "data-name": name, onclick: flip }, text);
  }

  _updateScroll() {
    const { look } = this;
    const plane = look.planes[look.main];
    this.scroll.hidden = plane.count < 2;
    this.slider.max = plane.count;
    this.slider.value = look.slice + 1;
    const mm = millimetres(place(look.first.affine, look.at)[plane.depth]);
    const text = `${look.main} ${look.slice + 1} of ${plane.count}, ${"xyz"[plane.depth]} ${mm} mm`;
    this.slider.setAttribute("aria-valuetext", text);
    this.number.textContent = `${look.slice + 1} / ${plane.count}`;
    this._updateStrip(plane);
  }

  _updateStrip(plane) {
    const { look, strip } = this;
    const spread = look.volumes.spread;
    const high = spread && look.high("spread");
    const key = spread ? `${plane.normal} ${look.overlay.map} ${high} ${strip.clientWidth}` : "";
    strip.hidden = this.caption.hidden = this.high.hidden = !spread || plane.count < 2;
    if (!spread || key === this.stripKey) return;
    this.stripKey = key;
    const means = spread.means(plane.normal);
    const most = Math.max(...means) || 1;
    const width = (strip.width = Math.max(plane.count, Math.round(strip.clientWidth) || 300));
    const context = strip.getContext("2d");
    const scale = colours(look.overlay.map);
    means.forEach((mean, n) => {
      const [left, right] = [Math.floor((n * width) / means.length), Math.floor(((n + 1) * width) / means.length)];
      const height = Math.max(2, Math.round((22 * mean) / most));
      context.fillStyle = `rgb(${scale[Math.round(255 * Math.min(1, mean / high))].join()})`;
      context.fillRect(left, 22 - height, Math.max(1, right - left - (right - left > 4 ? 1 : 0)), height);
    });
    const highest = outstanding(means);
    this.high.replaceChildren(
      ...(highest.length
        ? ["Slices with high spread: ", ...highest.flatMap((n, k) => [k ? " " : "", this._go(n)]), " (click to go)"]
        : ["No slice stands out by its spread."])
    );
  }

  _go(slice) {
    return make("button", { type: "button", onclick: () => this.look.goTo(slice) }, String(slice + 1));
  }

  _updateWindows() {
    const { look } = this;
    const { presets } = look;
    refill(this.presets, look.unit, () =>
      presets.map(({ key, name, width, level }) =>
        make(
          "button",
          { type: "button", "data-preset": key, title: `Key ${key}`, onclick: () => look.preset(key) },
          make("kbd", {}, key),
          ` ${name}`,
          width ? make("small", {}, ` ${width}/${level}`.replace("-", "−")) : null
        )
      )
    );
    for (const [n, button] of [...this.presets.children].entries()) {
      const { width, level } = presets[n];
      button.setAttribute("aria-pressed", String(width === look.width && level === look.level));
    }
    if (document.activeElement !== this.widthBox) this.widthBox.value = look.width;
    if (document.activeElement !== this.levelBox) this.levelBox.value = look.level;
    this.units.textContent = look.unit;
  }

  _updateOverlay() {
    const { look } = this;
    const { overlays, overlay, unit } = look;
    this.overlayRow.hidden = overlays.length < 2;
    refill(this.kinds, overlays.join(), () => overlays.map((name) => make("option", { value: name }, OVERLAYS[name])));
    this.kinds.value = overlay.name;
    this.opacity.value = 100 * overlay.opacity;
    this.maps.value = overlay.map;
    const { name } = overlay;
    const there = name !== "none" && (name === "labels" || look.pair(name) || look.volumes[name]);
    for (const part of this.details) part.hidden = !there;
    if (!there) return;
    this.meaning.textContent = MEANINGS[name];
    const differs = Boolean(look.pair(name));
    const scaled = name !== "labels";
    this.mapsLabel.hidden = differs || !scaled;
    this.mostLabel.hidden = this.colourBar.hidden = !scaled;
    this.names.hidden = scaled;
    if (!scaled) return this._updateNames();
    const high = look.high(name);
    if (document.activeElement !== this.most) this.most.value = high;
    const map = differs ? "diverging" : overlay.map;
    if (this.legend.dataset.map !== map) {
      this.legend.dataset.map = map;
      const image = new ImageData(256, 1);
      colours(map).forEach((colour, n) => image.data.set([...colour, 255], 4 * n));
      this.legend.getContext("2d").putImageData(image, 0, 0);
    }
    const ends = (differs ? [-high, 0, high] : [0, high / 2, high]).map((end) => signed(Number(end.toPrecision(3))));
    ends.forEach((end, n) => (this.ends[n].textContent = n === 2 ? `${end} ${unit}` : end));
    this.colourBar.setAttribute("aria-label", `Colours of the overlay from ${ends[0]} to ${ends[2]} ${unit}`);
  }

  _updateNames() {
    const { labels } = this.look.volumes;
    refill(this.names, labels.view.url, () => {
      const found = [];
      labels.counts.forEach((count, n) => {
        const label = Math.round(labels.slope * (n - 32768) + labels.intercept);
        if (count && label > 0) found.push(label);
      });
      return found.slice(0, 20).map((label) =>
        make("span", {}, make("i", { style: `background: rgb(${labelColour(label).join()})` }), ` ${label}`)
      );
    });
  }

  /** What is under the mouse, else under the cross. */
  readout() {
    const { look } = this;
    const at = look.hover?.voxel || look.at;
    const mm = place(look.first.affine, at).map(millimetres);
    this.where.textContent = `x ${mm[0]}  y ${mm[1]}  z ${mm[2]} mm`;
    const { spread, imagined, labels } = look.volumes;
    const texts = Object.keys(TITLES)
      .filter((name) => look.volumes[name])
      .map((name) => {
        const value = spoken(look.volumes[name].value(at), look.unit, look.width);
        const wide = name === "mean" && spread ? ` ± ${spoken(spread.value(at), look.unit, look.width)}` : "";
        const whose = Object.keys(TITLES).some((other) => other !== name && look.volumes[other]);
        return `${whose ? TITLES[name].toLowerCase() : "value"} ${value}${wide} ${look.unit}`;
      });
    if (imagined) texts.push(`imagined ${spoken(imagined.value(at), look.unit, look.width)} ${look.unit}`);
    if (labels) texts.push(`label ${Math.round(labels.value(at))}`);
    this.values.textContent = texts.join(" · ");
  }
}

/** Slices whose mean lies more than two robust standard deviations above the middle one, at most six of the highest. */
export function outstanding(means) {
  const middle = median(means);
  const deviation = 1.4826 * median(means.map((mean) => Math.abs(mean - middle)));
  const found = means
    .map((mean, n) => [mean, n])
    .filter(([mean]) => mean > middle + 2 * deviation && mean > 1.05 * middle)
    .sort(([a], [b]) => b - a)
    .slice(0, 6);
  return found.map(([, n]) => n).sort((a, b) => a - b);
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

/** A number with a proper minus. */
function signed(value) {
  return String(value).replace("-", "−");
}

/** New children when what they depend on has changed. */
function refill(parent, key, make_) {
  if (parent.dataset.key === key) return;
  parent.dataset.key = key;
  parent.replaceChildren(...make_());
}
