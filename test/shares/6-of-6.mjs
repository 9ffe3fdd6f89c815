import { loadShare } from '../unit-files.mjs';

await loadShare(6, 6);
