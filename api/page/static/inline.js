// Markdown within a line: emphasis, code, links. Makes DOM nodes; every text stays text.
// What is searched for and not found is not searched for again, so the time is that of the length.

import { el } from "./dom.js";

const LONGEST = 65_536; // characters; more is shown as it is
const DEEPEST = 12; // nested emphasis and links
const LOOK_BACK = 40; // open marks that a closing one may belong to
const TARGET = /<[^<>\n]{0,2000}>|[^\s()<>]{0,2000}(?:\([^\s()<>]{0,500}\)[^\s()<>]{0,500}){0,9}/;
const TITLE = /"[^"]{0,300}"|'[^']{0,300}'/;
const LINK = new RegExp(`\\(\\s{0,9}(${TARGET.source})(?:\\s{1,9}(?:${TITLE.source}))?\\s{0,9}\\)`, "y");
const PLAIN = /(?:[^\\`*_~[\]!<&$\nh]|h(?!ttps?:\/\/))+/y;
const ADDRESS = /https?:\/\/[^\s<>`"|\u3000-\u303f\uff00-\uffef]{1,2000}/y;
const ESCAPE = /\\([!"#$%&'*+,\-./:;<=>?@\\^_`{|}~])/y;
const BREAK = /\\?\n *|<br ?\/?>/iy;
const DOLLARS = /\$(?=[^\s$])[^$\n]{0,200}[^\s$\\]\$(?!\d)|\$[^\s$\\]\$(?!\d)/y;
const ENTITY = /&(amp|lt|gt|quot|apos|nbsp|copy|hellip|mdash|ndash|rarr|larr|times|#\d{1,6});/y;
const ENTITIES = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", copy: "©", hellip: "…",
  mdash: "—", ndash: "–", rarr: "→", larr: "←", times: "×",
};
const UNFINISHED_LINK = /!?\[([^[\]\n]{1,200})\]\((?:[^)\s]{0,2000})$/;
const SPACE = /^\s?$/u;
const PUNCTUATION = /[\p{P}\p{S}]/u;
const WIDE = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}]/u;

/** The nodes of `text`. `partial`: more of it will come, so what is open is shown as if closed. */
export function inline(text, partial = false) {
  if (text.length > LONGEST) return [document.createTextNode(text)];
  const source = partial ? text.replace(UNFINISHED_LINK, "$1") : text;
  return new Scanner(source, partial).nodes();
}

/** The address of a link if it may be followed, else null. */
function safeAddress(address) {
  try {
    const url = new URL(address.trim());
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null; // relative, or none at all
  }
}

function link(address, ...children) {
  const href = safeAddress(address);
  if (!href) return null;
  const where = { href, title: href, target: "_blank", rel: "noopener noreferrer", dir: "auto" };
  return el("a", where, ...children);
}

class Scanner {
  #text;
  #partial;
  #at = 0;
  #items = []; // {text} | {node, depth} | {mark, count, opens, closes} | {bracket}
  #brackets = [];
  #ticks = null; // length of a run of backticks -> its places
  #missing = new Set(); // closing texts that do not come any more

  constructor(text, partial) {
    this.#text = text;
    this.#partial = partial;
  }

  nodes() {
    while (this.#at < this.#text.length) this.#step();
    return emphasised(this.#items, this.#partial).map(({ node }) => node);
  }

  #step() {
    const plain = this.#take(PLAIN);
    if (plain) this.#say(plain[0]);
    else if (!this.#special(this.#text[this.#at])) this.#say(this.#text[this.#at++]);
  }

  #special(char) {
    switch (char) {
      case "`": return this.#code();
      case "*": case "_": case "~": return this.#mark(char);
      case "[": return this.#open(false);
      case "!": return this.#text[this.#at + 1] === "[" && this.#open(true);
      case "]": return this.#close();
      case "<": return this.#lineBreak() || this.#bracketed();
      case "h": return this.#address();
      case "&": return this.#entity();
      case "\\": return this.#lineBreak() || this.#escape();
      case "\n": return this.#lineBreak();
      default: return this.#math("$$", "$$") || this.#dollars();
    }
  }

  #take(pattern) {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text);
    if (found) this.#at += found[0].length;
    return found;
  }

  #say(text) {
    const last = this.#items.at(-1);
    if (last?.text !== undefined) last.text += text;
    else this.#items.push({ text });
    return true;
  }

  #put(node) {
    this.#items.push({ node, depth: 1 });
    return true;
  }

  #code() {
    const [run] = this.#take(/`+/y);
    const end = this.#closingTicks(run.length);
    if (end < 0) {
      if (!this.#partial || run.length > 2 || this.#at >= this.#text.length) return this.#say(run);
      this.#put(el("code", null, this.#text.slice(this.#at)));
      this.#at = this.#text.length;
      return true;
    }
    const code = this.#text.slice(this.#at, end).replaceAll("\n", " ");
    const padded = code.length > 2 && code.startsWith(" ") && code.endsWith(" ") && code.trim();
    this.#at = end + run.length;
    return this.#put(el("code", null, padded ? code.slice(1, -1) : code));
  }

  #closingTicks(length) {
    if (!this.#ticks) {
      this.#ticks = new Map();
      for (const { 0: { length: found }, index } of this.#text.matchAll(/`+/g)) {
        if (!this.#ticks.has(found)) this.#ticks.set(found, []);
        this.#ticks.get(found).push(index);
      }
      for (const places of this.#ticks.values()) places.reverse();
    }
    const places = this.#ticks.get(length) ?? [];
    while (places.length && places.at(-1) < this.#at) places.pop();
    return places.at(-1) ?? -1;
  }

  #mark(char) {
    const before = charBefore(this.#text, this.#at);
    const [run] = this.#take(char === "*" ? /\*+/y : char === "_" ? /_+/y : /~+/y);
    if (char === "~" && run.length !== 2) return this.#say(run);
    const after = String.fromCodePoint(this.#text.codePointAt(this.#at) ?? 32);
    const left = leans(after, before);
    const right = leans(before, after);
    const inWord = char === "_" && left && right;
    const opens = left && (!inWord || PUNCTUATION.test(before));
    const closes = right && (!inWord || PUNCTUATION.test(after));
    this.#items.push({ mark: char, count: run.length, opens, closes });
    return true;
  }

  #open(image) {
    this.#at += image ? 2 : 1;
    this.#brackets.push({ index: this.#items.length, image });
    if (this.#brackets.length > LOOK_BACK) this.#brackets.shift();
    this.#items.push({ bracket: image ? "![" : "[" });
    return true;
  }

  #close() {
    const bracket = this.#brackets.pop();
    this.#at += 1;
    const target = bracket ? this.#take(LINK) : null;
    if (!target) return this.#say("]");
    const address = target[1].replace(/^<|>$/g, "");
    const inner = emphasised(this.#items.splice(bracket.index).slice(1), false);
    const depth = Math.max(0, ...inner.map((item) => item.depth)) + 1;
    const children = inner.map(({ node }) => node);
    if (bracket.image) children.unshift("🖼 ", inner.length ? "" : address);
    const anchor = depth <= DEEPEST ? link(address, ...children) : null;
    if (anchor) this.#items.push({ node: anchor, depth });
    else this.#items.push(...inner, { text: ` (${address})` });
    if (!bracket.image) this.#brackets.length = 0; // there are no links in links
    return true;
  }

  #address() {
    const found = this.#take(ADDRESS);
    if (!found) return false;
    let address = found[0].replace(/[.,;:!?'"*_~\]]{1,50}$/, "");
    while (address.endsWith(")") && count(address, ")") > count(address, "(")) {
      address = address.slice(0, -1);
    }
    this.#at -= found[0].length - address.length;
    const before = this.#items.at(-1)?.text?.at(-1) ?? "";
    const anchor = /\w/.test(before) ? null : link(address, address);
    return anchor ? this.#put(anchor) : this.#say(address);
  }

  #bracketed() {
    const found = this.#take(/<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/y);
    const anchor = found && link(found[1], found[1]);
    if (anchor) return this.#put(anchor);
    return found ? this.#say(found[0]) : false;
  }

  #lineBreak() {
    return Boolean(this.#take(BREAK)) && this.#put(el("br"));
  }

  #entity() {
    const found = this.#take(ENTITY);
    if (!found) return false;
    const name = found[1];
    if (!name.startsWith("#")) return this.#say(ENTITIES[name]);
    const code = Number(name.slice(1));
    return this.#say(code >= 32 ? String.fromCodePoint(code) : "");
  }

  #escape() {
    if (this.#math("\\(", "\\)") || this.#math("\\[", "\\]")) return true;
    const found = this.#take(ESCAPE);
    return found ? this.#say(found[1]) : false;
  }

  /** A formula is shown as it was written: its stars and underscores are no emphasis. */
  #math(opening, closing) {
    if (!this.#text.startsWith(opening, this.#at) || this.#missing.has(closing)) return false;
    const end = this.#text.indexOf(closing, this.#at + 2);
    if (end < 0) {
      this.#missing.add(closing);
      return false;
    }
    this.#put(el("span", { class: "math" }, this.#text.slice(this.#at, end + 2)));
    this.#at = end + 2;
    return true;
  }

  #dollars() {
    const found = this.#take(DOLLARS);
    return found ? this.#put(el("span", { class: "math" }, found[0])) : false;
  }
}

/** Whether a mark between `outer` and `inner` belongs to what `inner` begins. */
function leans(inner, outer) {
  if (SPACE.test(inner)) return false;
  if (!PUNCTUATION.test(inner)) return true;
  return SPACE.test(outer) || PUNCTUATION.test(outer) || WIDE.test(outer);
}

function charBefore(text, at) {
  if (at === 0) return " ";
  const low = text.charCodeAt(at - 1);
  return low >= 0xdc00 && low <= 0xdfff ? text.slice(at - 2, at) : text[at - 1];
}

function count(text, char) {
  return text.split(char).length - 1;
}

/** The items with their marks paired; all of them nodes. */
function emphasised(items, partial) {
  const out = [];
  const openers = []; // places in `out`
  for (const item of items) {
    if (item.mark) pair(item, out, openers);
    else out.push(item.node ? item : shown(item));
  }
  if (partial) closeBold(out, openers);
  return out.map((item) => (item.node ? item : shown(item)));
}

function pair(mark, out, openers) {
  while (mark.closes && mark.count) {
    const place = partner(mark, out, openers);
    if (place < 0) break;
    openers.length = openers.lastIndexOf(place) + 1;
    const width = Math.min(2, mark.count, out[place].count);
    wrap(out, place, mark.mark === "~" ? "del" : width === 2 ? "strong" : "em");
    mark.count -= width;
    out[place].count -= width;
    if (out[place].count) continue;
    openers.pop();
    out.splice(place, 1);
  }
  if (!mark.count) return;
  if (mark.opens) openers.push(out.length);
  if (openers.length > LOOK_BACK) openers.shift();
  out.push(mark);
}

function partner(mark, out, openers) {
  for (const place of openers.toReversed()) {
    const opener = out[place];
    if (opener.mark !== mark.mark) continue;
    const odd = (mark.opens || opener.closes) && (mark.count + opener.count) % 3 === 0;
    if (!odd || (mark.count % 3 === 0 && opener.count % 3 === 0)) return place;
  }
  return -1;
}

/** Put all that follows `place` into one element, unless that becomes too deep. */
function wrap(out, place, tag) {
  const inner = out.splice(place + 1).map((item) => (item.node ? item : shown(item)));
  const depth = inner.reduce((most, item) => Math.max(most, item.depth), 0) + 1;
  if (depth > DEEPEST) {
    out.push(...inner);
    return;
  }
  out.push({ node: el(tag, null, inner.map(({ node }) => node)), depth });
}

function closeBold(out, openers) {
  const place = openers.findLast((at) => out[at].mark === "*" && out[at].count === 2);
  if (place === undefined) return;
  wrap(out, place, "strong");
  out.splice(place, 1);
}

function shown(item) {
  const text = item.text ?? item.bracket ?? item.mark.repeat(item.count);
  return { node: document.createTextNode(text), depth: 0 };
}
