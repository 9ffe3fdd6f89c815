// A nameserver on loopback, for names with one kind of trouble each.
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';

import { endLater } from './registries.ts';

export interface Srv {
  readonly target: string;
  readonly port: number;
  readonly priority?: number;
  readonly weight?: number;
}

/** What stands behind a name: records, or how the server treats those who ask for it. */
export type Zone =
  | {
      readonly a?: readonly string[];
      readonly aaaa?: readonly string[];
      readonly srv?: readonly Srv[];
      readonly ttl?: number;
    }
  | 'nxdomain'
  | 'servfail'
  | 'refused'
  | 'silence'
  | 'garbage';

export interface DnsServer {
  /** `127.0.0.1:5353` */
  readonly address: string;
  /** Names that are not in it do not exist. */
  readonly zones: Map<string, Zone>;
  /** Every question so far, as `A web.example.com`. */
  readonly asked: readonly string[];
  close(): Promise<void>;
}

const TYPES = { 1: 'A', 28: 'AAAA', 33: 'SRV' } as const;
const RCODE = { servfail: 2, nxdomain: 3, refused: 5 } as const;

export async function startDnsServer(zones: Readonly<Record<string, Zone>> = {}): Promise<DnsServer> {
  const socket = dgram.createSocket('udp4');
  const table = new Map(Object.entries(zones));
  const asked: string[] = [];
  socket.on('message', (query, from) => {
    const question = readQuestion(query);
    asked.push(`${question.type} ${question.name}`);
    const reply = answer(query, question, table.get(question.name) ?? 'nxdomain');
    if (reply !== undefined) socket.send(reply, from.port, from.address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  let isOpen = true;
  const close = async () => {
    if (!isOpen) return;
    isOpen = false;
    socket.close();
    await once(socket, 'close');
  };
  endLater(close);
  return { address: `127.0.0.1:${socket.address().port}`, zones: table, asked, close };
}

interface Question {
  readonly name: string;
  readonly type: string;
  /** The question as it came, to be sent back. */
  readonly bytes: Buffer;
}

function readQuestion(query: Buffer): Question {
  const labels: string[] = [];
  let offset = 12;
  for (let length = query[offset] ?? 0; length > 0; length = query[offset] ?? 0) {
    labels.push(query.toString('latin1', offset + 1, offset + 1 + length).toLowerCase());
    offset += length + 1;
  }
  const type = query.readUInt16BE(offset + 1);
  return {
    name: labels.join('.'),
    type: TYPES[type as keyof typeof TYPES] ?? String(type),
    bytes: query.subarray(12, offset + 5),
  };
}

function answer(query: Buffer, { type, bytes }: Question, zone: Zone): Buffer | undefined {
  if (zone === 'silence') return undefined;
  if (zone === 'garbage')
    return Buffer.concat([query.subarray(0, 2), Buffer.from('8180ffffffff0000', 'hex')]);
  if (typeof zone === 'string') return message(query, bytes, RCODE[zone], []);
  const { ttl = 1 } = zone;
  const records =
    type === 'A'
      ? (zone.a ?? []).map((text) => record(1, ttl, Buffer.from(text.split('.').map(Number))))
      : type === 'AAAA'
        ? (zone.aaaa ?? []).map((text) => record(28, ttl, ipv6Bytes(text)))
        : type === 'SRV'
          ? (zone.srv ?? []).map((srv) => record(33, ttl, srvBytes(srv)))
          : [];
  return message(query, bytes, 0, records);
}

function message(query: Buffer, question: Buffer, rcode: number, records: readonly Buffer[]): Buffer {
  const header = Buffer.alloc(12);
  query.copy(header, 0, 0, 2);
  header.writeUInt16BE(0x8180 | rcode, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(records.length, 6);
  return Buffer.concat([header, question, ...records]);
}

/** Of the name that was asked for. */
function record(type: number, ttl: number, body: Buffer): Buffer {
  const head = Buffer.alloc(12);
  head.writeUInt16BE(0xc00c, 0);
  head.writeUInt16BE(type, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt32BE(ttl, 6);
  head.writeUInt16BE(body.length, 10);
  return Buffer.concat([head, body]);
}

function ipv6Bytes(text: string): Buffer {
  const [head = '', tail = ''] = new net.SocketAddress({ address: text, family: 'ipv6' }).address.split('::');
  const groups = (part: string) => (part === '' ? [] : part.split(':').map((group) => parseInt(group, 16)));
  const [before, after] = [groups(head), groups(tail)];
  const all = [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after];
  return Buffer.from(all.flatMap((group) => [group >> 8, group & 0xff]));
}

function srvBytes({ target, port, priority = 0, weight = 0 }: Srv): Buffer {
  const numbers = Buffer.alloc(6);
  for (const [index, value] of [priority, weight, port].entries()) numbers.writeUInt16BE(value, index * 2);
  const labels = target
    .split('.')
    .filter((label) => label !== '')
    .map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label, 'latin1')]));
  return Buffer.concat([numbers, ...labels, Buffer.alloc(1)]);
}
