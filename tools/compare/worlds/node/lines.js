// Framing: splits a stream of bytes into lines.
//
// A line is a string with one character for each byte ("latin1"). So regular expressions, Map keys
// and comparisons work on bytes. Each line is a separate string. A slice of a large string would
// keep all of it in memory.

export class Lines {
  #input = Buffer.alloc(0);
  #at = 0;
  #limit;

  constructor(limit) {
    this.#limit = limit;
  }

  push(chunk) {
    const rest = this.#input.subarray(this.#at);
    this.#input = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    this.#at = 0;
  }

  /**
   * The next line with its LF. If it is already too long, the part that is there. undefined if it
   * is not complete.
   */
  next() {
    const end = this.#input.indexOf(10, this.#at);
    if (end === -1 && this.#input.length - this.#at <= this.#limit) {
      return undefined;
    }
    return this.#take(end === -1 ? this.#input.length : end + 1);
  }

  /** The rest, at the end of input. */
  rest() {
    return this.#take(this.#input.length);
  }

  clear() {
    this.#at = this.#input.length;
  }

  #take(end) {
    const line = this.#input.latin1Slice(this.#at, end);
    this.#at = end;
    return line;
  }
}
