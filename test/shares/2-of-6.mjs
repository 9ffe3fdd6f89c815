import { loadShare } from '../unit-files.mjs';

await loadShare(2, 6);
