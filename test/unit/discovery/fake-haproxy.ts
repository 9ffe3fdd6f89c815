import { info, prompted } from './support.ts';

interface FakeServer {
  readonly id: string;
  readonly endpoint: string;
  state: 'ready' | 'drain' | 'maint';
  weight: string;
  sessions: number;
  /** As `show servers state` tells it: 0 unknown, 2 failed, 3 passed. */
  check: number;
}

const ADMIN_STATES = { ready: 0, drain: 8, maint: 1 } as const;
/** Keywords of a server line that `add server` refuses, up to the version before the one named. */
const REFUSED: Readonly<Record<string, number>> = { cookie: 3.0, 'init-addr': Infinity, shard: 2.8 };

/** The runtime API of one worker, answering as the HAProxy reference says its version does. Only 2.6 can be run here. */
export class FakeHaproxy {
  readonly backends = new Map<string, Map<string, FakeServer>>();
  readonly version: string;
  mark = '';
  pid = 42;

  constructor(version: string) {
    this.version = version;
  }

  /** Answers a whole conversation in prompt mode. */
  readonly script = (request: string): string => {
    const commands = request.split('\n').slice(1, -2);
    return prompted(commands.map((command) => this.#answer(command)));
  };

  /** Starts a new worker with a file. */
  load(text: string): void {
    this.pid += 1;
    this.backends.clear();
    let backend = new Map<string, FakeServer>();
    for (const line of text.split('\n')) {
      const [, title = ''] = /^backend (\S+)$/.exec(line) ?? [];
      if (title !== '') this.backends.set(title, (backend = new Map()));
      const [, name = '', rest = ''] = /^ {2}server (\S+) (.*)$/.exec(line) ?? [];
      if (name === '') continue;
      add(backend, name, rest, Infinity);
      if (!rest.endsWith(' disabled')) backend.set(name, { ...this.#get(backend, name), state: 'ready' });
    }
  }

  #get(servers: ReadonlyMap<string, FakeServer>, name: string): FakeServer {
    const found = servers.get(name);
    if (found === undefined) throw new Error(`there is no ${name}`);
    return found;
  }

  server(backend: string, name: string): FakeServer {
    return this.#get(this.backends.get(backend) ?? new Map(), name);
  }

  /** Each as `NAME STATE WEIGHT`. */
  servers(backend: string): string[] {
    return [...(this.backends.get(backend) ?? [])]
      .map(([name, { state, weight }]) => `${name} ${state} ${weight}`)
      .toSorted();
  }

  #answer(command: string): string {
    if (command === 'show info')
      return info({ Version: this.version, Pid: String(this.pid), description: this.mark });
    const state = /^show servers state ?(\S*)$/.exec(command);
    if (state !== null) return this.#showState(state[1] ?? '');
    const stat = /^show stat (\S+) 4 (-1|\d+)$/.exec(command);
    if (stat !== null) return this.#showStat(stat[1] ?? '', stat[2] ?? '');
    return this.#change(command);
  }

  #change(command: string): string {
    const [, verb = '', backend = '', name = '', rest = ''] =
      /^(add server|del server|set server|enable health) ([^/ ]+)\/(\S+) ?(.*)$/.exec(command) ?? [];
    const servers = this.backends.get(backend) ?? new Map<string, FakeServer>();
    this.backends.set(backend, servers);
    if (verb === 'add server') return add(servers, name, rest, Number(this.version.slice(0, 3)));
    const server = servers.get(name);
    if (server === undefined) return 'No such server.\n';
    if (verb === 'del server') return remove(servers, name, server);
    const [what, value = ''] = rest.split(' ');
    if (what === 'state') server.state = value as FakeServer['state'];
    if (what === 'weight') server.weight = value;
    return '';
  }

  #showState(only: string): string {
    const lines = [...this.backends]
      .filter(([backend]) => only === '' || backend === only)
      .flatMap(([backend, servers]) =>
        [...servers].map(
          ([name, server]) => `${this.#numberOf(backend)} ${stateLine(backend, name, server)}`,
        ),
      );
    return `1\n# be_id be_name srv_id …\n${lines.map((line) => `${line}\n`).join('')}`;
  }

  /** Frontends come first, each with the name of its backend. */
  #numberOf(backend: string): number {
    return 2 + this.backends.size + [...this.backends.keys()].indexOf(backend);
  }

  #showStat(number: string, wanted: string): string {
    const backend = [...this.backends.keys()].find((name) => String(this.#numberOf(name)) === number) ?? '';
    const lines = [...(this.backends.get(backend) ?? [])]
      .filter(([, { id }]) => wanted === '-1' || wanted === id)
      .map(([name, { sessions }]) => `${backend},${name},0,0,${sessions},9,,\n`);
    return `# pxname,svname,qcur,qmax,scur,smax,slim,\n${lines.join('')}`;
  }
}

function add(servers: Map<string, FakeServer>, name: string, rest: string, version: number): string {
  const [endpoint = '', ...words] = rest.split(' ');
  if (servers.has(name)) return 'Already exists a server with the same name in backend.\n';
  const refused = words.find((word) => (REFUSED[word] ?? 0) > version);
  if (refused !== undefined) return `'${refused}' option is not accepted for dynamic server\n`;
  const after = (keyword: string) => words[words.indexOf(keyword) + 1] ?? '';
  const [id, weight] = [after('id'), after('weight')];
  servers.set(name, { id, endpoint, state: 'maint', weight, sessions: 0, check: 0 });
  return 'New server registered.\n';
}

function remove(servers: Map<string, FakeServer>, name: string, { state, sessions }: FakeServer): string {
  if (state !== 'maint') return 'Only servers in maintenance mode can be deleted.\n';
  if (sessions > 0) return 'Server still has connections attached to it, cannot remove it.\n';
  servers.delete(name);
  return 'Server deleted.\n';
}

function stateLine(backend: string, name: string, server: FakeServer): string {
  const { id, endpoint, state, weight, check } = server;
  const port = endpoint.slice(endpoint.lastIndexOf(':') + 1);
  const address = endpoint.slice(0, endpoint.lastIndexOf(':')).replace(/^\[|\]$/g, '');
  return `${backend} ${id} ${name} ${address} 2 ${ADMIN_STATES[state]} ${weight} 1 9 6 ${check} 0 6 0 0 1 - ${port} - 0 0 - - 0`;
}
