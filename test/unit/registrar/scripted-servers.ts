// Just enough of each protocol for its check to pass, without the server.
import net from 'node:net';

import { startServer, type TestServer } from './support.ts';

/** Answers what was said so far; undefined while that is not enough. */
type Answer = (heard: Buffer, turn: number) => Answered | undefined;

interface Answered {
  /** How much of it was answered. */
  readonly used: number;
  readonly bytes?: Buffer | string;
  readonly isLast?: boolean;
}

/** A server that greets, and answers one message after the other. */
function startTalker(greeting: Buffer | string, answer: Answer): Promise<TestServer> {
  return startServer(
    net.createServer((socket) => {
      let heard = Buffer.alloc(0);
      let turn = 0;
      socket.on('data', (chunk: Buffer) => {
        heard = Buffer.concat([heard, chunk]);
        for (let next = answer(heard, turn); next !== undefined; next = answer(heard, turn)) {
          heard = heard.subarray(next.used);
          turn += 1;
          if (next.bytes !== undefined) socket.write(next.bytes);
          if (next.isLast === true) socket.end();
        }
      });
      if (greeting.length > 0) socket.write(greeting);
    }),
  );
}

export function startRedisTalker(answers: Readonly<Record<string, string>> = {}): Promise<TestServer> {
  return startTalker('', (heard) => {
    const text = heard.toString();
    const command = /^\*\d+\r\n\$\d+\r\n([A-Z]+)\r\n(?:\$\d+\r\n[^\r]*\r\n)*$/.exec(text)?.[1];
    if (command === undefined) return undefined;
    return {
      used: heard.length,
      bytes: { PING: '+PONG\r\n', AUTH: '+OK\r\n', ...answers }[command] ?? '-ERR\r\n',
    };
  });
}

export function mysqlPacket(sequence: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(4);
  head.writeUIntLE(payload.length, 0, 3);
  head[3] = sequence;
  return Buffer.concat([head, payload]);
}

export const MYSQL_CHALLENGE = Buffer.from('abcdefghijklmnopqrst');
const MYSQL_FLAGS = 0x8a201;

/** @param flags what it can do besides speaking the protocol */
export function mysqlGreeting(plugin = 'mysql_native_password', flags = 0): Buffer {
  const all = MYSQL_FLAGS | flags;
  const numbers = Buffer.alloc(18);
  numbers.writeUInt16LE(all & 0xffff, 0);
  numbers.writeUInt16LE(all >>> 16, 5);
  numbers[7] = MYSQL_CHALLENGE.length + 1;
  const payload = Buffer.concat([
    Buffer.from('\x0a8.0.0\0\x01\x00\x00\x00', 'latin1'),
    MYSQL_CHALLENGE.subarray(0, 8),
    Buffer.alloc(1),
    numbers,
    MYSQL_CHALLENGE.subarray(8),
    Buffer.from(`\0${plugin}\0`),
  ]);
  return mysqlPacket(0, payload);
}

export const MYSQL_OK = Buffer.from([0, 0, 0, 2, 0, 0, 0]);

/**
 * @param answers what it answers to each packet of the login, in one packet or more; the last one is its verdict
 * @param said the payloads that it was told
 */
export function startMysqlTalker(
  answers: readonly (readonly Buffer[])[] = [[MYSQL_OK]],
  said: Buffer[] = [],
  greeting = mysqlGreeting(),
): Promise<TestServer> {
  return startTalker(greeting, (heard, turn) => {
    const length = heard.length < 4 ? Infinity : heard.readUIntLE(0, 3);
    if (heard.length < length + 4) return undefined;
    const payload = heard.subarray(4, length + 4);
    said.push(Buffer.from(payload));
    const next = answers[turn];
    if (next === undefined) return { used: length + 4, isLast: true };
    const packets = next.map((one, index) => mysqlPacket((heard[3] ?? 0) + 1 + index, one));
    return { used: length + 4, bytes: Buffer.concat(packets) };
  });
}

export function postgresMessage(kind: string, body: Buffer | string): Buffer {
  const bytes = Buffer.from(body);
  const head = Buffer.from(`${kind}0000`);
  head.writeUInt32BE(bytes.length + 4, 1);
  return Buffer.concat([head, bytes]);
}

const POSTGRES_READY = Buffer.concat([
  postgresMessage('R', '\0\0\0\0'),
  postgresMessage('S', 'server_version\x0015\0'),
  postgresMessage('K', '12345678'),
  postgresMessage('Z', 'I'),
]);

/** @param answers to each message of the login, or what makes one of it */
export function startPostgresTalker(
  answers: readonly (Buffer | ((heard: Buffer) => Buffer))[] = [POSTGRES_READY],
): Promise<TestServer> {
  return startTalker('', (heard, turn) => {
    const start = turn === 0 ? 0 : 1;
    const length = heard.length < start + 4 ? Infinity : heard.readUInt32BE(start) + start;
    if (heard.length < length) return undefined;
    const next = answers[turn];
    if (next === undefined) return { used: length, isLast: true };
    return { used: length, bytes: typeof next === 'function' ? next(heard.subarray(0, length)) : next };
  });
}

export function amqpMethod(id: number, body = ''): Buffer {
  const payload = Buffer.concat([Buffer.from([0, 10, 0, id]), Buffer.from(body, 'latin1')]);
  const head = Buffer.from([1, 0, 0, 0, 0, 0, payload.length]);
  return Buffer.concat([head, payload, Buffer.from([0xce])]);
}

const AMQP_START = amqpMethod(10, '\x00\x09\x00\x00\x00\x00\x00\x00\x00\x05PLAIN\x00\x00\x00\x05en_US');
const AMQP_TUNE = amqpMethod(30, '\x07\xff\x00\x02\x00\x00\x00\x3c');

/** @param answers by the method that is answered; 0 is the header of the protocol */
export function startRabbitmqTalker(answers: Readonly<Record<number, Buffer>> = {}): Promise<TestServer> {
  const all: Readonly<Record<number, Buffer>> = {
    0: AMQP_START,
    11: AMQP_TUNE,
    40: amqpMethod(41, '\0'),
    50: amqpMethod(51),
    ...answers,
  };
  return startTalker('', (heard, turn) => {
    const length = turn === 0 ? 8 : heard.length < 7 ? Infinity : heard.readUInt32BE(3) + 8;
    if (heard.length < length) return undefined;
    const bytes = all[turn === 0 ? 0 : heard.readUInt16BE(9)];
    return { used: length, ...(bytes === undefined ? {} : { bytes }) };
  });
}
