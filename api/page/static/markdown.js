// Markdown in blocks, from lines to DOM nodes. Written for what models write: a line break is kept,
// HTML is text, images are links. Knows no stream: stream.js reads the end of a text again and again.

import { CodeBlock } from "./code.js";
import { el } from "./dom.js";
import { inline } from "./inline.js";

const DEEPEST = 10; // quotes and lists in each other; more is text
const MOST_LINES = 300; // of one list, quote or paragraph; then a new one begins
const MOST_CELLS = 100; // of a row
const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^([ \t]*)([-*+]|\d{1,9}[.)])(?:[ \t]+|$)/;
const TASK = /^\[([ xX])\][ \t]+/;
const DELIMITERS = /^[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

/** What `lines` consist of: `{line, end, build(partial)}`, and `fence` if it is code that is open. */
export function readBlocks(lines, depth = 0) {
  const blocks = [];
  for (let line = 0; line < lines.length; ) {
    if (!lines[line].trim()) {
      line += 1;
      continue;
    }
    const block = readBlock(lines, line, depth);
    blocks.push({ line, ...block });
    line = block.end;
  }
  return blocks;
}

function readBlock(lines, line, depth) {
  const nested = depth < DEEPEST;
  return (
    readFence(lines, line) ??
    readHeading(lines, line) ??
    readRule(lines, line) ??
    (nested ? readQuote(lines, line, depth) : null) ??
    (nested ? readList(lines, line, depth) : null) ??
    readTable(lines, line) ??
    readFormula(lines, line) ??
    readIndented(lines, line) ??
    readParagraph(lines, line)
  );
}

/** Whether `line` ends `fence`, which is what `openFence` found. */
export function closesFence(line, fence) {
  const shown = line.trim();
  return shown.length >= fence.mark.length && shown === fence.mark[0].repeat(shown.length) && indentOf(line) < 4;
}

function openFence(line) {
  const found = FENCE.exec(line);
  if (!found || (found[1][0] === "~" && found[2].includes("~~~"))) return null;
  return { mark: found[1], indent: indentOf(line), language: found[2].trim().split(/[\s{,]/, 1)[0] };
}

function readFence(lines, line) {
  const fence = openFence(lines[line]);
  if (!fence) return null;
  let end = line + 1;
  while (end < lines.length && !closesFence(lines[end], fence)) end += 1;
  const build = () => codeOf(fence.language, lines.slice(line + 1, end), fence.indent);
  return { end: Math.min(end + 1, lines.length), build, fence: end < lines.length ? null : fence };
}

function codeOf(language, lines, indent) {
  const block = new CodeBlock(language);
  block.add(lines.map((line) => outdent(line, indent)));
  return block.node;
}

function readHeading(lines, line) {
  const found = HEADING.exec(lines[line]);
  if (!found) return null;
  const text = (found[2] ?? "").trim().replace(/(?:^|[ \t])#{1,50}$/, "");
  const tag = `h${found[1].length}`;
  return { end: line + 1, build: (partial) => el(tag, { dir: "auto" }, inline(text.trim(), partial)) };
}

function readRule(lines, line) {
  return RULE.test(lines[line]) ? { end: line + 1, build: () => el("hr") } : null;
}

function readQuote(lines, line, depth) {
  let end = line;
  while (end < lines.length && end - line < MOST_LINES && QUOTE.test(lines[end])) end += 1;
  if (end === line) return null;
  const inner = lines.slice(line, end).map((text) => text.replace(QUOTE, ""));
  return { end, build: (partial) => el("blockquote", { dir: "auto" }, nodesOf(inner, depth + 1, partial)) };
}

/**
 * The nodes of what is within a block; only its last block may be incomplete. Paragraphs are read in
 * the direction of what they are in, for which it would not be seen otherwise.
 */
function nodesOf(lines, depth, partial) {
  const blocks = readBlocks(lines, depth);
  return blocks.map((block, place) => {
    const node = block.build(partial && place === blocks.length - 1);
    if (node.localName === "p") node.removeAttribute("dir");
    return node;
  });
}

function marker(line) {
  const found = ITEM.exec(line);
  if (!found || RULE.test(line)) return null;
  const indent = indentOf(line);
  const rest = line.slice(found[0].length);
  const space = found[0].length - found[1].length - found[2].length;
  const width = indent + found[2].length + (rest && space <= 4 ? Math.max(1, space) : 1);
  const ordered = /\d/.test(found[2]);
  const kind = ordered ? found[2].at(-1) : found[2];
  return { indent, width, kind, ordered, number: Number.parseInt(found[2], 10), rest };
}

function readList(lines, line, depth) {
  const first = marker(lines[line]);
  if (!first || first.indent > 3) return null;
  const items = [];
  let end = line;
  let loose = false;
  while (end < lines.length && end - line < MOST_LINES) {
    const next = marker(lines[end]);
    if (!next || next.kind !== first.kind || next.indent > first.indent + 3) break;
    const item = readItem(lines, end, next);
    items.push(item);
    loose ||= item.blank && item.end < lines.length && marker(lines[item.end])?.kind === first.kind;
    loose ||= item.gaps;
    end = item.end;
  }
  const build = (partial) => {
    const props = { dir: "auto", start: first.ordered && first.number !== 1 ? first.number : null };
    const made = items.map((item, place) =>
      buildItem(item.lines, depth, loose, partial && place === items.length - 1));
    return el(first.ordered ? "ol" : "ul", props, made);
  };
  return { end, build };
}

/** The lines of one item, without its indent; `blank`: empty lines follow, `gaps`: are within. */
function readItem(lines, line, mark) {
  const found = [mark.rest];
  let end = line + 1;
  let blanks = 0;
  let gaps = false;
  for (; end < lines.length && end - line < MOST_LINES; end += 1) {
    const text = lines[end];
    if (!text.trim()) {
      blanks += 1;
      continue;
    }
    const indent = indentOf(text);
    const inner = indent >= mark.width || (indent >= mark.indent + 2 && marker(text) !== null);
    if (!inner && (blanks || begins(lines, end) || marker(text))) break;
    gaps ||= blanks > 0 && !marker(text);
    for (; blanks; blanks -= 1) found.push("");
    found.push(outdent(text, Math.min(indent, mark.width)));
  }
  return { lines: found, end, blank: blanks > 0, gaps };
}

function buildItem(lines, depth, loose, partial) {
  const task = TASK.exec(lines[0]);
  const inner = task ? [lines[0].slice(task[0].length), ...lines.slice(1)] : lines;
  const nodes = nodesOf(inner, depth + 1, partial).flatMap((node) =>
    !loose && node.localName === "p" ? [...node.childNodes] : [node]);
  if (!task) return el("li", null, nodes);
  const checked = task[1] !== " ";
  const box = el("input", { type: "checkbox", disabled: true, checked });
  return el("li", { class: "task" }, box, " ", nodes);
}

function readTable(lines, line) {
  if (!tableAt(lines, line)) return null;
  const head = cells(lines[line]);
  const align = cells(lines[line + 1]).map(alignment);
  let end = line + 2;
  while (end < lines.length && lines[end].includes("|") && lines[end].trim()) end += 1;
  const row = (tag, found, partial) =>
    el("tr", null, head.map((_, column) =>
      el(tag, { class: align[column], dir: "auto" }, inline(found[column] ?? "", partial))));
  const build = (partial) =>
    el("div", { class: "table", tabindex: "0" },
      el("table", null,
        el("thead", null, row("th", head, false)),
        el("tbody", null, lines.slice(line + 2, end).map((text) => row("td", cells(text), partial)))));
  return { end, build };
}

function tableAt(lines, line) {
  const [head, under] = [lines[line], lines[line + 1]];
  if (!under || !head.includes("|") || under.length > 2000 || !DELIMITERS.test(under)) return false;
  const columns = cells(head).length;
  return columns <= MOST_CELLS && columns === cells(under).length;
}

function cells(row) {
  const inner = row.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/, MOST_CELLS + 1).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function alignment(cell) {
  if (!cell.endsWith(":")) return null;
  return cell.startsWith(":") ? "align-center" : "align-right";
}

/** A formula on lines of its own is shown as it was written. */
function readFormula(lines, line) {
  const opening = lines[line].trim();
  if (opening !== "$$" && opening !== "\\[") return null;
  const closing = opening === "$$" ? "$$" : "\\]";
  let end = line + 1;
  while (end < lines.length && lines[end].trim() !== closing) end += 1;
  const text = lines.slice(line, end + 1).join("\n");
  return { end: Math.min(end + 1, lines.length), build: () => el("pre", { class: "math" }, text) };
}

function readIndented(lines, line) {
  if (indentOf(lines[line]) < 4) return null;
  let end = line;
  for (let at = line; at < lines.length; at += 1) {
    if (!lines[at].trim()) continue;
    if (indentOf(lines[at]) < 4) break;
    end = at + 1;
  }
  return { end, build: () => codeOf("", lines.slice(line, end), 4) };
}

function readParagraph(lines, line) {
  let end = line + 1;
  const room = () => end < lines.length && end - line < MOST_LINES && lines[end].trim();
  while (room() && !begins(lines, end)) end += 1;
  const text = lines.slice(line, end).map((part) => part.trimStart()).join("\n").trimEnd();
  return { end, build: (partial) => el("p", { dir: "auto" }, inline(text, partial)) };
}

/** Whether the line begins a block that ends the paragraph before it. */
function begins(lines, line) {
  const text = lines[line];
  if (FENCE.test(text) || HEADING.test(text) || RULE.test(text) || QUOTE.test(text)) return true;
  const item = marker(text);
  if (item && item.indent < 4 && item.rest && (!item.ordered || item.number === 1)) return true;
  return tableAt(lines, line) || text.trim() === "$$" || text.trim() === "\\[";
}

function indentOf(line) {
  let width = 0;
  for (const char of line) {
    if (char === " ") width += 1;
    else if (char === "\t") width += 4 - (width % 4);
    else break;
  }
  return width;
}

/** `line` without the first `columns` of its indent. */
export function outdent(line, columns) {
  let [at, width] = [0, 0];
  while (width < columns && (line[at] === " " || line[at] === "\t")) {
    width += line[at] === "\t" ? 4 - (width % 4) : 1;
    at += 1;
  }
  return " ".repeat(Math.max(0, width - columns)) + line.slice(at);
}
