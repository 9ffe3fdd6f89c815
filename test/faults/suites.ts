import { cutFaults } from './cuts.ts';
import { garbageFaults } from './garbage.ts';
import { readFaults } from './reads.ts';
import { requestFaults } from './requests.ts';
import type { FaultServer } from './scene.ts';
import { sessionFaults } from './sessions.ts';
import { silenceFaults } from './silence.ts';
import { slowFaults } from './slow.ts';

/** What can go wrong between the registry and any server that speaks the protocol. */
export function faultSuites(server: FaultServer): void {
  silenceFaults(server);
  slowFaults(server);
  requestFaults(server);
  cutFaults(server);
  garbageFaults(server);
  readFaults(server);
  sessionFaults(server);
}
