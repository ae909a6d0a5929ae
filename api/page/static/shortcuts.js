// The keys of the page, and the dialog that tells them.

import { openDialog } from "./dialogs.js";
import { el } from "./dom.js";
import { t } from "./i18n.js";

const MAC = /Mac|iP(hone|ad)/.test(navigator.platform);
const MOD = MAC ? "⌘" : "Ctrl";
const KEYS = [
  [["Enter"], "keys.send"],
  [["Shift", "Enter"], "keys.line"],
  [["Esc"], "keys.stop"],
  [[MOD, "K"], "keys.search"],
  [[MOD, "Shift", "O"], "keys.new"],
  [[MOD, "Shift", "S"], "keys.sidebar"],
  [[MOD, "Shift", "Y"], "keys.copy"],
  [["/"], "keys.write"],
  [["?"], "keys.help"],
];

/** Whether a key belongs to an input method, whose Enter chooses a character. */
export const composing = (event) => event.isComposing || event.keyCode === 229; // the latter in Safari

/** Whether a key sends what is written; on a phone Enter alone begins a new line. */
export function sends(event) {
  if (event.key !== "Enter" || event.shiftKey || composing(event)) return false;
  return event.ctrlKey || matchMedia("(pointer: fine)").matches;
}

/** `on`: `{stop(): whether something was, search, fresh, sidebar, copy, write}`. */
export function listen(on) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || composing(event)) return;
    const action = chosen(event, on);
    if (!action || action() === false) return;
    event.preventDefault();
  });
}

function chosen(event, on) {
  const mod = MAC ? event.metaKey : event.ctrlKey;
  const key = event.key.toLowerCase();
  if (document.querySelector("dialog[open], :popover-open")) return null;
  if (mod && !event.altKey) {
    const wanted = `${event.shiftKey ? "shift+" : ""}${key}`;
    return { k: on.search, "shift+o": on.fresh, "shift+s": on.sidebar, "shift+y": on.copy }[wanted];
  }
  if (key === "escape") return on.stop;
  if (writes(event.target) || event.altKey || event.ctrlKey || event.metaKey) return null;
  return { "?": openHelp, "/": on.write }[key];
}

const writes = (element) => element.matches?.("input, textarea, select, [contenteditable]");

export function openHelp() {
  const rows = KEYS.map(([keys, what]) =>
    el("tr", null,
      el("td", null, keys.map((key) => el("kbd", null, key))),
      el("td", null, t(what))));
  const table = el("table", { class: "keys" }, el("tbody", null, rows));
  openDialog(t("keys"), el("div", { class: "dialog-body" }, table), { kind: "small" });
}
