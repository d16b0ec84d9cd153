// How the two ends of a link prove to one another that they know the herd's secret, without telling it.
//
// The proof is an HMAC over both names and both nonces, so an old one proves nothing; and over the side that speaks, so one that is
// sent back proves nothing either.

import { createHmac, timingSafeEqual } from 'node:crypto';

/** What `speaker` ("dialler" or "acceptor") says to prove itself; the parties are both names, then both nonces, dialler first. */
export function prove(secret, speaker, parties) {
  const text = ['herd-mio link 1', speaker, ...parties].map((line) => `${line}\n`).join('');
  return createHmac('sha256', secret).update(text).digest('hex');
}

/** Takes as long for every wrong proof, so that nobody can find one digit by digit. */
export function isProven(secret, speaker, parties, proof) {
  return timingSafeEqual(Buffer.from(prove(secret, speaker, parties), 'hex'), Buffer.from(proof, 'hex'));
}
