import { formatDuration } from '@tandem/core';

import type { AsideState, DaemonState, InstanceState, ServiceState } from './control/discovery-answers.ts';
import { findNamed } from './find-named.ts';
import { printable } from './printable.ts';
import { formatTable } from './table.ts';

/** The service of that name; throws with what it might have been called. */
export function findService({ services }: DaemonState, name: string): ServiceState {
  return findNamed(services, name, 'the daemon follows');
}

/** What the daemon sees, for a terminal: all services in a line each, and what somebody should look at. */
export function formatStatus(state: DaemonState): string {
  const rows = state.services.map((service) => [
    service.service,
    ...counts(service),
    notesOf(service).join('; '),
  ]);
  const table =
    rows.length === 0
      ? 'no services\n'
      : formatTable(['SERVICE', 'IN USE', 'HELD', 'GUARDED', 'KNOWN', 'NOTES'], rows);
  return `${formatHaproxy(state)}\n${table}`;
}

/** The same of one service, with its instances. */
export function formatService(state: DaemonState, name: string): string {
  const service = findService(state, name);
  const rows = service.instances.map((instance) => [
    instance.name,
    instance.endpoint,
    String(instance.weight),
    stateOf(instance),
  ]);
  const { setAside, foreignHolds } = state.haproxy;
  const about = [
    ...notesOf(service),
    ...setAside.filter((part) => part.kind === 'service' && part.name === name).map(formatAside),
    ...foreignHolds.filter((hold) => hold.service === name).map(formatForeignHold),
  ];
  const notes = about.map((note) => `  ${printable(note)}\n`);
  const rejected = service.rejected.map(
    ({ place, reason }) => `  set aside: ${printable(place)}: ${printable(reason)}\n`,
  );
  const table =
    rows.length === 0 ? 'no instances\n' : formatTable(['INSTANCE', 'ADDRESS', 'WEIGHT', 'STATE'], rows);
  return `${service.service} at ${printable(service.path)}\n${notes.join('')}${rejected.join('')}\n${table}`;
}

function formatHaproxy({ phase, haproxy }: DaemonState): string {
  const { running, applied, problem, refused, setAside, foreignHolds } = haproxy;
  const version = running === undefined ? 'not seen yet' : `${running.version} (${running.mark})`;
  const last =
    applied === undefined
      ? 'nothing applied yet'
      : `last applied ${ago(applied.agoMs)} ago in ${Math.round(applied.tookMs)} ms`;
  const complaints = [
    ...(phase === 'starting' ? ['starting: waiting for the sources'] : []),
    ...(problem === undefined ? [] : [`HAProxy is not as wanted: ${problem}`]),
    ...(refused === undefined ? [] : [`HAProxy refuses the configuration: ${refused}`]),
    ...setAside.map(formatAside),
    ...foreignHolds.map(({ service, ...held }) => `${service}: ${formatForeignHold(held)}`),
  ];
  return `HAProxy ${printable(version)}, ${last}\n${complaints.map((text) => `! ${printable(text)}\n`).join('')}`;
}

function formatAside({ kind, name, reason, goesOn }: AsideState): string {
  const prefixes: Record<AsideState['kind'], string> = {
    service: '',
    'shared-frontend': 'the shared frontend ',
    'port-range': 'the port range for ',
    section: 'the section ',
  };
  return `${prefixes[kind]}${name} ${goesOn ? 'goes on as it was' : 'is not there'}: ${reason}`;
}

function formatForeignHold({ server, kind }: { readonly server: string; readonly kind: string }): string {
  return `${server} is in ${kind}, and not by "tandem hold"`;
}

function counts({ instances }: ServiceState): string[] {
  const many = (isSo: (instance: InstanceState) => boolean) => String(instances.filter(isSo).length);
  return [
    many(({ offered, held }) => offered && held === undefined),
    many(({ held }) => held !== undefined),
    many(({ guarded }) => guarded),
    String(instances.length),
  ];
}

function notesOf({ use, guardMs, rejected, sourceError }: ServiceState): string[] {
  const uses: Record<ServiceState['use'], string | undefined> = {
    unknown: 'its source has not spoken yet',
    source: undefined,
    saved: 'its source has not spoken yet, the last known ones are used',
    kept: 'all have gone, the last known ones are kept',
    fallback: 'its fallback is used',
  };
  return [
    uses[use],
    guardMs === undefined ? undefined : `a loss is held for another ${ago(guardMs)}`,
    rejected.length === 0 ? undefined : `${rejected.length} set aside`,
    sourceError === undefined ? undefined : `its source fails: ${sourceError}`,
  ].filter((note) => note !== undefined);
}

function stateOf({ offered, held, guarded, fallback, endpoint }: InstanceState): string {
  if (held !== undefined) return endpoint === '' ? `${held}, not known at present` : held;
  if (!offered) return 'not used here';
  return ['in use', ...(guarded ? ['gone, held by the guard'] : []), ...(fallback ? ['fallback'] : [])].join(
    ', ',
  );
}

/** To the second: nobody reads more. */
function ago(ms: number): string {
  return formatDuration(Math.max(1, Math.round(ms / 1_000)) * 1_000);
}
