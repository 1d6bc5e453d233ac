// The point of it all: one bootstrap, computed once, for whoever comes; and nobody waits in silence.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { collect, events, notes, requireBinary, startServer } from './harness.mjs';

requireBinary();
let server, client, page;
before(async () => {
    server = await startServer();
    client = server.client();
    page = (await server.json('/props')).page_tokens;
});
after(async () => { await server?.stop(); });
const user = (content) => ({ role: 'user', content });
const ask = (bootstrap, task, extra = {}) => ({
    model: 'm', temperature: 0, max_tokens: 16, chat_template_kwargs: { enable_thinking: false },
    messages: [{ role: 'system', content: bootstrap }, user(task)], ...extra,
});
const cachedOf = (answer) => answer.usage.prompt_tokens_details.cached_tokens;

test('the second request finds the first one\'s prefix', async () => {
    const bootstrap = notes(1500, 3);
    const first = await client.chat.completions.create(ask(bootstrap, 'repeat after me: one'));
    const second = await client.chat.completions.create(ask(bootstrap, 'repeat after me: two'));
    assert.equal(cachedOf(first), 0);
    const tail = (await server.tokens('repeat after me: two')).length + 40; // template around it
    assert.ok(cachedOf(second) >= second.usage.prompt_tokens - tail - page, `${cachedOf(second)} of ${second.usage.prompt_tokens}`);
    assert.ok(second.timings.prompt_n < tail + page);
    const again = await client.chat.completions.create(ask(bootstrap, 'repeat after me: two'));
    assert.deepEqual(again.choices[0].message, second.choices[0].message);
    assert.ok(cachedOf(again) < again.usage.prompt_tokens, 'at least one token is computed');
});

test('eight cold ones at once compute the prefix once', async () => {
    const bootstrap = notes(2500, 5);
    const before = await server.metrics();
    const answers = await Promise.all(Array.from({ length: 8 }, (_, i) =>
        client.chat.completions.create(ask(bootstrap, `repeat after me: number ${i}`, { max_tokens: 24 }))));
    const computed = (await server.metrics())['submind:prefill_tokens_total'] - before['submind:prefill_tokens_total'];
    const prompts = answers.map((a) => a.usage.prompt_tokens);
    const cached = answers.map(cachedOf);
    const bound = 1.05 * (Math.max(...prompts) + 7 * (page + 40)); // one bootstrap, seven tails with a broken page
    assert.ok(computed <= bound, `computed ${computed}, at most ${bound}; prompts ${prompts}, cached ${cached}`);
    assert.equal(cached.filter((n) => n < prompts[0] / 2).length, 1, `only one computes: ${cached}`);
    answers.forEach((a, i) => assert.match(a.choices[0].message.content, new RegExp(`number ${i}`)));
});

test('the answer of a turn is cached for the next', async () => {
    const messages = [{ role: 'system', content: notes(300, 8) }, user('repeat after me: ' + 'lorem ipsum dolor sit amet '.repeat(8))];
    const first = await client.chat.completions.create({ ...ask('', ''), messages, max_tokens: 80 });
    messages.push(first.choices[0].message, user('repeat after me: done'));
    const second = await client.chat.completions.create({ ...ask('', ''), messages });
    const history = first.usage.prompt_tokens;
    assert.ok(cachedOf(second) >= history - 2 * page, `${cachedOf(second)} of ${history}`);
});

test('salts separate', async () => {
    const bootstrap = notes(600, 9);
    await client.chat.completions.create(ask(bootstrap, 'hello', { cache_salt: 'a' }));
    const other = await client.chat.completions.create(ask(bootstrap, 'hello', { cache_salt: 'b' }));
    const same = await client.chat.completions.create(ask(bootstrap, 'hello', { cache_salt: 'a' }));
    assert.equal(cachedOf(other), 0);
    assert.ok(cachedOf(same) > 0);
});

test('a long cold prompt shows progress every second', async () => {
    const start = performance.now();
    const tokens = Array.from({ length: 9000 }, (_, i) => 300 + (i * 7919) % 3000);
    const answer = await server.post('/v1/completions', {
        prompt: tokens, max_tokens: 2, temperature: 0, stream: true, stream_options: { include_usage: true },
    });
    const headersMs = performance.now() - start;
    const all = await events(answer, start);
    const progress = all.filter(({ data }) => data.prompt_progress);
    assert.ok(headersMs < 1000, `headers after ${headersMs} ms`);
    const firstToken = all.find(({ data }) => data.choices?.[0]?.text)?.ms ?? all.at(-1).ms;
    assert.ok(progress.length >= Math.floor(firstToken / 1000) - 1, `${progress.length} in ${firstToken} ms`);
    let last = -1;
    for (const { data } of progress) {
        assert.deepEqual(data.choices[0].finish_reason, null);
        const { total, cached, processed, time_ms, eta_ms } = data.prompt_progress;
        assert.equal(total, 9000);
        assert.ok(cached <= processed && processed <= total && processed >= last);
        assert.ok(time_ms > 0 && (eta_ms === null || eta_ms >= 0));
        last = processed;
    }
    for (let i = 1; i < all.length; i++) assert.ok(all[i].ms - all[i - 1].ms < 2500, 'silence');
    assert.equal(all.at(-2).data.usage.prompt_tokens, 9000);
});

test('a chat stream with progress stays readable for the official client', async () => {
    const bootstrap = notes(3000, 21);
    const stream = await collect(await client.chat.completions.create(ask(bootstrap, 'repeat after me: ok', { stream: true })));
    assert.match(stream.content, /ok/);
    assert.equal(stream.finish, 'stop');
    assert.equal(stream.chunks[0].choices[0].delta.role, 'assistant');
});

test('a short request passes a long prefill', async () => {
    const long = server.post('/v1/completions', { prompt: Array.from({ length: 8000 }, (_, i) => 200 + (i * 31) % 3000), max_tokens: 1 });
    await new Promise((resolve) => setTimeout(resolve, 300));
    const start = performance.now();
    await client.chat.completions.create(ask('', 'repeat after me: quick', { max_tokens: 4 }));
    const shortMs = performance.now() - start;
    await long;
    const longMs = performance.now() - start;
    assert.ok(shortMs < longMs / 2, `short ${shortMs} ms, long ${longMs} ms`);
});

test('a repeated long prompt is in the queue within milliseconds', async () => {
    // The deadline ends each right after the queue: only the way there is measured, from the log.
    const request = ask(notes(11000, 33), 'hello', { timeout_ms: 1 });
    for (let i = 0; i < 6; i++) assert.equal((await server.post('/v1/chat/completions', request)).status, 504);
    const lines = [...server.log.matchAll(/status=504 prompt=(\d+) .*queue_in_ms=([\d.]+)/g)].slice(-5);
    const times = lines.map((line) => Number(line[2]));
    assert.ok(Number(lines[0][1]) > 12000, `${lines[0][1]} tokens`);
    console.log(`queue_in_ms of ${lines[0][1]} tokens: ${times}`);
    assert.ok(Math.min(...times) <= 3, `${times}`);
});
