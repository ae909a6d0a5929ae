// Agents: a model with a name, a system prompt and settings of its own. Chosen, made, changed.

import { server } from "./api.js";
import { bannerLine, confirm, openDialog } from "./dialogs.js";
import { el, fill, icon, iconButton } from "./dom.js";
import { field, select, settingsFields } from "./fields.js";
import { t } from "./i18n.js";

const NAME = "[A-Za-z0-9][A-Za-z0-9 ._\\-]{0,63}";

/** `on`: `{bases(): names of models, admin, use(name), changed()}`. */
export function openAgents(on) {
  const body = el("div", { class: "dialog-body agents" });
  openDialog(t("agents"), body, { kind: "agents-dialog" });
  list(body, on);
}

async function list(body, on) {
  fill(body, el("p", { class: "muted" }, t("loading")));
  let agents = [];
  try {
    agents = await server.agents();
  } catch (error) {
    fill(body, bannerLine(error.message));
    return;
  }
  const add = el("button", { type: "button", class: "btn primary", onclick: () => edit(body, on, null) },
    icon("plus"), t("agent.new"));
  fill(body,
    el("p", { class: "muted" }, t("agents.what")),
    agents.length > 0 && el("ul", { class: "cards" }, agents.map((agent) => card(body, on, agent))),
    !agents.length && el("p", { class: "none muted" }, t("agents.none")),
    el("div", { class: "dialog-actions" }, add));
}

function card(body, on, agent) {
  const use = () => {
    body.closest("dialog").close();
    on.use(agent.name);
  };
  const mine = agent.mine !== false;
  return el("li", { class: "card" },
    el("span", { class: "avatar", "aria-hidden": "true" }, icon("agent")),
    el("div", { class: "card-text" },
      el("strong", { dir: "auto" }, agent.name),
      agent.shared && el("span", { class: "pill" }, t("agent.shared")),
      el("p", { class: "muted", dir: "auto" }, agent.description || agent.model || t("model.served"))),
    el("button", { type: "button", class: "btn small", onclick: use }, t("agent.use")),
    mine && iconButton("edit", t("agent.edit", { name: agent.name }), () => edit(body, on, agent)),
    mine && iconButton("trash", t("agent.delete", { name: agent.name }), () => remove(body, on, agent)));
}

async function remove(body, on, agent) {
  if (!(await confirm(t("agent.delete.sure", { name: agent.name }), t("delete")))) return;
  try {
    await server.removeAgent(agent.id);
    on.changed();
    await list(body, on);
  } catch (error) {
    complain(body, error);
  }
}

/** What went wrong, in the place of what went wrong before. */
function complain(body, error) {
  body.querySelector(".banner")?.remove();
  body.prepend(bannerLine(error.message));
  body.firstElementChild.scrollIntoView({ block: "nearest" });
}

/** The form of one agent; `agent` is null for a new one. */
function edit(body, on, agent) {
  const now = agent ?? {};
  const name = el("input", {
    required: true, pattern: NAME, maxlength: 64, dir: "auto", autocomplete: "off",
    title: t("agent.name.help"), value: now.name ?? "",
  });
  const about = el("input", { maxlength: 500, dir: "auto", value: now.description ?? "" });
  const bases = [...new Set([now.model ?? "", "", ...on.bases()])];
  const options = bases.map((base) => el("option", { value: base }, base || t("model.served")));
  const model = select({}, options, now.model ?? "");
  const shared = el("input", { type: "checkbox", id: "agent-shared", checked: Boolean(now.shared) });
  const tools = el("textarea", {
    rows: 3, class: "mono", dir: "ltr", spellcheck: "false", placeholder: "[]",
    value: now.tools?.length ? JSON.stringify(now.tools, null, 2) : "",
  });
  tools.addEventListener("input", () => tools.setCustomValidity(""));
  const settings = settingsFields(now);
  const save = async () => {
    const said = settings.read();
    const offered = readTools(tools);
    if (!name.reportValidity() || !said || offered === null || !tools.reportValidity()) return;
    const named = { name: name.value, description: about.value, model: model.value };
    await keep(body, on, agent, { ...said, ...named, shared: shared.checked, tools: offered });
  };
  fill(body,
    field(t("agent.name"), name, t("agent.name.help")),
    field(t("agent.about"), about),
    field(t("model"), model),
    settings.node,
    field(t("agent.tools"), tools, t("agent.tools.help")),
    on.admin && el("label", { class: "check", for: "agent-shared" }, shared, t("agent.share")),
    el("div", { class: "dialog-actions" },
      el("button", { type: "button", class: "btn", onclick: () => list(body, on) }, t("cancel")),
      el("button", { type: "button", class: "btn primary", onclick: save }, t("save"))));
  name.focus();
}

/** The list of tools that is written there, or null after the field says that it is none. */
function readTools(box) {
  if (!box.value.trim()) return [];
  try {
    const found = JSON.parse(box.value);
    if (Array.isArray(found)) return found;
  } catch {
    // said below
  }
  box.setCustomValidity(t("agent.tools.wrong"));
  box.reportValidity();
  return null;
}

async function keep(body, on, agent, whole) {
  const { tools, ...rest } = whole;
  const sent = tools.length ? whole : rest;
  try {
    if (agent) await server.replaceAgent(agent.id, sent);
    else await server.createAgent(sent);
    on.changed();
    await list(body, on);
  } catch (error) {
    complain(body, error);
  }
}
