import assert from 'node:assert/strict';
import path from 'node:path';
import { describe, test } from 'node:test';

import { readMasterPid, readRunning } from '@tandem/discovery';
import {
  converse,
  createStateReader,
  executeSteps,
  readIdentity,
  type Server,
  type Step,
} from '@tandem/discovery/testing';

import { inDirectory } from '../../support/directory.ts';
import { info, prompted, serversOf, withFakeSocket } from './support.ts';

const HEADER =
  '# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port';

function serverLine(name: string, address: string, port: number, admin: number, weight = 1): string {
  return `3 web 17 ${name} ${address} 2 ${admin} ${weight} 1 9 1 0 0 0 0 0 0 - ${port} - 0 0 - - 0`;
}

const IDENTITY = { incarnation: '42:1700000000', version: '2.6.12', mark: 'tandem 0123456789abcdef' };
const [server] = serversOf([{ name: 'a', host: '::1', port: 80, weight: 2 }]);
const ADDED = 'New server registered.\n';
const DELETED = 'Server deleted.\n';

function unreachable(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'HAPROXY_UNREACHABLE';
}

describe('reading', () => {
  test('HAProxy says who it is and what it has', async () => {
    const state = [
      '1',
      HEADER,
      serverLine('a', '10.0.0.1', 80, 0, 7),
      serverLine('noted', '2001:db8::1', 81, 4),
      serverLine('maint', '10.0.0.3', 80, 1),
      serverLine('inherited', '10.0.0.3', 80, 2),
      serverLine('drain', '10.0.0.3', 80, 8),
      'a line of a later version',
      '',
    ].join('\n');
    await withFakeSocket(
      () => prompted([info(), state]),
      async (socket, heard) => {
        const running = await readRunning(socket);
        assert.deepEqual(heard, ['prompt\nshow info\nshow servers state\nquit\n']);
        const { backends, ...identity } = running;
        assert.deepEqual(identity, IDENTITY);
        const servers = [...(backends.get('web')?.values() ?? [])];
        assert.deepEqual(servers[0], {
          name: 'a',
          id: 17,
          address: '10.0.0.1',
          port: 80,
          weight: 7,
          state: 'ready',
        });
        assert.deepEqual(
          servers.filter(({ state }) => state === 'ready').map(({ name }) => name),
          ['a', 'noted'],
        );
      },
    );
  });

  test('what is as expected is the expected, however the answer is cut', async () => {
    const [a, b] = serversOf([
      { name: 'a', host: '10.0.0.1', port: 80 },
      { name: 'b', host: '2001:db8::1', port: 80, weight: 3 },
    ]);
    assert.ok(a && b);
    const line = ({ name, id, address, port, weight }: Server) =>
      `3 web ${id} ${name} ${address} 2 0 ${weight} 1 9 1 0 0 0 0 0 0 - ${port} - 0 0 - - 0`;
    const expected = new Map<string, readonly Server[]>([['web', [a, b]]]);
    const whole = prompted([info(), ['1', HEADER, line(b), line(a), ''].join('\n')]);
    const other = prompted([info(), ['1', HEADER, line(a), line({ ...b, weight: 9 }), ''].join('\n')]);
    for (let cut = 0; cut < whole.length; cut += 7) {
      const parts = [whole.slice(0, cut), whole.slice(cut)];
      const reader = createStateReader(expected);
      for (const part of parts) reader.write(Buffer.from(part));
      assert.equal(reader.end().get('web'), expected.get('web'));
    }
    await withFakeSocket(
      () => other,
      async (socket) => {
        const servers = (await readRunning(socket, undefined, expected)).backends.get('web');
        assert.equal(servers?.[0], a);
        assert.deepEqual([servers?.[1]?.name, servers?.[1]?.weight], [b.name, 9]);
      },
    );
  });

  for (const [what, answer] of [
    ['that closes without a word', ''],
    ['that closes in the middle of its servers', `\n> ${info()}\n> 1\n${serverLine('a', '10.0.0.1', 80, 0)}`],
    ['that closes in the middle', '\n> Name: HAProxy\nPid: 42\n'],
    ['that is on its way out', prompted([info({ Stopping: '1' })])],
    ['that does not say who it is', prompted(['Name: HAProxy\n'])],
  ] as const) {
    test(`a HAProxy ${what} is unreachable`, () =>
      withFakeSocket(
        () => answer,
        (socket) => assert.rejects(readRunning(socket), unreachable),
      ));
  }

  test('so is one that is not there', () =>
    inDirectory((directory) => assert.rejects(readIdentity(path.join(directory, 'nowhere')), unreachable)));

  test('so is one that hangs, when the deadline is over', async (context) => {
    context.mock.timers.enable({ apis: ['setTimeout'] });
    await withFakeSocket(
      () => undefined,
      async (socket) => {
        const asked = assert.rejects(readIdentity(socket), unreachable);
        context.mock.timers.tick(5_000);
        await asked;
      },
    );
  });

  test('a question that is called off ends with the reason of the signal', () =>
    withFakeSocket(
      () => undefined,
      async (socket) => {
        const controller = new AbortController();
        const asked = readIdentity(socket, controller.signal);
        controller.abort(new Error('called off'));
        await assert.rejects(asked, /^Error: called off$/);
      },
    ));

  test('the master is known by its line', async () => {
    const proc =
      '#<PID>          <type>          <reloads>\n101             master          0\n# workers\n102             worker          0\n';
    await withFakeSocket(
      () => proc,
      async (socket) => assert.equal(await readMasterPid(socket), 101),
    );
    await withFakeSocket(
      () => '102 worker 0\n',
      (socket) => assert.rejects(readMasterPid(socket), unreachable),
    );
  });
});

