// The log: a line for each event. Node has no logging of its own. A write stream collects lines
// while the disk works.

import fs from 'node:fs';

/** The greatest size of unwritten lines. More lines are dropped, and their number is logged. */
const WAITING_BYTES = 8 * 1024 * 1024;

export class Log {
  #stream;
  #dropped = 0;

  /** Throws if the file cannot be written. */
  constructor(path, level) {
    this.#stream = fs.createWriteStream(path, { fd: fs.openSync(path, 'a') });
    this.#stream.on('error', (error) => process.stderr.write(`herd-node: cannot write the log ${path}: ${error.message}\n`));
    if (level !== 'info') {
      this.info = () => {};
    }
  }

  /** `line` is a function, so a line that is not logged is not made. */
  info(line) {
    this.#write('INFO ', line());
  }

  warn(line) {
    this.#write('WARN ', line);
  }

  /** Writes the rest, then calls `done`. */
  close(done) {
    this.#stream.end(done);
  }

  #write(level, line) {
    if (this.#stream.writableLength > WAITING_BYTES) {
      this.#dropped += 1;
      return;
    }
    const time = new Date().toISOString();
    if (this.#dropped > 0) {
      this.#stream.write(`${time} [WARN ] log: ${this.#dropped} lines were dropped, the disk did not keep up\n`);
      this.#dropped = 0;
    }
    this.#stream.write(`${time} [${level}] ${line}\n`);
  }
}

/** A line of bytes for the log. Everything but printable ASCII, and the backslash, becomes \xNN. */
export function escaped(line) {
  return line.replace(/[^\x20-\x7e]|\\/g, (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
