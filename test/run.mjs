// Unit tests in one process: node --enable-source-maps test/run.mjs [name part...]
// `npm run test:unit` runs all of them, in the shares beside this file.
import { load, unitFiles } from './unit-files.mjs';

const wanted = process.argv.slice(2);
const files = unitFiles().filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)));
if (files.length === 0) throw new Error(`no unit test is called like ${wanted.join(' or ')}`);
await load(files);
