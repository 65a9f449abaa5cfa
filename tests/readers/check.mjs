// Reads the corpus with the YAML readers of npm and compares every document with its JSON.
//
// js-yaml, and yaml in its 1.1 and 1.2 modes. Run `cargo test --test readers` first. Prints counts; any difference is
// printed and the exit status is 1.

import { readFileSync } from 'node:fs';
import * as jsYaml from 'js-yaml';
import * as yaml from 'yaml';

const corpus = readFileSync(new URL('../../target/readers/corpus.jsonl', import.meta.url), 'utf8')
  .split('\n').filter((line) => line !== '').map((line) => JSON.parse(line));
if (corpus.length < 500) throw new Error(`only ${corpus.length} documents`);

/** Where two values differ in type or value, or null. */
function difference(expected, actual, path = '$') {
  if (expected === null || typeof expected !== 'object') {
    return expected === actual ? null : `${path}: ${show(actual)} for ${show(expected)}`;
  }
  if (actual === null || typeof actual !== 'object' || Array.isArray(expected) !== Array.isArray(actual)) {
    return `${path}: ${show(actual)} for ${show(expected)}`;
  }
  const [wanted, found] = [Object.keys(expected), Object.keys(actual)];
  if (wanted.length !== found.length || wanted.some((key, i) => key !== found[i])) {
    return `${path}: keys ${show(found)} for ${show(wanted)}`;
  }
  for (const key of wanted) {
    const found = difference(expected[key], actual[key], `${path}[${show(key)}]`);
    if (found !== null) return found;
  }
  return null;
}

function show(value) {
  return typeof value === 'bigint' ? `${value}n` : JSON.stringify(value);
}

const readers = {
  'js-yaml': (text) => jsYaml.load(text),
  'yaml 1.1': (text) => yaml.parse(text, { version: '1.1', strict: true }),
  'yaml 1.2': (text) => yaml.parse(text, { version: '1.2', strict: true }),
};

let differences = 0;
for (const [name, read] of Object.entries(readers)) {
  let equal = 0;
  for (const document of corpus) {
    let found;
    try {
      found = difference(JSON.parse(document.json), read(document.yaml));
    } catch (error) {
      found = error.message;
    }
    if (found === null) {
      equal += 1;
    } else {
      differences += 1;
      if (differences <= 20) console.log(`${name}: ${document.name}: ${found}\n  ${show(document.yaml.slice(0, 400))}`);
    }
  }
  console.log(`${name}: ${equal} of ${corpus.length} documents read back equal`);
}

// Long integers to the digit, where the reader has a type for them.
const { json, yaml: text } = corpus.find((document) => document.name === 'integers');
const wanted = json.slice(1, -1).split(',').map(BigInt);
for (const version of ['1.1', '1.2']) {
  const found = difference(wanted, yaml.parse(text, { version, intAsBigInt: true }));
  if (found === null) {
    console.log(`yaml ${version}: ${wanted.length} long integers read back to the digit`);
  } else {
    differences += 1;
    console.log(`yaml ${version}, long integers: ${found}`);
  }
}
process.exit(differences === 0 ? 0 : 1);
