// The column at the side: what one has talked about, and the way to everything else. A drawer
// where there is no room.

import { openMenu } from "./dialogs.js";
import { el, icon, iconButton } from "./dom.js";
import { LANGUAGES, language, speak, t } from "./i18n.js";
import { openHelp } from "./shortcuts.js";
import { recall, remember } from "./store.js";

const NARROW = matchMedia("(max-width: 800px)");
const THEMES = ["auto", "light", "dark"];

export class Sidebar {
  #app;
  #shade = el("div", { class: "shade", onclick: () => this.close() });
  toggleButton = iconButton("menu", t("sidebar"), () => this.toggle(), { "aria-controls": "sidebar" });

  /** `on`: `{fresh, agents, importFile, operator, leave}`; those that are null are not shown. */
  constructor(app, history, on) {
    this.#app = app;
    const fresh = sideButton("btn fresh", "plus", t("new"), on.fresh);
    const more = iconButton("more", t("more.actions"), () => openMenu(more, [
      ["upload", t("import"), on.importFile],
      ["help", t("keys"), openHelp],
      ...(on.leave ? [["leave", t("leave"), on.leave]] : []),
    ]), { "aria-haspopup": "menu", "aria-expanded": "false" });
    this.node = el("aside", { class: "sidebar", id: "sidebar", "aria-label": t("sidebar") },
      el("div", { class: "brand" }, el("span", { class: "logo", "aria-hidden": "true" }, icon("spark")),
        el("strong", null, "Onebox"), el("span", { class: "spring" }),
        iconButton("close", t("close"), () => this.close(), { class: "only-narrow" })),
      fresh,
      history,
      el("div", { class: "side-foot" },
        sideButton("side-link", "agent", t("agents"), on.agents),
        on.operator && sideButton("side-link", "gauge", t("operator"), on.operator),
        el("div", { class: "side-tools" },
          themeButton(), languageButton(), el("span", { class: "spring" }), more)));
    this.#app.append(this.node, this.#shade);
    this.#set(NARROW.matches ? false : recall("sidebar", true));
    NARROW.addEventListener("change", () => this.#set(NARROW.matches ? false : recall("sidebar", true)));
    this.node.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !NARROW.matches || event.defaultPrevented) return;
      event.preventDefault();
      this.close();
    });
  }

  get isOpen() {
    return this.#app.classList.contains("with-sidebar");
  }

  toggle() {
    this.#set(!this.isOpen);
    if (!NARROW.matches) remember("sidebar", this.isOpen);
    if (this.isOpen && NARROW.matches) this.node.querySelector(".fresh").focus();
  }

  open() {
    if (!this.isOpen) this.toggle();
  }

  close() {
    if (this.isOpen) this.toggle();
    if (NARROW.matches) this.toggleButton.focus();
  }

  /** After something was chosen in a drawer. */
  chosen() {
    if (NARROW.matches) this.#set(false);
  }

  #set(open) {
    this.#app.classList.toggle("with-sidebar", open);
    this.toggleButton.setAttribute("aria-expanded", String(open));
    this.node.inert = !open;
  }
}

function sideButton(kind, name, label, onclick) {
  return el("button", { type: "button", class: kind, onclick }, icon(name), label);
}

function themeButton() {
  const now = () => recall("theme", "auto");
  const label = () => t("theme", { name: t(`theme.${now()}`) });
  const button = iconButton("theme", label(), () => {
    const next = THEMES[(THEMES.indexOf(now()) + 1) % THEMES.length];
    remember("theme", next === "auto" ? null : next);
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    button.title = label();
    button.setAttribute("aria-label", label());
  }, { class: "theme-switch" });
  return button;
}

function languageButton() {
  const other = language === "zh" ? "en" : "zh";
  const props = { lang: other, "aria-label": LANGUAGES[other], onclick: () => speak(other) };
  return el("button", { type: "button", class: "icon-btn wide language-switch", ...props },
    icon("globe"), LANGUAGES[other]);
}
