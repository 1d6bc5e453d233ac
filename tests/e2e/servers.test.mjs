// Runs against servers of other habits, servers that go away, and servers that keep silent.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { ollama, startFake, vllm } from './fake_model.mjs';
import { binary, requireBinary, sleep } from './harness.mjs';

requireBinary();
const scratch = mkdtempSync(path.join(tmpdir(), 'sv-'));
after(() => rmSync(scratch, { recursive: true, force: true }));
writeFileSync(path.join(scratch, 'AGENTS.md'), 'You help.\n');
writeFileSync(path.join(scratch, 'submind.yaml'),
    'thinking: off\nsandbox: auto\nexec:\n  allow:\n    - run: [echo, "**"]\n    - run: [sleep, "*"]\n');

function run(...flags) {
    const start = performance.now();
    const child = spawn(binary, ['run', '--json', ...flags], { stdio: ['ignore', 'pipe', 'pipe'], cwd: scratch });
    let out = '', err = '';
    child.stdout.on('data', (text) => { out += text; });
    child.stderr.on('data', (text) => { err += text; });
    return new Promise((resolve) => child.on('close', (code) => {
        resolve({ code, err, ms: performance.now() - start, json: JSON.parse(out) });
    }));
}

// Two steps: a tool call, then a report that quotes what it said.
const twoSteps = ({ results }) => (results.length
    ? { content: `It said: ${results[0].match(/hello \w+/)?.[0]}.` }
    : { call: ['exec', { command: 'echo hello world' }] });

const habits = {
    'plain OpenAI': {},
    'no usage at all': { usage: false },
    'no [DONE]': { done: false },
    'no index in choices and calls': { index: false },
    'arguments as an object': { parsed_arguments: true },
    'calls with finish_reason stop': { always_stop: true },
    'content null beside calls': { null_content: true },
    'a chunk a word': { separate: true, pause_ms: 20 },
    'progress as llama-server tells it': { progress: true },
    'refuses timeout_ms': { reject: ['timeout_ms'] },
    'refuses everything that is not in its book': { reject: ['timeout_ms', 'chat_template_kwargs', 'stream_options', 'return_progress'] },
    'wants max_completion_tokens': { reject: ['max_tokens'] },
    'as vLLM does': vllm,
    'as Ollama does': ollama,
};
for (const [name, habit] of Object.entries(habits)) {
    test(`a server of other habits: ${name}`, async () => {
        const fake = await startFake(twoSteps, habit);
        const { code, json, err } = await run('--server', `${fake.url}/v1`, 'say hello');
        assert.equal(code, 0, err);
        assert.equal(json.report, 'It said: hello world.');
        assert.equal(json.tool_calls.length, 1);
        assert.ok(json.ttft_ms >= 0 && json.total_ms > 0);
        assert.ok(json.gen_tps >= 0 && json.gen_tps < 100_000, `${json.gen_tps} tokens/s from pieces that came together`);
        await fake.stop();
    });
}

test('a server that knows its models by name only is asked for its one; of several the user chooses', async () => {
    const fake = await startFake(twoSteps, ollama);
    await run('--server', fake.url, 'say hello');
    assert.deepEqual(fake.requests.map((r) => r.model), ['default', 'qwen3:32b', 'qwen3:32b']);
    fake.habits = { ...ollama, models: ['qwen3:32b', 'llama3:8b'] };
    const none = await run('--server', fake.url, 'say hello');
    assert.equal(none.code, 1);
    assert.match(none.json.error, /the server has several models; say which .*--server-model.*: qwen3:32b, llama3:8b/);
    const wrong = await run('--server', fake.url, '--server-model', 'gone', 'say hello');
    assert.match(wrong.json.error, /model "gone" not found/);
    assert.equal((await run('--server', fake.url, '--server-model', 'llama3:8b', 'say hello')).code, 0);
    await fake.stop();
});

