// What this browser remembers: how somebody likes the page, and what they have not sent yet, until they
// sign out. Never what was said, never a key.

const PREFIX = "onebox.";
const MOST_DRAFTS = 100;
const LONGEST_DRAFT = 100_000; // characters

/** What was remembered under `key`, or `otherwise`. */
export function recall(key, otherwise = null) {
  try {
    const kept = localStorage.getItem(PREFIX + key);
    return kept === null ? otherwise : JSON.parse(kept);
  } catch {
    return otherwise; // a private window, or what nobody of us wrote
  }
}

export function remember(key, value) {
  try {
    if (value === null || value === undefined) localStorage.removeItem(PREFIX + key);
    else localStorage.setItem(PREFIX + key, JSON.stringify(value));
  } catch {
    // no room, or not allowed: the page works without
  }
}

/** The text that was not sent yet; a conversation without an id is the new one. */
export function draft(session) {
  const text = drafts()[session ?? ""];
  return typeof text === "string" ? text : "";
}

export function keepDraft(session, text) {
  const { [session ?? ""]: _, ...kept } = drafts();
  if (text && text.length <= LONGEST_DRAFT) kept[session ?? ""] = text;
  remember("drafts", Object.fromEntries(Object.entries(kept).slice(-MOST_DRAFTS)));
}

/** Forget what only who was signed in should see. */
export function forgetPerson() {
  for (const key of ["drafts", "settings", "model"]) remember(key, null);
}

function drafts() {
  const kept = recall("drafts", {});
  return kept && typeof kept === "object" ? kept : {};
}

/** Which conversation this tab shows, so that it does after a reload. */
export function tabSession() {
  try {
    return sessionStorage.getItem(PREFIX + "session");
  } catch {
    return null;
  }
}

export function setTabSession(id) {
  try {
    if (id) sessionStorage.setItem(PREFIX + "session", id);
    else sessionStorage.removeItem(PREFIX + "session");
  } catch {
    // as above
  }
}
