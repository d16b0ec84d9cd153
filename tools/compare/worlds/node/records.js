// The table of positions: the newest record of each client, and the number of the change that brought it.

import { MAX_LEAD, NANOSECOND } from './message.js';

export class Records {
  #byClient = new Map();
  /** The number of the latest change. */
  lastSequence = 0;
  /** How many records of our own clients changed nothing. */
  stale = 0;
  /** How many were stamped more than a minute ahead of our clock. */
  ahead = 0;
  /** How many were stamped more than a minute behind it. */
  behind = 0;

  get size() {
    return this.#byClient.size;
  }

  get(client) {
    return this.#byClient.get(client);
  }

  /** Takes a record of an own client, received at that time, if it is the newest. */
  update(record, nowNs) {
    const lead = record.stamp - nowNs * NANOSECOND;
    this.ahead += lead > MAX_LEAD ? 1 : 0;
    this.behind += lead < -MAX_LEAD ? 1 : 0;
    const known = this.#byClient.get(record.client);
    if (known) {
      record.follow(known, nowNs);
    }
    const isNews = this.offer(record);
    this.stale += isNews ? 0 : 1;
    return isNews;
  }

  /** Takes a record if it is the newest of its client. */
  offer(record) {
    const known = this.#byClient.get(record.client);
    if (known && !record.isNewerThan(known)) {
      return false;
    }
    this.lastSequence += 1;
    record.sequence = this.lastSequence;
    this.#byClient.set(record.client, record);
    return true;
  }

  /** The clients whose record changed after that change. */
  *changedAfter(sequence) {
    for (const record of this.#byClient.values()) {
      if (record.sequence > sequence) {
        yield record.client;
      }
    }
  }

  /** A number that tables with the same records share, whatever the order in which they came. */
  digest() {
    let sum = 0n;
    for (const record of this.#byClient.values()) {
      sum += record.hash;
    }
    return BigInt.asUintN(64, sum);
  }
}
