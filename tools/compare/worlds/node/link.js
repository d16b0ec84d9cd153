// A connection between two servers, and repeated dialling.
//
// The state is the method that gets the next line:
//
//     greeted ──► proven (operator: the end) ──► started ──► linked

import net from 'node:net';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import { Lines } from './lines.js';
import { Broken, Gone, Handshake, LINK_LINE_BYTES } from './neighbours.js';
import { shown } from './options.js';

const CONNECT_MS = 3000;
const PROOF_MS = 5000;
const HEARTBEAT_MS = 3000;
/** The delay of a KEPT, so that one confirms many batches. */
const CONFIRM_MS = 200;
const SILENCE_MS = 10_000;
const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 1000;
/** After a link that held for so long, the first redial comes soon. */
const STEADY_MS = 2000;

export class Link {
  /** The records that the linked neighbour still lacks. */
  feed;
  #socket;
  #herd;
  #handshake;
  #isDialler;
  #state = this.#greeted;
  #lines = new Lines(LINK_LINE_BYTES);
  #reason = 'it closed the connection';
  #deadline;
  #heartbeat;
  #confirmation;

  /**
   * Over a connected socket. `neighbour` is the dialled one, or null for a peer that dialled this
   * server.
   */
  constructor(socket, herd, neighbour, log) {
    this.#socket = socket;
    this.#herd = herd;
    this.#handshake = new Handshake(herd, neighbour);
    this.#isDialler = neighbour !== null;
    const who = shown({ address: socket.remoteAddress, family: socket.remoteFamily, port: socket.remotePort });
    this.#deadline = setTimeout(() => this.end(`it did not prove who it is within ${PROOF_MS} ms`), PROOF_MS);
    socket.on('data', (chunk) => this.#received(chunk));
    socket.on('drain', () => this.flush());
    socket.on('error', (error) => {
      this.#reason = error.message;
    });
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        clearTimeout(this.#deadline);
        clearInterval(this.#heartbeat);
        clearTimeout(this.#confirmation);
        if (this.feed) {
          herd.hasLost(this.#handshake.neighbour, this, this.#reason);
        } else if (!this.#isDialler && !this.#handshake.isOperator) {
          log.warn(`stranger ${who}: refused: ${this.#reason}`);
        }
        resolve(this.feed ? undefined : this.#reason);
      });
    });
    if (this.#isDialler) {
      this.#say(this.#handshake.greeting());
    }
  }

  #received(chunk) {
    if (this.feed) {
      this.#deadline.refresh();
    }
    this.#lines.push(chunk);
    try {
      let line;
      while (!this.#socket.writableEnded && (line = this.#lines.next()) !== undefined) {
        if (line.length > LINK_LINE_BYTES + 1 || !line.endsWith('\n')) {
          throw new Broken(`a line of more than ${LINK_LINE_BYTES} bytes`);
        }
        this.#state(line.slice(0, -1));
      }
    } catch (error) {
      if (error instanceof Gone) {
        this.#reason = error.message;
        this.#socket.destroySoon();
      } else if (error instanceof Broken) {
        this.end(error.message);
      } else {
        throw error;
      }
    }
    this.#herd.flood();
  }

  #greeted(line) {
    this.#handshake.heardGreeting(line);
    this.#say(this.#isDialler ? this.#handshake.proof() : this.#handshake.greeting());
    this.#state = this.#proven;
  }

  #proven(line) {
    this.#handshake.heardProof(line);
    if (!this.#isDialler) {
      this.#say(this.#handshake.proof());
    }
    if (this.#handshake.isOperator) {
      this.#say(this.#herd.status());
      this.#socket.end();
      return;
    }
    this.#say(this.#handshake.life());
    this.#state = this.#started;
  }

  #started(line) {
    this.feed = this.#handshake.heardLife(line);
    this.#state = this.#linked;
    clearTimeout(this.#deadline);
    // Closes the link after too long a silence, even if TCP still considers it open.
    this.#deadline = setTimeout(() => this.#socket.destroy(new Error(`nothing heard for ${SILENCE_MS} ms`)), SILENCE_MS);
    this.#heartbeat = setInterval(() => this.#beat(), HEARTBEAT_MS);
    this.#herd.hasLinked(this.#handshake.neighbour, this);
    this.flush();
  }

  #linked(line) {
    const { neighbour } = this.#handshake;
    this.#herd.heard(neighbour, line);
    if (neighbour.position > neighbour.confirmed && !this.#confirmation) {
      this.#confirmation = setTimeout(() => this.#confirm(), CONFIRM_MS);
    }
  }

  #confirm() {
    this.#confirmation = undefined;
    this.#say(this.#handshake.neighbour.confirmation());
  }

  #beat() {
    if (this.feed.size === 0) {
      this.#say(this.feed.sync());
    }
  }

  /** Writes unsent records, as many as the socket takes. */
  flush() {
    while (this.feed?.size > 0 && this.#socket.writable && !this.#socket.writableNeedDrain) {
      const batch = this.feed.nextBatch();
      if (batch) {
        this.#socket.write(batch, 'latin1');
      }
    }
  }

  /** Sends BYE and closes. */
  end(reason) {
    this.#reason = reason;
    this.#say(`BYE ${reason}`);
    this.#socket.destroySoon();
  }

  #say(line) {
    if (this.#socket.writable) {
      this.#socket.write(`${line}\n`, 'latin1');
    }
  }
}

/**
 * Connects to a neighbour whenever there is no link with it. The waits become longer while the
 * neighbour is missing.
 */
export async function keepDialling(neighbour, herd, log, signal) {
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    const began = performance.now();
    const reason = await dial(neighbour, herd, log);
    if (reason) {
      neighbour.complain(reason, log);
    }
    if (performance.now() - began >= STEADY_MS) {
      wait = FIRST_WAIT_MS;
    }
    // With the jitter, servers that lost the same neighbour do not all dial at the same time.
    await sleep(wait * (0.5 + 0.4 * Math.random()));
    wait = Math.min(2 * wait, LONGEST_WAIT_MS);
  }
}

/** Makes a link, and waits for its end. Returns the reason if there was no link. */
async function dial(neighbour, herd, log) {
  const socket = net.connect({ ...neighbour.address, noDelay: true });
  socket.setTimeout(CONNECT_MS, () => socket.destroy(new Error(`no connection within ${CONNECT_MS} ms`)));
  try {
    await once(socket, 'connect');
  } catch (error) {
    return error.message || error.code;
  }
  socket.setTimeout(0);
  return new Link(socket, herd, neighbour, log).closed;
}
