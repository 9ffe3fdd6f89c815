import type { ServiceRegistration } from './config.ts';
import type { Health } from './health.ts';
import type { CheckStatus } from './service.ts';

/** Why a service is kept out of rotation whatever its checks say. */
export type DrainCause = 'operator' | 'file' | 'shutdown';

/** One service at one place, as it is right now. Times are in milliseconds. */
export interface ServiceStatus {
  readonly service: string;
  readonly path: string;
  /** What it was found in if not in a service file, such as `container web-1 (4c91be4b51c3)`. */
  readonly origin?: string;
  /** What the instance is called. */
  readonly name: string;
  /** The address that is announced; a name as long as nobody knows what it stands for. */
  readonly host: string;
  readonly port: number;
  readonly health: Health;
  /** Whether the registry was told of an instance. False while the health is still unknown after a start. */
  readonly announced: boolean;
  /** Whether the registry has confirmed what it was told last. Nothing that it was not told is open. */
  readonly confirmed: boolean;
  /**
   * `outgoing` goes on only until its successor at another place is announced; `waiting` has no place yet, and is not
   * probed: `waitsFor` says what is missing.
   */
  readonly role: 'active' | 'outgoing' | 'waiting';
  readonly waitsFor?: string;
  /** Empty: it is announced as its health says. */
  readonly drained: readonly DrainCause[];
  readonly weight: WeightStatus;
  /** It went down too often, and is held down. */
  readonly flapHold?: FlapHold;
  /** How long its announcement has been waiting for the rate limit. A shadowed limit lets nothing wait. */
  readonly rateLimitedForMs?: number;
  readonly checks: readonly CheckStatus[];
}

export interface WeightStatus {
  readonly configured?: number;
  /** What an operator has set in its place. */
  readonly override?: number;
  /** Less than it shall become while it starts slowly. Undefined while nothing, or nothing with a weight, is announced. */
  readonly announced?: number;
}

export interface FlapHold {
  readonly remainingMs: number;
  /** How many times in a row it was held, each about twice as long as the one before. */
  readonly count: number;
}

/** What becomes of an operator's wish. */
export type OverrideAnswer =
  | {
      readonly ok: true;
      /** False when the disk does not take it: it is in force until the daemon ends. */
      readonly remembered: boolean;
    }
  | {
      readonly ok: false;
      readonly reason: 'unknown-service';
      /** What could have been meant. */
      readonly candidates: readonly string[];
    };

/** The services of this host: probed, and announced while they are healthy. */
export interface Registrar {
  /**
   * What shall be registered from now on, as a whole. Only what differs from before is touched.
   * A service whose path, port, address or instance id has changed is announced at the new place before it leaves the
   * old one. `isComplete: false` says that a part could not be read: what an earlier life announced then stays until a
   * whole update comes, since it may belong to just that part.
   */
  update(services: readonly ServiceRegistration[], options?: { isComplete?: boolean }): void;

  /**
   * Takes a service (undefined: every one, also those that come later) out of rotation until `undrain`, over restarts.
   * Withdrawn at once, before it resolves; its checks go on. Refused for a service that is not configured right now;
   * that of a service whose file goes away and comes back is still in force.
   */
  drain(service: string | undefined): Promise<OverrideAnswer>;
  /**
   * Back into rotation: announced at once if it is healthy and nothing else drains it. A service may be brought back
   * while all are drained; undefined undoes every drain of an operator.
   */
  undrain(service: string | undefined): Promise<OverrideAnswer>;
  /** Another weight (0 to 256) than the configuration's until it is undefined again, over restarts. */
  setWeight(service: string, weight: number | undefined): Promise<OverrideAnswer>;

  /**
   * Resolves when the registry has confirmed what is meant for the service (undefined: for all) now, at once for one
   * that nobody knows. An announcement that waits for the rate limit is waited for. Rejects with the reason of the
   * signal.
   */
  agreed(service: string | undefined, signal: AbortSignal): Promise<void>;

  /**
   * Everything is withdrawn and stays so, whatever the checks say, which go on. Resolves when the registry agrees;
   * rejects with the reason of the signal. For a shutdown: `withdrawAll` follows when those who still use the services
   * have had their time.
   */
  beginShutdown(signal: AbortSignal): Promise<void>;

  /**
   * Checks that should have made progress by now and have not, as `SERVICE checks[0].http`: for liveness. Empty while all
   * is well, and for a while after this process as a whole was stalled. A service that hangs is no reason to be here.
   */
  overdue(): readonly string[];

  /** Ends all probing and withdraws everything. Resolves when the registry has confirmed or the signal is aborted. */
  withdrawAll(signal: AbortSignal): Promise<void>;
  /** Ends all probing and leaves the registry as it is, for a successor to take over. */
  stop(): Promise<void>;
  status(): readonly ServiceStatus[];
}
