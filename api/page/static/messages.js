// One message of the thread with what can be done about it. Knows no server: what is wanted is
// told to `actions`: {edit, regenerate, branch, show, resume}.

import { Answer } from "./answer.js";
import { copyButton } from "./code.js";
import { el, fill, iconButton } from "./dom.js";
import { t } from "./i18n.js";
import { composing, sends } from "./shortcuts.js";
import { toolResult } from "./tools.js";

export function messageView(message, actions) {
  if (message.role === "assistant") return new AnswerView(message, actions);
  if (message.role === "user") return new UserView(message, actions);
  return new OtherView(message);
}

class AnswerView {
  #answer = new Answer();
  #bar = el("div", { class: "actions" });
  #more = el("div", { class: "more" });
  #actions;
  #message;
  #made = null; // what the buttons were made for

  constructor(message, actions) {
    this.#actions = actions;
    this.node = el("article", { class: "message assistant", "aria-label": t("role.assistant") },
      this.#answer.node, this.#more, this.#bar);
  }

  update(message, siblings, live) {
    this.#message = message;
    this.#answer.update(message, live);
    if (message.state === "running") return; // its actions wait for its end
    const unfinished = ["stopped", "cut"].includes(message.state) || message.reason === "length";
    const again = ["failed", "cut"].includes(message.state);
    const goesOn = Boolean(unfinished && message.content);
    const about = [again, goesOn, ...others(message, siblings)].join();
    if (about === this.#made) return; // who is at a button stays there
    this.#made = about;
    const regenerate = () => this.#actions.regenerate(this.#message);
    fill(this.#bar,
      copyButton(() => this.#message.content, "icon-only"),
      iconButton("refresh", t("regenerate"), regenerate, { class: "again" }),
      iconButton("branch", t("branch"), () => this.#actions.branch(this.#message)),
      switcher(message.id, siblings, this.#actions));
    fill(this.#more,
      again && button(t("retry"), regenerate),
      goesOn && button(t("continue"), () => this.#actions.resume(this.#message)));
  }
}

class UserView {
  #text = el("div", { class: "bubble", dir: "auto" });
  #bar = el("div", { class: "actions" });
  #actions;
  #message;
  #made = null; // what the buttons were made for

  constructor(message, actions) {
    this.#actions = actions;
    this.node = el("article", { class: "message user", "aria-label": t("role.user") }, this.#text, this.#bar);
  }

  update(message, siblings) {
    this.#message = message;
    if (this.#text.textContent !== message.content) this.#text.textContent = message.content;
    const about = others(message, siblings).join();
    if (about === this.#made) return; // who is at a button stays there
    this.#made = about;
    fill(this.#bar,
      switcher(message.id, siblings, this.#actions),
      copyButton(() => this.#message.content, "icon-only"),
      iconButton("edit", t("edit"), () => this.#edit(this.#message), { class: "edit" }));
  }

  /** The text in a box of its own, in the place of the message. */
  #edit(message) {
    const lines = Math.min(12, message.content.split("\n").length + 1);
    const box = el("textarea", { dir: "auto", "aria-label": t("edit"), rows: lines, value: message.content });
    const end = () => {
      form.replaceWith(this.#text);
      this.#bar.hidden = false;
      this.#bar.querySelector(".edit").focus();
    };
    const send = () => {
      if (!box.value.trim() || this.#actions.edit(message, box.value) === false) return;
      end();
    };
    const form = el("div", { class: "editor" }, box,
      el("div", { class: "dialog-actions" }, button(t("cancel"), end), button(t("send"), send, "primary")));
    box.addEventListener("keydown", (event) => {
      if (sends(event)) send();
      else if (event.key === "Escape" && !composing(event)) end();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.#text.replaceWith(form);
    this.#bar.hidden = true;
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
  }
}

/** A system's or a tool's message. */
class OtherView {
  constructor(message) {
    const content = message.role === "tool"
      ? toolResult(message)
      : el("div", { class: "system-text", dir: "auto" }, message.content);
    this.node = el("article", { class: "message other", "aria-label": t(`role.${message.role}`) }, content);
  }

  update() {}
}

function button(label, onclick, kind = "") {
  return el("button", { type: "button", class: `btn small ${kind}`, onclick }, label);
}

/** The other versions of `message`, with a gap for itself, which gets its id only when it is stored. */
function others(message, siblings) {
  return siblings.map((id) => (id === message.id ? "" : id));
}

/** ‹ 2/3 › between the versions of a message. */
function switcher(id, siblings, actions) {
  if (siblings.length < 2) return null;
  const at = siblings.indexOf(id);
  const step = (by, side, label) => {
    const other = siblings[at + by];
    return iconButton(side, label, () => actions.show(other, side), { class: side, disabled: !other });
  };
  return el("span", { class: "switcher", role: "group", "aria-label": t("versions") },
    step(-1, "left", t("version.previous")),
    el("span", { class: "num" }, `${at + 1}/${siblings.length}`),
    step(1, "right", t("version.next")));
}

/** That earlier messages were summed up, and how. */
export function summaryNotice(summary) {
  return el("details", { class: "summary" },
    el("summary", null, t("compacted", { count: summary.messages })),
    el("div", { class: "system-text", dir: "auto" }, summary.content),
    summary.facts?.length > 0 &&
      el("ul", { class: "facts" }, summary.facts.map((fact) => el("li", { dir: "auto" }, fact))));
}
