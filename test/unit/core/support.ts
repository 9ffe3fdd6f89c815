import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';

import { isTandemError, type ErrorCode } from '@tandem/core';

/** A directory that is gone when the test ends. */
export function temporaryDirectory(context: TestContext): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'tandem-core-'));
  context.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** For assert.rejects: an error of ours with this code. */
export function coded(code: ErrorCode, message?: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isTandemError(error, code), `not ${code}: ${String(error)}`);
    if (message !== undefined) assert.match(error.message, message);
    return true;
  };
}
