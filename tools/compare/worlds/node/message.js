// Parses lines: the IAMAT and WHATSAT of clients, and the AT line that answers an IAMAT and is sent
// to all servers.
//
// White space is listed everywhere, because JavaScript's \s includes Unicode's, which is no white
// space in the protocol.
//
// A number has 53 bits, which hold a current time to about 200 ns. So times are BigInts of
// attoseconds (10^-18 s), because a stamp has at most 18 decimals.

/** The greatest length of a client's line before its LF. */
export const LINE_BYTES = 4096;

const ATTOSECONDS = 10n ** 18n;
export const NANOSECOND = 10n ** 9n; // in attoseconds
const SECOND_NS = 10n ** 9n;
/** A stamp counts as at most this much later than its receipt. */
export const MAX_LEAD = 60n * ATTOSECONDS;
/**
 * A record further ahead of the server's clock comes from a server with a wrong clock. An update
 * replaces it.
 */
const MAX_AHEAD = 120n * ATTOSECONDS;
const MAX_EPOCH = 2 ** 32 - 1;

// Latitude and longitude, each with its sign and 1 to 3 digits, and within its range.
const LOCATION =
  String.raw`([+-](?:0?[0-8]?\d(?:\.\d+)?|0?90(?:\.0+)?))` + String.raw`([+-](?:(?:0?\d?\d|1[0-7]\d)(?:\.\d+)?|180(?:\.0+)?))`;
const TIME = String.raw`(\d{1,18})(?:\.(\d{1,18}))?`;
const WORD = String.raw`([^ \t\n\r\v\f]+)`;

const aLocation = new RegExp(`^${LOCATION}$`);
const aTime = new RegExp(`^${TIME}$`);
const aRadius = /^0*(\d{1,2})(?:\.(\d+))?$/;
const aBound = /^0*(\d{1,2})$/;
const anAtLine = new RegExp(String.raw`^(?:EPOCH ([1-9]\d{0,9}) )?AT ${WORD} ([+-])(0|[1-9]\d{0,17})\.(\d{9}) ${WORD} (${LOCATION}) (${TIME})$`);
const words = /[^ \t\n\r\v\f]+/g;

/** The fields of a client's line. */
export function fieldsOf(line) {
  return line.match(words) ?? [];
}

/** Parses the fields of a client's line. undefined if they are no command. */
export function parse(fields) {
  const [verb, client, second, third] = fields;
  if (fields.length !== 4) {
    return undefined;
  }
  if (verb === 'IAMAT') {
    const stamp = parseTime(third);
    return stamp !== undefined && aLocation.test(second) ? { verb, client, location: second, time: third, stamp } : undefined;
  }
  if (verb === 'WHATSAT') {
    const radius = parseRadius(second);
    const bound = Number(aBound.exec(third)?.[1] ?? 0);
    return radius && bound >= 1 && bound <= 20 ? { verb, client, radius, bound } : undefined;
  }
  return undefined;
}

/** Parses plain decimal seconds, and returns attoseconds. */
function parseTime(text) {
  const found = aTime.exec(text);
  return found ? BigInt(found[1]) * ATTOSECONDS + BigInt((found[2] ?? '').padEnd(18, '0')) : undefined;
}

/**
 * Parses a radius of more than 0 and at most 50 km, and returns nanometres. A finer radius is
 * rounded up, so that none becomes zero.
 */
function parseRadius(kilometres) {
  const [, whole, fraction = ''] = aRadius.exec(kilometres) ?? [];
  if (whole === undefined) {
    return undefined;
  }
  const finer = /[1-9]/.test(fraction.slice(12)) ? 1n : 0n;
  const nanometres = BigInt(whole + fraction.slice(0, 12).padEnd(12, '0')) + finer;
  return nanometres <= 50n * 10n ** 12n ? nanometres : undefined;
}

/** Nanometres as metres, in plain decimals. */
export function metres(nanometres) {
  const fraction = String(nanometres % 10n ** 9n)
    .padStart(9, '0')
    .replace(/0+$/, '');
  return `${nanometres / 10n ** 9n}${fraction && '.'}${fraction}`;
}

/**
 * Latitude and longitude for a URL: without plus signs (which stand for spaces there) and without
 * leading zeros.
 */
export function placeOf(location) {
  const [, latitude, longitude] = aLocation.exec(location);
  const plain = (degrees) => degrees.replace(/^([+-])0*(?=\d)/, (_, sign) => (sign === '-' ? '-' : ''));
  return [plain(latitude), plain(longitude)];
}

