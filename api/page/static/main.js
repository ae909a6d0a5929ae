// Puts the page together: who it is, the parts, and which of them hear of what.

import { onUnauthorised, server } from "./api.js";
import { openAgents } from "./agents.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { announce, banner, report } from "./dialogs.js";
import { el, icon, iconButton } from "./dom.js";
import { addWords, t } from "./i18n.js";
import { askForKey, useToken } from "./login.js";
import { Picker } from "./picker.js";
import { Sessions } from "./sessions.js";
import { openSettings, usualSettings } from "./settings.js";
import { listen } from "./shortcuts.js";
import { Sidebar } from "./sidebar.js";
import { forgetPerson, recall, remember, setTabSession, tabSession } from "./store.js";
import { Thread } from "./thread.js";

const app = document.getElementById("app");
const title = el("h1", { class: "title", dir: "auto" });
const suggestions = ["suggest.explain", "suggest.write", "suggest.code", "suggest.plan"];
let leaveOperator = null;

const chat = new Chat({
  show: (path, tree, summaries, live) => {
    app.classList.toggle("running", live !== null);
    if (path.length) thread.show(path, tree, summaries, live);
    else thread.clear(greeting());
  },
  update: (message, tree, live) => thread.update(message, tree, live),
  renamed: (id, name) => thread.rename(id, name),
  opened,
  changed,
  unsent: (text) => composer.giveBack(text),
  again: (text) => composer.takeOut(text),
});
const thread = new Thread({
  edit: (message, text) => chat.edit(message, text),
  regenerate: (message) => chat.regenerate(message),
  branch: branchOff,
  show: (id, side) => {
    chat.show(id);
    thread.focusVersion(id, side);
  },
  resume: () => chat.send(t("continue.message")),
});
const composer = new Composer({
  send: (text) => {
    thread.toEnd();
    return chat.send(text);
  },
  stop: () => chat.stop(),
});
const sessions = new Sessions({
  open: (id) => openSession(id),
  gone: () => fresh(),
  renamed: (session) => {
    if (chat.session?.id !== session.id) return;
    chat.session.title = session.title;
    named();
  },
});
const picker = new Picker((name) => {
  if (!chat.session) remember("model", name || null);
  chat.change({ model: name });
});
const settings = iconButton("sliders", t("settings"), openChatSettings, { class: "chat-only" });
let sidebar = null;

/** Another conversation is open, or the new one has become one. */
function opened() {
  const id = chat.session?.id ?? null;
  waiting(false);
  setTabSession(id);
  history.replaceState({ session: id }, "");
  composer.open(id);
  picker.set(chat.model);
  sessions.select(id);
  changed();
}

/** Nothing is said or set before it is known in which conversation. */
function waiting(is) {
  for (const node of [picker.node, settings, composer.node]) node.inert = is;
}

function openChatSettings() {
  openSettings(chat.settings, (said) => chat.change({ settings: said }));
}

/** Something that the list, the title or the buttons tell of. */
function changed() {
  named();
  composer.running(chat.turn !== null);
  if (chat.turn?.accepted || !chat.turn) sessions.refresh();
}

function named() {
  const name = leaveOperator ? t("operator") : (chat.session?.title ?? "");
  title.textContent = name;
  document.title = name ? `${name} – Onebox` : "Onebox";
}

function greeting() {
  const choose = (text) => {
    composer.write(text);
    document.getElementById("message").focus();
  };
  return el("div", { class: "greeting" },
    el("span", { class: "logo large", "aria-hidden": "true" }, icon("spark")),
    el("h2", null, t("greeting")),
    el("p", { class: "muted" }, t("greeting.what")),
    el("div", { class: "suggestions" }, suggestions.map((key) =>
      el("button", { type: "button", class: "suggestion", onclick: () => choose(t(`${key}.text`)) },
        el("strong", null, t(key)), el("span", { class: "muted" }, t(`${key}.text`))))));
}

function loading() {
  return el("p", { class: "muted loading" }, t("loading"));
}

