// Calls of the server's REST interface. Knows no conversation; errors are sentences.

import { t } from "./i18n.js";

/** What went wrong: `status` of HTTP (0: no connection), `code` of the server, a sentence. */
class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let askForKey = () => {};

/** `callback` is called whenever the server wants a key that this browser has not shown. */
export function onUnauthorised(callback) {
  askForKey = callback;
}

/** The JSON that the server answers with, or null where there is none. Raises `ApiError`. */
export async function api(path, { method = "GET", body, signal, quiet = false } = {}) {
  const response = await ask(path, method, body, signal);
  if (response.status === 204) return null;
  const found = await read(response);
  if (response.ok) return found;
  const told = found?.error;
  const error = new ApiError(
    response.status,
    told?.code ?? "",
    typeof told?.message === "string" ? told.message : t("error.status", { status: response.status }),
  );
  if (error.status === 401 && !quiet) askForKey(error);
  throw error;
}

/** The JSON of an answer, null if it is none; what is cut off is no answer. */
async function read(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw failure(error);
  }
}

async function ask(path, method, body, signal) {
  const headers = { Accept: "application/json" };
  if (method !== "GET" && method !== "DELETE") headers["Content-Type"] = "application/json";
  const sent = body === undefined ? undefined : JSON.stringify(body);
  try {
    return await fetch(path, { method, headers, body: sent, signal, keepalive: method === "DELETE" });
  } catch (error) {
    throw failure(error);
  }
}

/** Somebody does not want it any more, or there is no connection. */
function failure(error) {
  return error.name === "AbortError" ? error : new ApiError(0, "no_connection", t("error.unreachable"));
}

const session = (id) => `/api/v1/sessions/${encodeURIComponent(id)}`;
const agent = (id) => `/api/v1/agents/${encodeURIComponent(id)}`;

// Every address of the server that the page uses, but for those of the operator's part.
export const server = {
  me: () => api("/api/v1/me"),
  login: (token) => api("/api/v1/login", { method: "POST", body: { token }, quiet: true }),
  logout: () => api("/api/v1/logout", { method: "POST", body: {} }),
  models: async () => (await api("/api/v1/models")).data ?? [],
  sessions: (query, before, signal) => {
    const asked = new URLSearchParams({ limit: "50" });
    if (query) asked.set("query", query);
    if (before) asked.set("before", before);
    return api(`/api/v1/sessions?${asked}`, { signal });
  },
  session: (id) => api(session(id)),
  create: (body) => api("/api/v1/sessions", { method: "POST", body }),
  change: (id, body) => api(session(id), { method: "PATCH", body }),
  remove: (id) => api(session(id), { method: "DELETE" }),
  branch: (id, message) =>
    api(`${session(id)}/branch`, { method: "POST", body: { message_id: message } }),
  stop: (id) => api(`${session(id)}/stop`, { method: "POST", body: {} }),
  importSession: (body) => api("/api/v1/sessions/import", { method: "POST", body }),
  exported: (id, format) => `${session(id)}/export?format=${format}`,
  agents: async () => (await api("/api/v1/agents")).agents ?? [],
  createAgent: (body) => api("/api/v1/agents", { method: "POST", body }),
  replaceAgent: (id, body) => api(agent(id), { method: "PUT", body }),
  removeAgent: (id) => api(agent(id), { method: "DELETE" }),
};
