// Colours for code: a line becomes pieces with a kind each. What a language looks like is in
// grammars.js. The pieces always join to the line they were cut from.

import { GRAMMARS, NAMES } from "./grammars.js";

const LONGEST = 1_000; // characters of a line; longer ones are plain

/** The grammar for what follows a fence, or null. */
export function grammarOf(language) {
  const name = language.toLowerCase();
  return GRAMMARS[NAMES[name] ?? name] ?? null;
}

/**
 * `[pieces, state]`: pieces are `[kind, text]`, kind "" for plain; `state` is for the next line,
 * for what goes on over its end: a comment, a long string.
 */
export function highlight(line, grammar, state = null) {
  if (!grammar || line.length > LONGEST) return [line ? [["", line]] : [], grammar ? state : null];
  const pieces = [];
  let [at, inside] = [0, state];
  while (at < line.length) {
    const [kind, text, next] = inside ? goOn(line, at, inside) : begin(line, at, grammar);
    add(pieces, kind, text);
    at += text.length;
    inside = next;
  }
  return [pieces, inside];
}

/** More of what began before: up to its end, or to the end of the line. */
function goOn(line, at, inside) {
  inside.until.lastIndex = at;
  const found = inside.until.exec(line);
  if (!found) return [inside.kind, line.slice(at), inside];
  return [inside.kind, line.slice(at, found.index + found[0].length), null];
}

function begin(line, at, grammar) {
  for (const rule of grammar.rules) {
    rule.begin.lastIndex = at;
    const found = rule.begin.exec(line);
    if (!found?.[0]) continue;
    const kind = rule.kind === "word" ? kindOf(found[0], line, at, grammar) : rule.kind;
    return [kind, found[0], rule.until ? rule : null];
  }
  return ["", line[at], null];
}

function kindOf(word, line, at, grammar) {
  const plain = grammar.anyCase ? word.toLowerCase() : word;
  if (grammar.keywords.has(plain)) return "keyword";
  if (grammar.values.has(plain)) return "number";
  if (grammar.types.has(plain) || (grammar.bigTypes && /^[A-Z]\w*[a-z]/.test(word))) return "type";
  return line[at + word.length] === "(" ? "function" : "";
}

function add(pieces, kind, text) {
  const last = pieces.at(-1);
  if (last && last[0] === kind) last[1] += text;
  else pieces.push([kind, text]);
}
