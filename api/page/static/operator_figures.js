// Figures from what the server has counted: differences, rates, quantiles, and how they are
// written. Knows no element of the page.

import { number } from "./i18n.js";

const WINDOW = 60; // seconds

/** The last minute of what an operator saw. */
export class History {
  #seen = [];

  /** `view` is what the server says now, at `at` (seconds on any clock). */
  add(view, at) {
    if (this.#seen.length && view.uptime < this.now.uptime) this.#seen = []; // it began again
    this.#seen.push({ view, at });
    while (this.#seen.length > 2 && at - this.#seen[1].at >= WINDOW) this.#seen.shift();
  }

  get now() {
    return this.#seen[this.#seen.length - 1].view;
  }

  /** The seconds that it knows of. */
  get span() {
    return this.#seen[this.#seen.length - 1].at - this.#seen[0].at;
  }

  /** Answers of the histogram called `name` in this time, and those of all time. */
  spread(name) {
    return { last: spread(this.now[name], this.#seen[0].view[name]), ever: spread(this.now[name]) };
  }

  /** Tokens made in this time. */
  get made() {
    return made(this.#seen[0].view, this.now);
  }

  /** Tokens per second, once for each look at the server. */
  get speeds() {
    const speeds = [];
    for (let place = 1; place < this.#seen.length; place += 1) {
      const [then, now] = [this.#seen[place - 1], this.#seen[place]];
      speeds.push(made(then.view, now.view) / Math.max(now.at - then.at, 0.1));
    }
    return speeds;
  }
}

/** Tokens that all models have made from one view to another; workers that are new began at 0. */
function made(then, now) {
  const before = new Map(then.models.map((model) => [model.name, model.completion_tokens]));
  let tokens = 0;
  for (const { name, completion_tokens: count } of now.models) {
    const old = before.get(name) ?? 0;
    tokens += count >= old ? count - old : count;
  }
  return tokens;
}

/** A histogram without its sums, as `[from, to, how many]`; the last bucket has no end. */
function spread(now, then) {
  const old = new Map(then?.buckets ?? []);
  let [from, below] = [0, 0];
  const buckets = now.buckets.map(([to, count]) => {
    const number = count - (old.get(to) ?? 0);
    const bucket = [from, to, number - below];
    [from, below] = [to, number];
    return bucket;
  });
  const count = now.count - (then?.count ?? 0);
  return { buckets: [...buckets, [from, Infinity, count - below]], count };
}

/** The value below which a share of all is, as near as buckets tell; null of nothing. */
export function quantile({ buckets, count }, share) {
  if (!count) return null;
  let left = count * share;
  for (const [from, to, number] of buckets) {
    if (number >= left && number > 0) {
      return to === Infinity ? Infinity : from + (to - from) * (left / number);
    }
    left -= number;
  }
  return Infinity;
}

/** 950, 12.3k, 4.56M. */
export function short(value) {
  const [unit, name] = value >= 1e6 ? [1e6, "M"] : value >= 1e4 ? [1e3, "k"] : [1, ""];
  const shown = value / unit;
  return number(shown, name === "" ? 0 : shown < 10 ? 2 : shown < 100 ? 1 : 0) + name;
}

export function percent(part, whole) {
  return whole ? `${number((100 * part) / whole)} %` : "–";
}

export function bytes(value) {
  const [unit, name] = value >= 2 ** 30 ? [2 ** 30, "GiB"] : [2 ** 20, "MiB"];
  const shown = value / unit;
  return `${number(shown, name === "GiB" && shown < 100 ? 1 : 0)} ${name}`;
}

/** A latency: 4 ms, 250 ms, 1.2 s, 75 s. */
export function latency(seconds, longest) {
  if (seconds === null) return "–";
  if (seconds === Infinity) return `> ${latency(longest)}`;
  if (seconds < 0.01) return `${number(seconds * 1000, 1)} ms`;
  if (seconds < 1) return `${number(seconds * 1000)} ms`;
  return `${number(seconds, seconds < 10 ? 1 : 0)} s`;
}

/** A bound of a bucket, as it is: 2.5 ms, 50 ms, 2.5 s, 2 min. */
export function bound(seconds) {
  if (seconds < 1) return `${Number((seconds * 1000).toPrecision(6))} ms`;
  return seconds < 60 ? `${seconds} s` : `${seconds / 60} min`;
}

/** How long something takes or took: 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function duration(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const whole = Math.max(0, Math.floor(seconds));
  const first = Math.max(0, units.findIndex(([, size]) => whole >= size));
  if (whole === 0) return "0 s";
  const [name, size] = units[first];
  const next = units[first + 1];
  const rest = next ? Math.floor((whole % size) / next[1]) : 0;
  return `${Math.floor(whole / size)} ${name}${rest ? ` ${rest} ${next[0]}` : ""}`;
}
