// The other servers: the records that each still lacks, the position in each feed, and the
// handshake.
//
// The protocol is described in herd-mio's core::link. This module handles lines. Other modules send
// and receive them.

import { randomBytes } from 'node:crypto';

import { wallClockNs } from './clock.js';
import { escaped } from './log.js';
import { LINE_BYTES, parseAt } from './message.js';
import { isProven, prove } from './proof.js';

/** The version of the neighbours' protocol. */
const VERSION = '2';
/** The greatest length of a line: an IAMAT line, a server's name, a skew, and perhaps an epoch. */
export const LINK_LINE_BYTES = LINE_BYTES + 256;
/** The name under which a tool asks for a server's status. */
const OPERATOR = 'operator';
/** The size of one write. */
const BATCH_BYTES = 64 * 1024;
const CLOCK_TOLERANCE_NS = 1_000_000_000n;

/** A link cannot go on, for this reason. */
export class Broken extends Error {}

/** The peer has ended the link, so it cannot get a reason. */
export class Gone extends Broken {}

/**
 * The records that one linked neighbour still lacks: a set of clients, not a queue of lines. A
 * record that changes twice before it is sent is sent once. And a slow neighbour never needs more
 * memory than the table.
 */
export class Feed {
  #records;
  #life;
  #unsaid;

  constructor(records, life, after) {
    this.#records = records;
    this.#life = life;
    this.#unsaid = new Set(records.changedAfter(after));
  }

  get size() {
    return this.#unsaid.size;
  }

  add(client) {
    this.#unsaid.add(client);
  }

  /** The next lines, or nothing if there are none. The last batch ends with a SYNC. */
  nextBatch() {
    let batch = '';
    for (const client of this.#unsaid) {
      if (batch.length >= BATCH_BYTES) {
        return batch;
      }
      this.#unsaid.delete(client);
      const record = this.#records.get(client);
      // A record is not sent back to its origin.
      if (record.teacher !== this.#life) {
        batch += `${record.told}\n`;
      }
    }
    return batch && `${batch}${this.sync()}\n`;
  }

  /**
   * Says that the neighbour has everything up to the last change. Valid only if no record is
   * unsent.
   */
  sync() {
    return `SYNC ${this.#records.lastSequence}`;
  }
}

/** A server with which this one should be linked. This object outlives its connections. */
export class Neighbour {
  link = null;
  /** The received position in the feed of its latest life. */
  position = 0n;
  /** The position that was confirmed to it. */
  confirmed = 0n;
  /** The position in our feed that it has confirmed. */
  kept = 0;
  /** The number of records that it reports as refused, as digits. */
  lacks = '0';
  #boot = '';
  #complaint;

  /** `address` is the address to dial, or null if the neighbour dials. */
  constructor(name, address) {
    this.name = name;
    this.address = address;
  }

  /** Its latest known life, which is also the origin of its records. */
  get life() {
    return this.#boot && `${this.name} ${this.#boot}`;
  }

  /** A position counts only for the life from which it came. */
  lives(boot) {
    if (this.#boot !== boot) {
      this.#boot = boot;
      this.position = 0n;
      this.confirmed = 0n;
    }
  }

  /** The received position, which LIFE tells the neighbour at the beginning of a link. */
  known() {
    this.confirmed = this.position;
    return this.#boot ? `${this.#boot} ${this.position}` : '- 0';
  }

  /** Confirms the received part of its feed. All of it is kept in memory. */
  confirmation() {
    this.confirmed = this.position;
    return `KEPT ${this.position}`;
  }

  /** Logs why there is no link: once, and not every second. */
  complain(reason, log) {
    if (reason !== this.#complaint) {
      this.#complaint = reason;
      log.warn(`neighbour ${this.name}: not linked: ${reason}; trying on`);
    }
  }

  isWell() {
    this.#complaint = undefined;
  }
}

/** This server and its neighbours. */
export class Herd {
  boot = randomBytes(8).toString('hex');
  clients = 0;
  #hasNews = false;

