/*
 * The faults of node-zookeeper-client 1.1.3, by their numbers in the comments of the connection, what is done about each,
 * and the test that fails when it comes back. Tests without a place stand in this folder.
 *
 * B1  a dead peer is never noticed: own heartbeat. "a blackhole is left in two thirds of the session timeout"
 * B2  no limit for the handshake: a watchdog per attempt. "a peer that accepts and says nothing is left within the handshake limit"
 * B3  bytes of a cut connection go before the next one's: own framer, emptied. "anywhere in a packet: the client connects again"
 * B4  no pings while events arrive: own pings. "steady events without a request keep the session"
 * B5  one SetWatches above 1 MB, for ever: in parts. "more than a megabyte of watches is re-armed in parts"
 * B6  what waits is never told of an end: failed with the connection. "is told so, whether it was sent or waited for its turn"
 * B7  a retry in a callback never ends: promises, and a window that stands still meanwhile. "whoever asks again in the answer to a failure"
 * B8  auth and watches pile up during an outage: made anew for each connection. "an outage with many attempts sends the watches once"
 * B9  unknown error codes throw: answers are read here. "error codes that nobody knows refuse their own request"
 * B10 expired is dead, wiped data are for ever: a session of its own each, and no claim of what was seen after a while.
 *     "announced again within a second of the new session", "whose server lost its data and is back at once" (embedded)
 * B11 version 0 in transactions: not used. "a registry at work calls nothing else" (library-canary)
 * B12 trees are read one level deep: not used. The same test
 * B13 close crashes, hangs or is ignored: own end with a limit. "close under a blackhole ends", "close while connecting",
 *     "a session that is closed by a listener", "close in the same turn as opening" (conformance)
 * B14 a second connect crashes: one per client. As B11
 * B15 numbers of requests overflow: they begin anew. "the numbers of requests begin anew before they are too large"
 * B16 quadratic in bytes and packets: own framer, 250 requests at a time. "a large frame in many chunks is copied once" (framer)
 * B17 two clients of one session fight without pause: waits that only a stable connection ends. "goes from one to the other"
 * B18 a listener per call: own table of watches. "the same listener counts once" (watches), and as B11
 * B19 what waits runs before auth: nothing waits in the library. "with creator-all, who has no credentials" (registry-transport)
 * B20 a large request ends the connection: refused here. "a request that the server would hang up on is refused here"
 * B21 retries repeat what was done: none. "in the middle of an announcement: it is there once", and as B11
 * B22 containers that are none: not used. As B11
 * B23 mkdirp asks for too much: own way down. As B11, "an ancestor that is closed to us" (registry-transport)
 * B24 refused credentials are the end: asked again. "refused credentials are tried again" (registry-transport)
 * B25 no TLS: own transport. "a server is believed by the authority of its certificate" (registry-transport)
 * B26 watches are never taken off: removed where the server can. "a watch that nobody needs any more" (registry-faults)
 * B27 timers keep the process alive: ended by close. "a process that closes its registry ends by itself" (registry-faults)
 * B28 a stale timer kills the next socket: a watchdog ends with its attempt. "steady events without a request"
 * B29 unknown event types throw: passed over. "events of types that nobody knows are passed over"
 *
 * And one without a number: an answer out of order loses its request for ever. "an answer to another request"
 */
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
