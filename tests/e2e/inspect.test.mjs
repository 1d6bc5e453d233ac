// submind inspect, as people and other programs call it: against values of Hugging Face's code.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { binary, requireBinary, shared, source } from './harness.mjs';

requireBinary();

const lines = (name) => readFileSync(path.join(shared, 'golden', name), 'utf8').trim().split('\n');
const golden = (name) => lines(name).map((line) => JSON.parse(line));
const model = path.join(shared, 'models/submind-demo-Q8_0.gguf');

function inspect(input, ...args) {
    const run = spawnSync(binary, ['inspect', ...args.map(String)], { input, maxBuffer: 1 << 26 });
    return { code: run.status, out: run.stdout.toString(), err: run.stderr.toString() };
}

test('tokens: ids as Hugging Face has them', () => {
    const cases = golden('tokenizer-demo.jsonl');
    for (const c of cases.filter((_, i) => i % 17 === 0)) {
        const run = inspect(c.text, 'tokens', '--model', model, '--special');
        assert.equal(run.code, 0, run.err);
        assert.deepEqual(JSON.parse(run.out), c.ids, `case ${c.id}`);
    }
});

test('tokens: a vocabulary without weights is enough', (t) => {
    const vocab = path.join(shared, 'models/qwen3-vocab.gguf');
    if (!existsSync(vocab)) return t.skip('no qwen3-vocab.gguf');
    const c = golden('tokenizer-qwen3.jsonl').find((x) => x.text.length > 40);
    assert.deepEqual(JSON.parse(inspect(c.text, 'tokens', '--model', vocab, '--special').out), c.ids);
    const about = inspect('', 'model', vocab);
    assert.equal(about.code, 0, about.err);
    assert.match(about.out, /vocabulary\s+151936/);
});

test('tokens: control tokens are text unless asked for', () => {
    const plain = JSON.parse(inspect('<|im_end|>', 'tokens').out);
    const special = JSON.parse(inspect('<|im_end|>', 'tokens', '--special').out);
    assert.equal(special.length, 1);
    assert.ok(plain.length > 1 && !plain.includes(special[0]));
});

test('prompt: byte for byte the template of Hugging Face', () => {
    // The line itself is the request: printing it again here would lose 1.0 and big integers.
    for (const line of lines('chat.jsonl').filter((_, i) => i % 3 === 0)) {
        const { id, text } = JSON.parse(line);
        const run = inspect(line, 'prompt', '--model', model);
        assert.equal(run.code, 0, `case ${id}: ${run.err}`);
        assert.equal(run.out, text, `case ${id}`);
    }
});

test('logits and generate: within the stated bound, equal where the margin is larger', () => {
    const bound = 0.73; // of the CPU's least exact table (int8 activations); tests/golden has each one's
    const c = golden('logits.jsonl').find((x) => x.model.includes('Q8_0') && x.ids.length < 400 && x.ids.length > 20);
    const top = JSON.parse(inspect('', 'logits', '--model', model, '--tokens', c.ids.join(','), '--top', 20).out);
    const ours = new Map(top);
    for (const [id, logit] of c.top.slice(0, 5)) {
        assert.ok(Math.abs(ours.get(id) - logit) < bound, `token ${id}: ${ours.get(id)} for ${logit}`);
    }
    const ids = JSON.parse(inspect('', 'generate', '--model', model, '--tokens', c.ids.join(','), '-n', 64).out);
    assert.equal(ids.length, 64);
    for (let i = 0; i < 64 && c.margin[i] > bound; i++) assert.equal(ids[i], c.greedy[i], `token ${i}`);
    const all = JSON.parse(inspect('', 'logits', '--tokens', '1,2,3').out);
    assert.equal(all.logits.length, 4096);
});

test('perplexity: a device without fp8 products says so and is exact; an unknown type is refused', () => {
    const text = 'The service answers. '.repeat(30);
    const run = (...args) => inspect(text, 'perplexity', '--device', 'cpu', '--threads', 1, ...args);
    const [exact, fp8] = [run(), run('--prefill-type', 'fp8')];
    assert.equal(fp8.code, 0, fp8.err);
    assert.match(fp8.err, /prefill=exact/);
    assert.doesNotMatch(exact.err, /prefill=exact reason/);
    assert.equal(fp8.out, exact.out);
    assert.match(run('--prefill-type', 'fp4').err, /"fp4" is not known; there are exact and fp8/);
});

test('perplexity: by decoding as by prefill, in windows of the context', () => {
    const text = readFileSync(path.join(source, 'tests/data/text/chores.txt'), 'utf8').slice(0, 1500);
    const score = (...args) => JSON.parse(inspect(text, 'perplexity', '--special', ...args).out);
    const prefill = score(), decode = score('--rows', 1), windows = score('--ctx', 64);
    assert.equal(prefill.scored, prefill.tokens - 1);
    assert.ok(prefill.perplexity > 1 && prefill.perplexity < 100, `${prefill.perplexity}`);
    assert.equal(decode.nll, prefill.nll); // the CPU promises equal bits
    assert.equal(windows.scored, windows.tokens - Math.ceil(windows.tokens / 64));
    assert.ok(windows.perplexity > prefill.perplexity, 'less context foretells less');
    assert.match(inspect('', 'perplexity').err, /two or more/);
});

test('bad input is told what to do', () => {
    const cases = [
        [['logits', '--tokens', '99999999'], /is no token id from 0 to 4095/],
        [['logits'], /--tokens is needed/],
        [['tokens', '--model', '/nonexistent.gguf'], /nonexistent/],
        [['tokens', '--model', binary], /GGUF/],
        [['nonsense'], /no subject "nonsense"/],
        [['prompt'], /line 1 column 1|expected/],
    ];
    for (const [args, says] of cases) {
        const run = inspect('', ...args);
        assert.notEqual(run.code, 0, args.join(' '));
        assert.match(run.err, says);
        assert.equal(run.out, '');
    }
});

test('devices: what --device may name, without a model', () => {
    const run = inspect('', 'devices');
    assert.equal(run.code, 0, run.err);
    const rows = run.out.trim().split('\n').slice(1);
    const cpu = rows.filter((r) => r.startsWith('cpu '));
    assert.equal(cpu.length, 1);
    assert.match(cpu[0], /^cpu +[0-9.]+ GiB +[0-9.]+ GiB  q8_0  .*threads/); // with what --kv-type is by itself
    assert.ok(rows.some((r) => /^cuda(:0)? /.test(r)), 'a GPU, or why there is none');
});
