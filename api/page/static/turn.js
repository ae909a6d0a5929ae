// The answer that is being written: the events of the socket become a message like the store's.
// Knows neither the socket nor the screen.

import { t } from "./i18n.js";

export class Turn {
  accepted = false; // the server has it on its disk
  sent = false;
  notice = "";
  summary = null; // {messages, content} when earlier messages were summed up for it
  #began = performance.now();
  #firstAt = null;
  #thoughtFrom = null;
  #thoughtTo = null;
  #tokens = 0;
  #replace = new Set(); // what the next event says again from its beginning

  /** `ask` is the frame that starts it, or null if it runs already; `user` may be null. */
  constructor(answer, user, ask) {
    this.answer = answer;
    this.user = user;
    this.ask = ask;
    if (!ask) this.accepted = this.sent = true;
  }

  /** What is known only while it runs, for the screen; nobody here saw the beginning of what ran already. */
  get live() {
    const now = performance.now();
    const first = this.#firstAt;
    return {
      id: this.answer.id,
      notice: this.notice,
      thinkingMs: this.#thoughtFrom === null ? null : (this.#thoughtTo ?? now) - this.#thoughtFrom,
      tokens: this.#tokens,
      firstMs: first === null || !this.ask ? null : first - this.#began,
      writingMs: first === null ? 0 : now - first,
    };
  }

  /** Take one event; returns "end" or "error" if it was the last. */
  take(event) {
    switch (event.type) {
      case "start": return this.#start(event);
      case "compacting": return this.#say(t("compacting"));
      case "compacted": return this.#compacted(event);
      case "reasoning": return this.#add("reasoning", event.text);
      case "text": return this.#add("content", event.text);
      case "tool": return this.#call(event);
      case "usage": return this.#usage(event);
      case "end": return this.#end(event);
      case "error": return this.#failed(event);
      default: return null; // of a newer server
    }
  }

  #start(event) {
    this.accepted = true;
    this.notice = "";
    if (event.model) this.answer.model = event.model;
    if (event.resumed) this.#replace = new Set(["reasoning", "content", "tool_calls"]);
    return null;
  }

  #say(notice) {
    this.notice = notice;
    return null;
  }

  #compacted({ messages, summary }) {
    this.summary = { messages, content: summary };
    return this.#say("");
  }

  #add(field, text) {
    this.#wrote();
    const before = this.#replace.delete(field) ? "" : this.answer[field];
    const isThought = field === "reasoning";
    if (isThought && !before && !this.answer[field]) this.#thoughtFrom = performance.now();
    if (!isThought) this.#thoughtTo ??= performance.now();
    this.answer[field] = before + text;
    return null;
  }

  #call({ position, id, name, arguments: more = "" }) {
    this.#wrote();
    this.#thoughtTo ??= performance.now();
    const calls = this.#replace.delete("tool_calls") ? [] : [...this.answer.tool_calls];
    const known = calls[position] ?? { id: "", name: "", arguments: "" };
    calls[position] = {
      id: id ?? known.id,
      name: name ?? known.name,
      arguments: known.arguments + more,
    };
    this.answer.tool_calls = Array.from(calls, (call) => call ?? { id: "", name: "", arguments: "" });
    return null;
  }

  #wrote() {
    this.#firstAt ??= performance.now();
    this.#tokens += 1;
  }

  #usage({ type: _, ...usage }) {
    this.answer.usage = usage;
    return null;
  }

  #end({ reason, saved }) {
    this.answer.state = reason === "stopped" ? "stopped" : "done";
    this.answer.reason = reason;
    this.answer.unsaved = saved === false;
    this.#close();
    return "end";
  }

  #failed({ message }) {
    this.answer.state = "failed";
    this.answer.error = String(message ?? "");
    this.#close();
    return "error";
  }

  #close() {
    const { thinkingMs } = this.live;
    if (this.answer.reasoning && thinkingMs !== null) {
      this.answer.thought_ms ??= Math.round(thinkingMs);
    }
  }
}

/** An answer that nobody has written yet. */
export function emptyAnswer(parent) {
  return {
    id: "unsent-answer", parent, role: "assistant", content: "", reasoning: "", thought_ms: null,
    tool_calls: [], state: "running", reason: "", error: "", model: "", usage: null,
  };
}

export function unsentMessage(parent, content) {
  return { id: "unsent-user", parent, role: "user", content, state: "done" };
}

/** A message of the server with all its fields: those that have their usual values are left out. */
export function whole(message) {
  return { ...emptyAnswer(null), state: "done", ...message };
}