  constructor(name, secret, records, neighbours, log) {
    this.name = name;
    this.secret = secret;
    this.records = records;
    this.neighbours = new Map(neighbours.map((neighbour) => [neighbour.name, neighbour]));
    this.log = log;
  }

  linked() {
    return [...this.neighbours.values()].filter(({ link }) => link);
  }

  /** Takes a record of a neighbour. If it wins, all neighbours should get it. */
  offer(record) {
    if (this.records.offer(record)) {
      this.#changed(record);
    }
  }

  /** Takes a record of an own client with this receipt time. */
  update(record, nowNs) {
    if (this.records.update(record, nowNs)) {
      this.#changed(record);
    }
  }

  #changed(record) {
    this.#hasNews = true;
    for (const { link } of this.neighbours.values()) {
      link?.feed.add(record.client);
    }
  }

  /**
   * Sends the changes over all links. Called before a client gets its answer, so that neighbours
   * get the update first.
   */
  flood() {
    if (this.#hasNews) {
      this.#hasNews = false;
      for (const { link } of this.neighbours.values()) {
        link?.flush();
      }
    }
  }

  /** A neighbour that proves itself again has lost the old connection, so the old link ends. */
  hasLinked(neighbour, link) {
    const old = neighbour.link;
    neighbour.link = link;
    neighbour.isWell();
    this.log.info(() => `neighbour ${neighbour.name}: linked, to be told ${link.feed.size} records`);
    old?.end('a newer connection took its place');
  }

  hasLost(neighbour, link, reason) {
    if (neighbour.link === link) {
      neighbour.link = null;
      this.log.warn(`neighbour ${neighbour.name}: lost: ${reason}`);
    }
  }

  /** Handles a line of a linked neighbour. */
  heard(neighbour, line) {
    if (line.startsWith('AT ') || line.startsWith('EPOCH ')) {
      const record = parseAt(line, neighbour.life);
      if (!record) {
        throw new Broken(`not an AT line: ${shown(line)}`);
      }
      this.offer(record);
      return;
    }
    const [, verb, number] = /^(SYNC|KEPT|LACKS|CLOCK) (\d{1,20})$/.exec(line) ?? [];
    if (verb === undefined) {
      throw goodbyeOrNonsense(line);
    }
    if (verb === 'SYNC') {
      neighbour.position = BigInt(number);
    } else if (verb === 'KEPT') {
      neighbour.kept = Number(number);
    } else if (verb === 'LACKS' && neighbour.lacks !== number) {
      neighbour.lacks = number;
      this.log.warn(`neighbour ${neighbour.name}: records that it had to refuse: ${number}`);
    }
  }

  /** The server's status, for an operator. */
  status() {
    const { size, lastSequence, stale, ahead, behind } = this.records;
    const digest = this.records.digest().toString(16).padStart(16, '0');
    const links = this.linked().map(
      ({ name, kept, lacks }) => ` link=${Math.max(lastSequence - kept, 0)}:?:${lacks}:${name}`,
    );
    const server = `boot=${this.boot} wall=${wallClockNs()} records=${size} digest=${digest}`;
    const counts = `clients=${this.clients} stale=${stale} refused=0 ahead=${ahead} behind=${behind}`;
    return `STATUS ${server} ${counts}${links.join('')}`;
  }
}

/** The beginning of a peer's line, escaped for the log and for a BYE. */
function shown(line) {
  return escaped(line.slice(0, 100));
}

/** The reason for which an unexpected line ends a link. */
function goodbyeOrNonsense(line) {
  const [, reason] = /^BYE(?: (.*))?$/s.exec(line) ?? [];
  return line.startsWith('BYE') && reason !== undefined
    ? new Gone(`it said goodbye: ${shown(reason)}`)
    : new Broken(`not the neighbours' protocol: ${shown(line)}`);
}

/**
 * The first lines of a link, and the checks of them. The dialler sends the first line, and proves
 * itself first. So an unproven peer that dials gets nothing that was made with the secret.
 */
export class Handshake {
  #herd;
  #isDialler;
  #otherName;
  #nonce = randomBytes(16).toString('hex');
  #otherNonce;