describe('executing', () => {
  assert.ok(server);
  const add: Step = { kind: 'add', backend: 'web', server, serverOptions: '', state: 'ready' };
  const drain: Step = { kind: 'drain', backend: 'web', server: 'old' };

  test('every step becomes its commands, and the answers are matched exactly', async () => {
    const steps: Step[] = [
      { ...add, serverOptions: 'check agent-check agent-port 9' },
      { kind: 'weight', backend: 'web', server: 'b', weight: 9 },
      { kind: 'ready', backend: 'web', server: 'b' },
      { kind: 'idle', backend: 'web', server: 'c' },
    ];
    await withFakeSocket(
      (request) =>
        prompted([info(), ...(request.includes('add server') ? [ADDED, '', '', '', '', ''] : [''])]),
      async (socket, heard) => {
        assert.deepEqual(await executeSteps(socket, steps, IDENTITY), { kind: 'done', untaken: [] });
        assert.deepEqual(heard[0]?.split('\n'), [
          'prompt',
          'show info',
          `add server web/a_::1:80 [::1]:80 id ${server.id} weight 2 pool-purge-delay 5s pool-max-conn -1 check agent-check agent-port 9`,
          'enable health web/a_::1:80',
          'enable agent web/a_::1:80',
          'set server web/a_::1:80 state ready',
          'set server web/b weight 9',
          'set server web/b state ready',
          'quit',
          '',
        ]);
        // What takes traffic away comes once the rest is taken.
        assert.deepEqual(heard[1]?.split('\n').slice(2, -2), ['set server web/c weight 0']);
      },
    );
  });

  test('what HAProxy refuses is told, and then nothing is drained', async () => {
    await withFakeSocket(
      () => prompted([info(), 'Already exists a server with the same name in backend.\n', '']),
      async (socket, heard) => {
        assert.deepEqual(await executeSteps(socket, [drain, add], IDENTITY), {
          kind: 'refused',
          replies: ['Already exists a server with the same name in backend.'],
        });
        assert.equal(heard.length, 1);
        assert.doesNotMatch(heard[0] ?? '', /drain/);
      },
    );
  });

  test('drains follow when everything else was taken', async () => {
    await withFakeSocket(
      (request) => prompted(request.includes('drain') ? [info(), ''] : [info(), ADDED, '']),
      async (socket, heard) => {
        assert.deepEqual(await executeSteps(socket, [drain, add], IDENTITY), { kind: 'done', untaken: [] });
        assert.equal(heard[1], 'prompt\nshow info\nset server web/old state drain\nquit\n');
      },
    );
  });

  test('an answer by another worker is no answer', () =>
    withFakeSocket(
      () => prompted([info({ Pid: '43' }), '']),
      async (socket) =>
        assert.deepEqual(await executeSteps(socket, [drain], IDENTITY), { kind: 'other-worker' }),
    ));

  test('what is put off is told, and is no refusal', () =>
    withFakeSocket(
      () =>
        prompted([
          info(),
          '',
          'Server still has connections attached to it, cannot remove it.\n',
          '',
          DELETED,
        ]),
      async (socket, heard) => {
        const remove = (name: string): Step => ({ kind: 'delete', backend: 'web', server: name });
        assert.deepEqual(await executeSteps(socket, [remove('busy'), remove('gone')], IDENTITY), {
          kind: 'done',
          untaken: [remove('busy')],
        });
        assert.deepEqual(heard[0]?.split('\n').slice(2, 6), [
          'set server web/busy state maint',
          'del server web/busy',
          'set server web/gone state maint',
          'del server web/gone',
        ]);
      },
    ));

  test('ten thousand steps go in several conversations, losses last', async () => {
    const adds = Array.from({ length: 2_500 }, (_, index): Step => ({ ...add, backend: `b${index}` }));
    await withFakeSocket(
      (request) => {
        const commands = request.split('\n').slice(2, -2);
        return prompted([info(), ...commands.map((command) => (command.startsWith('add') ? ADDED : ''))]);
      },
      async (socket, heard) => {
        assert.deepEqual(await executeSteps(socket, [drain, ...adds], IDENTITY), {
          kind: 'done',
          untaken: [],
        });
        assert.equal(heard.length, 4);
        assert.match(heard.at(-1) ?? '', /^prompt\nshow info\nset server web\/old state drain\nquit\n$/);
      },
    );
  });

  test('a payload goes line by line to an empty one, and its prompts are no part of the answer', () =>
    withFakeSocket(
      () => `\n> ${info()}\n> + + + \n> no such map\n> `,
      async (socket, heard) => {
        const request = { line: 'add map #0', payload: ['a.example web', 'b.example api'] };
        const [, answer, other] = await converse(socket, ['show info', request, 'show map']);
        assert.deepEqual([answer, other], ['', 'no such map']);
        assert.equal(
          heard[0],
          'prompt\nshow info\nadd map #0 <<\na.example web\nb.example api\n\nshow map\nquit\n',
        );
      },
    ));

  test('a payload that could end too soon, or is too long, is never sent', () =>
    withFakeSocket(
      () => prompted(['']),
      async (socket, heard) => {
        for (const payload of [[''], ['a\n\nshow env'], ['a\rb'], ['x'.repeat(12_300)]])
          await assert.rejects(
            converse(socket, [{ line: 'add map x', payload }]),
            /too long or not one line/,
          );
        assert.deepEqual(heard, []);
      },
    ));

  test('a command that would be two, or too long, is never sent', () =>
    withFakeSocket(
      () => prompted(['']),
      async (socket, heard) => {
        for (const hostile of [
          'show info;show stat',
          'a\nb',
          'a\rb',
          'add map x <<',
          'a\\',
          'x'.repeat(12_289),
        ])
          await assert.rejects(converse(socket, [hostile]), /too long or not one line/);
        assert.deepEqual(heard, []);
      },
    ));
});
