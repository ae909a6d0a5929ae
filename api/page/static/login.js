// Who uses the page: the one-time token of a link, or a key that is typed in. Neither is kept here;
// the server gives a cookie that no script can read.

import { server } from "./api.js";
import { el, icon } from "./dom.js";
import { t } from "./i18n.js";

/** Use the token in the page's address, if there is one, and take it out of there first. */
export async function useToken() {
  const token = new URLSearchParams(location.search).get("token");
  if (location.search || location.hash) history.replaceState(history.state, "", location.pathname);
  if (!token) return "";
  try {
    await server.login(token);
    return "";
  } catch (error) {
    return error.status === 401 ? t("login.link") : error.message;
  }
}

/** The form that asks for a key, over all; `done()` once one was right. */
export function askForKey(done, sentence = "") {
  if (document.querySelector(".login")) return;
  const key = el("input", {
    type: "password", id: "key", autocomplete: "current-password", dir: "ltr", required: true,
    placeholder: "onebox-…", "aria-describedby": "login-error",
  });
  const error = el("p", { class: "login-error", id: "login-error", role: "alert" }, sentence);
  const button = el("button", { type: "submit", class: "btn primary" }, t("login.enter"));
  const form = el("form", { class: "login-form" },
    el("span", { class: "logo large", "aria-hidden": "true" }, icon("spark")),
    el("h1", null, t("login.title")),
    el("p", { class: "muted" }, t("login.what")),
    el("label", { for: "key", class: "sr-only" }, t("login.key")),
    key, button, error);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!key.value.trim()) return;
    button.disabled = true;
    try {
      await server.login(key.value.trim());
      done();
    } catch (problem) {
      error.textContent = problem.status === 401 ? t("login.wrong") : problem.message;
      key.select();
    }
    button.disabled = false;
  });
  const dialog = el("dialog", { class: "login", "aria-label": t("login.title") }, form);
  dialog.addEventListener("close", () => dialog.showModal()); // there is nothing behind it
  document.body.append(dialog);
  dialog.showModal();
}
