// A block of code: its language, a button that copies it, its lines in colour as they come.

import { el, icon } from "./dom.js";
import { grammarOf, highlight } from "./highlight.js";
import { t } from "./i18n.js";

const MOST_COLOURED = 200_000; // characters of one block; the rest is plain

export class CodeBlock {
  #code = el("code");
  #pre = el("pre", { tabindex: "0", dir: "ltr" }, this.#code);
  #grammar;
  #state = null;
  #lines = []; // as they are copied
  #length = 0;
  #open = null; // the line that is being written

  constructor(language) {
    this.#grammar = grammarOf(language);
    const label = el("span", { class: "language" }, language.slice(0, 40) || t("code.plain"));
    this.node = el("div", { class: "code", dir: "ltr" },
      el("div", { class: "code-head" }, label, copyButton(() => this.text, "code-copy")),
      this.#pre);
  }

  get text() {
    return this.#lines.join("\n") + (this.#open?.textContent ?? "");
  }

  /** Whole lines more. */
  add(lines) {
    this.#dropOpen();
    for (const line of lines) {
      if (this.#lines.length) this.#code.append("\n");
      this.#lines.push(line);
      this.#length += line.length;
      const grammar = this.#length <= MOST_COLOURED ? this.#grammar : null;
      const [tokens, state] = highlight(line, grammar, this.#state);
      this.#state = state;
      this.#code.append(...tokens.map(span));
    }
  }

  /** The line that is being written, as far as it is known. */
  show(line) {
    this.#dropOpen();
    const grammar = this.#length <= MOST_COLOURED ? this.#grammar : null;
    const [tokens] = highlight(line, grammar, this.#state);
    this.#open = el("span", null, this.#lines.length ? "\n" : "", tokens.map(span));
    this.#code.append(this.#open);
  }

  #dropOpen() {
    this.#open?.remove();
    this.#open = null;
  }
}

function span([kind, text]) {
  return kind ? el("span", { class: `tok-${kind}` }, text) : document.createTextNode(text);
}

/** A button that copies what `text()` gives, and says that it has. */
export function copyButton(text, kind = "") {
  const label = t("copy");
  const said = el("span", null, label);
  const drawn = el("span", { class: "icon-slot" }, icon("copy"));
  const button = el("button", { type: "button", class: `copy ${kind}`, title: label, "aria-label": label },
    drawn, said);
  button.addEventListener("click", async () => {
    const done = await copy(text());
    said.textContent = t(done ? "copied" : "copy.failed");
    button.setAttribute("aria-label", said.textContent);
    drawn.replaceChildren(icon(done ? "check" : "warning"));
    setTimeout(() => {
      said.textContent = label;
      button.setAttribute("aria-label", label);
      drawn.replaceChildren(icon("copy"));
    }, 1600);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // a page of plain HTTP has no clipboard
  }
}

function copyBySelection(text) {
  const before = document.activeElement;
  const box = el("textarea", { class: "sr-only", readonly: "", "aria-hidden": "true", value: text });
  (before?.closest?.("dialog") ?? document.body).append(box);
  box.select();
  const done = document.execCommand("copy");
  box.remove();
  before?.focus?.();
  return done;
}
