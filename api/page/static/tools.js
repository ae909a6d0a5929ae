// How calls of tools and their results are shown, arguments as they come.

import { el, icon } from "./dom.js";
import { t } from "./i18n.js";

const LONGEST = 200_000; // characters

/** The calls of one answer; `update` takes all of them, each with more of its arguments. */
export class Calls {
  node = el("div", { class: "calls" });
  #shown = []; // {box, name, body, text}

  update(calls) {
    calls.forEach((call, place) => {
      const shown = (this.#shown[place] ??= this.#make());
      if (shown.name.textContent !== call.name) shown.name.textContent = call.name;
      if (shown.text === call.arguments) return;
      shown.text = call.arguments;
      shown.body.textContent = pretty(call.arguments);
    });
    for (const { box } of this.#shown.splice(calls.length)) box.remove();
  }

  #make() {
    const name = el("code", { dir: "auto" });
    const body = el("pre", { class: "tool-text", tabindex: "0", dir: "auto" });
    const head = el("summary", null, icon("tool"), el("span", null, t("tool.call")), name);
    const box = el("details", { class: "tool", open: true }, head, body);
    this.node.append(box);
    return { box, name, body, text: null };
  }
}

/** What a tool gave back. */
export function toolResult(message) {
  const head = el("summary", null, icon("tool"), el("span", null, t("tool.result")));
  const body = el("pre", { class: "tool-text", tabindex: "0", dir: "auto" }, pretty(message.content));
  return el("details", { class: "tool" }, head, body);
}

/** JSON on lines of its own; what is not whole yet is laid out as far as it goes. */
function pretty(text) {
  if (text.length > LONGEST) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return /^\s*[{[]/.test(text) ? layOut(text) : text;
  }
}

function layOut(text) {
  let out = "";
  let depth = 0;
  let quoted = false;
  const line = () => `\n${"  ".repeat(Math.min(depth, 40))}`;
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at];
    if (quoted) {
      out += char;
      if (char === "\\") out += text[++at] ?? "";
      else if (char === '"') quoted = false;
      continue;
    }
    if (/\s/.test(char)) continue;
    if (char === '"') quoted = true;
    if (char === "}" || char === "]") depth = Math.max(0, depth - 1);
    if (char === "}" || char === "]") out += line();
    out += char === ":" ? ": " : char;
    if (char === "{" || char === "[") depth += 1;
    if ("{[,".includes(char)) out += line();
  }
  return out;
}
