// The floor of HTTP checks: nothing but the requests. `node bare-loop.js COUNT INTERVAL_MS PORT...`
import http from 'node:http';

const [count = 0, intervalMs = 0, ...ports] = process.argv.slice(2).map(Number);

function request(port: number): void {
  const outgoing = http.request(
    { host: '127.0.0.1', port, path: '/health', agent: false, headers: { connection: 'close' } },
    (response) => response.resume(),
  );
  outgoing.on('error', () => {});
  outgoing.end();
}

for (let index = 0; index < count; index += 1) {
  const port = ports[index % ports.length] ?? 0;
  setTimeout(() => setInterval(request, intervalMs, port), (index * intervalMs) / count);
}
