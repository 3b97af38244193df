// Hands on the canvas: mouse, pen, fingers and keys become strokes, panning and zooming.

/**
 * Listen on the canvas of `view`. `hand` has `radius()`, `erases()`, and `begin()`, `line(x0, y0, x1, y1, erases)`,
 * `end()`, `abandon()` for a stroke; places are pixels of the full picture.
 */
export function listen(view, hand) {
  const { canvas } = view;
  const pointers = new Map(); // those that are down: id → last event
  let stroke = null; // {id, x, y, erases}
  let panning = null; // id of the pointer that pans
  let space = null; // {used}: the space bar is down, and something was dragged meanwhile
  let pinch = null; // {distance, x, y} of two fingers
  let keyboard = null; // [x, y] of the cursor of the keys

  const cursor = (x, y, byKeys) => {
    view.cursor = { x, y, radius: hand.radius(), keyboard: byKeys, erases: stroke ? stroke.erases : hand.erases() };
    view.draw();
  };

  const finish = () => {
    stroke = null;
    hand.end();
  };

  const twoFingers = () => {
    const [a, b] = [...pointers.values()];
    const box = canvas.getBoundingClientRect();
    return {
      distance: Math.max(1, Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY)),
      x: (a.clientX + b.clientX) / 2 - box.left,
      y: (a.clientY + b.clientY) / 2 - box.top,
    };
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (!view.mask || (event.pointerType === "mouse" && event.button > 1)) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
    keyboard = null;
    if (pointers.size === 2 && event.pointerType === "touch") {
      if (stroke) {
        stroke = null;
        hand.abandon();
      }
      view.cursor = null;
      pinch = twoFingers();
    } else if (space || event.button === 1) {
      panning = event.pointerId;
      canvas.style.cursor = "grabbing";
    } else if (!stroke && !pinch) {
      const [x, y] = view.place(event);
      // 32 is a pen that is turned about
      stroke = { id: event.pointerId, x, y, erases: hand.erases() || Boolean(event.buttons & 32) };
      hand.begin();
      hand.line(x, y, x, y, stroke.erases);
      cursor(x, y, false);
    }
  });

  canvas.addEventListener("pointermove", (event) => {
    if (!view.mask) return;
    const before = pointers.get(event.pointerId);
    if (before) pointers.set(event.pointerId, event);
    if (pinch && pointers.size === 2) {
      const now = twoFingers();
      view.pan(now.x - pinch.x, now.y - pinch.y);
      view.zoom(now.distance / pinch.distance, now.x, now.y);
      pinch = now;
    } else if (panning === event.pointerId) {
      if (space) space.used = true;
      view.pan(event.clientX - before.clientX, event.clientY - before.clientY);
    } else if (stroke?.id === event.pointerId) {
      const passed = event.getCoalescedEvents?.() || [];
      for (const each of passed.length ? passed : [event]) {
        const [x, y] = view.place(each);
        hand.line(stroke.x, stroke.y, x, y, stroke.erases);
        [stroke.x, stroke.y] = [x, y];
      }
      cursor(stroke.x, stroke.y, false);
    } else if (!before && event.pointerType !== "touch") {
      keyboard = null;
      cursor(...view.place(event), false);
    }
  });

  const up = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (stroke?.id === event.pointerId) finish();
    if (panning === event.pointerId) panning = null;
    if (pointers.size === 0) pinch = null;
    canvas.style.cursor = space ? "grab" : "";
    if (event.pointerType === "touch") view.cursor = null;
    view.draw();
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => {
    if (!stroke && !keyboard) view.cursor = null;
    view.draw();
  });
  // The page scrolls on as long as nobody works here.
  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!view.mask || (document.activeElement !== canvas && !event.ctrlKey)) return;
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      const steps = event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
      view.zoom(Math.exp(-Math.max(-120, Math.min(120, steps)) * 0.002), event.clientX - box.left, event.clientY - box.top);
    },
    { passive: false },
  );

  const stamp = () => {
    const [x, y] = (keyboard ||= middle());
    hand.begin();
    hand.line(x, y, x, y, hand.erases());
    hand.end();
    cursor(x, y, true);
  };
  const middle = () => {
    const { mask, scale, left, top, width, height } = view;
    const within = (value, size) => Math.min(size - 1, Math.max(0, Math.floor(value))) + 0.5;
    return [within((width / 2 - left) / scale, mask.width), within((height / 2 - top) / scale, mask.height)];
  };

  canvas.addEventListener("keydown", (event) => {
    if (!view.mask || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (arrow) {
      const step = event.shiftKey ? 1 : Math.max(1, Math.round(hand.radius() / 2));
      const [x, y] = keyboard || middle();
      const { mask } = view;
      keyboard = [
        Math.min(mask.width - 0.5, Math.max(0.5, x + arrow[0] * step)),
        Math.min(mask.height - 0.5, Math.max(0.5, y + arrow[1] * step)),
      ];
      view.reveal(...keyboard);
      cursor(...keyboard, true);
      hand.moved?.(...keyboard);
    } else if (event.key === "Enter") stamp();
    else if (event.key === " ") {
      if (!event.repeat) space = { used: false };
      if (!stroke) canvas.style.cursor = "grab";
    } else return;
    event.preventDefault();
  });
  canvas.addEventListener("keyup", (event) => {
    if (event.key !== " " || !space) return;
    const { used } = space;
    space = null;
    canvas.style.cursor = "";
    if (!used && panning === null && !stroke) stamp();
  });
  canvas.addEventListener("blur", () => {
    space = null;
    canvas.style.cursor = "";
    if (!stroke) view.cursor = null;
    view.draw();
  });
  canvas.addEventListener("focus", () => {
    if (view.mask && pointers.size === 0 && canvas.matches(":focus-visible")) cursor(...(keyboard ||= middle()), true);
  });

  return {
    /** The brush is another one. */
    refresh() {
      if (view.cursor) cursor(view.cursor.x, view.cursor.y, view.cursor.keyboard);
    },
    /** There is another picture. */
    reset() {
      pointers.clear();
      stroke = panning = pinch = keyboard = null;
      view.cursor = null;
    },
  };
}
