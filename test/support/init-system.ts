// Who has started a daemon, as far as the daemon can tell: a unix datagram socket that is read, as systemd does.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';

export interface FakeInitSystem extends AsyncDisposable {
  readonly socket: string;
  /** Every message so far, in order: its lines. */
  messages(): readonly (readonly string[])[];
}

// Node.js has no unix datagrams; perl is on every Debian. Descriptors that come along are closed: that is how
// systemd-notify knows that its message was taken.
const RECEIVER = [
  'perl',
  '-e',
  `use Socket; $| = 1;
socket(my $socket, AF_UNIX, SOCK_DGRAM, 0) or die $!;
bind($socket, pack_sockaddr_un($ARGV[0])) or die $!;
print "listening\\n";
while (defined recv($socket, my $message, 65536, 0)) { $message =~ s/\\n/\\t/g; print "$message\\n"; }`,
] as const;

/** Listens in a directory until it is disposed of. */
export async function startInitSystem(directory: string): Promise<FakeInitSystem> {
  const socket = path.join(directory, 'notify.sock');
  const [program, ...args] = RECEIVER;
  const receiver = spawn(program, [...args, socket], { stdio: ['ignore', 'pipe', 'inherit'] });
  const gone = once(receiver, 'exit');
  const lines = createInterface(receiver.stdout);
  const received: string[][] = [];
  const isListening = once(lines, 'line');
  await Promise.race([isListening, gone.then(() => Promise.reject(new Error('perl does not listen')))]);
  lines.on('line', (line) => received.push(line.split('\t')));
  return {
    socket,
    // Only for systemd-notify itself.
    messages: () => received.filter(([first]) => first !== 'BARRIER=1'),
    async [Symbol.asyncDispose]() {
      receiver.kill('SIGKILL');
      await gone;
    },
  };
}
