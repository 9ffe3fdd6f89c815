import { loadShare } from '../unit-files.mjs';

await loadShare(4, 6);
