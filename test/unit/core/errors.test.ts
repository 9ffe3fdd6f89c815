import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

import { ERROR_CODES } from '@tandem/core';

const packages = path.join(import.meta.dirname, '..', '..', '..', '..', 'packages');

function productionSources(): string[] {
  return readdirSync(packages).flatMap((name) =>
    readdirSync(path.join(packages, name, 'src'), { recursive: true })
      .map((file) => path.join(packages, name, 'src', String(file)))
      .filter((file) => file.endsWith('.ts') && !file.endsWith(path.join('core', 'src', 'errors.ts'))),
  );
}

test('every error code that is documented can be met', () => {
  const text = productionSources()
    .map((file) => readFileSync(file, 'utf8'))
    .join('\n');

  // Named beside the table only where somebody throws it or looks for it.
  assert.deepEqual(
    Object.keys(ERROR_CODES).filter((code) => !text.includes(`'${code}'`)),
    [],
  );
});
