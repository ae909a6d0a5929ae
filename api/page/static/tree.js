// The messages of a conversation, which are a tree. Pure: no server, no element.

export class Tree {
  #byId = new Map();
  #children = new Map(); // parent -> ids, in order of writing

  constructor(messages = []) {
    for (const message of messages) this.put(message);
  }

  get(id) {
    return this.#byId.get(id) ?? null;
  }

  /** Add a message, or put it in the place of the one with its id. */
  put(message) {
    const known = this.#byId.has(message.id);
    this.#byId.set(message.id, message);
    if (known) return;
    const parent = message.parent ?? null;
    this.#children.set(parent, [...this.children(parent), message.id]);
  }

  remove(id) {
    const message = this.get(id);
    if (!message) return;
    const parent = message.parent ?? null;
    this.#byId.delete(id);
    this.#children.set(parent, this.children(parent).filter((child) => child !== id));
  }

  /** Give a message the id that the server knows it by. */
  rename(id, name) {
    const message = this.get(id);
    if (!message || id === name) return;
    const siblings = this.children(message.parent ?? null);
    siblings.splice(siblings.indexOf(id), 1, name);
    for (const child of this.children(id)) this.#byId.get(child).parent = name;
    this.#children.set(name, this.children(id));
    this.#children.delete(id);
    this.#byId.delete(id);
    message.id = name;
    this.#byId.set(name, message);
  }

  /** The ids of the messages that follow `parent` (null: that begin). */
  children(parent) {
    return this.#children.get(parent ?? null) ?? [];
  }

  siblings(id) {
    return this.children(this.get(id)?.parent ?? null);
  }

  /** The messages from the first to `head`; a loop, which no server makes, ends it. */
  path(head) {
    const found = [];
    const seen = new Set();
    for (let at = this.get(head); at && !seen.has(at.id); at = this.get(at.parent)) {
      seen.add(at.id);
      found.push(at);
    }
    return found.reverse();
  }

  /** The end of the branch through `id` that was written last. */
  leaf(id) {
    const seen = new Set();
    let at = id;
    while (this.children(at).length && !seen.has(at)) {
      seen.add(at);
      at = this.children(at).at(-1);
    }
    return at;
  }
}