test('what a server refuses is asked once and then left out', async () => {
    const fake = await startFake(twoSteps, { reject: ['timeout_ms', 'chat_template_kwargs'] });
    await run('--server', fake.url, 'say hello');
    const fields = fake.requests.map((r) => ['timeout_ms', 'chat_template_kwargs'].filter((f) => f in r).length);
    assert.deepEqual(fields, [2, 1, 0, 0]);
    await fake.stop();
});

test('the server learns how long the answer is waited for', async () => {
    const fake = await startFake(twoSteps);
    await run('--server', fake.url, '--timeout', '30', 'say hello');
    for (const { timeout_ms } of fake.requests) assert.ok(timeout_ms > 20_000 && timeout_ms <= 30_001, `${timeout_ms}`);
    assert.ok(fake.requests[1].timeout_ms <= fake.requests[0].timeout_ms);
    await fake.stop();
});

test('a server that restarts in the middle of a run costs a wait, not the run', async () => {
    const fake = await startFake(async (request) => {
        if (request.results.length || fake.restarted) return twoSteps(request);
        fake.restarted = true;
        setTimeout(async () => { // while the tool runs
            const { port } = fake;
            await fake.stop();
            await sleep(1500);
            await fake.listen(port);
        }, 100);
        return { call: ['exec', { command: 'sleep 1' }] };
    });
    const { code, json, err } = await run('--server', fake.url, 'say hello');
    assert.equal(code, 0, err);
    assert.equal(json.outcome, 'done');
    assert.equal(json.tool_calls.length, 1, 'no tool ran twice');
    await fake.stop();
});

test('a stream that breaks off is asked for again; one that always does ends the run', async () => {
    let n = 0;
    const fake = await startFake(() => (++n <= 2 ? { cut: 'stream' } : { content: 'whole' }));
    const good = await run('--server', fake.url, 'say hello');
    assert.equal(good.code, 0, good.err);
    assert.equal(good.json.report, 'whole');
    fake.answer = () => ({ cut: 'stream' });
    const before = fake.requests.length;
    const bad = await run('--server', fake.url, 'say hello');
    assert.equal(bad.code, 1);
    assert.match(bad.json.error, /\(in generation, \d tokens\)/);
    assert.equal(fake.requests.length - before, 4);
    await fake.stop();
});

test('a deadline is kept at once, wherever the run is, and the end says where', async () => {
    const cases = [
        [{ hang: 'queue' }, /^queue/, /out of time \(in queue\)/],
        [{ hang: 'prefill' }, /^prefill 550 of 1000 tokens at 300 tokens\/s/, /the prompt needed 1\.5 s more/],
        [{ hang: 'generation' }, /^generation, \d tokens/, /out of time/],
        [{ call: ['exec', { command: 'sleep 30' }] }, /^tool exec: .*sleep 30/, /out of time after 2 s \(in tool exec/],
        [{ status: 429, headers: { 'retry-after': '60' } }, /^(request|queue)/, /past the deadline|429/],
    ];
    for (const [what, stage, words] of cases) {
        const fake = await startFake(() => what);
        const { code, json, ms } = await run('--server', fake.url, '--timeout', '2', 'say hello');
        assert.match(json.stage, stage);
        assert.match(json.error, words);
        if (what.status === undefined) {
            assert.equal(code, 124);
            assert.ok(ms > 1900 && ms < 3200, `${ms} ms in ${json.stage}`);
        }
        await fake.stop();
    }
});

test('a full server is waited for, one that wants a key is not', async () => {
    let n = 0;
    const fake = await startFake(() => (++n === 1 ? { status: 429, headers: { 'retry-after': '1' } } : { content: 'there' }));
    const { code, ms } = await run('--server', fake.url, 'say hello');
    assert.equal(code, 0);
    assert.ok(ms > 1000);
    fake.answer = () => ({ status: 401, body: { error: { message: 'Incorrect API key provided' } } });
    const refused = await run('--server', fake.url, 'say hello');
    assert.equal(refused.code, 3);
    assert.match(refused.json.error, /Incorrect API key/);
    await fake.stop();
});
