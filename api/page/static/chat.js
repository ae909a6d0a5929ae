// One conversation: what it consists of, the turn that runs, and what can be done with both.
// The screen is told through `screen`: {show, update, renamed, opened, changed, unsent, again}.

import { server } from "./api.js";
import { announce, banner, report } from "./dialogs.js";
import { t } from "./i18n.js";
import { Line } from "./socket.js";
import { Tree } from "./tree.js";
import { Turn, emptyAnswer, unsentMessage, whole } from "./turn.js";

const TICK = 250; // ms after which times are shown anew, whether or not something was written
const BLIP = 800; // ms for which a lost connection is nobody's business

export class Chat {
  session = null; // null while the conversation is new
  wish = { model: "", settings: {} }; // of the new one
  tree = new Tree();
  head = null;
  summaries = [];
  turn = null;
  #screen;
  #line;
  #frame = 0;
  #opening = 0;
  #blip = 0;
  #ticking = 0;
  #stale = false; // an answer failed: perhaps since the server stopped, which it stores as cut

  constructor(screen) {
    this.#screen = screen;
    this.#line = new Line({
      up: () => this.#up(),
      down: (tries) => this.#down(tries),
      event: (event) => this.#event(event),
    });
    addEventListener("pagehide", () => this.#takeBack());
  }

  start() {
    this.#line.start();
  }

  stopLine() {
    this.#line.stop();
  }

  get path() {
    return this.tree.path(this.head);
  }

  get model() {
    return this.session ? this.session.model : this.wish.model;
  }

  get settings() {
    return (this.session ?? this.wish).settings ?? {};
  }

  /** Leave this conversation for a new one; an answer that runs goes on at the server. */
  clear() {
    this.#leave();
    this.#load(null);
  }

  async open(id) {
    this.#leave();
    const opening = this.#opening;
    try {
      const found = await server.session(id);
      if (opening === this.#opening) this.#load(found);
    } catch (error) {
      if (opening !== this.#opening) return;
      this.#load(null);
      report(error, error.status === 404 ? null : () => this.open(id));
    }
  }

  #leave() {
    const { turn } = this;
    this.#takeBack();
    this.#opening += 1;
    this.#still();
    banner.hide("bad");
    if (turn) this.#line.restart();
    this.turn = null;
  }

  /** Nobody will be here when the server takes what it has not taken yet. */
  #takeBack() {
    if (this.turn && !this.turn.accepted) this.#unsent("");
  }

  /** Take what the server has of a conversation. */
  #load(found) {
    const messages = (found?.messages ?? []).map(whole);
    this.session = found;
    this.tree = new Tree(messages);
    this.head = found?.head ?? null;
    this.summaries = found?.summaries ?? [];
    this.turn = null;
    this.#still();
    this.#stale = false;
    const running = found?.running && this.tree.get(found.running);
    if (running) this.#follow(running);
    this.#screen.opened();
    this.#show();
  }

  #follow(answer) {
    answer.state = "running";
    this.head = answer.id;
    this.turn = new Turn(answer, null, null);
    this.#tick();
    this.#line.send({ session_id: this.session.id, resume: true });
  }

  #show() {
    this.#screen.show(this.path, this.tree, this.summaries, this.turn?.live ?? null);
  }

  /** Ask something after `parent`; false if an answer runs already. */
  send(text, parent = this.head) {
    const user = unsentMessage(parent, text);
    return this.#begin(user, emptyAnswer(user.id), { message: text, parent });
  }

  /** The same place again with another text. */
  edit(message, text) {
    return this.send(text, message.parent ?? null);
  }

  /** Another answer to `message`, or to what `message` answered. */
  regenerate(message) {
    const parent = message.role === "user" ? message.id : message.parent;
    return this.#begin(null, emptyAnswer(parent), { regenerate: true, parent });
  }

  #begin(user, answer, ask) {
    if (this.turn) return false;
    banner.hide("bad");
    this.before = this.head;
    if (user) this.tree.put(user);
    this.tree.put(answer);
    this.head = answer.id;
    this.turn = new Turn(answer, user, ask);
    this.#tick();
    this.#show();
    this.#screen.changed();
    this.#ask(this.turn);
    return true;
  }

  async #ask(turn) {
    try {
      if (!this.session) await this.#create(turn);
    } catch (error) {
      if (turn === this.turn) this.#unsent(error.message);
      return;
    }
    if (turn !== this.turn) return;
    turn.sent = this.#line.send({ session_id: this.session.id, ...turn.ask }); // or when it is up
  }

  async #create(turn) {
    const { model, settings } = this.wish;
    const made = await server.create({ model, settings });
    if (turn === this.turn) {
      this.session = made;
      this.#screen.opened();
      return;
    }
    await server.remove(made.id); // it was for this turn alone
    this.#screen.changed();
  }

  /** What was to be sent is not at the server: it goes back to where it was written. */
  #unsent(sentence) {
    const { user, answer, ask } = this.turn;
    this.turn = null;
    this.#still();
    this.tree.remove(answer.id);
    if (user) this.tree.remove(user.id);
    this.head = this.before;
    this.#show();
    this.#screen.changed();
    if (user) this.#screen.unsent(user.content);
    if (!sentence) return; // it was stopped before it began
    const again = () => {
      if (user) this.#screen.again(user.content);
      this.#begin(user && unsentMessage(ask.parent, ask.message), emptyAnswer(user?.id ?? ask.parent), ask);
    };
    banner.show(sentence, { action: t("retry"), run: again });
  }

  stop() {
    if (!this.turn) return;
    if (!this.turn.sent) this.#unsent("");
    else if (!this.#line.send({ stop: true })) server.stop(this.session.id).catch(report);
  }

  /** Read the branch through the message `id`. */
  async show(id) {
    if (this.turn || !this.session) return;
    this.head = this.tree.leaf(id);
    this.#show();
    await this.change({ head: this.head });
  }

  /** Change what the session is: its title, model, settings or head. */
  async change(fields) {
    if (!this.session) {
      Object.assign(this.wish, fields);
      return;
    }
    const { id } = this.session;
    try {
      const changed = await server.change(id, fields);
      if (this.session?.id === id) this.session = { ...this.session, ...changed };
    } catch (error) {
      report(error, () => this.change(fields));
    }
  }

  #up() {
    clearTimeout(this.#blip);
    this.#blip = 0;
    banner.hide("down");
    const { turn } = this;
    if (!turn && this.session && this.#stale) this.#reload(null);
    if (!turn || !this.session) return;
    if (!turn.sent) this.#ask(turn);
    else if (turn.accepted) this.#line.send({ session_id: this.session.id, resume: true });
    else this.#reload(() => this.#unsent(t("error.unsent")));
  }

  #down(tries) {
    if (tries === 2) server.me().catch(() => {}); // 401: it is a key that is missing
    this.#blip ||= setTimeout(() => {
      const told = this.turn?.accepted ? "down.answer" : "down";
      banner.show(t(told), { kind: "down", action: t("down.now"), run: () => this.#retry() });
    }, BLIP);
  }

  #retry() {
    this.#blip = 0; // for the banner is gone, and is shown again when it fails
    this.#line.restart();
  }

  /** What the server has now; `otherwise` if the turn never got there. */
  async #reload(otherwise) {
    const [opening, turn] = [this.#opening, this.turn];
    const current = () => opening === this.#opening && turn === this.turn;
    try {
      const found = await server.session(this.session.id);
      if (!current()) return;
      if (otherwise && !found.running && found.head === this.before) otherwise();
      else this.#load(found);
    } catch (error) {
      if (current()) report(error, () => this.#reload(otherwise));
    }
  }

  #event(event) {
    if (!this.turn) return;
    if (event.type === "idle") {
      this.#reload(null); // it ended while nobody was there
      return;
    }
    const ended = this.turn.take(event);
    if (event.type === "start") this.#started(event);
    if (event.type === "compacted") this.#summed(this.turn.summary);
    if (ended) this.#finish(ended);
    else this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  /** The server has both messages, and its names for them. */
  #started({ message_id: id, user_message_id: userId }) {
    const { user, answer } = this.turn;
    if (user && userId) this.#rename(user, userId);
    if (id && id !== answer.id) this.#rename(answer, id);
    this.head = answer.id;
    this.#screen.changed();
  }

  #rename(message, name) {
    this.#screen.renamed(message.id, name);
    this.tree.rename(message.id, name);
  }

  #summed({ messages, content }) {
    const upto = this.path[messages - 1]?.id;
    if (!upto) return;
    this.summaries = [...this.summaries, { upto, messages, content }];
    this.#show();
  }

  #tick() {
    clearInterval(this.#ticking);
    this.#ticking = setInterval(() => this.#draw(), TICK);
  }

  #still() {
    clearInterval(this.#ticking);
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
  }

  #draw() {
    this.#frame = 0;
    if (this.turn) this.#screen.update(this.turn.answer, this.tree, this.turn.live);
  }

  #finish(how) {
    const { accepted, answer } = this.turn;
    this.#still();
    if (!accepted) {
      this.#unsent(how === "error" ? answer.error || t("error.unknown") : "");
      return;
    }
    this.#stale = how === "error";
    this.turn = null;
    this.#show();
    this.#screen.changed();
    if (answer.unsaved) announce(t("mark.unsaved"));
    else announce(t(how === "end" ? "said.done" : "said.failed"));
  }
}
