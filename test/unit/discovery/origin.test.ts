import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import type { DiscoveredService } from '@tandem/discovery';
import { isSameOrigin, originOf } from '@tandem/discovery/testing';

import { service } from '../../support/haproxy.ts';

function reading(section: Record<string, unknown> = {}): DiscoveredService {
  return service('web', 3210, section);
}

function readBy(source: Record<string, unknown>): string {
  return originOf(reading({ source }));
}

const DOCKER = { image_name: 'team/web', container_port: 80 };
const MARATHON = { url: 'http://m1:8080', app: '/shop/web' };
const DNS = { names: [{ host: 'web.example.com', port: 80 }] };

describe('the word for how a service is read', () => {
  // It is saved: a daemon that calls the same reading otherwise does not guard what the last one has known. Who has to
  // change a word here raises the version instead.
  test('is the same in every version of Tandem', () => {
    const words = {
      registry: readBy({ registry: {} }),
      serverset: originOf(reading({ format: 'serverset', endpoint: 'http' })),
      filter: originOf(reading({ filter: { version: ['2', '1'], zone: 'a' } })),
      static: readBy({ static: { instances: [{ name: 'a', host: '10.0.0.1', port: 80 }] } }),
      file: readBy({ file: { path: '/etc/web.json' } }),
      dns: readBy({ dns: DNS }),
      docker: readBy({ docker: DOCKER }),
      marathon: readBy({ marathon: MARATHON }),
      multi: readBy({ multi: { sources: { old: { registry: {} }, new: { dns: DNS } } } }),
    };
    assert.deepEqual(words, {
      registry: '1-1e7c24988df7c6c4',
      serverset: '1-a19519c1102a5568',
      filter: '1-abd87d05d6839ab7',
      static: '1-afda4e9e4c9e57a0',
      file: '1-77c75f142d833f1e',
      dns: '1-acd823fbca75da0b',
      docker: '1-34f20af2a4fb66d8',
      marathon: '1-de975adf8210a2ae',
      multi: '1-fe6361de029d70a2',
    });
    assert.equal(new Set(Object.values(words)).size, Object.keys(words).length);
  });

  test('says nothing of what makes no difference', () => {
    const alike: [DiscoveredService, DiscoveredService][] = [
      [reading(), reading({ mode: 'tcp', balance: 'leastconn', guard: { hold: '1s' }, leader: true })],
      [reading({ filter: { a: ['1', '2'], b: '3' } }), reading({ filter: { b: ['3'], a: ['2', '1', '1'] } })],
      [reading({ source: { dns: DNS } }), reading({ source: { dns: { ...DNS, max_ttl: '2m' } } })],
      [reading({ source: { docker: DOCKER } }), reading({ source: { docker: { ...DOCKER, resync: '5s' } } })],
      [
        reading({ source: { marathon: MARATHON } }),
        reading({ source: { marathon: { ...MARATHON, credentials_file: '/etc/marathon', resync: '5s' } } }),
      ],
    ];
    for (const [one, other] of alike) assert.equal(originOf(one), originOf(other));
  });

  test('is another one when something else is read', () => {
    const others = [
      reading(),
      { ...reading(), path: '/elsewhere' },
      reading({ filter: { version: '2' } }),
      reading({ filter: { version: '3' } }),
      reading({ format: 'serverset' }),
      reading({ source: { docker: DOCKER } }),
      reading({ source: { docker: { ...DOCKER, container_port: 81 } } }),
      reading({ source: { docker: { ...DOCKER, labels: { team: 'shop' } } } }),
      reading({ source: { marathon: { ...MARATHON, port_index: 1 } } }),
      reading({ source: { dns: { ...DNS, family: 'ipv6' } } }),
    ];
    assert.equal(new Set(others.map(originOf)).size, others.length);
  });

  test('of another version says nothing', () => {
    const word = originOf(reading());
    assert.equal(isSameOrigin(word, word), true);
    assert.equal(isSameOrigin(word, originOf({ ...reading(), path: '/elsewhere' })), false);
    for (const other of ['', '0123456789abcdef', '0-0123456789abcdef', 'x'])
      assert.equal(isSameOrigin(other, word), true, other);
  });
});
