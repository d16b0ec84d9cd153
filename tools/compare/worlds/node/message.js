// What a line says: the IAMAT and WHATSAT of clients, and the AT line that answers an IAMAT and crosses the herd.
//
// White space is spelled out everywhere: JavaScript's \s knows Unicode's, which the protocol does not.
//
// A number has 53 bits, which hold a time of today to about 200 ns. So times are BigInts, of attoseconds (10^-18 s): a stamp has
// at most 18 decimals.

/** A client's line has at most so many bytes before its LF. */
export const LINE_BYTES = 4096;

const ATTOSECONDS = 10n ** 18n;
export const NANOSECOND = 10n ** 9n; // in attoseconds
const SECOND_NS = 10n ** 9n;
/** A stamp counts as at most so much later than its receipt. */
export const MAX_LEAD = 60n * ATTOSECONDS;
/** A record further ahead of our clock is set aside: another server's clock is wrong. */
const MAX_AHEAD = 120n * ATTOSECONDS;
const MAX_EPOCH = 2 ** 32 - 1;

// Latitude and longitude, each with its sign, 1 to 3 digits, and within range.
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

/** A client's line as its fields. */
export function fieldsOf(line) {
  return line.match(words) ?? [];
}

/** What a client's line says, given as its fields; undefined if it is no command. */
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

/** Plain decimal seconds, in attoseconds. */
function parseTime(text) {
  const found = aTime.exec(text);
  return found ? BigInt(found[1]) * ATTOSECONDS + BigInt((found[2] ?? '').padEnd(18, '0')) : undefined;
}

/** A radius of more than 0 and at most 50 km, in nanometres; what is finer is rounded up, so that none becomes zero. */
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

/** Latitude and longitude as URLs have them: no plus sign (there it means a space), no leading zeros. */
export function placeOf(location) {
  const [, latitude, longitude] = aLocation.exec(location);
  const plain = (degrees) => degrees.replace(/^([+-])0*(?=\d)/, (_, sign) => (sign === '-' ? '-' : ''));
  return [plain(latitude), plain(longitude)];
}

/** An AT line, and what orders it among the records of its client. */
export class Record {
  /** How many records of this client were set aside because of a wrong clock. */
  epoch = 0;
  sequence = 0;
  #hash;

  /** `teacher` is the life of the neighbour who told us; undefined if it was a client. */
  constructor(line, client, location, effective, stamp, teacher) {
    this.line = line;
    this.client = client;
    this.location = location;
    this.effective = effective;
    this.stamp = stamp;
    this.teacher = teacher;
  }

  /** Takes an epoch, as an own client's update of the other, received at that time. */
  follow(other, nowNs) {
    this.epoch = other.epoch;
    const isFarAhead = other.effective > nowNs * NANOSECOND + MAX_AHEAD;
    // Only a wrong clock of another server makes the other one look later: the next epoch wins
    // everywhere.
    if (!this.isNewerThan(other) && (this.stamp > other.stamp || isFarAhead) && this.epoch < MAX_EPOCH) {
      this.epoch += 1;
    }
  }

  /**
   * Whether this one takes the place of the other. The order is total, and the same on every
   * server: the times come from the line alone, and the epoch travels with it. So the order of
   * arrival decides nothing.
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

  /** The line as a neighbour is told it. */
  get told() {
    return this.epoch > 0 ? `EPOCH ${this.epoch} ${this.line}` : this.line;
  }

  /**
   * A hash of the line that is the same on every server, eight bytes at a time. Only an operator's question needs it, so it is
   * computed when somebody asks for it.
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

/** The record that `server` makes of an IAMAT that it received at that time; undefined if its clock stands before the epoch. */
export function answer(server, { client, location, time, stamp }, receiptNs) {
  const difference = receiptNs * NANOSECOND - stamp;
  // What is below a nanosecond is cut off.
  const skewNs = (difference < 0n ? -difference : difference) / NANOSECOND;
  const isAhead = difference < 0n && skewNs > 0n;
  const effective = effectiveTime(stamp, isAhead, skewNs);
  if (effective === undefined) {
    return undefined;
  }
  const skew = `${isAhead ? '-' : '+'}${skewNs / SECOND_NS}.${String(skewNs % SECOND_NS).padStart(9, '0')}`;
  return new Record(`AT ${server} ${skew} ${client} ${location} ${time}`, client, location, effective, stamp);
}

/** A neighbour's AT line, perhaps behind its epoch; undefined if it is spelled otherwise. */
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
 * The client's stamp, or a minute after the receipt if that is earlier; undefined for a receipt
 * before 1970. A client whose clock is a year ahead cannot freeze its own record with it. The value
 * has no jump, so a clock that is about a minute ahead loses no update.
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
