// The table of positions: the newest record of each client, and the number of the change that brought it.

export class Records {
  #byClient = new Map();
  /** The number of the latest change. */
  lastSequence = 0;

  get size() {
    return this.#byClient.size;
  }

  get(client) {
    return this.#byClient.get(client);
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
