// A bootstrap is computed once, also after a crash: what a server had on disk comes back, is the same
// to the last bit, and costs a tenth of computing it at most.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { notes, requireBinary, startServer as launch, until } from './harness.mjs';
import { kills, segmentsOf } from './kills.mjs';

requireBinary();
const dir = mkdtempSync(path.join(os.tmpdir(), 'submind-restart-'));
const started = [];
after(async () => {
    await Promise.all(started.map((server) => server.stop('SIGKILL'))); // those of a failed test
    rmSync(dir, { recursive: true });
});
const startServer = async (...flags) => {
    const server = await launch(...flags);
    started.push(server);
    return server;
};
const bootstrap = notes(13_000, 31);
const ask = (task, extra = {}) => ({
    temperature: 0, max_tokens: 8, logprobs: true, top_logprobs: 5,
    messages: [{ role: 'system', content: bootstrap }, { role: 'user', content: task }], ...extra,
});
const chat = (server, request, headers = { 'x-submind-explain': '1' }) =>
    server.post('/v1/chat/completions', request, headers).then((answer) => answer.json());
const cachedOf = (answer) => answer.usage.prompt_tokens_details.cached_tokens;
const said = (answer) => JSON.stringify([answer.choices[0].message, answer.choices[0].logprobs]);

// Until all pages of a prompt are on disk.
async function saved(server, tokens) {
    const page = (await server.json('/props')).page_tokens;
    await until(async () => (await server.metrics())['submind:cache_saved_pages_total'] >= Math.floor(tokens / page),
        20_000, `${tokens} tokens on disk`);
    return page;
}

let cold, page;
before(async () => {
    const server = await startServer('--cache-dir', dir);
    cold = await chat(server, ask('repeat after me: one'));
    page = await saved(server, cold.usage.prompt_tokens);
    await server.stop('SIGKILL');
});

test('after kill -9 the bootstrap comes from disk, bit for bit, in a tenth of the time', async (t) => {
    const server = await startServer('--cache-dir', dir);
    const restored = await chat(server, ask('repeat after me: one'));
    const cached = await chat(server, ask('repeat after me: one'));
    const ttft = [cold, restored, cached].map((answer) => answer.timings.ttft_ms);
    t.diagnostic(`${cold.usage.prompt_tokens} tokens; ms cold ${ttft[0]}, after the restart ${ttft[1]}, cached ${ttft[2]}`);
    assert.ok(cold.usage.prompt_tokens >= 14_000, `${cold.usage.prompt_tokens} tokens`);
    assert.equal(cachedOf(cold), 0);
    assert.ok(cachedOf(restored) >= cold.usage.prompt_tokens - 2 * page, `${cachedOf(restored)} tokens came back`);
    assert.equal(restored.submind.cache.disk_tokens, cachedOf(restored));
    assert.equal(cached.submind.cache.disk_tokens, 0);
    assert.equal(said(restored), said(cold));
    assert.equal(said(cached), said(cold));
    assert.ok(ttft[1] <= 0.1 * ttft[0], `${ttft[1]} ms after the restart, ${ttft[0]} ms cold`);
    const metrics = await server.metrics();
    assert.equal(metrics['submind:cache_verification_failures_total'], 0);
    assert.ok(metrics['submind:cache_restore_seconds_total'] > 0);
    await server.stop();
});

test('the files are this user\'s alone', () => {
    const files = segmentsOf(dir);
    assert.ok(files.length > 0);
    for (const file of files) assert.equal(statSync(file).mode & 0o777, 0o600);
    assert.equal(statSync(path.dirname(files[0])).mode & 0o777, 0o700);
});

test('a second server reads what the first one wrote', async () => {
    const writer = await startServer('--cache-dir', dir);
    const reader = await startServer('--cache-dir', dir);
    const answer = await chat(reader, ask('repeat after me: one'));
    assert.equal(said(answer), said(cold));
    assert.ok(answer.submind.cache.disk_tokens >= cold.usage.prompt_tokens - 2 * page);
    assert.match(reader.log, /read only/);
    await writer.stop();
    await reader.stop();
});

// The first tokens' logarithms of probabilities, by token.
const firstLogprobs = (answer) => new Map(answer.choices[0].logprobs.content[0].top_logprobs
    .map(({ token, logprob }) => [token, logprob]));

test('pages in 8 bits take half the bytes, come back close, and never mix with exact ones', async (t) => {
    const own = mkdtempSync(path.join(os.tmpdir(), 'submind-q8-'));
    const request = { ...ask('one'), messages: [{ role: 'system', content: notes(3000, 32) },
        { role: 'user', content: 'repeat after me: one' }] };
    after(() => rmSync(own, { recursive: true }));
    const flags = ['--cache-dir', own, '--cache-type', 'q8_0'];
    const first = await startServer(...flags);
    assert.match(first.log, /INFO cache: pages below the device are q8_0/);
    assert.equal((await first.json('/props')).cache_type, 'q8_0');
    const computed = await chat(first, request);
    await saved(first, computed.usage.prompt_tokens);
    const stats = await first.json('/submind/cache/stats');
    const ratio = stats.disk.bytes / stats.disk.pages / stats.device.page_bytes;
    assert.ok(ratio < 0.56, `${ratio} of the bytes`);
    await first.stop('SIGKILL');

    const next = await startServer(...flags);
    const restored = await chat(next, request);
    assert.ok(restored.submind.cache.disk_tokens >= computed.usage.prompt_tokens - 2 * page);
    assert.equal(restored.submind.cache.cache_type, 'q8_0');
    const [was, is] = [computed, restored].map(firstLogprobs);
    const off = [...was].filter(([token]) => is.has(token)).map(([token, p]) => Math.abs(p - is.get(token)));
    t.diagnostic(`${ratio.toFixed(3)} of the bytes; logprobs off by ${Math.max(...off)} at most; `
        + `restored in ${restored.submind.cache.restored_ms} ms`);
    assert.ok(off.length >= 3 && off[0] < 0.2 && Math.max(...off) < 0.7, `off by ${off}`);
    await next.stop();

    const exact = await startServer('--cache-dir', own);
    assert.doesNotMatch(exact.log, /q8_0/);
    const again = await chat(exact, request);
    assert.equal(again.submind.cache.disk_tokens, 0);
    assert.equal(again.submind.cache.cache_type, undefined);
    assert.equal(said(again), said(computed)); // what was computed there was exact
    await exact.stop();
});

test('another KV type finds nothing of it', async () => {
    const server = await startServer('--cache-dir', dir, '--device', 'ref', '--ctx', '512');
    const short = { ...ask('hello'), messages: [{ role: 'user', content: 'hello there' }] };
    const answer = await chat(server, short);
    assert.equal(answer.submind.cache.disk_tokens, 0);
    await server.stop();
});

test('a cache folder that cannot be used is a warning', async () => {
    const server = await startServer('--cache-dir', '/proc/submind');
    assert.match(server.log, /WARN cache: nothing is kept on disk/);
    await chat(server, { ...ask('x'), messages: [{ role: 'user', content: 'hello' }] });
    await server.stop();
});

test('killed at random and damaged, it comes back right', { timeout: 200_000 }, async (t) => {
    const { problems, tally } = await kills({ n: 15, seed: 7 });
    t.diagnostic(JSON.stringify(tally));
    assert.deepEqual(problems, []);
    assert.ok(tally.checked > 0 && tally.diskTokens > 0);
});