function fresh({ push = true } = {}) {
  showChat();
  if (push) history.pushState({ session: null }, "");
  chat.wish = { model: recall("model", ""), settings: usualSettings() };
  chat.clear();
  sidebar.chosen();
  composer.focus();
}

async function openSession(id, { push = true } = {}) {
  showChat();
  if (push) history.pushState({ session: id }, "");
  const opening = chat.open(id);
  waiting(true);
  thread.clear(loading());
  sidebar.chosen();
  await opening;
  composer.focus();
}

async function branchOff(message) {
  try {
    const made = await server.branch(chat.session.id, message.id);
    await openSession(made.id);
    announce(t("branched"));
  } catch (error) {
    report(error);
  }
}

function agents() {
  openAgents({
    bases: () => picker.bases,
    admin: app.classList.contains("admin"),
    changed: () => picker.refresh(),
    use: (name) => {
      fresh();
      chat.change({ model: name });
      picker.set(name);
      picker.refresh();
    },
  });
}

/** The operator's part comes when somebody wants it. */
async function operator() {
  sidebar.chosen();
  if (leaveOperator) return;
  banner.hide("bad");
  const root = el("section", { class: "operator", tabindex: "-1" }, loading());
  document.querySelector("main").append(root);
  app.classList.add("operating");
  leaveOperator = () => root.remove();
  named();
  try {
    const { mount, words } = await import("./operator.js");
    if (!root.isConnected) return; // somebody went on meanwhile
    addWords(words);
    const css = "/page/operator.css";
    if (!document.querySelector(`link[href="${css}"]`)) {
      document.head.append(el("link", { rel: "stylesheet", href: css }));
    }
    const unmount = mount(root);
    leaveOperator = () => {
      unmount();
      root.remove();
    };
    root.focus();
  } catch {
    if (!root.isConnected) return;
    showChat();
    banner.show(t("operator.missing"));
  }
}

function showChat() {
  leaveOperator?.();
  leaveOperator = null;
  app.classList.remove("operating");
  named();
}

function build(me) {
  app.classList.toggle("admin", me.admin);
  sidebar = new Sidebar(app, sessions.node, {
    fresh: () => fresh(),
    agents,
    importFile: () => sessions.importFile(),
    operator: me.admin ? operator : null,
    leave: me.keys ? leave : null,
  });
  app.append(el("main", null,
    el("header", { class: "top" }, sidebar.toggleButton, picker.node, title, el("span", { class: "spring" }), settings,
      iconButton("plus", t("new"), () => fresh(), { class: "fresh-icon" })),
    el("div", { id: "banner" }), thread.node, composer.node));
}

/** What is not sent yet is forgotten as well: somebody else may come. */
async function leave() {
  chat.clear();
  composer.write("");
  await server.logout().catch(report);
  forgetPerson();
  location.reload();
}

function keys() {
  listen({
    stop: () => (chat.turn ? chat.stop() : false),
    fresh: () => fresh(),
    search: () => {
      sidebar.open();
      sessions.focusSearch();
    },
    sidebar: () => sidebar.toggle(),
    write: () => document.getElementById("message").focus(),
    copy: () => [...document.querySelectorAll(".message.assistant .actions .copy")].at(-1)?.click(),
  });
}

async function start() {
  const sentence = await useToken();
  onUnauthorised(() => {
    chat.stopLine();
    askForKey(() => location.reload(), sentence);
  });
  const me = await server.me().catch((error) => error);
  if (me instanceof Error) {
    if (me.status !== 401) unreachable(me); // else a key is asked for already
    return;
  }
  build(me);
  keys();
  addEventListener("popstate", ({ state }) => {
    document.querySelector(".settings-dialog")?.close(); // of the conversation that is left
    if (state?.session) openSession(state.session, { push: false });
    else fresh({ push: false });
  });
  const id = tabSession();
  if (id) openSession(id, { push: false });
  else fresh({ push: false });
  chat.start();
  await picker.refresh();
}

/** The server does not say who this is. */
function unreachable(error) {
  app.replaceChildren(el("main", { class: "unreachable" }, el("p", { role: "alert" }, error.message),
    el("button", { type: "button", class: "btn", onclick: () => location.reload() }, t("retry"))));
}

start();
