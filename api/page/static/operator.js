// What an operator sees and does: load, speed, latency, models, requests, log. Looks once a second
// while somebody can see it.

import { api } from "./api.js";
import { confirm } from "./dialogs.js";
import { el } from "./dom.js";
import { number, t } from "./i18n.js";
import { bar, histogram, line } from "./operator_charts.js";
import { History, bytes, duration, percent, short } from "./operator_figures.js";
import { logTail } from "./operator_log.js";
import { brief, modelsTable, requestsTable } from "./operator_tables.js";

export { words } from "./operator_words.js";

const PERIOD = 1000; // ms
const SMOOTH = 5; // looks that a speed is the mean of

/** Fills `root`; what is returned takes the view away. */
export function mount(root) {
  const [stale, told] = [note("op-stale"), note("op-told")];
  const parts = layout({
    unload: (model) => tell(told, unload(model)),
    end: (request) => tell(told, end(request)),
  });
  root.replaceChildren(stale.node, told.node, parts.node);
  return everySecond(watcher(stale, parts));
}

/** Takes one look at the server and shows it; the milliseconds until the next, null for none. */
function watcher(stale, parts) {
  const history = new History();
  const clock = () => performance.now() / 1000;
  let seen = clock();
  return async () => {
    let view;
    try {
      view = await api("/api/v1/operator");
    } catch (error) {
      const barred = error.status === 401 || error.status === 403;
      stale.say(barred ? error.message : t("operator.stale", { time: duration(clock() - seen) }));
      return barred ? null : 3 * PERIOD;
    }
    stale.say("");
    seen = clock();
    history.add(view, seen);
    parts.set(history);
    return PERIOD;
  };
}

/** Calls `look` again and again while the page can be seen; what is returned ends that. */
function everySecond(look) {
  let [timer, over, looking] = [null, false, false];
  const next = async () => {
    timer = null;
    if (over || looking || document.hidden) return;
    looking = true;
    const pause = await look().finally(() => { looking = false; });
    if (!over && pause !== null) timer = setTimeout(next, pause);
  };
  const wake = () => {
    if (timer === null) next();
  };
  document.addEventListener("visibilitychange", wake);
  next();
  return () => {
    over = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", wake);
  };
}

/** A line for people that is there while it says something. */
function note(kind) {
  const node = el("p", { class: `banner ${kind}`, role: "status", hidden: true });
  const say = (text) => {
    node.hidden = !text;
    if (node.textContent !== text) node.textContent = text;
  };
  return { node, say };
}

/** Shows for a while what came of an action. */
async function tell(told, action) {
  told.say(await action.catch((error) => error.message));
  setTimeout(() => told.say(""), 5 * PERIOD);
}

/** All of the view: its node, and `set(history)`. */
function layout(on) {
  const about = el("p", { class: "muted op-about" });
  const cards = cardsOf();
  const box = boxOf();
  const [ttft, itl] = ["ttft", "itl"].map((name) => histogram(t(`operator.${name}`)));
  const models = modelsTable(on.unload);
  const requests = requestsTable(on.end);
  const log = logTail();
  const section = (title, extra, ...nodes) =>
    el("section", { class: "op-section" }, el("div", { class: "op-head" }, el("h2", null, title), extra), nodes);
  const nodes = [
    section(t("operator.load"), about, cards.node),
    section(t("operator.latency"), null, el("div", { class: "op-pair" }, ttft.node, itl.node)),
    section(t("operator.requests"), null, requests.node),
    section(t("operator.models"), null, models.node),
    section(t("operator.box"), null, box.node),
    section(t("operator.log"), log.choice, log.node),
  ];
  const set = (history) => {
    const { now } = history;
    about.textContent = t("operator.uptime", { version: now.version, time: duration(now.uptime) });
    cards.set(history);
    const time = duration(Math.max(1, Math.round(history.span)));
    ttft.set(history.spread("ttft"), time);
    itl.set(history.spread("itl"), time);
    requests.set(now.requests);
    models.set(now.models);
    box.set(now);
    log.set(now.log);
  };
  return { node: el("div", { class: "op-view" }, nodes), set };
}

