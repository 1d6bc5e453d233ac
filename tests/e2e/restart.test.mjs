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

// The reference keeps floats, so its pages can be kept in fewer bits; it is slow, so a short text it is.
const floats = { dir: mkdtempSync(path.join(os.tmpdir(), 'submind-floats-')),
    request: ask('repeat after me: one', { messages: [{ role: 'system', content: notes(130, 32) },
        { role: 'user', content: 'repeat after me: one' }] }) };
after(() => rmSync(floats.dir, { recursive: true }));
const startReference = (...flags) => startServer('--device', 'ref', '--ctx', '512', '--cache-dir', floats.dir, ...flags);

test('pages in 8 bits take half the bytes, come back close, and never mix with exact ones', async (t) => {
    const flags = ['--kv-type', 'f16', '--cache-type', 'q8_0'];
    const first = await startReference(...flags);
    assert.match(first.log, /INFO cache: pages below the device are q8_0: 0\.53 of their bytes/);
    const props = await first.json('/props');
    assert.deepEqual([props.cache_type, props.kv_type], ['q8_0', 'f16']);
    const computed = await chat(first, floats.request);
    await saved(first, computed.usage.prompt_tokens);
    const stats = await first.json('/submind/cache/stats');
    const ratio = stats.disk.bytes / stats.disk.pages / stats.device.page_bytes;
    assert.ok(ratio < 0.56, `${ratio} of the bytes`);
    await first.stop('SIGKILL');

    const next = await startReference(...flags);
    const restored = await chat(next, floats.request);
    assert.ok(computed.usage.prompt_tokens > 3 * page);
    assert.ok(restored.submind.cache.disk_tokens >= computed.usage.prompt_tokens - 2 * page);
    assert.equal(restored.submind.cache.cache_type, 'q8_0');
    const [was, is] = [computed, restored].map(firstLogprobs);
    const off = [...was].filter(([token]) => is.has(token)).map(([token, p]) => Math.abs(p - is.get(token)));
    t.diagnostic(`${ratio.toFixed(3)} of the bytes; logprobs off by ${Math.max(...off)} at most; `
        + `restored in ${restored.submind.cache.restored_ms} ms`);
    assert.ok(off.length >= 3 && Math.max(...off) < 0.1, `off by ${off}`);
    await next.stop();

    const exact = await startReference('--kv-type', 'f16');
    assert.doesNotMatch(exact.log, /q8_0/);
    const again = await chat(exact, floats.request);
    assert.equal(again.submind.cache.disk_tokens, 0);
    assert.equal(again.submind.cache.cache_type, undefined);
    assert.equal(said(again), said(computed)); // what was computed there was exact
    await saved(exact, again.usage.prompt_tokens);
    await exact.stop();
});

test('another KV type finds nothing of it', async () => {
    for (const [type, found] of [['f16', true], ['f32', false]]) {
        const server = await startReference('--kv-type', type);
        const answer = await chat(server, floats.request);
        assert.equal(answer.submind.cache.disk_tokens > 0, found, type);
        await server.stop();
    }
});

test('where keys and values have 8 bits, --cache-type q8_0 says that it changes nothing, and does not', async () => {
    const server = await startServer('--cache-dir', dir, '--cache-type', 'q8_0');
    assert.match(server.log, /INFO cache: --cache-type q8_0 changes nothing: keys and values have 8 bits already/);
    const props = await server.json('/props');
    assert.deepEqual([props.cache_type, props.kv_type], ['exact', 'q8_0']);
    assert.equal(props.kv_bytes / props.n_pages / page, 24 * (128 + 4)); // as doctor counts it (hosts.test.mjs)
    const restored = await chat(server, ask('repeat after me: one'));
    assert.ok(restored.submind.cache.disk_tokens >= cold.usage.prompt_tokens - 2 * page); // pages of one without the flag
    assert.equal(restored.submind.cache.cache_type, undefined);
    assert.equal(said(restored), said(cold));
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
