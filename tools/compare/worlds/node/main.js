// The server on Node: one thread, callbacks, and only the standard library.
//
//     main.js        opens the listeners, and closes them at SIGTERM
//     client.js      a client's connection
//     link.js        a connection between two servers
//     neighbours.js  the records that each neighbour lacks, and the handshake
//     message.js     parsed lines and exact times
//     records.js     the table of records
//     places.js      asks Google Places; answers.js cuts its answers
//     lines.js  clock.js  proof.js  log.js  options.js
//
// herd-mio's time limit of ten seconds for a line is left out.

import net from 'node:net';
import { once } from 'node:events';

import { Client } from './client.js';
import { Link, keepDialling } from './link.js';
import { Log } from './log.js';
import { Herd } from './neighbours.js';
import { options, shown } from './options.js';
import { Places } from './places.js';
import { Records } from './records.js';

const BACKLOG = 4096;

function fail(status, what) {
  process.stderr.write(`herd-node: ${what}\n`);
  process.exit(status);
}

async function open(door, { host, port }) {
  door.listen({ host, port, backlog: BACKLOG });
  await once(door, 'listening');
  return shown(door.address());
}

async function serve(said) {
  let log, places;
  try {
    log = new Log(said.logFile, said.logLevel);
    places = new Places(said.placesUrl, said.placesCa, said.placesKey, log);
  } catch (error) {
    fail(2, `${error.message}; choose another file with --log-file or --places-ca`);
  }
  const herd = new Herd(said.name, said.secret, new Records(), said.neighbours, log);

  // Half-open, because a client may shut down its writing side and still wait for answers.
  const clients = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => new Client(socket, herd, places, log));
  const peers = net.createServer({ noDelay: true }, (socket) => new Link(socket, herd, null, log));
  const stopDialling = new AbortController();
  try {
    const where = [await open(clients, said.listen), await open(peers, said.listenPeers)];
    for (const neighbour of said.neighbours.filter(({ address }) => address)) {
      keepDialling(neighbour, herd, log, stopDialling.signal);
    }
    process.stdout.write(`herd-node ${said.name}: clients on ${where[0]}, neighbours on ${where[1]}\n`);
  } catch (error) {
    fail(1, error.message);
  }

  const stop = () => {
    clients.close();
    peers.close();
    stopDialling.abort();
    for (const { link } of herd.linked()) {
      link.end('stopping');
    }
    log.close(() => process.exit(0));
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
}

let said;
try {
  said = options(process.argv.slice(2), process.env);
} catch (error) {
  fail(2, error.message);
}
await serve(said);