  /** For the neighbour that was dialled, or null for a peer that dialled this server. */
  constructor(herd, neighbour) {
    this.#herd = herd;
    this.neighbour = neighbour;
    this.#isDialler = neighbour !== null;
    this.#otherName = neighbour?.name;
  }

  get isOperator() {
    return this.#otherName === OPERATOR;
  }

  greeting() {
    return `HERD ${VERSION} ${this.#herd.name} ${this.#otherName} ${this.#nonce}`;
  }

  heardGreeting(line) {
    const herd = this.#herd;
    const [, version, name, wanted, nonce] = /^HERD ([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+)$/.exec(line) ?? [];
    if (version === undefined) {
      throw goodbyeOrNonsense(line);
    }
    if (version !== VERSION) {
      const versions = `version ${shown(version)} of the neighbours' protocol, this server ${VERSION}`;
      throw new Broken(`it speaks ${versions}; upgrade the older one`);
    }
    if (wanted !== herd.name) {
      throw new Broken(`it looks for ${shown(wanted)}, this is ${herd.name}`);
    }
    if (!/^[0-9a-f]{32}$/i.test(nonce)) {
      throw new Broken('a nonce that is not 32 hexadecimal digits');
    }
    if (this.#isDialler && name !== this.#otherName) {
      throw new Broken(`${shown(name)} answered instead`);
    }
    if (!this.#isDialler && name !== OPERATOR) {
      this.neighbour = herd.neighbours.get(name);
      if (!this.neighbour) {
        throw new Broken(`${shown(name)} is not linked with ${herd.name}`);
      }
      if (this.neighbour.address) {
        throw new Broken(`it is ${herd.name} that dials ${name}`);
      }
    }
    this.#otherName = name;
    this.#otherNonce = nonce.toLowerCase();
  }

  get #parties() {
    const [us, them] = [
      [this.#herd.name, this.#nonce],
      [this.#otherName, this.#otherNonce],
    ];
    const [dialler, acceptor] = this.#isDialler ? [us, them] : [them, us];
    return [dialler[0], acceptor[0], dialler[1], acceptor[1]];
  }

  proof() {
    return `PROOF ${prove(this.#herd.secret, this.#isDialler ? 'dialler' : 'acceptor', this.#parties)}`;
  }

  heardProof(line) {
    const [, proof] = /^PROOF ([0-9a-f]{64})$/i.exec(line) ?? [];
    if (proof === undefined) {
      throw goodbyeOrNonsense(line);
    }
    if (!isProven(this.#herd.secret, this.#isDialler ? 'acceptor' : 'dialler', this.#parties, proof)) {
      throw new Broken('a wrong proof: do both servers have the same herd secret?');
    }
  }

  /** The LIFE line: this server's life and clock, and its position in the neighbour's feed. */
  life() {
    return `LIFE ${this.#herd.boot} ${wallClockNs()} ${this.neighbour.known()}`;
  }

  /** The records that the neighbour lacks: all, or those that changed since the last link. */
  heardLife(line) {
    const [, boot, wall, ourBoot, position] = /^LIFE ([0-9a-f]{16}) (\d{1,20}) ([^ ]+) (\d{1,20})$/i.exec(line) ?? [];
    if (boot === undefined) {
      throw goodbyeOrNonsense(line);
    }
    const { records, log } = this.#herd;
    this.neighbour.lives(boot);
    const ahead = BigInt(wall) - wallClockNs();
    if (ahead > CLOCK_TOLERANCE_NS || -ahead > CLOCK_TOLERANCE_NS) {
      const seconds = ahead / 1_000_000_000n;
      log.warn(`neighbour ${this.neighbour.name}: its clock is ${seconds} s ahead of ours; both should follow a time server`);
    }
    const knowsUs = ourBoot === this.#herd.boot && Number(position) <= records.lastSequence;
    this.neighbour.kept = knowsUs ? Number(position) : 0;
    this.neighbour.lacks = '0';
    return new Feed(records, this.neighbour.life, this.neighbour.kept);
  }
}
