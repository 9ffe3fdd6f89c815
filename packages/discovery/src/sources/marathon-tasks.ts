import {
  type Instance,
  isObject,
  type JsonObject,
  Port,
  type Rejection,
  type Snapshot,
  uniqueInstances,
} from '@tandem/core';

/** Which of the tasks of an app are instances, and by which of their ports. */
export interface TaskQuery {
  readonly portIndex: number;
  /** Whether a task that is checked has to be alive. */
  readonly requireHealthy: boolean;
}

/** A master that claims more than this is not believed. */
const MAX_TASKS = 10_000;
const MAX_REJECTIONS = 100;
const HOST = /^[A-Za-z0-9_.:-]{1,253}$/;

/**
 * Tasks whose agent Mesos has lost sight of may be as well as ever: Marathon itself waits before it replaces them, and
 * its health checks tell when they are not.
 */
const STATES = ['TASK_RUNNING', 'TASK_UNREACHABLE'];

/**
 * The instances in an answer to `GET /v2/apps/APP/tasks`; undefined when that is no list of tasks. Tasks that have not
 * started, are ending or are not well are passed over; one that should be an instance and cannot be one is rejected.
 */
export function readTasks(answer: unknown, query: TaskQuery): Snapshot | undefined {
  const tasks = isObject(answer) ? answer['tasks'] : undefined;
  if (!Array.isArray(tasks) || tasks.length > MAX_TASKS) return undefined;
  const instances: Instance[] = [];
  const rejected: Rejection[] = [];
  for (const [index, task] of (tasks as unknown[]).entries()) {
    const read = isObject(task) ? readTask(task, query) : 'is not an object';
    if (typeof read === 'string') rejected.push({ place: placeOf(task, index), reason: read });
    else if (read !== undefined) instances.push(read);
  }
  return { instances: uniqueInstances(instances), rejected: rejected.slice(0, MAX_REJECTIONS) };
}

/** Undefined for a task that is to be passed over, or the reason why it cannot be an instance. */
function readTask(task: JsonObject, { portIndex, requireHealthy }: TaskQuery): Instance | string | undefined {
  const { startedAt, state, host, ports, healthCheckResults: results } = task;
  if (typeof startedAt !== 'string' || startedAt === '') return undefined;
  // Masters before 1.0 do not tell the state.
  if (typeof state === 'string' && !STATES.includes(state)) return undefined;
  if (requireHealthy && Array.isArray(results) && !(results as unknown[]).every(isAlive)) return undefined;
  if (typeof host !== 'string' || !HOST.test(host)) return 'host is missing or not the name of one';
  const port = Port.safeParse(Array.isArray(ports) ? (ports as unknown[])[portIndex] : undefined);
  if (!port.success) return `has no port with index ${portIndex}`;
  return { name: host, host, port: port.data };
}

/** A check that has not said anything yet is listed as null. */
function isAlive(result: unknown): boolean {
  return isObject(result) && result['alive'] === true;
}

function placeOf(task: unknown, index: number): string {
  const id = isObject(task) ? task['id'] : undefined;
  return typeof id === 'string' && /^[\x21-\x7e]{1,128}$/.test(id) ? id : `task ${index}`;
}
