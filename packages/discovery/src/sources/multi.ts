import { createHash } from 'node:crypto';

import {
  createBackoff,
  duration,
  type Instance,
  type Log,
  messageOf,
  type Rejection,
  SafeName,
  sleepOrAborted,
  type Snapshot,
  uniqueInstances,
} from '@tandem/core';
import * as z from 'zod';

import { publishedBy, reuseRecords, type Source, toldOnce } from '../source.ts';
import type { SourceConfig } from './kinds.ts';

const MAX_WEIGHT = 1_000_000;

/** `multi`: several sources as one. `source` is the section of each, which may be such a one again. */
export function multiSection(source: z.ZodType<SourceConfig>) {
  return z
    .strictObject({
      sources: z
        // A number would lose its place among the others.
        .record(SafeName.regex(/\D/, 'must not be a number'), source)
        .refine((sources) => Object.keys(sources).length > 0, 'must have at least one source')
        .describe('by a name of your own; where the order counts, it is this one'),
      combine: z
        .enum(['union', 'first', 'weighted'])
        .default('union')
        .describe(
          'union: the instances of all; first: of the first that has any; weighted: of one, which each host picks for itself in proportion to weights',
        ),
      weights: z
        .record(z.string(), z.number().int().min(0).max(MAX_WEIGHT))
        .optional()
        .describe('weighted only: the share of hosts of each source'),
      wait: duration({ minMs: 1, maxMs: 24 * 3_600_000 })
        .optional()
        .describe(
          'how long a source that has never said anything is waited for before it is taken to have no instances; default: for ever',
        ),
    })
    .superRefine(checkWeights)
    .refine(({ combine, wait }) => combine !== 'weighted' || wait === undefined, {
      path: ['wait'],
      message: 'is not for combine: weighted, where there is nobody else to go on with',
    })
    .transform(({ sources, combine, weights, wait }) => ({
      // A list, so that two that differ in their order differ.
      sources: Object.entries(sources).map(([name, source]): MultiPart => ({
        name,
        source,
        weight: weights?.[name] ?? 0,
      })),
      combine,
      waitMs: wait,
    }));
}

interface MultiPart {
  readonly name: string;
  readonly source: SourceConfig;
  readonly weight: number;
}

export interface MultiConfig {
  readonly sources: readonly MultiPart[];
  readonly combine: 'union' | 'first' | 'weighted';
  readonly waitMs: number | undefined;
}

function checkWeights(
  section: {
    readonly sources: object;
    readonly combine: MultiConfig['combine'];
    readonly weights?: Readonly<Record<string, number>> | undefined;
  },
  context: { addIssue(issue: { code: 'custom'; path: string[]; message: string }): void },
): void {
  const { sources, combine, weights } = section;
  const complain = (path: string[], message: string) =>
    context.addIssue({ code: 'custom', path: ['weights', ...path], message });
  if (combine !== 'weighted') {
    if (weights !== undefined) complain([], 'need combine: weighted beside them');
    return;
  }
  const known = Object.keys(sources);
  if (weights === undefined) {
    complain([], 'are required: one for each source');
    return;
  }
  for (const name of Object.keys(weights))
    if (!known.includes(name)) complain([name], `is not one of the sources (known: ${known.join(', ')})`);
  for (const name of known)
    if (!Object.hasOwn(weights, name)) complain([], `must say how much ${name} gets, if only 0`);
  if (!Object.values(weights).some((weight) => weight > 0)) complain([], 'must not all be 0');
}

/** What a child is made by, and what it says. */
interface Scene {
  readonly hostName: string;
  readonly path: string;
  readonly log: Log;
  readonly create: (config: SourceConfig) => Source;
}

/**
 * Several sources as one. Each keeps what it last said, whatever becomes of it; one that has never said anything holds
 * up only what cannot be told without it: all of a union, and what comes after it in an order. With `wait` it does so
 * for that long, and is nothing then until it speaks.
 */
