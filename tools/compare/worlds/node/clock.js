// The time of day in nanoseconds.
//
// Date.now() has only milliseconds, and process.hrtime has an arbitrary start. So hrtime gives the
// place within the millisecond of Date.now(). Whenever the two disagree, the offset between them is
// changed by the least amount that makes them agree.

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
