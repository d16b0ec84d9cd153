// Asks Google Places with node:https.
//
// The agent keeps connections and uses them again. This module asks the right question, checks the
// answer, and always returns some answer.

import fs from 'node:fs';
import https from 'node:https';

import { cut, error } from './answers.js';
import { metres, placeOf } from './message.js';

const DEADLINE_MS = 10_000;
const CONNECTIONS = 16;
const BODY_BYTES = 2 * 1024 * 1024;
/** A shorter key would be found in many good answers by chance. Google's have 39 characters. */
const KEY_BYTES = 8;

/** Why Google gave no answer, as advice for a client. */
class Unanswered extends Error {}

export class Places {
  #origin;
  #key;
  #log;
  #agent;

  /** Throws if the file with the certificate authority cannot be read. */
  constructor(url, caFile, key, log) {
    this.#origin = new URL(url);
    this.#key = key;
    this.#log = log;
    this.#agent = new https.Agent({ keepAlive: true, maxSockets: CONNECTIONS, ca: caFile && fs.readFileSync(caFile) });
  }

  /** The JSON for a WHATSAT as bytes. It always comes, and within the deadline. */
  async answer(location, radius, bound) {
    const [latitude, longitude] = placeOf(location);
    const began = performance.now();
    try {
      const { status, body } = await this.#ask(`${latitude},${longitude}`, metres(radius));
      const took = ((performance.now() - began) / 1000).toFixed(6);
      this.#log.info(() => `places ${latitude},${longitude}: HTTP ${status}, ${body.length} bytes in ${took} s`);
      return Buffer.from(this.#judged(status, body, bound));
    } catch (why) {
      if (!(why instanceof Unanswered)) {
        throw why;
      }
      this.#log.warn(`places ${latitude},${longitude}: ${why.message}`);
      return Buffer.from(error(why.message));
    }
  }

  async #ask(location, radius) {
    if (!this.#key) {
      throw new Unanswered('this server has no key for Google Places; its operator can give it one (HERD_PLACES_KEY)');
    }
    const key = encodeURIComponent(this.#key);
    const path = `/maps/api/place/nearbysearch/json?location=${location}&radius=${radius}&key=${key}`;
    const signal = AbortSignal.timeout(DEADLINE_MS);
    try {
      return await this.#get(path, signal).catch((failure) => {
        // A kept connection may have been closed just now. Node's documentation says to retry once.
        if (failure.hadDied) {
          return this.#get(path, signal);
        }
        throw failure;
      });
    } catch (failure) {
      if (signal.aborted) {
        throw new Unanswered(`Google Places did not answer within ${DEADLINE_MS / 1000} s; try again later`);
      }
      const what = failure.wasAsked ? 'gave no answer that can be used' : 'cannot be reached';
      throw new Unanswered(`Google Places ${what}: ${failure.message || failure.code}; try again later`);
    }
  }

  #get(path, signal) {
    return new Promise((resolve, reject) => {
      const { hostname, port } = this.#origin;
      const headers = { Accept: 'application/json', 'User-Agent': 'herd-compare' };
      const options = { hostname: hostname.replace(/^\[(.*)\]$/, '$1'), port, path, headers, agent: this.#agent, signal };
      const request = https.request(options, (response) => {
        const chunks = [];
        let size = 0;
        response.on('data', (chunk) => {
          chunks.push(chunk);
          size += chunk.length;
          if (size > BODY_BYTES) {
            response.destroy(new Error('it was too large'));
          }
        });
        response.on('end', () => resolve({ status: response.statusCode, body: Buffer.concat(chunks) }));
        response.on('error', (failure) => reject(Object.assign(failure, { wasAsked: true })));
      });
      request.on('error', (failure) => {
        const hadDied = request.reusedSocket && failure.code === 'ECONNRESET';
        reject(Object.assign(failure, { hadDied, wasAsked: request.socket?.secureConnecting === false }));
      });
      request.end();
    });
  }

  /**
   * Accepts Google's text with status 200, and its JSON of an error. A response that contains the
   * key is refused.
   */
  #judged(status, body, bound) {
    if (this.#key.length >= KEY_BYTES && body.includes(this.#key)) {
      throw new Unanswered(`Google Places answered with HTTP status ${status}, and something that may not be shown`);
    }
    if (status !== 200 && !(status >= 400 && status < 600)) {
      throw new Unanswered(`Google Places answered with HTTP status ${status}; try again later`);
    }
    try {
      return cut(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body), bound);
    } catch {
      const what = status === 200 ? 'something that is not JSON' : `HTTP status ${status}`;
      throw new Unanswered(`Google Places answered with ${what}; try again later`);
    }
  }
}