export function multiSource(config: MultiConfig, scene: Scene): Source {
  const { combine, waitMs } = config;
  const { log } = scene;
  const parts = combine === 'weighted' ? pickPart(config.sources, scene) : config.sources;
  return {
    watch: (signal) =>
      publishedBy(signal, async (publish, signal) => {
        const said = new Map<string, Snapshot>();
        let isPatient = true;
        let shown: Snapshot | undefined;
        const update = () => {
          // When nobody has said anything there is nothing to go on with.
          const missing = isPatient || said.size === 0 ? undefined : NOTHING;
          const combined = combineParts(combine, parts, ({ name }) => said.get(name) ?? missing);
          if (combined === undefined) return;
          const snapshot = reuseRecords(shown, combined);
          if (snapshot === shown) return;
          shown = snapshot;
          publish(snapshot);
        };
        const tellSilent = async () => {
          if (await sleepOrAborted(waitMs ?? PATIENCE_MS, signal)) return;
          const silent = parts.map(({ name }) => name).filter((name) => !said.has(name));
          if (silent.length === 0) return;
          if (waitMs === undefined) {
            log.warn({ silent }, 'sources have said nothing yet, waiting for them');
            return;
          }
          log.warn({ silent }, 'sources have said nothing yet, going on as if they had no instances');
          isPatient = false;
          update();
        };
        const children = parts.map((part) =>
          followPart(part, scene, signal, (snapshot) => {
            said.set(part.name, snapshot);
            update();
          }),
        );
        await Promise.all([...children, tellSilent()]);
      }),
  };
}

const NOTHING: Snapshot = { instances: [], rejected: [] };
/** When a silence is worth a word. */
const PATIENCE_MS = 10_000;

/** Watches a child for ever: one that fails or ends is watched again, and what it last said holds. */
async function followPart(
  { name, source }: MultiPart,
  { create, log }: Scene,
  signal: AbortSignal,
  update: (snapshot: Snapshot) => void,
): Promise<void> {
  const backoff = createBackoff({ baseMs: 500, maxMs: 30_000 });
  const say = toldOnce((trouble) => {
    if (trouble !== undefined)
      log.error(
        { source: name, err: trouble },
        'one of several sources has failed, keeping what it last said',
      );
  });
  do {
    try {
      for await (const snapshot of create(source).watch(signal)) {
        if (signal.aborted) return;
        backoff.reset();
        say(undefined);
        update(snapshot);
      }
    } catch (error) {
      if (!signal.aborted) say(messageOf(error));
    }
  } while (!(await sleepOrAborted(backoff.next(), signal)));
}

/** What they make together, or undefined while it would be a part: one is missing that has to be known for it. */
function combineParts(
  combine: MultiConfig['combine'],
  parts: readonly MultiPart[],
  snapshotOf: (part: MultiPart) => Snapshot | undefined,
): Snapshot | undefined {
  const rejected: Rejection[] = [];
  const instances: Instance[] = [];
  for (const part of parts) {
    const snapshot = snapshotOf(part);
    if (snapshot === undefined) return undefined;
    rejected.push(...placedBelow(part, snapshot));
    instances.push(...snapshot.instances);
    if (combine === 'first' && instances.length > 0) break;
  }
  // Of two records of one instance, that of the earlier source counts.
  return { instances: uniqueInstances(instances), rejected };
}

function placedBelow({ name }: MultiPart, { rejected }: Snapshot): Rejection[] {
  return rejected.map(({ place, reason }) => ({ place: `${name}: ${place}`, reason }));
}

/**
 * The one whose number is the highest, where everyone draws a number from the names of the host, the service and
 * itself, the better the more it weighs (weighted rendezvous). So a host keeps its pick until the weights of the others
 * have grown past it, and no more hosts move than the weights demand. Of a host's services not all move at once.
 */
export function pickPart(
  parts: readonly MultiPart[],
  { hostName, path }: { readonly hostName: string; readonly path: string },
): readonly MultiPart[] {
  let best: { readonly part: MultiPart; readonly score: number } | undefined;
  for (const part of parts) {
    const digest = createHash('sha256')
      .update(JSON.stringify([hostName, path, part.name]))
      .digest();
    // Within (0, 1): neither end has a logarithm that can be divided by.
    const uniform = (digest.readUIntBE(0, 6) + 0.5) / 2 ** 48;
    const score = part.weight / -Math.log(uniform);
    if (part.weight > 0 && (best === undefined || score > best.score)) best = { part, score };
  }
  return best === undefined ? [] : [best.part];
}
