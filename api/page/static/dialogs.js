// What comes over the page or between its parts: dialogs, menus, notes, the banner.

import { el, fill, icon, iconButton } from "./dom.js";
import { t } from "./i18n.js";

const NOTE_MS = 7_000;

/** A dialog with a heading; removed when it is closed. Returns the element. */
export function openDialog(title, body, { kind = "", onclose } = {}) {
  const heading = el("h2", { id: `dialog-${kind || "plain"}` }, title);
  const close = iconButton("close", t("close"), () => dialog.close());
  const dialog = el("dialog", { class: `dialog ${kind}`, "aria-labelledby": heading.id },
    el("header", null, heading, close),
    body);
  dialog.addEventListener("close", () => {
    dialog.remove();
    onclose?.();
  });
  dialog.addEventListener("pointerdown", (event) => {
    if (event.target === dialog) dialog.close(); // the shade around it
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Whether somebody agrees to `question`; `action` is what they agree with, `otherwise` the other way. */
export function confirm(question, action, otherwise = t("cancel")) {
  return new Promise((resolve) => {
    let agreed = false;
    const agree = () => {
      agreed = true;
      dialog.close();
    };
    const body = el("div", { class: "dialog-body" },
      el("p", null, question),
      el("div", { class: "dialog-actions" },
        el("button", { type: "button", class: "btn", onclick: () => dialog.close() }, otherwise),
        el("button", { type: "button", class: "btn danger", onclick: agree }, action)));
    const dialog = openDialog(action, body, { kind: "small", onclose: () => resolve(agreed) });
  });
}

/** A menu at `button`: `entries` are `[icon, label, action, kind]`, an action a function or an address. */
export function openMenu(button, entries) {
  if (button.nextElementSibling?.matches(".menu")) return; // this click has just closed it
  const menu = el("div", { class: "menu", role: "menu", popover: "auto" });
  for (const [name, label, action, kind] of entries) menu.append(entry(menu, name, label, action, kind));
  menu.addEventListener("keydown", (event) => moveIn(menu, event));
  menu.addEventListener("toggle", ({ newState }) => {
    if (newState === "open") return;
    button.setAttribute("aria-expanded", "false");
    setTimeout(() => menu.remove());
  });
  button.setAttribute("aria-expanded", "true");
  button.after(menu);
  menu.showPopover();
  placeAt(menu, button);
  menu.firstElementChild.focus();
}

function entry(menu, name, label, action, kind = "") {
  const inner = [icon(name), el("span", null, label)];
  const props = { role: "menuitem", class: `menu-item ${kind}`, tabindex: "-1" };
  if (typeof action === "string") {
    return el("a", { ...props, href: action, download: "", onclick: () => menu.hidePopover() }, inner);
  }
  const onclick = () => {
    menu.hidePopover();
    action();
  };
  return el("button", { ...props, type: "button", onclick }, inner);
}

function moveIn(menu, event) {
  const items = [...menu.children];
  const at = items.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  items.at(to % items.length).focus();
}

function placeAt(menu, button) {
  const at = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = menu;
  const below = at.bottom + 4 + height <= innerHeight;
  menu.style.left = `${Math.max(8, Math.min(at.right - width, innerWidth - width - 8))}px`;
  menu.style.top = `${below ? at.bottom + 4 : Math.max(8, at.top - height - 4)}px`;
}

/** A note at the lower edge; `onend(done)` is called once, with true if its action was taken. */
export function note(text, { action, onend } = {}) {
  const ended = (taken) => {
    clearTimeout(timer);
    if (!box.isConnected) return;
    box.remove();
    onend?.(taken);
  };
  const take = { type: "button", class: "btn small ghost", onclick: () => ended(true) };
  const button = action && el("button", take, action);
  const box = el("div", { class: "note" }, el("span", null, text), button,
    iconButton("close", t("close"), () => ended(false)));
  document.getElementById("notes").append(box);
  const timer = setTimeout(() => ended(false), NOTE_MS);
  return { end: () => ended(false) };
}

/** A line that tells of something; `buttons` are what can be done about it. */
export function bannerLine(text, kind = "bad", ...buttons) {
  return el("div", { class: `banner ${kind}`, role: kind === "bad" ? "alert" : "status" },
    icon("warning"), el("span", { dir: "auto" }, text), buttons);
}

/** The one banner over the conversation: an error with a way out, or the state of the connection. */
export const banner = {
  show(text, { kind = "bad", action, run } = {}) {
    const button = action && el("button", { type: "button", class: "btn small", onclick: () => {
      this.hide();
      run();
    } }, action);
    const close = iconButton("close", t("close"), () => this.hide());
    fill(place(), bannerLine(text, kind, button, close));
    this.kind = kind;
  },
  hide(kind = null) {
    if (!kind || kind === this.kind) fill(place());
  },
};

const place = () => document.getElementById("banner");

/** Say something to who listens to the page. */
export function announce(text) {
  document.getElementById("live").textContent = text;
}

/** Show what went wrong with a call, unless the login form already does. */
export function report(error, retry) {
  if (error?.status === 401 || error?.name === "AbortError") return;
  const again = retry ? { action: t("retry"), run: retry } : {};
  banner.show(error?.message || t("error.unknown"), again);
}
