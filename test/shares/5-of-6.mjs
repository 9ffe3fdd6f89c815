import { loadShare } from '../unit-files.mjs';

await loadShare(5, 6);