/** The figures at the top. */
function cardsOf() {
  const made = {};
  const card = (name, extra) => {
    const value = el("strong", { class: "op-value" }, "–");
    const what = el("span", { class: "muted op-what" });
    made[name] = (text, below) => {
      value.textContent = text;
      what.textContent = below;
    };
    return el("div", { class: "card op-card" }, el("h3", null, t(`operator.${name}`)), value, extra, what);
  };
  const speed = line();
  const kv = bar(t("operator.kv"));
  const hits = bar(t("operator.hits"));
  const node = el("div", { class: "op-cards" },
    card("running"), card("waiting"), card("speed", speed.node), card("kv", kv.node), card("hits", hits.node), card("restarts"));
  const set = (history) => {
    const sum = (field) => history.now.models.reduce((all, model) => all + model[field], 0);
    const waiting = history.now.requests.filter((request) => request.state === "waiting").length;
    const running = history.now.requests.length - waiting;
    const { speeds } = history;
    const last = speeds.slice(-SMOOTH);
    const mean = last.length ? last.reduce((all, one) => all + one, 0) / last.length : 0;
    made.running(number(running), t("operator.of.slots", { slots: sum("slots") }));
    made.waiting(number(waiting), t("operator.waiting.what"));
    const time = duration(Math.max(1, Math.round(history.span)));
    made.speed(number(mean, mean > 0 && mean < 10 ? 1 : 0), t("operator.speed.what", { count: short(history.made), time }));
    const [used, total] = [sum("kv_used"), sum("kv_total")];
    made.kv(percent(used, total), t("operator.kv.what", { used: short(used), total: short(total) }));
    const [cached, prompt] = [sum("cached_tokens"), sum("prompt_tokens")];
    made.hits(percent(cached, prompt), t("operator.hits.what", { cached: short(cached), prompt: short(prompt) }));
    made.restarts(number(sum("restarts")), t("operator.restarts.what", { preemptions: number(sum("preemptions")) }));
    speed.set(speeds);
    kv.set(used, total);
    hits.set(cached, prompt);
  };
  return { node, set };
}

/** Processor, memory and graphics cards. */
function boxOf() {
  const node = el("div", { class: "op-cards op-box" });
  const gauges = [];
  const gauge = (place, title) => {
    if (!gauges[place]) {
      const value = el("strong", { class: "op-value small" });
      const share = bar(title);
      const what = el("span", { class: "muted op-what" });
      node.append(el("div", { class: "card op-card" }, el("h3", null, title), value, share.node, what));
      gauges[place] = (part, whole, below) => {
        value.textContent = percent(part, whole);
        share.set(part, whole);
        what.textContent = below;
      };
    }
    return gauges[place];
  };
  const sized = ({ used, total }) => t("operator.used", { used: bytes(used), total: bytes(total) });
  const set = (now) => {
    gauge(0, t("operator.cpu"))(now.cpu_percent, 100, "");
    gauge(1, t("operator.memory"))(now.memory.used, now.memory.total, sized(now.memory));
    now.vram.forEach((card, place) => {
      gauge(2 + place, card.name)(card.used, card.total, sized(card));
    });
  };
  return { node, set };
}

/** What there is to say afterwards, as of `end`. */
async function unload(model) {
  const sure = await confirm(t("operator.unload.ask", model), t("operator.unload"), t("operator.keep"));
  if (sure) await api(`/api/v1/operator/models/${encodeURIComponent(model.name)}/unload`, { method: "POST", body: {} });
  return "";
}

/** What there is to say afterwards. */
async function end(request) {
  const about = { id: brief(request.id), who: request.tenant || t("operator.nobody"), model: request.model };
  const sure = await confirm(t("operator.cancel.ask", about), t("operator.cancel"), t("operator.keep"));
  if (!sure) return "";
  const path = `/api/v1/operator/requests/${encodeURIComponent(request.id)}/cancel`;
  const { cancelled } = await api(path, { method: "POST", body: {} });
  return cancelled ? "" : t("operator.cancel.late");
}
