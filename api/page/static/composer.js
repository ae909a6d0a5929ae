// The box in which messages are written: grows, keeps drafts, sends or stops.

import { el, icon } from "./dom.js";
import { t } from "./i18n.js";
import { sends } from "./shortcuts.js";
import { draft, keepDraft } from "./store.js";

const MOST_ROWS = 12;
const KEEP_AFTER = 300; // ms without a key
const GAP = "\n\n"; // between a text that came back and what was written since

export class Composer {
  #session; // its id; null is the new one, nothing the one before there was any
  #running = false;
  #timer = 0;
  #on;
  #box = el("textarea", {
    id: "message", rows: 1, dir: "auto", placeholder: t("composer.placeholder"),
    "aria-label": t("composer.label"),
  });
  #button = el("button", { type: "button", class: "send" });

  /** `on.send(text)` says with false that it could not be taken; `on.stop()`. */
  constructor(on) {
    this.#on = on;
    this.node = el("div", { class: "composer" },
      el("div", { class: "composer-box" }, this.#box, this.#button),
      el("p", { class: "hint muted" }, t("composer.hint")));
    this.#box.addEventListener("keydown", (event) => this.#key(event));
    this.#box.addEventListener("input", () => this.#changed());
    this.#button.addEventListener("click", () => (this.#running ? this.#on.stop() : this.#send()));
    addEventListener("pagehide", () => this.#keep());
    this.running(false);
  }

  /** Write to the conversation `id` from now on. */
  open(id) {
    if (this.#session === id) return;
    const named = this.#session === null && this.#running; // the new one has got its id
    if (named) keepDraft(null, "");
    else this.#keep();
    this.#session = id;
    if (!named) this.write(draft(id));
  }

  write(text) {
    this.#box.value = text;
    this.#changed();
  }

  /** A text that was not sent comes back. */
  giveBack(text) {
    this.write([text, this.#box.value].filter(Boolean).join(GAP));
    this.#keep();
  }

  /** A text that came back is sent after all; what somebody has made of it, or written since, stays. */
  takeOut(text) {
    const { value } = this.#box;
    if ((value + GAP).startsWith(text + GAP)) this.write(value.slice(text.length + GAP.length));
  }

  focus() {
    if (matchMedia("(pointer: fine)").matches) this.#box.focus();
  }

  running(is) {
    this.#running = is;
    const label = t(is ? "stop" : "send");
    this.#button.replaceChildren(icon(is ? "stop" : "send"));
    this.#button.classList.toggle("stopping", is);
    this.#button.title = label;
    this.#button.setAttribute("aria-label", label);
    this.#enable();
  }

  #enable() {
    this.#button.disabled = !this.#running && !this.#box.value.trim();
  }

  #changed() {
    this.#enable();
    this.#grow();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#keep(), KEEP_AFTER);
  }

  /** As many rows as the text needs, wrapped lines included. */
  #grow() {
    this.#box.rows = 1;
    const line = Number.parseFloat(getComputedStyle(this.#box).lineHeight) || 24;
    const rows = Math.round((this.#box.scrollHeight - this.#padding()) / line);
    this.#box.rows = Math.max(1, Math.min(MOST_ROWS, rows));
  }

  #padding() {
    const { paddingTop, paddingBottom } = getComputedStyle(this.#box);
    return Number.parseFloat(paddingTop) + Number.parseFloat(paddingBottom);
  }

  #keep() {
    clearTimeout(this.#timer);
    if (this.#session !== undefined) keepDraft(this.#session, this.#box.value);
  }

  #key(event) {
    if (!sends(event)) return;
    event.preventDefault();
    this.#send();
  }

  #send() {
    const text = this.#box.value;
    if (!text.trim() || this.#running || this.#on.send(text) === false) return;
    this.write("");
    this.#keep();
  }
}
