// The conformance of HAProxy as a process, for each way of having one.
import { testHaproxyProcess } from '../conformance/haproxy-process.ts';
import { eventually } from '../support/haproxy.ts';
import { pidFileOf, reloadedBy, startOwner } from '../support/haproxy-owner.ts';
import { readIdentity } from '@tandem/discovery/testing';
import path from 'node:path';

testHaproxyProcess({
  name: 'a child of the daemon',
  settings: () => ({ reload_deadline: '6s' }),
  begin: async ({ config }, haproxy) => {
    await haproxy.ensure(new AbortController().signal);
    await eventually(() => readIdentity(config.runtimeSocket));
  },
  isOurs: true,
});

testHaproxyProcess({
  name: "somebody else's, by its master socket",
  settings: (directory) => ({
    mode: 'external',
    reload: { master_socket: path.join(directory, 'run', 'haproxy-master.sock') },
    reload_deadline: '6s',
  }),
  begin: async ({ directory, config }) => void (await startOwner(directory, config)),
  isOurs: false,
});

testHaproxyProcess({
  name: "somebody else's, by a command",
  settings: (directory) =>
    reloadedBy(`kill -USR2 "$(cat ${pidFileOf(directory)})"`, { reload_deadline: '6s' }),
  begin: async ({ directory, config }) => void (await startOwner(directory, config)),
  isOurs: false,
});
