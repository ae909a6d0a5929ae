// The choice of a model or an agent, and what is known of them.

import { server } from "./api.js";
import { report } from "./dialogs.js";
import { el, fill } from "./dom.js";
import { t } from "./i18n.js";

export class Picker {
  models = [];
  #value = "";
  #select = el("select", { class: "picker", id: "model", "aria-label": t("model") });

  /** `onchoose(name)`: "" is the model that is served. */
  constructor(onchoose) {
    this.node = el("div", { class: "picker-box" }, this.#select);
    this.#select.addEventListener("change", () => {
      this.#value = this.#select.value;
      onchoose(this.#value);
    });
  }

  async refresh() {
    try {
      this.models = await server.models();
      this.#show();
    } catch (error) {
      if (error.status !== 0) report(error, () => this.refresh());
    }
  }

  get bases() {
    return this.models.filter((model) => !model.agent).map(({ id }) => id);
  }

  set(name) {
    this.#value = name;
    this.#show();
  }

  #show() {
    const names = this.bases;
    const agents = this.models.filter((model) => model.agent).map(({ id }) => id);
    const first = names[0] ?? t("model.none");
    const known = ["", ...names, ...agents].includes(this.#value);
    const unknown = known ? [] : [el("option", { value: this.#value }, this.#value)];
    const option = (name) => el("option", { value: name }, name);
    fill(this.#select,
      el("option", { value: "" }, names.length > 1 ? t("model.usual", { name: first }) : first),
      unknown,
      names.length > 1 && el("optgroup", { label: t("models") }, names.map(option)),
      agents.length > 0 && el("optgroup", { label: t("agents") }, agents.map(option)));
    this.#select.value = names.length === 1 && this.#value === first ? "" : this.#value;
  }
}