/** An AT line, and its order among the records of its client. */
export class Record {
  /** The number of this client's records that were replaced because of a wrong clock. */
  epoch = 0;
  sequence = 0;
  #hash;

  /**
   * `teacher` is the neighbour's life from which the record came, or undefined for an own client.
   */
  constructor(line, client, location, effective, stamp, teacher) {
    this.line = line;
    this.client = client;
    this.location = location;
    this.effective = effective;
    this.stamp = stamp;
    this.teacher = teacher;
  }

  /**
   * Sets the epoch of an own client's update, with this receipt time, that would replace `other`.
   */
  follow(other, nowNs) {
    this.epoch = other.epoch;
    const isFarAhead = other.effective > nowNs * NANOSECOND + MAX_AHEAD;
    // `other` is the later one only because of another server's wrong clock. The next epoch wins
    // everywhere.
    if (!this.isNewerThan(other) && (this.stamp > other.stamp || isFarAhead) && this.epoch < MAX_EPOCH) {
      this.epoch += 1;
    }
  }

  /**
   * Whether this record replaces the other. The order is total and the same on every server: the
   * times come from the line alone, and the epoch is sent with it. So the order of arrival does not
   * matter.
   */
  isNewerThan(other) {
    if (this.epoch !== other.epoch) {
      return this.epoch > other.epoch;
    }
    if (this.effective !== other.effective) {
      return this.effective > other.effective;
    }
    if (this.stamp !== other.stamp) {
      return this.stamp > other.stamp;
    }
    return this.line > other.line;
  }

  /** The line as it crosses a link. */
  get told() {
    return this.epoch > 0 ? `EPOCH ${this.epoch} ${this.line}` : this.line;
  }

  /**
   * A hash of the line, eight bytes at a time, that is the same on every server. Only a status
   * needs it, so it is computed when it is first used.
   */
  get hash() {
    if (this.#hash === undefined) {
      const padded = Buffer.alloc(Math.ceil(this.line.length / 8) * 8);
      padded.write(this.line, 'latin1');
      let hash = BigInt(this.line.length);
      for (let at = 0; at < padded.length; at += 8) {
        hash = BigInt.asUintN(64, (hash ^ padded.readBigUInt64LE(at)) * 0x9e3779b97f4a7c15n);
        hash ^= hash >> 32n;
      }
      this.#hash = hash;
    }
    return this.#hash;
  }
}

/**
 * The record that `server` makes of an IAMAT with this receipt time. undefined if the receipt is
 * before 1970.
 */
export function answer(server, { client, location, time, stamp }, receiptNs) {
  const difference = receiptNs * NANOSECOND - stamp;
  // The skew is rounded towards zero.
  const skewNs = (difference < 0n ? -difference : difference) / NANOSECOND;
  const isAhead = difference < 0n && skewNs > 0n;
  const effective = effectiveTime(stamp, isAhead, skewNs);
  if (effective === undefined) {
    return undefined;
  }
  const skew = `${isAhead ? '-' : '+'}${skewNs / SECOND_NS}.${String(skewNs % SECOND_NS).padStart(9, '0')}`;
  return new Record(`AT ${server} ${skew} ${client} ${location} ${time}`, client, location, effective, stamp);
}

/** Parses a neighbour's AT line, perhaps with an epoch before it. undefined if it is not valid. */
export function parseAt(line, teacher) {
  const found = anAtLine.exec(line);
  if (!found) {
    return undefined;
  }
  const [, epoch, , sign, seconds, nanos, client, location, , , time] = found;
  const skewNs = BigInt(seconds) * SECOND_NS + BigInt(nanos);
  const isAhead = sign === '-';
  const stamp = parseTime(time);
  const effective = effectiveTime(stamp, isAhead, skewNs);
  if (effective === undefined || (isAhead && skewNs === 0n) || epoch > MAX_EPOCH) {
    return undefined;
  }
  const record = new Record(line.slice(line.indexOf('AT ')), client, location, effective, stamp, teacher);
  record.epoch = Number(epoch ?? 0);
  return record;
}

/**
 * The client's stamp, or a minute after the receipt if that is earlier. undefined if the receipt is
 * before 1970. So a client whose clock is a year ahead cannot freeze its own record. The value has
 * no jump, so updates with a clock about a minute ahead are not lost.
 */
function effectiveTime(stamp, isAhead, skewNs) {
  if (!isAhead) {
    return stamp;
  }
  const receipt = stamp - skewNs * NANOSECOND;
  if (receipt < 0n) {
    return undefined;
  }
  return skewNs * NANOSECOND > MAX_LEAD ? receipt + MAX_LEAD : stamp;
}
