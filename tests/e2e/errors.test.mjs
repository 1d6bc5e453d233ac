// What goes wrong: refusals with their status, keys, hang-ups, abuse of the socket, a stop in the middle.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { events, notes, rawRequest, requireBinary, sleep, startListening, startServer, until } from './harness.mjs';

requireBinary();
const scratch = mkdtempSync(path.join(tmpdir(), 'submind-errors-'));
let server, client;
before(async () => { server = await startServer('--max-body', '2M', '--parallel', '2', '--queue', '2'); client = server.client(); });
after(async () => { await server?.stop(); rmSync(scratch, { recursive: true }); });
const user = (content) => ({ role: 'user', content });

test('the client raises the right errors', async () => {
    const chat = (extra) => client.chat.completions.create({ model: 'm', messages: [user('x')], ...extra });
    await assert.rejects(chat({ temperature: 'hot' }), { status: 400, message: /"temperature"/ });
    await assert.rejects(chat({ messages: [{ role: 'wizard', content: 'x' }] }), { status: 400, message: /messages\[0\]/ });
    await assert.rejects(chat({ messages: [{ role: 'user', content: 5 }] }), { status: 400, message: /messages\[0\]/ });
    await assert.rejects(chat({ response_format: { type: 'xml' } }), { status: 400, message: /"response_format" of type "xml" is not known/ });
    await assert.rejects(chat({ n: 3 }), { status: 400, message: /"n"/ });
    await assert.rejects(chat({ tools: [{ type: 'function' }] }), { status: 400, message: /tools\[0\]/ });
    await assert.rejects(chat({ stop: Array(20).fill('x') }), { status: 400, message: /"stop"/ });
    await assert.rejects(client.get('/nowhere'), { status: 404 });
});

test('a prompt that is too long names both numbers', async () => {
    const { n_ctx } = (await server.json('/v1/models')).data[0].meta;
    const answer = await server.post('/v1/completions', { prompt: Array(n_ctx + 10).fill(5), stream: true });
    assert.equal(answer.status, 400);
    const { error } = await answer.json();
    assert.match(error.message, /exceeds the available context size/);
    assert.ok(error.message.includes(String(n_ctx + 10)) && error.message.includes(String(n_ctx)));
    assert.equal(error.type, 'exceed_context_size_error');
});

test('malformed bodies get 400, large ones 413, other types 415', async () => {
    for (const body of ['{', '{"messages": [}', '[1]', '"x"', '{"messages": []', '\u0000'])
        assert.equal((await server.post('/v1/chat/completions', body)).status, 400, body);
    const big = JSON.stringify({ prompt: 'x'.repeat(3 << 20) });
    const answer = await server.post('/v1/completions', big);
    assert.equal(answer.status, 413);
    assert.equal((await answer.json()).error.type, 'request_too_large_error');
    assert.equal((await server.post('/v1/completions', '{}', { 'content-type': 'text/plain' })).status, 415);
    const wrong = await server.fetch('/v1/completions');
    assert.equal(wrong.status, 405);
    assert.match(wrong.headers.get('allow'), /POST/);
});

test('a deadline ends a request with how far it came', async () => {
    const body = { prompt: Array(15000).fill(7), timeout_ms: 300, max_tokens: 4, cache_salt: 'deadline' };
    const whole = await server.post('/v1/completions', body);
    assert.equal(whole.status, 504);
    assert.match((await whole.json()).error.message, /15000/);
    const all = await events(await server.post('/v1/completions', { ...body, cache_salt: 'deadline2', stream: true }));
    assert.equal(all.at(-1).data.error.type, 'timeout_error');
});

test('a full queue says 429 and when to come again', async () => {
    const body = (i) => ({ prompt: Array(12000).fill(8), max_tokens: 2, cache_salt: `full${i}`, stream: true });
    const aborts = Array.from({ length: 6 }, () => new AbortController());
    const answers = [];
    for (const [i, abort] of aborts.entries()) {
        answers.push(await server.fetch('/v1/completions', {
            method: 'POST', signal: abort.signal, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body(i)),
        }));
    }
    const refused = answers.filter((a) => a.status === 429);
    assert.equal(refused.length, 2, answers.map((a) => a.status).join());
    assert.ok(Number(refused[0].headers.get('retry-after')) >= 1);
    assert.equal((await refused[0].json()).error.type, 'queue_full_error');
    aborts.forEach((abort) => abort.abort());
    await until(async () => (await server.post('/v1/completions', { prompt: 'x', max_tokens: 1 })).status === 200,
        10_000, 'aborted requests to leave');
});

