import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, test } from 'node:test';

import { createAddressResolver } from '@tandem/core';
import { type Check, CheckSection, createCheck, createReports, type Reports } from '@tandem/registrar';

import { checkConformance } from '../../conformance/check.ts';

const NEVER = new AbortController().signal;

function pushCheck(
  reports: Reports,
  options: Record<string, unknown> = {},
  owner = { service: 'web' },
): Check {
  const context = {
    get service() {
      return owner.service;
    },
    port: 1,
    resolver: createAddressResolver(),
    reports,
  };
  return createCheck(CheckSection.parse({ push: options }), context);
}

checkConformance('push', {
  healthy() {
    const reports = createReports();
    const check = pushCheck(reports);
    const timer = setInterval(() => reports.take('web', { status: 'pass' }), 2);
    return Promise.resolve({
      check,
      leftovers: () => 0,
      close() {
        clearInterval(timer);
        return Promise.resolve();
      },
    });
  },
  absent() {
    const check = pushCheck(createReports(), { ttl: '100ms' });
    return Promise.resolve({ check, leftovers: () => 0, close: () => Promise.resolve() });
  },
  hanging() {
    const check = pushCheck(createReports(), { ttl: '1h' });
    return Promise.resolve({
      check,
      leftovers: () => 0,
      begun: () => Promise.resolve(),
      close: () => Promise.resolve(),
    });
  },
});

describe('a service that reports itself', () => {
  test('is as it says, with its reason', async () => {
    const reports = createReports();
    const check = pushCheck(reports);
    const said = async (report: Parameters<Reports['take']>[1]) => {
      const probe = check.probe(NEVER);
      assert.deepEqual(reports.take('web', report), { ok: true, check: 'push' });
      return probe;
    };

    assert.deepEqual(await said({ status: 'pass', reason: 'as ever' }), { ok: true });
    assert.deepEqual(await said({ status: 'warn', reason: 'slow' }), { ok: true, warning: 'slow' });
    assert.deepEqual(await said({ status: 'warn' }), { ok: true, warning: 'reported as a warning' });
    assert.deepEqual(await said({ status: 'fail', reason: 'disk full' }), { ok: false, reason: 'disk full' });
    assert.deepEqual(await said({ status: 'fail' }), { ok: false, reason: 'reported as failing' });
  });

  test('fails by silence, for which it has its ttl after every report', async () => {
    const reports = createReports();
    const check = pushCheck(reports, { ttl: '200ms' });

    reports.take('web', { status: 'pass' });
    assert.deepEqual(await check.probe(NEVER), { ok: true });
    const startedAt = performance.now();
    assert.deepEqual(await check.probe(NEVER), { ok: false, reason: 'no report for 200ms' });
    assert.ok(performance.now() - startedAt >= 195);
  });

  test('is heard between two probes, and with its last word', async () => {
    const reports = createReports();
    const check = pushCheck(reports);

    reports.take('web', { status: 'pass' });
    reports.take('web', { status: 'fail', reason: 'first' });
    reports.take('web', { status: 'fail', reason: 'last' });
    assert.deepEqual(await check.probe(NEVER), { ok: false, reason: 'last' });

    const controller = new AbortController();
    const calledOff = check.probe(controller.signal);
    controller.abort();
    reports.take('web', { status: 'pass' });
    assert.equal((await calledOff).ok, false);
    assert.deepEqual(
      await check.probe(NEVER),
      { ok: true },
      'what came too late for one probe is for the next',
    );
    assert.equal(getEventListeners(NEVER, 'abort').length, 0);
  });

  test('may say what would harm a terminal, a log or the memory: it is cut, and on one line', async () => {
    const reports = createReports();
    const check = pushCheck(reports);

    reports.take('web', { status: 'fail', reason: `\u001b[2J\n\u202eevil\0 ${'x'.repeat(100_000)}` });
    const result = await check.probe(NEVER);

    assert.ok(!result.ok);
    assert.match(result.reason, /^\[2J evil x+$/);
    assert.ok(result.reason.length <= 500);
    reports.take('web', { status: 'fail', reason: ' \n ' });
    assert.deepEqual(await check.probe(NEVER), { ok: false, reason: 'reported as failing' });
  });

  test('is told whom it may report to when it is unknown, or has not named one of several checks', () => {
    const reports = createReports();
    const disk = pushCheck(reports, { name: 'disk' });
    pushCheck(reports, { name: 'queue' });
    pushCheck(reports, {}, { service: 'api' });
    const take = (service: string, check?: string) => reports.take(service, { status: 'pass' }, check);

    assert.deepEqual(take('wbe'), { ok: false, reason: 'unknown-service', candidates: ['api', 'web'] });
    assert.deepEqual(take('web'), { ok: false, reason: 'unknown-check', candidates: ['disk', 'queue'] });
    assert.deepEqual(take('web', 'dsik'), {
      ok: false,
      reason: 'unknown-check',
      candidates: ['disk', 'queue'],
    });
    assert.deepEqual(take('api', 'push'), { ok: true, check: 'push' });
    assert.deepEqual(take('web', 'queue'), { ok: true, check: 'queue' });
    disk.close?.();
    assert.deepEqual(take('web'), { ok: true, check: 'queue' });
  });

  test('is known by its new name after it was renamed', async () => {
    const reports = createReports();
    const owner = { service: 'web' };
    const check = pushCheck(reports, {}, owner);

    owner.service = 'shop';

    assert.deepEqual(reports.take('web', { status: 'pass' }), {
      ok: false,
      reason: 'unknown-service',
      candidates: ['shop'],
    });
    reports.take('shop', { status: 'pass' });
    assert.deepEqual(await check.probe(NEVER), { ok: true });
  });
});
