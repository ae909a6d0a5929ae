// The end of the server's log. Who scrolls up to read is not disturbed: what is new waits until
// they are at the end again.

import { el } from "./dom.js";
import { t } from "./i18n.js";

const RANK = { DEBUG: 0, INFO: 1, WARNING: 2, ERROR: 3, CRITICAL: 4 };
const NEAR = 24; // pixels from the end that still are the end

/** `set(lines)` shows the lines that the server has now. */
export function logTail() {
  let lines = [];
  let shown = [];
  const list = el("ol", { class: "op-log", tabindex: 0, "aria-label": t("operator.log") });
  const more = el("button", { type: "button", class: "btn small op-more", hidden: true, onclick: () => showEnd() });
  const nothing = el("p", { class: "muted op-empty" }, t("operator.log.none"));
  const choice = levelChoice(() => {
    shown = [];
    list.replaceChildren();
    showEnd();
  });
  const wanted = () => lines.filter((line) => (RANK[line.level] ?? 1) >= Number(choice.value));
  const atEnd = () => list.scrollHeight - list.scrollTop - list.clientHeight < NEAR;

  function showEnd() {
    const before = shown;
    shown = wanted();
    renew(list, before, shown);
    more.hidden = true;
    nothing.hidden = shown.length > 0;
    list.hidden = shown.length === 0;
    list.scrollTop = list.scrollHeight;
  }

  list.addEventListener("scroll", () => {
    if (!more.hidden && atEnd()) showEnd();
  });
  const set = (now) => {
    lines = now;
    if (atEnd()) {
      showEnd();
      return;
    }
    const waiting = wanted().length - after(shown, wanted());
    more.hidden = waiting === 0;
    more.textContent = t("operator.log.paused", { count: waiting });
  };
  const node = el("div", { class: "card op-log-card" }, el("div", { class: "op-log-room" }, list, more), nothing);
  return { node, choice, set };
}

/** Take lines that are gone out of `list`, and put in those that are new. */
function renew(list, shown, lines) {
  const fresh = lines.slice(after(shown, lines));
  const gone = shown.length + fresh.length - lines.length;
  for (let left = gone; left > 0; left -= 1) list.firstElementChild?.remove();
  list.append(...fresh.map(entry));
}

/** How grave a line has to be to be shown, as its rank. */
function levelChoice(onchange) {
  const levels = [["operator.log.all", 0], ["operator.log.warning", RANK.WARNING], ["operator.log.error", RANK.ERROR]];
  return el("select", { "aria-label": t("operator.log.level"), onchange },
    levels.map(([key, rank]) => el("option", { value: String(rank) }, t(key))));
}

/** How many of `lines` are among those that are shown. */
function after(shown, lines) {
  const last = shown[shown.length - 1];
  if (!last) return 0;
  for (let place = lines.length - 1; place >= 0; place -= 1) {
    const line = lines[place];
    if (line.time === last.time && line.text === last.text && line.logger === last.logger) return place + 1;
  }
  return 0;
}

function entry({ time, level, logger, text }) {
  const clock = new Date(time * 1000);
  const shown = clock.toLocaleTimeString(document.documentElement.lang || "en", { hour12: false });
  return el("li", { class: `op-entry op-${level.toLowerCase()}` },
    el("time", { datetime: clock.toISOString(), title: clock.toLocaleString() }, shown),
    el("span", { class: "op-level" }, level),
    el("span", { class: "op-logger" }, logger),
    el("span", { class: "op-text" }, text));
}
