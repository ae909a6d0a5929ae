// The fields of how answers are made, of a conversation and of an agent. An empty field says
// nothing: the model's own value holds.

import { el } from "./dom.js";
import { t } from "./i18n.js";

const INT32 = 2 ** 31 - 1;
const INT64 = 2 ** 63 - 1024; // the greatest that is a number here
// The bounds are the server's.
const NUMBERS = {
  temperature: { min: 0, max: 2, step: "any", placeholder: "0.7" },
  top_p: { min: 1e-6, max: 1, step: "any", placeholder: "0.95" }, // more than 0
  top_k: { min: -1, max: INT32, step: 1, placeholder: "40" },
  min_p: { min: 0, max: 1, step: "any", placeholder: "0" },
  repetition_penalty: { min: 0.01, max: 10, step: "any", placeholder: "1" },
  presence_penalty: { min: -2, max: 2, step: "any", placeholder: "0" },
  frequency_penalty: { min: -2, max: 2, step: "any", placeholder: "0" },
  max_tokens: { min: -1, max: INT32, step: 1, placeholder: "∞" }, // -1 is no limit
  seed: { min: -(2 ** 63), max: INT64, step: 1, placeholder: "–" },
};
const SWITCHES = ["thinking", "compaction"];
const LONGEST_PROMPT = 65_536;

let count = 0;

/** A labelled control with a line that explains it. */
export function field(label, control, help) {
  count += 1;
  control.id ||= `field-${count}`;
  if (help) control.setAttribute("aria-describedby", `${control.id}-help`);
  return el("div", { class: "field" },
    el("label", { for: control.id }, label),
    control,
    help && el("p", { class: "muted help", id: `${control.id}-help` }, help));
}

/** `{node, read}`: `read()` gives what was said, or null after it has shown what is wrong. */
export function settingsFields(values) {
  const prompt = el("textarea", {
    name: "system_prompt", rows: 4, dir: "auto", maxlength: LONGEST_PROMPT,
    placeholder: t("set.system_prompt.none"), value: values.system_prompt ?? "",
  });
  const numbers = Object.entries(NUMBERS).map(([name, bounds]) => numeric(name, bounds, values[name]));
  const switches = SWITCHES.map((name) => threeWay(name, values[name]));
  const all = [...numbers, ...switches];
  const node = el("div", { class: "settings" },
    field(t("set.system_prompt"), prompt),
    el("div", { class: "field-grid" }, all.map((control) =>
      field(t(`set.${control.name}`), control, t(`set.${control.name}.help`)))));
  const read = () => {
    const wrong = all.find((control) => !control.checkValidity());
    wrong?.reportValidity();
    return wrong ? null : said(prompt, numbers, switches);
  };
  return { node, read };
}

function numeric(name, bounds, value) {
  return el("input", { type: "number", name, inputmode: "decimal", value: value ?? "", ...bounds });
}

function threeWay(name, value) {
  const now = value === true ? "on" : value === false ? "off" : "";
  const choices = ["", "on", "off"].map((choice) => el("option", { value: choice }, t(`choice.${choice || "auto"}`)));
  return select({ name }, choices, now);
}

/** A select that has `value`, which it takes only once it has its options. */
export function select(props, options, value) {
  const made = el("select", props, options);
  made.value = value;
  return made;
}

function said(prompt, numbers, switches) {
  const found = {};
  if (prompt.value.trim()) found.system_prompt = prompt.value;
  for (const { name, value } of numbers) if (value !== "") found[name] = Number(value);
  for (const { name, value } of switches) if (value) found[name] = value === "on";
  return found;
}
