// Markdown that is still being written. Only the last block is made again when more text comes;
// an open block of code only takes its new lines. A block's beginning is sure once its line is whole.

import { CodeBlock } from "./code.js";
import { closesFence, outdent, readBlocks } from "./markdown.js";

export class StreamingMarkdown {
  #root;
  #text = "";
  #start = 0; // where the part that is not sure begins
  #loose = []; // the nodes of that part
  #code = null; // {fence, block, at} while the last block is open code

  constructor(root) {
    this.#root = root;
  }

  /** Show `text`, which as a rule is the last one and more; `done`: no more will come. */
  update(text, done = false) {
    if (text === this.#text && !done) return;
    if (!text.startsWith(this.#text)) this.#reset();
    this.#text = text;
    if (this.#code && !this.#feed(done)) return;
    this.#read(done);
  }

  #reset() {
    this.#root.replaceChildren();
    this.#start = 0;
    this.#loose = [];
    this.#code = null;
  }

  #read(done) {
    const tail = this.#text.slice(this.#start);
    const lines = tail.split("\n");
    const blocks = readBlocks(lines);
    const last = blocks.at(-1);
    const sure = done ? blocks.length : sureBlocks(blocks, lines.length);
    for (const node of this.#loose) node.remove();
    const nodes = blocks.map((block) => this.#build(block, !done && block === last));
    this.#root.append(...nodes);
    this.#loose = nodes.slice(sure);
    const from = blocks[sure]?.line ?? (done ? lines.length : (last?.line ?? 0));
    this.#start += offsetOf(lines, from, tail.length);
    if (!this.#code) return;
    this.#start = this.#code.at;
    this.#loose = [];
  }

  #build(block, partial) {
    return block.fence && partial ? this.#openCode(block) : block.build(partial);
  }

  /** Code that is open is fed line by line from now on. */
  #openCode({ line, fence }) {
    const tail = this.#text.slice(this.#start);
    const lines = tail.split("\n");
    const block = new CodeBlock(fence.language);
    if (line + 1 >= lines.length) return block.node; // its language may not be whole yet
    this.#code = { fence, block, at: this.#start + offsetOf(lines, line + 1, tail.length) };
    this.#feed(false);
    return block.node;
  }

  /** Give the code its new lines; whether it has ended. */
  #feed(done) {
    const { fence, block } = this.#code;
    const lines = this.#text.slice(this.#code.at).split("\n");
    const open = lines.pop();
    const end = lines.findIndex((line) => closesFence(line, fence));
    const whole = end < 0 ? lines : lines.slice(0, end);
    block.add(whole.map((line) => outdent(line, fence.indent)));
    this.#code.at += whole.reduce((sum, line) => sum + line.length + 1, 0);
    if (end >= 0) return this.#closeCode(this.#code.at + lines[end].length + 1);
    if (!done) {
      if (open && !closesFence(open, fence)) block.show(outdent(open, fence.indent));
      return false;
    }
    if (open && !closesFence(open, fence)) block.add([outdent(open, fence.indent)]);
    return this.#closeCode(this.#text.length);
  }

  #closeCode(at) {
    this.#code = null;
    this.#loose = [];
    this.#start = at;
    return true;
  }
}

/** How many of `blocks` no further text can change. */
function sureBlocks(blocks, lines) {
  let sure = Math.max(0, blocks.length - 1);
  while (sure > 0 && blocks[sure].line >= lines - 1) sure -= 1; // it begins on a line that is open
  return sure;
}

function offsetOf(lines, line, length) {
  let at = 0;
  for (let place = 0; place < line && place < lines.length; place += 1) at += lines[place].length + 1;
  return Math.min(at, length);
}
