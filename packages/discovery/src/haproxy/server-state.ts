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
  let rest = '';
  let backend = '';
  let known: ReadonlyMap<string, ReportedServer> = new Map();
  let servers: ReportedServer[] = [];
  let asExpected = 0;

  function finish(): void {
    if (backend === '') return;
    const before = expected.get(backend);
    const isSame = before?.length === servers.length && asExpected === servers.length;
    backends.set(backend, before !== undefined && isSame ? before : servers);
  }
  function take(line: string): void {
    const found = parseLine(line);
    if (found === undefined) return;
    if (found.backend !== backend) {
      finish();
      backend = found.backend;
      known = new Map(expected.get(backend)?.map((server) => [server.name, server]));
      servers = [];
      asExpected = 0;
    }
    const { server } = found;
    const before = known.get(server.name);
    if (before !== undefined && isAlike(before, server)) {
      asExpected += 1;
      servers.push(before);
      return;
    }
    // HAProxy writes IPv6 as it is kept here, but for addresses that need not be.
    const address = canonicalAddress(server.address) ?? server.address;
    servers.push({ ...server, name: unshared(server.name), address: unshared(address) });
  }

  return {
    write(chunk) {
      const text = rest + chunk.toString('latin1');
      let from = 0;
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', from)) {
        take(text.slice(from, end));
        from = end + 1;
      }
      rest = text.slice(from);
    },
    end() {
      take(rest);
      rest = '';
      finish();
      return backends;
    },
  };
}

function isAlike(a: ReportedServer, b: ReportedServer): boolean {
  return (
    a.id === b.id &&
    a.port === b.port &&
    a.weight === b.weight &&
    a.state === b.state &&
    a.address === b.address
  );
}

/** A text of its own: a slice would keep the whole answer alive. */
function unshared(text: string): string {
  return Buffer.from(text, 'latin1').toString('latin1');
}

/** Format 1: `be_id be_name srv_id srv_name srv_addr op_state admin_state uweight … srv_port(18) …`, 25 fields. */
function parseLine(line: string): { backend: string; server: ReportedServer } | undefined {
  const first = line.charCodeAt(0);
  if (!(first >= 0x30 && first <= 0x39)) return undefined;
  const fields = line.split(' ', 19);
  const [, backend = '', id, name = '', address = '', , admin, weight] = fields;
  if (fields.length < 19) return undefined;
  return {
    backend,
    server: {
      name,
      id: Number(id),
      address,
      port: Number(fields[18]),
      weight: Number(weight),
      state: stateOf(Number(admin)),
    },
  };
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
