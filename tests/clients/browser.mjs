// Calls the API from a page of another origin, in a real browser, as a caller without a proxy would.
//
// The custom header and the JSON body make the browser ask first (a preflight), and every header that the page reads
// is one that the answer exposed. The server's address and keys come from the environment: LIVE_URL, LIVE_KEY (no limit
// of requests), LIVE_SLOW_KEY (the free plan's limit).

import assert from 'node:assert/strict';
import http from 'node:http';
import { chromium } from 'playwright-core';
import { load } from 'js-yaml';

const { LIVE_URL: url, LIVE_KEY: key, LIVE_SLOW_KEY: slowKey } = process.env;
const api = `${url}/v1/totpgenerator`;
const body = JSON.stringify({ secret: 'JBSWY3DPEHPK3PXP', digits: 6, period: 30 });

const credits = [
  'x-api-credits-used', 'x-api-max-credits', 'x-api-remaining-credits', 'x-api-current-plan', 'x-api-renewal',
];
const limits = ['x-ratelimit-limit', 'x-ratelimit-remaining', 'x-ratelimit-reset', 'ratelimit', 'ratelimit-policy'];

await preflight();
const origin = http.createServer((_, response) => {
  response.setHeader('Content-Type', 'text/html');
  response.end('<!doctype html><link rel="icon" href="data:,"><title>A page of another origin</title>');
});
await new Promise((resolve) => origin.listen(0, '127.0.0.1', resolve));
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync',
  ],
});
try {
  const page = await browser.newPage();
  const preflights = await watchPreflights(page);
  // `localhost` and `127.0.0.1` are different origins, whatever their ports.
  await page.goto(`http://localhost:${origin.address().port}/`);
  await formats(page);
  assert.ok(preflights.length > 0, 'the browser asked first');
  assert.deepEqual([...new Set(preflights)], [204]);
  said('the browser asked before its calls, and was answered 204');
  await errors(page);
  await limit(page);
} finally {
  await browser.close();
  origin.close();
}

/** The preflight as a browser sends it, seen without one. */
async function preflight() {
  for (const path of ['/v1/totpgenerator', '/v1/totpgenerator/', '/v1/api/key2otp', '/v1/nothing']) {
    const answer = await fetch(url + path, {
      method: 'OPTIONS',
      headers: {
        'Origin': 'http://page.example',
        'Access-Control-Request-Method': 'POST',
        'Access-Control-Request-Headers': 'content-type,x-api-key,x-request-id',
      },
    });
    assert.equal(answer.status, 204, path);
    assert.equal(await answer.text(), '');
    assert.equal(answer.headers.get('access-control-allow-origin'), '*');
    assert.ok(answer.headers.get('x-request-id'));
    assert.match(answer.headers.get('access-control-allow-methods'), /POST/);
  }
  said('a preflight answers 204 on every path');
}

/** The statuses of the preflights of `page`, filled as they come. */
async function watchPreflights(page) {
  const statuses = [];
  const pending = new Set();
  const session = await page.context().newCDPSession(page);
  await session.send('Network.enable');
  session.on('Network.requestWillBeSent', ({ requestId, request }) => {
    if (request.method === 'OPTIONS') pending.add(requestId);
  });
  session.on('Network.responseReceived', ({ requestId, response }) => {
    if (pending.has(requestId)) statuses.push(response.status);
  });
  return statuses;
}

/** Each format with its media type, read by what a browser has; YAML by a reader that its pages could load. */
async function formats(page) {
  const readers = {
    'application/json': (text) => JSON.parse(text).data.token,
    'application/xml': (text) => page.evaluate(
      (xml) => new DOMParser().parseFromString(xml, 'application/xml').querySelector('response > data > token').textContent,
      text,
    ),
    'application/yaml': (text) => load(text).data.token,
    'text/csv': (text) => text.match(/^token,(.*)\r$/m)[1],
  };
  for (const [accept, token] of Object.entries(readers)) {
    const answer = await call(page, api, { 'X-API-Key': key, 'X-Request-ID': 'page-1', Accept: accept });
    assert.equal(answer.status, 200, answer.text);
    assert.match(answer.headers['content-type'], new RegExp(`^${accept}(;|$)`));
    assert.match(await token(answer.text), /^\d{6}$/);
    assert.equal(answer.headers['x-request-id'], 'page-1');
    has(answer, credits);
    said(`a page of another origin reads ${accept}`);
  }
  const answer = await call(page, api, { 'X-API-Key': slowKey });
  assert.equal(answer.status, 200, answer.text);
  has(answer, [...credits, ...limits, 'x-request-id']);
  assert.equal(answer.headers['x-api-current-plan'], 'free');
  said('a page of another origin reads the headers of limits and credits');
}

/** Errors are as readable as answers: a browser tells a page nothing of an answer without CORS headers. */
async function errors(page) {
  const cases = [
    [401, 'key-required', api, {}],
    [401, 'invalid-key', api, { 'X-API-Key': 'your_api_key_here' }],
    [404, 'unknown-api', `${url}/v1/nothing`, { 'X-API-Key': key }],
    [406, 'not-acceptable', api, { 'X-API-Key': key, Accept: 'image/png' }],
  ];
  for (const [status, code, address, headers] of cases) {
    const answer = await call(page, address, headers);
    assert.equal(answer.status, status, answer.text);
    assert.equal(answer.headers['x-error-code'], code);
    assert.equal(JSON.parse(answer.text).status, 'error');
    has(answer, ['x-request-id']);
    said(`a page of another origin reads a ${status} (${code})`);
  }
}

/** Calls until the limit is reached, faster than it refills. */
async function limit(page) {
  const answer = await page.evaluate(async ({ api, body, headers }) => {
    for (let calls = 0; calls < 500; calls += 1) {
      const response = await fetch(api, { method: 'POST', headers, body });
      if (response.status !== 200) {
        return { status: response.status, text: await response.text(), headers: Object.fromEntries(response.headers) };
      }
      await response.text();
    }
    throw new Error('no limit was met');
  }, { api, body, headers: { 'X-API-Key': slowKey, 'Content-Type': 'application/json' } });
  assert.equal(answer.status, 429, answer.text);
  assert.equal(answer.headers['x-error-code'], 'rate-limited');
  assert.ok(Number(answer.headers['retry-after']) >= 1);
  assert.equal(answer.headers['x-ratelimit-remaining'], '0');
  has(answer, [...credits, ...limits, 'x-request-id']);
  said('a page of another origin reads a 429 and when to try again');
}

/** What a page gets to see of a POST. */
function call(page, address, headers) {
  return page.evaluate(async ({ address, headers, body }) => {
    const response = await fetch(address, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...headers },
      body,
    });
    return { status: response.status, text: await response.text(), headers: Object.fromEntries(response.headers) };
  }, { address, headers, body });
}

function has(answer, names) {
  for (const name of names) assert.ok(answer.headers[name], `${name} is not to be read`);
}

function said(what) {
  console.log(`ok    browser: ${what}`);
}
