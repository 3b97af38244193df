// The Help page.

import { at, make, style } from "./api.js";
import { copy } from "./clip.js";
import { keysOn, keyTable } from "./keys.js";
import { LIMITS, READING, STEPS, snippets } from "./help_text.js";

/** Fill the element; props as `HelpPage` says. */
export function mount(element, g) {
  style("keys");
  style("help");
  const note = make("p", { role: "status", class: "pi-help-note" });
  const say = (text) => (note.textContent = text);
  const paragraphs = (texts) => texts.map((text) => make("p", {}, text));
  const section = (id, title, ...children) =>
    make("section", { "aria-labelledby": `pi-help-${id}` }, make("h2", { id: `pi-help-${id}`, tabindex: "-1" }, title), ...children);
  const sections = [
    ["steps", "In three steps", make("ol", {}, ...STEPS.map((text) => make("li", {}, text)))],
    ["problems", "What can be undone", ...problems(g.props)],
    ["reading", "How to read a result", ...reading()],
    ["limits", "What it cannot do", make("ul", {}, ...LIMITS.map((text) => make("li", {}, text)))],
    ["keys", "Keyboard", keyTable(), ...paragraphs(["Press ? in any of our widgets to see this table there."])],
    ["api", "From programs", ...programs(g.props, say)],
    ["about", "Versions and licences", ...about(g.props)],
    ["report", "When something goes wrong", ...report(g, say)],
  ];
  const jump = (id) => (event) => {
    event.preventDefault();
    const head = root.querySelector(`#pi-help-${id}`);
    head.scrollIntoView();
    head.focus({ preventScroll: true });
  };
  const links = sections.map(([id, title]) => make("li", {}, make("a", { href: `#pi-help-${id}`, onclick: jump(id) }, title)));
  const root = make(
    "article",
    { class: "pi-help", "data-ready": "" },
    make("nav", { "aria-label": "On this page" }, make("ul", {}, ...links)),
    make(
      "p",
      { class: "pi-help-use" },
      make("strong", {}, "Research use only. "),
      "Not a medical device: nothing here may be used for diagnosis or treatment.",
    ),
    ...sections.map((parts) => section(...parts)),
    note,
  );
  element.replaceChildren(root);
  keysOn(element);
}

function problems({ problems: shown, groups }) {
  const card = ({ title, help, image, alt }) =>
    make(
      "li",
      {},
      make("h3", {}, title),
      make("p", {}, help),
      image ? make("img", { src: at(`static/${image}`), alt, width: 358, height: 176, loading: "lazy" }) : null,
    );
  const group = ({ title, kinds }) => make("li", {}, make("strong", {}, `${title}: `), kinds.map((kind) => kind.title).join(", "));
  return [
    make("p", {}, "Left as measured, right as restored here. CT and MRI pictures start from the usual first reconstruction."),
    make("ul", { class: "pi-help-cards" }, ...shown.map(card)),
    make(
      "details",
      {},
      make("summary", {}, "All kinds of measurements"),
      make("ul", {}, ...groups.map(group)),
    ),
  ];
}

function reading() {
  const image = { src: at("static/help-spread.jpg"), width: 358, height: 176, loading: "lazy" };
  const alt = "Left the mean of eight samples of a portrait whose middle was missing; right their spread, bright only in the middle.";
  const entry = ([word, text]) => make("div", {}, make("dt", {}, word), make("dd", {}, text));
  const caption = "Half of this portrait each way was missing. Left: mean of eight samples. Right: where they disagree.";
  return [
    make("figure", {}, make("img", { ...image, alt }), make("figcaption", {}, caption)),
    make("dl", {}, ...READING.map(entry)),
  ];
}

function programs({ token }, say) {
  const address = at("").replace(/\/$/, "");
  const one = ([title, text]) => [
    make("h3", {}, title),
    make("pre", { tabindex: "0", "aria-label": title }, make("code", {}, text)),
    make(
      "button",
      {
        type: "button",
        class: "pi-button",
        "aria-label": `Copy: ${title}`,
        onclick: async () => say((await copy(text)) ? "Copied." : "Select the text and copy it."),
      },
      "Copy",
    ),
  ];
  return [
    make("p", {}, "This server takes the same jobs from programs; the page itself uses nothing else."),
    ...snippets(address, token).flatMap(one),
    make(
      "p",
      {},
      "Everything that may be asked for: ",
      make("a", { href: at("api/v1/openapi.json"), target: "_blank", rel: "noopener" }, "OpenAPI document"),
      ".",
    ),
  ];
}

function table(caption, heads, rows) {
  return make(
    "div",
    { class: "pi-help-table", tabindex: "0", role: "group", "aria-label": caption },
    make(
      "table",
      {},
      make("caption", {}, caption),
      make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((text) => make("td", {}, text))))),
    ),
  );
}

function about({ versions, licences }) {
  const cards = licences.map((card) => [card.title, card.licence, card.source]);
  return [
    make("p", {}, "Preimage is free software under the Apache License 2.0. It asks nothing of the internet and sends nothing anywhere."),
    table("Programs", ["Name", "Version", "Licence"], versions),
    table("Weights and pictures that come with it", ["What", "Licence", "Source"], cards),
  ];
}

function report(g, say) {
  const text = make("pre", { tabindex: "0", "aria-label": "Diagnostics", hidden: true });
  const ask = () => {
    say("Looking ...");
    g.props.value = { asked: Date.now() };
    g.trigger("change");
  };
  g.watch(["report"], async () => {
    if (!g.props.report) return;
    text.textContent = g.props.report;
    text.hidden = false;
    say((await copy(g.props.report)) ? "Copied." : "Select the text and copy it.");
  });
  return [
    make("p", {}, "Versions, device and free memory, to put into a report of a fault. It holds no data, no names and no folders."),
    make("button", { type: "button", class: "pi-button", onclick: ask }, "Copy diagnostics"),
    text,
  ];
}
