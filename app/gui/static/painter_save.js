// The mask's way to Python: as a PNG of the full size, a moment after the last change, again where it did not arrive.

import { encodeMask } from "./painter_png.js";

const WAIT = 400; // ms after the last change
const RETRY = [2000, 5000, 10000, 30000];

/** Keeps `g.props.value` true to the mask. `on.state()` is called when `saved` changed, `on.fault(sentence)` also. */
export class Saver {
  constructor(g, on) {
    this.g = g;
    this.on = on;
    this.mask = null;
    this.revision = g.props.value?.revision || 0;
    this.saved = true;
    this.held = false;
    this.timer = 0;
    this.tries = 0;
    this.busy = false;
  }

  /** The mask changed, or is another one. */
  changed(mask) {
    this.mask = mask;
    this.revision += 1;
    this.saved = false;
    this.tries = 0;
    this.#tell(null);
    this.#plan(WAIT);
  }

  /** While it is being painted nothing is sent. */
  hold(held) {
    this.held = held;
    clearTimeout(this.timer);
    if (!held && !this.saved) this.#plan(WAIT);
  }

  /** Do not wait any longer. */
  now() {
    if (!this.saved && !this.held) this.#plan(0);
  }

  #plan(wait) {
    clearTimeout(this.timer);
    if (!this.held) this.timer = setTimeout(() => this.#send(), wait);
  }

  #tell(path, more = {}) {
    const { mask } = this;
    this.g.props.value = {
      mask: path,
      width: mask?.width || 0,
      height: mask?.height || 0,
      painted: mask?.fraction || 0,
      revision: this.revision,
      saved: this.saved,
      ...more,
    };
    this.on.state();
  }

  /** Ask Python something with the value. */
  ask(name, more) {
    this.#tell(this.g.props.value?.mask ?? null, more);
    this.g.trigger(name);
  }

  async #send() {
    if (this.busy) return; // it looks again when it is done
    this.busy = true;
    const { revision, mask } = this;
    try {
      let path = null;
      if (mask?.painted) {
        const png = await encodeMask(mask.data, mask.width, mask.height);
        if (this.held || revision !== this.revision) return;
        path = (await this.g.upload(new File([png], "mask.png", { type: "image/png" })))?.path;
        if (!path) throw new Error("no path");
      }
      if (revision !== this.revision) return;
      this.saved = true;
      this.tries = 0;
      this.on.fault(null);
      this.#tell(path);
      this.g.trigger("change");
    } catch {
      const wait = RETRY[Math.min(this.tries++, RETRY.length - 1)];
      this.on.fault(`The mask did not reach the server. Trying again in ${wait / 1000} s; what you painted is still here.`);
      this.#plan(wait);
    } finally {
      this.busy = false;
      if (revision !== this.revision) this.#plan(WAIT);
    }
  }
}
