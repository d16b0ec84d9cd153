// A client's connection: commands in, answers out, in order.

import { wallClockNs } from './clock.js';
import { Lines } from './lines.js';
import { escaped } from './log.js';
import { LINE_BYTES, answer, fieldsOf, parse } from './message.js';
import { shown } from './options.js';

const LINGER_MS = 2000;

export class Client {
  #socket;
  #herd;
  #places;
  #log;
  #who;
  #lines = new Lines(LINE_BYTES);
  #isAsking = false;
  #hasEnded = false;
  /** The last answer was sent, and all further input is ignored. */
  #isLingering = false;

  constructor(socket, herd, places, log) {
    this.#socket = socket;
    this.#herd = herd;
    this.#places = places;
    this.#log = log;
    this.#who = `client ${shown({ address: socket.remoteAddress, family: socket.remoteFamily, port: socket.remotePort })}`;
    herd.clients += 1;
    socket.on('data', (chunk) => this.#received(chunk));
    socket.on('end', () => this.#ended());
    socket.on('drain', () => this.#chooseReading());
    socket.on('error', () => {}); // 'close' follows
    socket.on('close', () => {
      herd.clients -= 1;
    });
  }

  #received(chunk) {
    if (!this.#isLingering) {
      this.#lines.push(chunk);
      this.#run();
    }
  }

  #ended() {
    this.#hasEnded = true;
    if (!this.#isLingering && !this.#isAsking) {
      this.#run();
    }
  }

  /**
   * Runs the commands that are there, up to one that has to wait for Places. One write sends all
   * answers.
   */
  #run() {
    let answers = '';
    let line;
    while (!this.#isAsking && !this.#isLingering && (line = this.#next()) !== undefined) {
      answers += this.#command(line);
    }
    this.#herd.flood(); // Neighbours get updates before the client gets its answer.
    if (answers) {
      this.#socket.write(answers, 'latin1');
    }
    if (this.#isLingering) {
      this.#linger();
    } else if (this.#hasEnded && !this.#isAsking) {
      this.#socket.end(); // The socket first sends the rest of its output.
    }
    this.#chooseReading();
  }

  /** The next line. At the end of input, a line needs no LF. */
  #next() {
    return this.#lines.next() ?? (this.#hasEnded ? this.#lines.rest() || undefined : undefined);
  }

  #command(withEnd) {
    const line = withEnd.endsWith('\n') ? withEnd.slice(0, -1) : withEnd;
    if (line.length > LINE_BYTES) {
      this.#log.warn(`${this.#who}: closing: a line of more than ${LINE_BYTES} bytes`);
      this.#isLingering = true;
      this.#lines.clear();
      return this.#quoted(line.slice(0, LINE_BYTES));
    }
    const fields = fieldsOf(line);
    if (fields.length === 0) {
      return '';
    }
    this.#log.info(() => `${this.#who} <- ${escaped(line)}`);
    const command = parse(fields);
    if (command?.verb === 'IAMAT') {
      const now = wallClockNs();
      const record = answer(this.#herd.name, command, now);
      if (record) {
        this.#herd.update(record, now);
        this.#log.info(() => `${this.#who} -> ${escaped(record.line)}`);
        return `${record.line}\n`;
      }
    }
    if (command?.verb === 'WHATSAT') {
      const record = this.#herd.records.get(command.client);
      if (record) {
        this.#ask(record, command);
        return '';
      }
    }
    return this.#quoted(line === withEnd ? line : line.replace(/\r$/, ''));
  }

  /** Refuses a line: `? ` and a copy of it. */
  #quoted(line) {
    this.#log.info(() => `${this.#who} -> ? ${escaped(line)}`);
    return `? ${line}\n`;
  }

  async #ask(record, { radius, bound }) {
    this.#isAsking = true;
    const json = await this.#places.answer(record.location, radius, bound);
    this.#isAsking = false;
    this.#log.info(() => `${this.#who} -> ${escaped(record.line)} and ${json.length} bytes of JSON`);
    if (!this.#socket.destroyed) {
      this.#socket.write(Buffer.concat([Buffer.from(`${record.line}\n`, 'latin1'), json, Buffer.from('\n\n')]));
      this.#run();
    }
  }

  /**
   * Reads on for a while. A close with unread input would reset the connection, and the client
   * could lose its answers (RFC 9293, 3.6.1).
   */
  #linger() {
    this.#socket.end();
    const timer = setTimeout(() => this.#socket.destroy(), LINGER_MS);
    this.#socket.on('close', () => clearTimeout(timer));
  }

  /**
   * The socket is read, unless a command waits for Places or the client does not read its answers.
   */
  #chooseReading() {
    if (this.#isLingering || !(this.#isAsking || this.#socket.writableNeedDrain)) {
      this.#socket.resume();
    } else {
      this.#socket.pause();
    }
  }
}
