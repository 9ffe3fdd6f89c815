import { canonicalAddress, type ReportedServer, type ServerState } from './membership.ts';
import type { RunningBackends } from './plan.ts';

/** srv_admin_state: forced or inherited drain; forced, inherited maintenance. 4, disabled in the file, is only a note. */
const DRAIN = 8 | 16;
const MAINTENANCE = 1 | 2 | 32;
/** srv_check_result of a check that has passed. */
const PASSED = 3;

/** Takes what HAProxy answers to `show servers state` in pieces, and keeps of it only what was not known before. */
export interface StateReader {
  write(chunk: Buffer): void;
  /**
   * What HAProxy has. A server that is as expected is the expected object, and a backend in which all are and none is
   * missing is the expected array.
   */
  end(): RunningBackends;
}

export function createStateReader(expected: RunningBackends = new Map()): StateReader {
  const backends = new Map<string, readonly ReportedServer[]>();
  const fields = new LineFields();
  let rest = '';
  let backend = '';
  let known: readonly ReportedServer[] = [];
  let byName: ReadonlyMap<string, ReportedServer> | undefined;
  let servers: ReportedServer[] = [];
  let asExpected = 0;

  function finish(): void {
    if (backend === '') return;
    const before = expected.get(backend);
    const isSame = before?.length === servers.length && asExpected === servers.length;
    backends.set(backend, before !== undefined && isSame ? before : servers);
  }
  /** Mostly the servers come in the order in which they are expected: then nothing has to be looked up. */
  function findKnown(): ReportedServer | undefined {
    const next = known[servers.length];
    if (next !== undefined && fields.is(SERVER_NAME, next.name)) return next;
    byName ??= new Map(known.map((server) => [server.name, server]));
    return byName.get(fields.text(SERVER_NAME));
  }
  function take(text: string, from: number, end: number): void {
    if (!fields.scan(text, from, end)) return;
    if (!fields.is(BACKEND, backend)) {
      finish();
      backend = unshared(fields.text(BACKEND));
      known = expected.get(backend) ?? [];
      byName = undefined;
      servers = [];
      asExpected = 0;
    }
    const before = findKnown();
    if (before !== undefined && isAlike(before, fields)) {
      asExpected += 1;
      servers.push(before);
    } else servers.push(toServer(fields));
  }

  return {
    write(chunk) {
      const text = rest + chunk.toString('latin1');
      let from = 0;
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', from)) {
        take(text, from, end);
        from = end + 1;
      }
      rest = text.slice(from);
    },
    end() {
      take(rest, 0, rest.length);
      rest = '';
      finish();
      return backends;
    },
  };
}

/** Fields of format 1: `be_id be_name srv_id srv_name srv_addr op_state admin_state uweight … srv_port(18) …`. */
const BACKEND = 1;
const SERVER_ID = 2;
const SERVER_NAME = 3;
const ADDRESS = 4;
const ADMIN_STATE = 6;
const WEIGHT = 7;
const PORT = 18;

/** A line in the place where it stands: of a hundred thousand lines that are as expected nothing is copied. */
class LineFields {
  /** Where each field begins; one more tells where the last ends. */
  readonly #starts = new Uint32Array(PORT + 2);
  #text = '';

  /** False for what is not the line of a server. */
  scan(text: string, from: number, end: number): boolean {
    const first = text.charCodeAt(from);
    if (!(first >= 0x30 && first <= 0x39)) return false;
    this.#text = text;
    this.#starts[0] = from;
    let field = 1;
    for (let at = from; at < end && field < this.#starts.length; at += 1) {
      if (text.charCodeAt(at) !== 0x20) continue;
      this.#starts[field] = at + 1;
      field += 1;
    }
    if (field === PORT + 1) this.#starts[field] = end + 1;
    return field > PORT;
  }

  text(field: number): string {
    return this.#text.slice(this.#starts[field], this.#end(field));
  }

  is(field: number, text: string): boolean {
    const from = this.#starts[field] ?? 0;
    return this.#end(field) - from === text.length && this.#text.startsWith(text, from);
  }

  /** NaN for what is not a whole number from 0 on. */
  number(field: number): number {
    let value = 0;
    const end = this.#end(field);
    const from = this.#starts[field] ?? 0;
    for (let at = from; at < end; at += 1) {
      const digit = this.#text.charCodeAt(at) - 0x30;
      if (!(digit >= 0 && digit <= 9)) return NaN;
      value = value * 10 + digit;
    }
    return end > from ? value : NaN;
  }

  #end(field: number): number {
    return (this.#starts[field + 1] ?? 0) - 1;
  }
}

function isAlike(server: ReportedServer, fields: LineFields): boolean {
  return (
    fields.is(ADDRESS, server.address) &&
    fields.number(SERVER_ID) === server.id &&
    fields.number(PORT) === server.port &&
    fields.number(WEIGHT) === server.weight &&
    stateOf(fields.number(ADMIN_STATE)) === server.state
  );
}

function toServer(fields: LineFields): ReportedServer {
  const address = fields.text(ADDRESS);
  return {
    name: unshared(fields.text(SERVER_NAME)),
    id: fields.number(SERVER_ID),
    // HAProxy writes IPv6 as it is kept here, but for addresses that need not be.
    address: unshared(canonicalAddress(address) ?? address),
    port: fields.number(PORT),
    weight: fields.number(WEIGHT),
    state: stateOf(fields.number(ADMIN_STATE)),
  };
}

/** A text of its own: a slice would keep the whole answer alive. */
function unshared(text: string): string {
  return Buffer.from(text, 'latin1').toString('latin1');
}

function stateOf(admin: number): ServerState {
  if ((admin & MAINTENANCE) !== 0) return 'maint';
  return (admin & DRAIN) !== 0 ? 'drain' : 'ready';
}

/** The servers whose last check has passed, by what HAProxy answers to `show servers state BACKEND`. */
export function parsePassed(text: string): ReadonlySet<string> {
  const passed = new Set<string>();
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    if (fields.length >= 19 && Number(fields[11]) === PASSED) passed.add(fields[3] ?? '');
  }
  return passed;
}

/** HAProxy's own number of a backend, by what it answers to `show servers state BACKEND`; undefined without servers. */
export function parseNumber(text: string): string | undefined {
  return /^(\d+) \S+ \d/m.exec(text)?.[1];
}

/** The servers without a session or a waiting request, by what HAProxy answers to `show stat NUMBER 4 -1`. */
export function parseQuiet(csv: string): ReadonlySet<string> {
  const quiet = new Set<string>();
  for (const line of csv.split('\n')) {
    const [, name, queued, , sessions] = line.split(',');
    if (name !== undefined && queued === '0' && sessions === '0') quiet.add(name);
  }
  return quiet;
}
