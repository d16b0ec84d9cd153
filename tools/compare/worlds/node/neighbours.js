// The other servers: what each still has to be told, how far each was heard, and the words of the handshake.
//
// The protocol is documented in herd-mio's core::link. All of this is about lines; who sends and receives them is another matter.

import { randomBytes } from 'node:crypto';

import { wallClockNs } from './clock.js';
import { escaped } from './log.js';
import { LINE_BYTES, parseAt } from './message.js';
import { isProven, prove } from './proof.js';

/** Of the neighbours' protocol. */
const VERSION = '2';
/** An AT line is an IAMAT line with a server's name, a skew, and perhaps an epoch. */
export const LINK_LINE_BYTES = LINE_BYTES + 256;
/** The name under which a tool asks how a server stands. */
const OPERATOR = 'operator';
/** So much is handed to the socket at once. */
const BATCH_BYTES = 64 * 1024;
const CLOCK_TOLERANCE_NS = 1_000_000_000n;

/** A link cannot go on, and why. */
export class Broken extends Error {}

/** The other side ended it, so there is nobody who could be told why. */
export class Gone extends Broken {}

/**
 * What one linked neighbour still has to be told: a set of clients, not a queue of lines. A record that changes twice before the
 * socket takes it is sent once, and what waits for a slow neighbour is never more than the table.
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

  /** The next lines, empty if there are none; the last of them end with a SYNC. */
  nextBatch() {
    let batch = '';
    for (const client of this.#unsaid) {
      if (batch.length >= BATCH_BYTES) {
        return batch;
      }
      this.#unsaid.delete(client);
      const record = this.#records.get(client);
      // Whoever taught us a record is not taught it.
      if (record.teacher !== this.#life) {
        batch += `${record.told}\n`;
      }
    }
    return batch && `${batch}${this.sync()}\n`;
  }

  /** "You have everything up to that change": to be said only when nothing is unsaid. */
  sync() {
    return `SYNC ${this.#records.lastSequence}`;
  }
}

/** A server that this one is to be linked with. This outlives its connections. */
export class Neighbour {
  link = null;
  /** How far its latest life's feed was heard. */
  position = 0n;
  /** Up to where it was told so. */
  confirmed = 0n;
  /** How much of our feed it says to have kept. */
  kept = 0;
  /** How many records it says that it had to refuse, in digits. */
  lacks = '0';
  #boot = '';
  #complaint;

  /** `address` is where to dial it; null if it dials us. */
  constructor(name, address) {
    this.name = name;
    this.address = address;
  }

  /** The latest life that was heard of; what it teaches is known by this. */
  get life() {
    return this.#boot && `${this.name} ${this.#boot}`;
  }

  /** What was heard of another life does not count for this one. */
  lives(boot) {
    if (this.#boot !== boot) {
      this.#boot = boot;
      this.position = 0n;
      this.confirmed = 0n;
    }
  }

  /** How far it was heard, as it is told so at the beginning of a link. */
  known() {
    this.confirmed = this.position;
    return this.#boot ? `${this.#boot} ${this.position}` : '- 0';
  }

  /** Says how much of its feed we have kept: all that we heard, as we keep it in memory. */
  confirmation() {
    this.confirmed = this.position;
    return `KEPT ${this.position}`;
  }

  /** Tells the log why there is no link, once and not every second. */
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

/** This server among its neighbours. */
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

  /** Takes a record of a neighbour; every neighbour is to hear of it if it is news. */
  offer(record) {
    if (this.records.offer(record)) {
      this.#changed(record);
    }
  }

  /** Takes a record of an own client, received at that time. */
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

  /** Hands the links what changed. Called before any client is answered, so that neighbours know first. */
  flood() {
    if (this.#hasNews) {
      this.#hasNews = false;
      for (const { link } of this.neighbours.values()) {
        link?.flush();
      }
    }
  }

  /** A neighbour that proves itself anew was cut off without our noticing: its old link is dead. */
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

  /** Acts on a line of a linked neighbour. */
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

  /** How the server stands, for an operator. */
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

/** The beginning of what somebody said, fit for a log line and a goodbye. */
function shown(line) {
  return escaped(line.slice(0, 100));
}

/** Why a link ends with a line that was not expected. */
function goodbyeOrNonsense(line) {
  const [, reason] = /^BYE(?: (.*))?$/s.exec(line) ?? [];
  return line.startsWith('BYE') && reason !== undefined
    ? new Gone(`it said goodbye: ${shown(reason)}`)
    : new Broken(`not the neighbours' protocol: ${shown(line)}`);
}

/**
 * The words with which a link begins, and what they have to be. The dialler greets, and proves itself first, so that a stranger who
 * dials learns nothing that was made with the secret.
 */
export class Handshake {
  #herd;
  #isDialler;
  #otherName;
  #nonce = randomBytes(16).toString('hex');
  #otherNonce;

  /** With the neighbour that was dialled, or with null if somebody dialled us. */
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

  /** Which life of ours this is, our clock, and how far we got in the other side's feed. */
  life() {
    return `LIFE ${this.#herd.boot} ${wallClockNs()} ${this.neighbour.known()}`;
  }

  /** What the neighbour lacks: everything, or what changed since it lost us. */
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
