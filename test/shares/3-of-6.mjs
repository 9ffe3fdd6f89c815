import { loadShare } from '../unit-files.mjs';

await loadShare(3, 6);
