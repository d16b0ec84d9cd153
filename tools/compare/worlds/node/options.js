// The command line, which is the same for the servers of all worlds.

import { parseArgs } from 'node:util';

import { Neighbour } from './neighbours.js';

const USAGE =
  'usage: main.js NAME --listen HOST:PORT --listen-peers HOST:PORT [--dial NAME=HOST:PORT]... [--accept NAME]... ' +
  '[--places-url URL] [--places-ca FILE] --log-file FILE [--log-level info|warn]';

/**
 * The values from the command line and the environment. Throws an error that describes a mistake in
 * one line.
 */
export function options(args, environment) {
  let found;
  try {
    found = parseArgs({
      args,
      allowPositionals: true,
      options: {
        listen: { type: 'string' },
        'listen-peers': { type: 'string' },
        dial: { type: 'string', multiple: true, default: [] },
        accept: { type: 'string', multiple: true, default: [] },
        'places-url': { type: 'string' },
        'places-ca': { type: 'string' },
        'log-file': { type: 'string' },
        'log-level': { type: 'string', default: 'info' },
        help: { type: 'boolean' },
      },
    });
  } catch (error) {
    throw new Error(`${error.message.split('\n')[0]}; ${USAGE}`);
  }
  const { values, positionals } = found;
  if (values.help) {
    process.stdout.write(`${USAGE}\nThe environment has HERD_SECRET and HERD_PLACES_KEY, which no process listing shows.\n`);
    process.exit(0);
  }
  if (positionals.length !== 1) {
    throw new Error(`exactly one NAME is needed; ${USAGE}`);
  }
  for (const needed of ['listen', 'listen-peers', 'log-file']) {
    if (values[needed] === undefined) {
      throw new Error(`--${needed} is missing; ${USAGE}`);
    }
  }
  if (!['info', 'warn'].includes(values['log-level'])) {
    throw new Error(`--log-level is info or warn, not ${values['log-level']}`);
  }
  const placesUrl = values['places-url'] ?? 'https://maps.googleapis.com';
  if (!/^https:\/\/[^/?#]+\/?$/.test(placesUrl)) {
    throw new Error(`--places-url has to be https://HOST or https://HOST:PORT, not ${placesUrl}`);
  }
  const neighbours = [
    ...values.dial.map((text) => {
      const [, name, where] = /^([^=]+)=(.+)$/.exec(text) ?? [];
      if (!name) {
        throw new Error(`--dial wants NAME=HOST:PORT, not ${text}`);
      }
      return new Neighbour(name, address('--dial', where));
    }),
    ...values.accept.map((name) => new Neighbour(name, null)),
  ];
  const names = new Set([positionals[0], ...neighbours.map(({ name }) => name)]);
  if (names.size !== neighbours.length + 1) {
    throw new Error('a neighbour is named twice, or is this server itself');
  }
  return {
    name: positionals[0],
    listen: address('--listen', values.listen),
    listenPeers: address('--listen-peers', values['listen-peers']),
    neighbours,
    placesUrl,
    placesCa: values['places-ca'],
    placesKey: (environment.HERD_PLACES_KEY ?? '').trim(),
    logFile: values['log-file'],
    logLevel: values['log-level'],
    secret: (environment.HERD_SECRET ?? '').trim(),
  };
}

function address(option, text) {
  const [, host, port] = /^(.+):([0-9]{1,5})$/.exec(text) ?? [];
  if (!host || Number(port) > 65535) {
    throw new Error(`${option} wants HOST:PORT, not ${text}`);
  }
  return { host: host.replace(/^\[(.*)\]$/, '$1'), port: Number(port) };
}

/** An address in the form of the command line. */
export function shown({ address, family, port }) {
  return family === 'IPv6' ? `[${address}]:${port}` : `${address}:${port}`;
}
