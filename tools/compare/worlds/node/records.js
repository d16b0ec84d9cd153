// The table of records: the newest record of each client, with the number of its change.

import { MAX_LEAD, NANOSECOND } from './message.js';

export class Records {
  #byClient = new Map();
  /** The sequence number of the latest change. */
  lastSequence = 0;
  /** The number of own clients' records that changed nothing. */
  stale = 0;
  /** The number of stamps more than a minute ahead of the server's clock. */
  ahead = 0;
  /** The number of stamps more than a minute behind it. */
  behind = 0;

  get size() {
    return this.#byClient.size;
  }

  get(client) {
    return this.#byClient.get(client);
  }

  /** Takes a record of an own client with this receipt time, if it is the newest. */
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

  /** The clients whose record changed after this change. */
  *changedAfter(sequence) {
    for (const record of this.#byClient.values()) {
      if (record.sequence > sequence) {
        yield record.client;
      }
    }
  }

  /** A number that is the same for all tables with the same records, in any order. */
  digest() {
    let sum = 0n;
    for (const record of this.#byClient.values()) {
      sum += record.hash;
    }
    return BigInt.asUintN(64, sum);
  }
}
