// The time of day in nanoseconds.
//
// Date.now() has milliseconds only, and process.hrtime begins anywhere. So the latter tells where within its millisecond the former
// is: what is added to it is moved, whenever the two do not agree, by as little as makes them agree again.

const MILLISECOND = 1_000_000n;

let beginning = BigInt(Date.now()) * MILLISECOND - process.hrtime.bigint();

export function wallClockNs() {
  const earliest = BigInt(Date.now()) * MILLISECOND;
  const latest = earliest + MILLISECOND - 1n;
  const now = beginning + process.hrtime.bigint();
  if (now < earliest) {
    beginning += earliest - now;
    return earliest;
  }
  if (now > latest) {
    beginning -= now - latest;
    return latest;
  }
  return now;
}
