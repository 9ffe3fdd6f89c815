import type { Database } from './database.ts';
import type { Traffic } from './traffic.ts';

/** Words that the Java server knows and, like this one, does not answer unless told to. */
const REFUSED_WORDS: ReadonlySet<string> = new Set(
  'conf cons crst dirs dump envi gtmk hash icfg lsnp mntr srst stat stmk wchc wchp wchs'.split(' '),
);

/** The answer to a four-letter word, the text protocol of monitoring; undefined if it is none. */
export function answerWord(word: string, database: Database, traffic: Traffic): string | undefined {
  if (word === 'ruok') return 'imok';
  if (word === 'isro') return 'rw';
  if (word === 'srvr') return describeServer(database, traffic);
  return REFUSED_WORDS.has(word)
    ? `${word} is not executed because it is not in the whitelist.\n`
    : undefined;
}

function describeServer(database: Database, traffic: Traffic): string {
  const lines = [
    'Zookeeper version: 3.9.0-tandem-embedded, built on 2024-01-01 00:00 UTC',
    'Latency min/avg/max: 0/0.0/0',
    `Received: ${traffic.received}`,
    `Sent: ${traffic.sent}`,
    `Connections: ${traffic.connections}`,
    'Outstanding: 0',
    `Zxid: 0x${database.zxid.toString(16)}`,
    'Mode: standalone',
    `Node count: ${database.tree.size}`,
  ];
  return `${lines.join('\n')}\n`;
}
