// Hands: wheel, mouse, fingers and keys. Keys are heard only while the viewer has the focus.

const DRAG = 4; // pixels after which a press is a drag
const PER_SLICE = 9; // pixels of a finger's way for a slice

/** Listen to a panel. */
export function hear(panel, look, focus) {
  const element = panel.element;
  const pointers = new Map();
  let drag = null;
  let pinch = null;

  element.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      if (event.ctrlKey) return zoomAt(panel, look, event, look.zoom * Math.exp(-event.deltaY / 300));
      turn(panel, look, event);
    },
    { passive: false }
  );
  element.addEventListener("contextmenu", (event) => event.preventDefault());
  element.addEventListener("pointerdown", (event) => {
    focus();
    event.preventDefault();
    element.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
    look.main = panel.plane;
    if (pointers.size === 2) {
      pinch = spread(pointers, look);
      drag = null;
      return;
    }
    drag = {
      kind: kindOf(event, look),
      x: event.clientX,
      y: event.clientY,
      width: look.width,
      level: look.level,
      slice: panel.slice,
      zoom: look.zoom,
      pan: look.pan[panel.plane],
      moved: false,
    };
    if (drag.kind === "cursor") look.move(panel.voxelAt(event, true));
    else look.changed();
  });
  element.addEventListener("pointermove", (event) => {
    const found = panel.voxelAt(event);
    look.hover = found && { panel, voxel: found };
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, event);
    if (pinch && pointers.size === 2) pinched(panel, look, pointers, pinch);
    else if (drag) dragged(panel, look, event, drag);
    look.changed();
  });
  const up = (event) => {
    pointers.delete(event.pointerId);
    pinch = null;
    // a finger that stays after a pinch begins nothing
    if (drag && !drag.moved && drag.kind === "scroll") look.move(panel.voxelAt(event, true));
    drag = null;
    if (event.pointerType === "touch") look.hover = null;
    look.changed();
  };
  element.addEventListener("pointerup", up);
  element.addEventListener("pointercancel", up);
  element.addEventListener("pointerleave", () => {
    look.hover = null;
    look.changed();
  });
}

function kindOf(event, look) {
  if (event.pointerType === "touch") return "scroll";
  if (event.button === 2) return "zoom";
  if (event.button === 1 || event.shiftKey) return "pan";
  return look.mode;
}

/** A turn of the wheel: a notch is a slice, and fine wheels and touch pads add up. */
function turn(panel, look, event) {
  const lines = event.deltaMode === 1 ? event.deltaY / 3 : event.deltaY / 100;
  const notch = Math.abs(lines) >= 0.5 ? Math.sign(lines) * Math.max(1, Math.round(Math.abs(lines))) : lines;
  look.rest = (look.rest || 0) * (Math.sign(look.rest || 0) === Math.sign(notch) ? 1 : 0) + notch;
  const whole = Math.trunc(look.rest);
  look.rest -= whole;
  if (whole) look.goTo(panel.slice + whole, panel.plane);
}

function dragged(panel, look, event, drag) {
  const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
  if (!drag.moved && Math.hypot(dx, dy) < DRAG) return;
  drag.moved = true;
  if (drag.kind === "cursor") look.move(panel.voxelAt(event, true));
  else if (drag.kind === "scroll") look.goTo(drag.slice + dy / PER_SLICE, panel.plane);
  else if (drag.kind === "zoom") look.zoomTo(drag.zoom * Math.exp(-dy / 150), panel.plane);
  else if (drag.kind === "pan") {
    const [, , width, height] = panel.box;
    look.zoomTo(look.zoom, panel.plane, [drag.pan[0] + dx / width, drag.pan[1] + dy / height]);
  } else look.setWindow(drag.width * Math.exp(dx / 200), drag.level + (dy * drag.width) / 300);
}

function zoomAt(panel, look, event, zoom) {
  look.zoomTo(zoom, panel.plane, panel.panFor(event, zoom));
}

function spread(pointers, look) {
  const [a, b] = [...pointers.values()];
  return { distance: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY), zoom: look.zoom };
}

function pinched(panel, look, pointers, pinch) {
  const [a, b] = [...pointers.values()];
  const middle = { clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 };
  const now = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
  zoomAt(panel, look, middle, (pinch.zoom * now) / Math.max(1, pinch.distance));
}

/** Keys of the whole viewer; `ready()` says whether there is something to move. */
export function keys(root, look, ready) {
  const step = (event, slices) => {
    look.goTo(look.slice + slices);
    event.preventDefault();
  };
  const nudge = (event, across, down) => {
    const plane = look.planes[look.main];
    const [x, y] = plane.flips.map((flip) => (flip ? -1 : 1));
    const at = [...look.at];
    at[plane.across] += across * x;
    at[plane.down] += down * y;
    look.move(at);
    event.preventDefault();
  };
  const act = (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const typed = event.target.matches("input[type=number], select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || typed) return;
    const moves = event.target.matches("input[type=range], input[type=radio]"); // which move by themselves
    if (!moves && event.shiftKey) {
      if (key === "ArrowLeft") return nudge(event, -1, 0);
      if (key === "ArrowRight") return nudge(event, 1, 0);
      if (key === "ArrowUp") return nudge(event, 0, -1);
      if (key === "ArrowDown") return nudge(event, 0, 1);
    }
    if (!moves) {
      if (key === "ArrowDown") return step(event, 1);
      if (key === "ArrowUp") return step(event, -1);
      if (key === "PageDown") return step(event, 5);
      if (key === "PageUp") return step(event, -5);
      if (key === "Home") return step(event, -look.slice);
      if (key === "End") return step(event, Infinity);
    }
    if (key === "0") look.fit();
    else if (key === "+" || key === "=") look.zoomTo(look.zoom * 1.25, look.main);
    else if (key === "-") look.zoomTo(look.zoom / 1.25, look.main);
    else if (key === "w") look.mode = "window";
    else if (key === "x") look.mode = "cursor";
    else if (key === "h") look.hidden = true;
    else if (key === "c") look.comparing = true;
    else if (!look.preset(key)) return undefined;
    look.changed();
    return event.preventDefault();
  };
  const release = (key) => {
    if (key === "h") look.hidden = false;
    else if (key === "c") look.comparing = false;
    else return;
    look.changed();
  };
  root.addEventListener("keydown", (event) => ready() && act(event));
  root.addEventListener("keyup", (event) => ready() && release(event.key.toLowerCase()));
  root.addEventListener("focusout", (event) => {
    if (!ready() || root.contains(event.relatedTarget)) return;
    release("h");
    release("c");
  });
}
