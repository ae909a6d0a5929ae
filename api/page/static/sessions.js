// The list of conversations: by day, searched, renamed, removed, taken out and in.

import { server } from "./api.js";
import { announce, note, openMenu, report } from "./dialogs.js";
import { el, fill, icon, iconButton } from "./dom.js";
import { dayOf, t } from "./i18n.js";
import { composing } from "./shortcuts.js";

const LOOK_AGAIN = 3_000; // ms, while answers are written that this page does not follow
const TYPING = 200; // ms after the last key until it is searched
const IN_USE = 500; // ms until it is seen whether the list can be shown anew
const MOST_BYTES = 16 << 20; // of a file that is imported

export class Sessions {
  #on;
  #found = [];
  #more = false;
  #query = ""; // what they were found by
  #current = null;
  #leaving = new Map(); // id -> the note that still can bring it back
  #asked = null; // of the search that runs
  #timer = 0;
  #poll = 0;
  #list = el("nav", { class: "sessions", "aria-label": t("sessions") });
  #search = el("input", {
    type: "search", id: "search", placeholder: t("search"), "aria-label": t("search"), dir: "auto", autocomplete: "off",
  });

  /** `on.open(id)`, `on.gone(id)`: the one that is open was removed, `on.renamed(session)`. */
  constructor(on) {
    this.#on = on;
    this.node = el("div", { class: "history" },
      el("label", { class: "search" }, icon("search"), this.#search), this.#list);
    this.#search.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.refresh(), TYPING);
    });
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
    addEventListener("pagehide", () => [...this.#leaving.values()].forEach((shown) => shown.end()));
  }

  focusSearch() {
    this.#search.focus();
    this.#search.select();
  }

  select(id) {
    this.#current = id;
    for (const open of this.#list.querySelectorAll(".session")) {
      open.ariaCurrent = open.parentNode.dataset.id === id ? "page" : null;
    }
  }

  async refresh() {
    await this.#ask(null);
  }

  async #ask(before) {
    this.#asked?.abort();
    const asked = (this.#asked = new AbortController());
    try {
      const query = this.#search.value.trim();
      const { sessions, more } = await server.sessions(query, before, asked.signal);
      this.#take(sessions, more, before, query);
      this.#show();
      const current = sessions.find(({ id }) => id === this.#current);
      if (current) this.#on.renamed(current);
    } catch (error) {
      if (error.status !== 0) report(error, () => this.refresh()); // the banner tells of no connection
    }
  }

  /** The first page again leaves what was seen of the others. */
  #take(sessions, more, before, query) {
    const first = new Set(sessions.map(({ id }) => id));
    const others = this.#found.filter(({ id }) => !first.has(id));
    const again = !before && query === this.#query && others.length > 0 && more;
    if (before) this.#found = [...others, ...sessions];
    else this.#found = again ? [...sessions, ...others] : sessions;
    if (!again) this.#more = more;
    this.#query = query;
  }

  /** Show what was found, but take nothing away that somebody is at. */
  #show() {
    clearTimeout(this.#poll);
    if (this.#list.querySelector(":popover-open, :active, .rename")) {
      this.#poll = setTimeout(() => this.#show(), IN_USE);
      return;
    }
    const shown = this.#found.filter(({ id }) => !this.#leaving.has(id));
    const focused = document.activeElement?.closest?.("[data-id]")?.dataset.id;
    const days = Map.groupBy(shown, ({ updated }) => dayOf(updated));
    const parts = [...days].map(([day, sessions]) =>
      el("section", null, el("h3", null, day), el("ul", null, sessions.map((found) => this.#row(found)))));
    const nothing = t(this.#search.value ? "search.none" : "sessions.none");
    if (!shown.length) parts.push(el("p", { class: "muted none" }, nothing));
    const more = { type: "button", class: "btn small ghost", onclick: () => this.#ask(this.#found.at(-1).id) };
    if (this.#more) parts.push(el("button", more, t("more")));
    fill(this.#list, parts);
    this.select(this.#current);
    if (shown.some(({ id, running }) => running && id !== this.#current)) {
      this.#poll = setTimeout(() => this.refresh(), LOOK_AGAIN);
    }
    if (focused) this.#list.querySelector(`[data-id="${CSS.escape(focused)}"] button`)?.focus();
  }

  #row(session) {
    const title = session.title || t("untitled");
    const open = el("button", { type: "button", class: "session", title, onclick: () => this.#on.open(session.id) },
      session.running && el("span", { class: "dot", title: t("running") }),
      el("span", { class: "session-title", dir: "auto" }, title),
      session.snippet && el("span", { class: "snippet muted", dir: "auto" }, session.snippet));
    const more = iconButton("more", t("actions.of", { title }), () => openMenu(more, [
      ["edit", t("rename"), () => this.#rename(row, [open, more], session)],
      ["download", t("export.json"), server.exported(session.id, "json")],
      ["download", t("export.markdown"), server.exported(session.id, "markdown")],
      ["trash", t("delete"), () => this.#remove(session), "danger"],
    ]), { class: "row-more", "aria-haspopup": "menu", "aria-expanded": "false" });
    const row = el("li", { dataset: { id: session.id } }, open, more);
    return row;
  }

  /** A box for the title in the place of what the row consists of, its `parts`. */
  #rename(row, parts, session) {
    const box = el("input", {
      class: "rename", dir: "auto", maxlength: 200, "aria-label": t("rename"), value: session.title,
    });
    let over = false;
    const end = async (keep) => {
      if (over) return;
      over = true;
      const title = box.value.trim();
      if (keep && title && title !== session.title) await this.#name(session.id, title);
      const focused = document.activeElement === box;
      fill(row, parts);
      if (focused) parts[0].focus();
      this.#show();
    };
    box.addEventListener("blur", () => end(true));
    box.addEventListener("keydown", (event) => {
      if (composing(event)) return;
      if (event.key === "Enter") end(true);
      if (event.key === "Escape") end(false);
      event.stopPropagation();
    });
    fill(row, box);
    box.focus();
    box.select();
  }

  async #name(id, title) {
    try {
      const named = await server.change(id, { title });
      this.#found = this.#found.map((session) => (session.id === id ? { ...session, title: named.title } : session));
      this.#on.renamed(named);
    } catch (error) {
      report(error);
    }
  }

  /** Out of sight at once, at the server when nobody wants it back. */
  #remove(session) {
    const { id } = session;
    const shown = note(t("deleted", { title: isolated(session.title || t("untitled")) }), {
      action: t("undo"),
      onend: (wanted) => this.#settle(id, wanted),
    });
    this.#leaving.set(id, shown);
    if (this.#current === id) this.#on.gone(id);
    this.#show();
  }

  async #settle(id, wanted) {
    let gone = !wanted;
    try {
      if (!wanted) await server.remove(id);
    } catch (error) {
      gone = error.status === 404; // somebody was quicker
      if (!gone) report(error);
    }
    if (gone) this.#found = this.#found.filter((session) => session.id !== id);
    this.#leaving.delete(id);
    this.#show();
  }

  /** Ask for a file and take the conversation that is in it. */
  importFile() {
    const input = el("input", { type: "file", accept: "application/json,.json", hidden: true, id: "import" });
    input.addEventListener("change", async () => {
      const [file] = input.files;
      input.remove();
      if (file) await this.#import(file);
    });
    input.addEventListener("cancel", () => input.remove());
    document.body.append(input);
    input.click();
  }

  async #import(file) {
    try {
      if (file.size > MOST_BYTES) throw new Error(t("import.large"));
      const made = await server.importSession(await parsed(file));
      announce(t("imported"));
      this.#on.open(made.id);
      await this.refresh();
    } catch (error) {
      report(error);
    }
  }
}

/** A text whose direction does not spread to the sentence that it stands in. */
function isolated(text) {
  return `\u2068${text}\u2069`;
}

async function parsed(file) {
  try {
    return JSON.parse(await file.text());
  } catch {
    throw new Error(t("import.unreadable"));
  }
}
