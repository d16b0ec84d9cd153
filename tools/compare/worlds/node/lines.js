// Framing: a stream of bytes as lines.
//
// A line is bytes, and is handled as a string with one character for each byte ("latin1"): regular expressions, Map keys and
// comparisons then mean bytes too. Each line is a string of its own, not a slice of a large one, which would keep all of that in memory.

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

  /** The next line with its LF, or what there is of it if it is too long already; undefined if it is not there yet. */
  next() {
    const end = this.#input.indexOf(10, this.#at);
    if (end === -1 && this.#input.length - this.#at <= this.#limit) {
      return undefined;
    }
    return this.#take(end === -1 ? this.#input.length : end + 1);
  }

  /** Whatever is left, at the end of input. */
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