test('a client that goes away frees its place within a step', async () => {
    const abort = new AbortController();
    const stream = await client.chat.completions.create(
        { model: 'm', messages: [user('hello')], ignore_eos: true, max_tokens: 20000, stream: true }, { signal: abort.signal });
    let n = 0;
    try {
        for await (const chunk of stream) if (chunk.choices[0]?.delta.content && ++n === 5) abort.abort();
    } catch (error) { assert.match(error.name, /Abort/); }
    const start = performance.now();
    await until(async () => (await server.metrics())['vllm:num_requests_running'] === 0, 3000, 'the sequence to stop');
    assert.ok(performance.now() - start < 3000);
    await server.logged(/path=\/v1\/chat\/completions status=200 .* finish=abort/, 3000);
});

test('abuse of the socket harms nobody', async () => {
    const { port } = server;
    const huge = `GET /health HTTP/1.1\r\nHost: localhost\r\n${'X-Filler: ' + 'y'.repeat(1000) + '\r\n'}`.padEnd(400_000, 'z');
    const slow = Array.from({ length: 20 }, () => net.connect(port, '127.0.0.1'));
    slow.forEach((s) => { s.on('error', () => {}); s.write('POST /v1/chat/completions HTTP/1.1\r\nHost: local'); });
    for (const text of ['\x16\x03\x01\x02\x00\x01', 'GET / HTTP/9.9\r\n\r\n', 'nonsense\r\n\r\n', huge,
        'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{'])
        assert.doesNotMatch((await rawRequest(port, text, 500)).got, /^HTTP\/1.1 200/);
    assert.equal((await server.fetch('/health')).status, 200);
    slow.forEach((s) => s.destroy());
});

// The answer to raw bytes on a connection that it closes: status and error, which must be ours.
async function refused(text) {
    const { got } = await rawRequest(server.port, text, 5000);
    assert.match(got, /content-type: application\/json/i, got.slice(0, 300));
    return { status: Number(got.slice(9, 12)), ...JSON.parse(got.slice(got.indexOf('\r\n\r\n') + 4)).error };
}

test('what is too long or ambiguous before the body is refused in JSON as everything else', async () => {
    const end = 'Host: localhost\r\nConnection: close\r\n';
    const json = 'Content-Type: application/json\r\n';
    for (const uri of [`/${'a'.repeat(20_000)}`, `/health?x=${'a'.repeat(100_000)}`]) {
        const e = await refused(`GET ${uri} HTTP/1.1\r\n${end}\r\n`);
        assert.deepEqual([e.status, e.code, e.type], [414, 414, 'uri_too_long_error']);
        assert.match(e.message, /8192/);
    }
    for (const filler of [`X-One: ${'y'.repeat(100_000)}\r\n`, 'X-Many: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n'.repeat(900)]) {
        const e = await refused(`GET /health HTTP/1.1\r\n${end}${filler}\r\n`);
        assert.deepEqual([e.status, e.code, e.type], [431, 431, 'headers_too_large_error']);
    }
    assert.match((await rawRequest(server.port, `GET /health HTTP/1.1\r\n${end}X: ${'y'.repeat(30_000)}\r\n\r\n`)).got, /^HTTP\/1.1 200/);
    for (const head of ['Connection: close\r\n', `Host: evil.example\r\n${end}`, `Host: localhost\r\n${end}`])
        assert.equal((await refused(`GET /health HTTP/1.1\r\n${head}\r\n`)).status, 400);
    const twice = ['Content-Length: 2\r\nContent-Length: 44\r\n', 'Content-Length: 2\r\nTransfer-Encoding: chunked\r\n'];
    for (const lengths of twice) // closed by the server, though the client would go on
        assert.equal((await refused(`POST /tokenize HTTP/1.1\r\nHost: localhost\r\n${json}${lengths}\r\n2\r\n{}\r\n0\r\n\r\n`)).status, 400);
});

