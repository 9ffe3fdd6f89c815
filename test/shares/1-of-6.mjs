import { loadShare } from '../unit-files.mjs';

await loadShare(1, 6);
