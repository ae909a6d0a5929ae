// Shows one answer, whole or while it is written: thoughts, text, calls, how it ended, its figures.
// Takes a message as the store has it; what is only known while it runs is in `live`.

import { el, fill, icon } from "./dom.js";
import { number, seconds, t } from "./i18n.js";
import { StreamingMarkdown } from "./stream.js";
import { Calls } from "./tools.js";

export class Answer {
  #thoughts = el("div", { class: "thoughts markdown", dir: "auto" });
  #thinking = new StreamingMarkdown(this.#thoughts);
  #thought = el("span");
  #fold = el("details", { class: "thinking", hidden: true },
    el("summary", null, icon("spark"), this.#thought), this.#thoughts);
  #body = el("div", { class: "markdown", dir: "auto" });
  #text = new StreamingMarkdown(this.#body);
  #calls = new Calls();
  #wait = el("div", { class: "waiting", hidden: true }, el("i"), el("i"), el("i"), el("span"));
  #mark = el("div", { class: "mark", hidden: true });
  #figures = el("div", { class: "figures", hidden: true });

  constructor() {
    this.node = el("div", { class: "answer" },
      this.#fold, this.#body, this.#calls.node, this.#wait, this.#mark, this.#figures);
  }

  /** `live`: {notice, thinkingMs, tokens, firstMs, writingMs}, or null when nothing is written. */
  update(message, live = null) {
    const running = message.state === "running";
    this.node.setAttribute("aria-busy", String(running));
    this.#showThoughts(message, live, running);
    this.#text.update(message.content, !running);
    this.#calls.update(message.tool_calls ?? []);
    const silent = !message.content && !message.reasoning && !message.tool_calls?.length;
    this.#wait.hidden = !running || !silent;
    this.#wait.lastElementChild.textContent = live?.notice ?? "";
    this.#showMark(message);
    this.#showFigures(message, live);
  }

  #showThoughts(message, live, running) {
    this.#fold.hidden = !message.reasoning;
    if (!message.reasoning) return;
    const over = !running || message.content || message.tool_calls?.length;
    this.#thinking.update(message.reasoning, Boolean(over));
    const ms = message.thought_ms ?? live?.thinkingMs;
    const said = !over ? t("thinking.now") : t("thinking.done");
    const timed = t(over ? "thinking.took" : "thinking.for", { time: seconds(ms ?? 0) });
    const untimed = ms === null || ms === undefined || (!over && ms < 1000);
    const label = untimed ? said : timed;
    if (this.#thought.textContent !== label) this.#thought.textContent = label;
    this.#fold.classList.toggle("busy", !over);
  }

  #showMark(message) {
    const sentence = sentenceOf(message);
    this.#mark.hidden = !sentence;
    this.#mark.className = `mark ${message.state}`;
    if (!sentence) return;
    fill(this.#mark, icon(message.state === "stopped" ? "stop" : "warning"),
      el("span", { dir: "auto" }, sentence));
  }

  #showFigures(message, live) {
    const parts = message.usage ? ofUsage(message.usage) : live?.tokens ? ofLive(live) : [];
    if (message.model && message.usage) parts.unshift(el("bdi", null, message.model));
    this.#figures.hidden = !parts.length;
    fill(this.#figures, parts.map((part) => el("span", null, part)));
  }
}

/** Why an answer is not what it could have been, "" if it is. */
function sentenceOf({ state, reason, error, unsaved }) {
  if (state === "failed") return error || t("mark.failed");
  if (unsaved) return t("mark.unsaved");
  if (state === "cut") return t("mark.cut");
  if (state === "stopped") return t("mark.stopped");
  if (state === "done" && reason === "length") return t("mark.length");
  return "";
}

function ofUsage(usage) {
  return [
    t("figures.rate", { rate: number(usage.tokens_per_second, 1) }),
    t("figures.first", { time: seconds(usage.ttft_ms) }),
    t("figures.tokens", { count: number(usage.completion_tokens) }),
    t("figures.prompt", {
      count: number(usage.prompt_tokens),
      cached: number(usage.cached_tokens),
    }),
  ];
}

function ofLive({ tokens, firstMs, writingMs }) {
  const parts = firstMs === null ? [] : [t("figures.first", { time: seconds(firstMs) })];
  if (writingMs > 300) parts.unshift(t("figures.rate", { rate: number((tokens * 1000) / writingMs, 1) }));
  return parts;
}
