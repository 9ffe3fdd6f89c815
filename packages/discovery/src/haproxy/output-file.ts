import { closeSync, openSync } from 'node:fs';
import { open, stat, truncate } from 'node:fs/promises';

import { type Log, messageOf, systemErrorCode } from '@tandem/core';

import { explainComplaint } from './complaints.ts';

/** The file that a HAProxy of ours writes its output to. Never a pipe: it stalls once 64 KB are left unread. */
export interface OutputFile {
  readonly path: string;
  /** Lends a descriptor that appends, for as long as the task runs. */
  lend<T>(task: (descriptor: number) => Promise<T>): Promise<T>;
  /** How much has been said so far: a place to read on from. */
  size(): Promise<number>;
  /** What was said from that place on; the last of it, when it is much. */
  since(place: number): Promise<string>;
  /** Keeps the file small. A problem is logged once, until it is over. */
  tidy(): Promise<void>;
}

const MAX_FILE_BYTES = 4 * 1024 * 1024;
const MAX_READ_BYTES = 16 * 1024;

export function createOutputFile(file: string, log: Log): OutputFile {
  const size = () =>
    stat(file).then(
      (found) => found.size,
      () => 0,
    );
  let isFailing = false;
  return {
    path: file,
    async lend(task) {
      const descriptor = openSync(file, 'a', 0o640);
      try {
        return await task(descriptor);
      } finally {
        closeSync(descriptor);
      }
    },
    size,
    async since(place) {
      const end = await size();
      // Shorter than it was: it has been tidied up in between.
      const from = Math.max(place > end ? 0 : place, end - MAX_READ_BYTES);
      try {
        const handle = await open(file, 'r');
        try {
          const { buffer, bytesRead } = await handle.read({
            buffer: Buffer.alloc(end - from),
            position: from,
          });
          return buffer.toString('utf8', 0, bytesRead);
        } finally {
          await handle.close();
        }
      } catch {
        return '';
      }
    },
    async tidy() {
      try {
        if ((await stat(file)).size > MAX_FILE_BYTES) await truncate(file);
        isFailing = false;
      } catch (error) {
        if (systemErrorCode(error) === 'ENOENT') return;
        if (!isFailing) log.warn({ file, err: messageOf(error) }, "cannot trim HAProxy's log");
        isFailing = true;
      }
    },
  };
}

const MAX_ALERTS_CHARS = 2_000;

/** The lines of HAProxy's output that say what is wrong; everything when there is no such line. Never long. */
export function alertsOf(output: string): string {
  const lines = output.split('\n').filter((line) => line.includes('[ALERT]'));
  const said = (lines.length === 0 ? output : lines.join('\n')).trim().slice(-MAX_ALERTS_CHARS);
  return explainComplaint(said);
}
