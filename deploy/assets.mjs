// Puts what is not TypeScript beside the compiled code, where it is read from at run time.
import { cpSync } from 'node:fs';
import path from 'node:path';

const discovery = path.join(import.meta.dirname, '..', 'packages', 'discovery');
const templates = path.join('haproxy', 'templates');

cpSync(path.join(discovery, 'src', templates), path.join(discovery, 'dist', templates), { recursive: true });