test('an error names the field that it is about', async () => {
    const messages = [user('x')];
    const cases = {
        temperature: { messages, temperature: 'hot' },
        stop: { messages, stop: 5 },
        seed: { messages, seed: 0.5 },
        logit_bias: { messages, logit_bias: { x: 1 } },
        'stream_options.include_usage': { messages, stream_options: { include_usage: 1 } },
        response_format: { messages, response_format: { type: 'xml' } },
        tool_choice: { messages, tool_choice: 'required' },
        messages: {},
        'messages[1].role': { messages: [...messages, { role: 'wizard', content: 'x' }] },
        'messages[0].content[0].text': { messages: [{ role: 'user', content: [{ type: 'text' }] }] },
        'tools[0].function': { messages, tools: [{ type: 'function' }] },
    };
    for (const [param, body] of Object.entries(cases)) {
        const answer = await server.post('/v1/chat/completions', body);
        assert.equal(answer.status, 400);
        assert.equal((await answer.json()).error.param, param);
    }
    assert.equal((await (await server.post('/v1/chat/completions', '{')).json()).error.param, null);
    await assert.rejects(client.chat.completions.create({ model: 'm', messages, top_p: 7 }), { status: 400, param: 'top_p' });
});

test('a foreign Host is refused on loopback', async () => {
    const { got } = await rawRequest(server.port, 'GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n');
    assert.match(got, /^HTTP\/1.1 403/);
    assert.doesNotMatch(got, /Access-Control/);
});

test('keys', async () => {
    const file = path.join(scratch, 'keys');
    writeFileSync(file, '# clients\nsk-one\n\nsk-two\n');
    const locked = await startServer('--api-key-file', file, '--alias', 'brain');
    try {
        await assert.rejects(locked.client().models.list(), { status: 401 });
        await assert.rejects(locked.client({ apiKey: 'sk-on' }).models.list(), { status: 401 });
        for (const apiKey of ['sk-one', 'sk-two'])
            assert.equal((await locked.client({ apiKey }).models.list()).data[0].id, 'brain');
        assert.equal((await locked.fetch('/health')).status, 200);
    } finally { await locked.stop(); }
});

test('a public address needs a key or an explicit word', async () => {
    await assert.rejects(startListening('--host', '0.0.0.0'), /--api-key-file/);
});

test('SIGTERM ends streams with an error event, quickly', async () => {
    const victim = await startServer();
    const answer = await victim.post('/v1/chat/completions',
        { messages: [user('hello')], stream: true, ignore_eos: true, max_tokens: 20000 });
    const cold = victim.post('/v1/completions', { prompt: Array(15000).fill(9), max_tokens: 1 });
    const reading = events(answer);
    await sleep(300);
    const { code, ms } = await victim.stop('SIGTERM');
    const all = await reading;
    assert.equal(all.at(-1).data.error.type, 'shutdown_error');
    assert.equal((await cold).status, 503);
    assert.equal(code, 0, victim.log);
    assert.ok(ms < 5000, `${ms} ms`);
});

test('a signal that comes twice at once is one stop; a later one ends it', async () => {
    const twice = (server) => { process.kill(server.child.pid, 'SIGTERM'); setTimeout(() => server.child.kill('SIGTERM'), 5); };
    const answer = (server, max_tokens) => server.post('/v1/chat/completions', { messages: [user('hello')], stream: true, ignore_eos: true, max_tokens }).then(events);
    const plain = await startServer();
    const often = setInterval(() => plain.child.kill('SIGTERM'), 1); // whenever it ends, one comes right then
    const { code } = await plain.exited;
    clearInterval(often);
    assert.equal(code, 0, plain.log);
    assert.match(plain.log, /stopped after_ms/);
    const drained = await startServer('--drain', 60);
    const whole = answer(drained, 300);
    await sleep(100);
    twice(drained);
    assert.equal((await whole).filter(({ data }) => data?.choices?.[0]?.finish_reason).at(-1)?.data.choices[0].finish_reason, 'length');
    assert.equal((await drained.exited).code, 0);
    const hurried = await startServer('--drain', 60);
    const cut = answer(hurried, 30000);
    await sleep(100);
    twice(hurried);
    await sleep(700);
    hurried.child.kill('SIGTERM');
    assert.equal((await cut).at(-1).data.error.type, 'shutdown_error');
    assert.equal((await hurried.exited).code, 0);
});

test('a model that cannot be loaded ends the program with a message', async () => {
    const file = path.join(scratch, 'bad.gguf');
    writeFileSync(file, 'GGUFnope');
    const broken = await startListening('--model', file).catch((error) => error);
    if (broken instanceof Error) return assert.match(broken.message, /bad\.gguf/);
    const { code } = await broken.exited;
    assert.notEqual(code, 0);
    assert.match(broken.log, /bad\.gguf/);
});

test('notes of the log hold no prompt text', async () => {
    await client.chat.completions.create({ model: 'm', max_tokens: 2, messages: [{ role: 'system', content: notes(50) }, user('SECRET-7781')] });
    assert.doesNotMatch(server.log, /SECRET-7781/);
});
