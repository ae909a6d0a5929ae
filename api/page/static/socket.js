// One WebSocket that is always wanted: comes back by itself, and notices when nobody is there.

const FIRST_WAIT = 400; // ms until it is tried again; doubles
const LONGEST_WAIT = 10_000;
const PING_EVERY = 20_000; // proxies cut what says nothing, and a dead network says nothing
const PATIENCE = 15_000; // for an answer to a ping, or for the connection

/** `on.up()` when it is connected, `on.down(tries)` when it is not, `on.event(message)`. */
export class Line {
  #on;
  #socket = null;
  #tries = 0;
  #timer = 0;
  #watch = 0;
  #wanted = false;

  constructor(on) {
    this.#on = on;
    window.addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
  }

  get open() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  start() {
    this.#wanted = true;
    if (!this.#socket) this.#connect();
  }

  stop() {
    this.#wanted = false;
    this.#drop();
  }

  /** A new connection, which follows nothing: what runs on the server goes on. */
  restart() {
    this.#drop();
    this.#tries = 0;
    if (this.#wanted) this.#connect();
  }

  /** Whether `message` went out; when it did not, `up` will be called in time. */
  send(message) {
    if (!this.open) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  #connect() {
    clearTimeout(this.#timer);
    const address = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws?protocol=json`;
    const socket = new WebSocket(address);
    this.#socket = socket;
    this.#expect(socket);
    socket.onopen = () => {
      this.#tries = 0;
      this.#keepAlive(socket);
      this.#on.up();
    };
    socket.onmessage = ({ data }) => this.#hear(socket, data);
    socket.onclose = () => this.#lost(socket);
  }

  #hear(socket, data) {
    if (socket !== this.#socket) return;
    this.#keepAlive(socket);
    let message = null;
    try {
      message = JSON.parse(data);
    } catch {
      return; // no frame of this protocol
    }
    if (message && message.type !== "pong") this.#on.event(message);
  }

  /** Ask after a silence whether anybody is there. */
  #keepAlive(socket) {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => {
      if (this.send({ ping: true })) this.#expect(socket);
    }, PING_EVERY);
  }

  #expect(socket) {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => {
      socket.close();
      this.#lost(socket); // a close that nobody answers takes its time
    }, PATIENCE);
  }

  #lost(socket) {
    if (socket !== this.#socket) return;
    clearTimeout(this.#watch);
    this.#socket = null;
    if (!this.#wanted) return;
    const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#tries);
    this.#tries += 1;
    this.#timer = setTimeout(() => this.#connect(), wait * (0.8 + 0.4 * Math.random()));
    this.#on.down(this.#tries);
  }

  #drop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#watch);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  /** Try now: the network is back, or somebody looks at the page again. */
  #hurry() {
    if (!this.#wanted) return;
    if (!this.#socket) this.#connect();
    else if (this.send({ ping: true })) this.#expect(this.#socket); // it may have died unseen
  }
}
