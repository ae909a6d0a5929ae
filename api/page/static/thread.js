// The messages on the screen: makes, keeps and removes their views, and follows what is written
// for as long as the reader does.

import { el, fill, iconButton } from "./dom.js";
import { t } from "./i18n.js";
import { messageView, summaryNotice } from "./messages.js";

const NEAR = 60; // pixels from the end at which the reader still follows
const AT_ONCE = 80; // messages that are made before somebody asks for earlier ones

export class Thread {
  #views = new Map(); // id -> {view, node}
  #actions;
  #column = el("div", { class: "column" });
  #follow = true;
  #shown = AT_ONCE;
  #top = 0;
  #jump = iconButton("bottom", t("to_end"), () => this.toEnd(), { class: "jump", hidden: true });

  constructor(actions) {
    this.#actions = actions;
    this.scroller = el("div", { class: "scroller", tabindex: "-1" }, this.#column);
    this.node = el("section", { class: "thread", role: "log", "aria-live": "off", "aria-label": t("conversation") },
      this.scroller, this.#jump);
    this.scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#keepUp()).observe(this.#column);
  }

  /** Begin with another conversation. */
  clear(...instead) {
    this.#views.clear();
    this.#shown = AT_ONCE;
    this.#follow = true;
    fill(this.#column, ...instead);
  }

  /** Show `path`, the tree's messages up to its head; views of messages that stay are kept. */
  show(path, tree, summaries, live) {
    const begin = Math.max(0, path.length - this.#shown);
    const nodes = begin ? [this.#earlier(() => this.show(path, tree, summaries, live))] : [];
    const notices = new Map(summaries.map((summary) => [summary.upto, summary]));
    const kept = new Map();
    for (const message of path.slice(begin)) {
      const view = this.#views.get(message.id) ?? messageView(message, this.#actions);
      kept.set(message.id, view);
      view.update(message, tree.siblings(message.id), live?.id === message.id ? live : null);
      nodes.push(view.node);
      if (notices.has(message.id)) nodes.push(summaryNotice(notices.get(message.id)));
    }
    const last = path.at(-1);
    if (last?.role === "user" && !live) nodes.push(this.#unanswered(last));
    this.#views = kept;
    this.#arrange(nodes);
    this.#keepUp();
  }

  #unanswered(message) {
    const onclick = () => this.#actions.regenerate(message);
    return el("div", { class: "more" },
      el("button", { type: "button", class: "btn small", onclick }, t("answer.it")));
  }

  /** Put `nodes` in order without moving those that are in their place: focus stays. */
  #arrange(nodes) {
    const wanted = new Set(nodes);
    for (const node of [...this.#column.children]) if (!wanted.has(node)) node.remove();
    nodes.forEach((node, place) => {
      const now = this.#column.children[place];
      if (now !== node) this.#column.insertBefore(node, now ?? null);
    });
  }

  #earlier(show) {
    const onclick = () => {
      this.#shown += AT_ONCE;
      this.#follow = false;
      show();
    };
    return el("button", { type: "button", class: "btn small earlier", onclick }, t("earlier"));
  }

  /** One message has changed. */
  update(message, tree, live) {
    this.#views.get(message.id)?.update(message, tree.siblings(message.id), live);
  }

  rename(id, name) {
    const view = this.#views.get(id);
    if (!view || id === name) return;
    this.#views.delete(id);
    this.#views.set(name, view);
  }

  /** Whoever came to the version `id` by the button on one `side` is at this button there, or the other. */
  focusVersion(id, side) {
    const buttons = [...(this.#views.get(id)?.node.querySelectorAll(".switcher :enabled") ?? [])];
    (buttons.find((button) => button.matches(`.${side}`)) ?? buttons[0])?.focus();
  }

  toEnd() {
    this.#follow = true;
    this.#keepUp();
  }

  #keepUp() {
    const { scroller } = this;
    if (this.#follow) scroller.scrollTop = scroller.scrollHeight;
    this.#moved(scroller.scrollTop);
  }

  #moved(top) {
    this.#top = top;
    this.#jump.hidden = this.#follow || this.#distance() < NEAR;
  }

  #distance() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  /** Going up is the reader's will; being at the end again as well. */
  #scrolled() {
    const { scrollTop } = this.scroller;
    if (this.#distance() < NEAR) this.#follow = true;
    else if (scrollTop < this.#top - 2) this.#follow = false;
    this.#moved(scrollTop);
  }
}
