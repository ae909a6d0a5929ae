// The tables of the operator's view: models and requests. A row stays the same element while its
// subject is there, so that what is focused or about to be clicked is not torn away.

import { el } from "./dom.js";
import { number, t } from "./i18n.js";
import { bytes, duration, percent, short } from "./operator_figures.js";

const MOST = 100; // rows

/** A table of `columns` (`[name, title, kind]`); `set(subjects)` shows those, each in the row of its
 * key. `words` are what is said where there is none, and a function of how many are left out. */
class Live {
  #rows = new Map();
  #body;
  #below;
  #words;

  constructor(columns, words, makeRow) {
    this.makeRow = makeRow;
    this.#words = words;
    this.#body = el("tbody");
    this.#below = el("p", { class: "muted op-empty" });
    const heads = columns.map(([, title, kind]) => el("th", { scope: "col", class: kind }, title));
    const table = el("table", { class: "op-table" }, el("thead", null, el("tr", null, heads)), this.#body);
    this.node = el("div", { class: "card op-rows" }, table, this.#below);
  }

  set(all, keyOf) {
    const subjects = all.slice(0, MOST);
    const there = new Set(subjects.map(keyOf));
    for (const [key, row] of this.#rows) {
      if (!there.has(key)) {
        row.node.remove();
        this.#rows.delete(key);
      }
    }
    for (const subject of subjects) {
      const key = keyOf(subject);
      if (!this.#rows.has(key)) {
        const row = this.makeRow(subject);
        this.#rows.set(key, row);
        this.#body.append(row.node);
      }
      this.#rows.get(key).set(subject);
    }
    const left = all.length - subjects.length;
    write(this.#below, all.length ? this.#words.more(left) : this.#words.nothing);
    this.#below.hidden = all.length > 0 && left === 0;
    this.node.classList.toggle("empty", all.length === 0);
  }
}

function said(nothing) {
  return { nothing: t(nothing), more: (left) => t("operator.more", { count: number(left) }) };
}

/** Cells of a row by name; `columns` are `[name, title, kind]`. */
function cellsOf(columns) {
  const cells = {};
  for (const [name, title, kind] of columns) {
    cells[name] = el("td", { class: kind, dataset: { label: title } });
  }
  return cells;
}

function write(cell, text) {
  if (cell.textContent !== text) cell.textContent = text;
}

const KINDS = { ready: "ok", running: "ok", loading: "warn", waiting: "warn", restarting: "warn", draining: "warn", failed: "bad", stopped: "bad" };

function showState(pill, state) {
  write(pill, t(`operator.state.${state}`));
  pill.className = `pill ${KINDS[state] ?? ""}`;
}

/** All models in memory; `unload(model)` is asked for by a button. */
export function modelsTable(unload) {
  const columns = [
    ["name", t("operator.model"), "op-name"],
    ["state", t("operator.state"), ""],
    ["running", t("operator.running"), "num"],
    ["waiting", t("operator.waiting"), "num"],
    ["kv", t("operator.kv"), "num"],
    ["hits", t("operator.hits"), "num"],
    ["made", t("operator.made"), "num"],
    ["size", t("operator.size"), "num"],
    ["pid", t("operator.pid"), "num"],
    ["leaves", t("operator.leaves"), "num"],
    ["act", "", "op-act"],
  ];
  const makeRow = (first) => {
    const cells = cellsOf(columns);
    const pill = el("span", { class: "pill" });
    let model = first;
    cells.state.append(pill);
    cells.act.append(el("button", { type: "button", class: "btn small", onclick: () => unload(model) }, t("operator.unload")));
    const set = (now) => {
      model = now;
      write(cells.name, now.name);
      showState(pill, now.state);
      pill.title = now.detail;
      write(cells.running, `${number(now.running)} / ${number(now.slots)}`);
      write(cells.waiting, number(now.waiting));
      write(cells.kv, percent(now.kv_used, now.kv_total));
      write(cells.hits, percent(now.cached_tokens, now.prompt_tokens));
      write(cells.made, short(now.completion_tokens));
      write(cells.size, sizeOf(now));
      write(cells.pid, now.pid === null ? "–" : String(now.pid));
      write(cells.leaves, leaving(now));
    };
    return { node: el("tr", null, columns.map(([name]) => cells[name])), set };
  };
  const table = new Live(columns, said("operator.models.none"), makeRow);
  return { node: table.node, set: (models) => table.set(models, (model) => model.name) };
}

function sizeOf({ memory, vram }) {
  const ram = memory === null ? "–" : bytes(memory);
  return vram ? t("operator.size.vram", { ram, vram: bytes(vram) }) : ram;
}

function leaving({ expires_in: left }) {
  if (left === null) return t("operator.leaves.never");
  if (left <= 0) return t("operator.leaves.soon");
  return t("operator.leaves.in", { time: duration(left) });
}

/** All requests that are not answered yet; `end(request)` is asked for by a button. */
export function requestsTable(end) {
  const columns = [
    ["id", t("operator.request"), "op-name"],
    ["who", t("operator.who"), ""],
    ["model", t("operator.model"), "op-wide"],
    ["state", t("operator.state"), ""],
    ["age", t("operator.age"), "num"],
    ["tokens", t("operator.tokens"), "num"],
    ["act", "", "op-act"],
  ];
  const makeRow = (first) => {
    const cells = cellsOf(columns);
    const pill = el("span", { class: "pill" });
    let request = first;
    cells.state.append(pill);
    const label = t("operator.cancel.of", { id: first.id });
    cells.act.append(el("button", { type: "button", class: "btn small op-end", "aria-label": label, onclick: () => end(request) }, t("operator.cancel")));
    const set = (now) => {
      request = now;
      write(cells.id, brief(now.id));
      cells.id.title = now.id;
      write(cells.who, now.tenant || "–");
      write(cells.model, now.model);
      showState(pill, now.state);
      write(cells.age, duration(now.seconds));
      write(cells.tokens, number(now.tokens));
    };
    return { node: el("tr", null, columns.map(([name]) => cells[name])), set };
  };
  const table = new Live(columns, said("operator.requests.none"), makeRow);
  return { node: table.node, set: (requests) => table.set(numbered(requests), (request) => request.key) };
}

/** Requests with a key each: several prompts of one request have one id. */
function numbered(requests) {
  const seen = new Map();
  return requests.map((request) => {
    const nth = seen.get(request.id) ?? 0;
    seen.set(request.id, nth + 1);
    return { ...request, key: `${request.id} ${nth}` };
  });
}

/** An id that is too long to be read: its beginning and its end. */
export function brief(id) {
  return id.length > 22 ? `${id.slice(0, 13)}…${id.slice(-6)}` : id;
}
