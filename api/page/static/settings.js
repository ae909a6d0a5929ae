// The dialog in which somebody says how the answers of a conversation are made.

import { openDialog } from "./dialogs.js";
import { el } from "./dom.js";
import { settingsFields } from "./fields.js";
import { t } from "./i18n.js";
import { recall, remember } from "./store.js";

/** What new conversations begin with in this browser. */
export function usualSettings() {
  const kept = recall("settings", {});
  return kept && typeof kept === "object" && !Array.isArray(kept) ? kept : {};
}

/** `save(settings)` gets all of them; what the page has no field for (tools) stays. */
export function openSettings(settings, save) {
  const { node, read } = settingsFields(settings);
  const usual = el("input", { type: "checkbox", id: "as-usual" });
  const done = () => {
    const said = read();
    if (!said) return;
    const kept = settings.tools ? { tools: settings.tools } : {};
    if (usual.checked) remember("settings", said);
    save({ ...kept, ...said });
    dialog.close();
  };
  const clear = () => {
    for (const control of node.querySelectorAll("input, select, textarea")) control.value = "";
  };
  const body = el("div", { class: "dialog-body" },
    node,
    el("label", { class: "check", for: "as-usual" }, usual, t("set.usual")),
    el("div", { class: "dialog-actions" },
      el("button", { type: "button", class: "btn ghost", onclick: clear }, t("set.clear")),
      el("span", { class: "spring" }),
      el("button", { type: "button", class: "btn", onclick: () => dialog.close() }, t("cancel")),
      el("button", { type: "button", class: "btn primary", onclick: done }, t("save"))));
  const dialog = openDialog(t("settings"), body, { kind: "settings-dialog" });
}
