// What widgets share: calls of the HTTP API, and following a job.

/** Address of something of this server, also behind a proxy that gives it a folder. */
export function at(path) {
  return new URL(path.replace(/^\//, ""), document.baseURI).href;
}

/** Ask the API; a refusal is an Error with its sentence, a server that does not answer one with `lost` set. */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(at(path), options);
  } catch {
    const error = new Error("Lost contact with the server. Your run continues; this page reconnects by itself.");
    error.lost = true;
    throw error;
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    const error = new Error(said.detail || `Expected an answer, got status ${answer.status}; try again.`);
    error.status = answer.status;
    throw error;
  }
  if (answer.status === 204) return null;
  const type = answer.headers.get("content-type") || "";
  return type.includes("json") ? answer.json() : answer;
}

/**
 * Follow a job until it ends: `on.status(status)`, `on.journal(event)`, `on.lost()`, `on.found()`, `on.end()`.
 * Returns a function that ends the following.
 */
export function follow(id, on) {
  let source = null;
  let timer = 0;
  let lost = false;
  let ended = false;
  const found = () => {
    if (lost) on.found?.();
    lost = false;
  };
  const open = () => {
    source = new EventSource(at(`api/v1/jobs/${id}/events`));
    source.onopen = found;
    source.onerror = () => {
      if (ended) return;
      if (!lost) on.lost?.();
      lost = true;
      // A browser tries again by itself after a broken connection, but not after an answer that is no stream.
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, 2000);
    };
    source.addEventListener("status", (event) => (found(), on.status?.(JSON.parse(event.data))));
    source.addEventListener("journal", (event) => on.journal?.(JSON.parse(event.data)));
    source.addEventListener("end", () => {
      ended = true;
      source.close();
      on.end?.();
    });
  };
  open();
  return () => {
    ended = true;
    clearTimeout(timer);
    source.close();
  };
}

/** An element: `make("button", {class: "x", onclick: f}, "text", child)`. Text is never taken for HTML. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Load a style sheet of ours once. */
export function style(name) {
  const href = at(`static/${name}.css`);
  if ([...document.querySelectorAll("link[rel=stylesheet]")].some((link) => link.href === href)) return;
  document.head.append(make("link", { rel: "stylesheet", href }));
}

/** "3 s", "2 min", "1 h 5 min". */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}
