// The words of the page, in the language of the browser or the one that was chosen.

import { en } from "./words_en.js";
import { zh } from "./words_zh.js";
import { recall, remember } from "./store.js";

export const LANGUAGES = { en: "English", zh: "中文" };
const words = { en: { ...en }, zh: { ...zh } };

export const language = chosen();
document.documentElement.lang = language === "zh" ? "zh-CN" : "en";

function chosen() {
  const kept = recall("language");
  if (kept === "en" || kept === "zh") return kept;
  return (navigator.language ?? "en").toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** The page begins again in `name`; what runs on the server goes on and is taken up. */
export function speak(name) {
  remember("language", name);
  location.reload();
}

/** The word for `key`, with {names} replaced by `values`. */
export function t(key, values = {}) {
  const word = words[language][key] ?? words.en[key] ?? key;
  return word.replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all));
}

/** More words, of a part that is loaded later: `{en: {key: word}, zh: {...}}`. */
export function addWords(more) {
  for (const name of Object.keys(words)) Object.assign(words[name], more?.[name]);
}

export function number(value, digits = 0) {
  return value.toLocaleString(document.documentElement.lang, {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

/** Milliseconds as people say them: 0.12 s, 3.2 s, 75 s. */
export function seconds(ms) {
  const value = ms / 1000;
  return `${number(value, value < 1 ? 2 : value < 60 ? 1 : 0)} s`;
}

/** The heading under which a conversation of `time` (seconds since 1970) is listed. */
export function dayOf(time, now = new Date()) {
  const then = new Date(time * 1000);
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate());
  const days = Math.ceil((midnight - then) / 86_400_000);
  if (days <= 0) return t("day.today");
  if (days === 1) return t("day.yesterday");
  if (days <= 7) return t("day.week");
  const year = then.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return then.toLocaleDateString(document.documentElement.lang, { month: "long", year });
}
