// The proof with which both ends of a link show that they know the herd's secret, without sending
// it.
//
// The proof is an HMAC over both names and both nonces, so an old proof is invalid. It also covers
// the speaker's side, so a reflected proof is invalid too.

import { createHmac, timingSafeEqual } from 'node:crypto';

/**
 * The proof of `speaker` ("dialler" or "acceptor"). The parties are both names, then both nonces,
 * the dialler's first.
 */
export function prove(secret, speaker, parties) {
  const text = ['herd-mio link 1', speaker, ...parties].map((line) => `${line}\n`).join('');
  return createHmac('sha256', secret).update(text).digest('hex');
}

/**
 * Checks a proof. The time is the same for every wrong one, so it cannot be guessed digit by digit.
 */
export function isProven(secret, speaker, parties, proof) {
  return timingSafeEqual(Buffer.from(prove(secret, speaker, parties), 'hex'), Buffer.from(proof, 'hex'));
}
