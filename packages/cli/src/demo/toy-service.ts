// A toy HTTP service: node toy-service.js PORT. Started by the demo, and killed by it.
// SIGTERM makes it a lame duck: it fails its health check, serves on, and ends when nobody has asked for a while.
import http from 'node:http';

const QUIET_MS = 500;
const port = Number(process.argv[2]);
let isLeaving = false;
let lastRequestAt = performance.now();

const server = http.createServer((request, response) => {
  if (request.url === '/health') {
    response.writeHead(isLeaving ? 503 : 200).end();
    return;
  }
  lastRequestAt = performance.now();
  response.writeHead(200, { 'content-type': 'text/plain', 'x-instance': String(port) });
  response.end(`hello from the instance on port ${port}, process ${process.pid}\n`);
});
server.listen(port, '127.0.0.1');

process.on('SIGTERM', () => {
  isLeaving = true;
  lastRequestAt = performance.now();
  setInterval(() => {
    if (performance.now() - lastRequestAt > QUIET_MS) process.exit(0);
  }, 50);
});
