// submind bench seed: several servers in turn on the same prompts, the user's own bootstrap, JSON, report and
// the comparison with an earlier run.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { binary, requireBinary, startServer } from './harness.mjs';

requireBinary();

const dir = mkdtempSync(path.join(os.tmpdir(), 'submind-bench-'));
after(() => rmSync(dir, { recursive: true, force: true }));
const quick = ['--prompt-tokens', '400', '--runs', '2', '--gen-tokens', '8'];

function bench(...args) {
    return new Promise((done) => {
        const child = spawn(binary, ['bench', 'seed', ...args.map(String)]);
        let out = '', err = '';
        child.stdout.on('data', (text) => { out += text; });
        child.stderr.on('data', (text) => { err += text; });
        child.on('close', (code) => done({ code, out, err }));
    });
}

test('devices of ours, an address and a command, one after the other', async () => {
    const server = await startServer();
    const html = path.join(dir, 'report.html');
    const run = await bench('cpu', `there=${server.url}`, `peer=${path.relative(process.cwd(), binary)} llama-server --port {port} -t 1`, ...quick,
        '--json', '--html', html);
    await server.stop();
    assert.equal(run.code, 0, run.err);
    const result = JSON.parse(run.out);
    assert.deepEqual(Object.keys(result.servers), ['submind cpu', 'there', 'peer']);
    for (const [name, figures] of Object.entries(result.servers)) {
        assert.ok(Math.abs(figures.prompt_tokens.median - 400) < 100, name);
        assert.ok(figures.cold_ttft_s.median > 0 && figures.short_gen_tps.median > 0, name);
        assert.equal(figures.cold_ttft_s.samples.length, 2);
        assert.ok(figures.cached_tokens.median > 300, name); // the second task found the first one's bootstrap
        assert.ok(figures.cold_ttft_s.lo <= figures.cold_ttft_s.median && figures.cold_ttft_s.median <= figures.cold_ttft_s.hi);
        assert.ok(result.limits.percent[name].short_gen_tps > 0, name);
    }
    assert.ok(result.limits.read_gb_s > 0.5 && result.limits.gflop_s > 0.5);
    const page = readFileSync(html, 'utf8');
    assert.ok(page.startsWith('<!doctype html>'));
    assert.doesNotMatch(page, /https?:\/\/|<script|src=/); // needs nothing else
    assert.equal([...page.matchAll(/<rect class="a"/g)].length, 7);
    assert.equal([...page.matchAll(/<rect class="b"/g)].length, 14);
});

test('compared with an earlier run: noise and change are told apart', async () => {
    const earlier = path.join(dir, 'earlier.json');
    const first = await bench('cpu', ...quick, '--no-limits', '--out', earlier);
    assert.equal(first.code, 0, first.err);
    assert.match(first.out, /cold TTFT/);
    const json = JSON.parse(readFileSync(earlier, 'utf8'));
    assert.equal(json.limits, null);
    const figures = json.servers['submind cpu'];
    // ten times slower, and ten times quicker, than it was: whatever this machine does meanwhile
    for (const [key, times] of [['cold_ttft_s', 10], ['short_gen_tps', 10]])
        for (const part of ['median', 'lo', 'hi']) figures[key][part] *= times;
    // a page more or less of a prompt is no change, what is thousands of tokens is one
    for (const [key, tokens] of [['cached_tokens', 100], ['together_computed_tokens', 5000]])
        for (const part of ['median', 'lo', 'hi']) figures[key][part] += tokens;
    const wide = figures.cached_ttft_s;
    [wide.lo, wide.hi] = [wide.lo / 1000, wide.hi * 1000];
    json.limits = { read_gb_s: 0.01, gflop_s: 0.1 }; // another machine, or a very busy one
    writeFileSync(earlier, JSON.stringify(json));
    const html = path.join(dir, 'second.html');
    const second = await bench('cpu', ...quick, '--no-limits', '--baseline', earlier, '--html', html);
    assert.equal(second.code, 0, second.err);
    assert.match(second.out, /cold TTFT .*BETTER/);
    assert.match(second.out, /generation, short .*WORSE/);
    assert.match(second.out, /cached TTFT .*noise/);
    assert.match(second.out, /of it cached .*noise/);
    assert.match(second.out, /8 at once, computed .*BETTER/);
    assert.match(second.out, /caution: \d runs?: /);
    assert.match(readFileSync(html, 'utf8'), /class="bad">worse/);
    const third = await bench('cpu', ...quick, '--baseline', earlier);
    assert.match(third.out, /caution: the machine itself gave 0\.0 GB\/s/);
    writeFileSync(earlier, '{"no":1}');
    const broken = await bench('cpu', ...quick, '--no-limits', '--baseline', earlier);
    assert.notEqual(broken.code, 0);
    assert.match(broken.err, /--baseline/);
    const nowhere = await bench('cpu', ...quick, '--out', '/proc/nowhere/out.json');
    assert.notEqual(nowhere.code, 0);
    assert.match(nowhere.err, /--out: /);
    assert.deepEqual([broken.out, nowhere.out], ['', ''], 'told before anything is measured');
});

test("the user's own bootstrap and tasks are what is sent", async () => {
    const workspace = path.join(dir, 'workspace');
    mkdirSync(path.join(workspace, 'subminds'), { recursive: true });
    writeFileSync(path.join(workspace, 'AGENTS.md'), '# Rules of the lighthouse\nKeep the lamp lit.\n');
    writeFileSync(path.join(workspace, 'subminds/lamp.md'), '---\ndescription: lamp\n---\nIs the lamp lit?\n');
    const seen = [];
    const server = http.createServer((request, answer) => {
        let body = '';
        request.on('data', (piece) => { body += piece; });
        request.on('end', () => {
            if (request.method === 'GET') return answer.end('{"data":[{"id":"x"}]}');
            const { messages } = JSON.parse(body);
            seen.push(messages);
            answer.writeHead(200, { 'content-type': 'text/event-stream' });
            const chunk = (choices, usage) => answer.write(`data: ${JSON.stringify({ choices, usage })}\n\n`);
            chunk([{ index: 0, delta: { role: 'assistant', content: 'a' } }]);
            setTimeout(() => {
                chunk([{ index: 0, delta: { content: 'b' } }]);
                chunk([{ index: 0, delta: {}, finish_reason: 'length' }]);
                chunk([], { prompt_tokens: 800, completion_tokens: 2, total_tokens: 802 });
                answer.end('data: [DONE]\n\n');
            }, 5);
        });
    }).listen(0, '127.0.0.1');
    await new Promise((done) => server.once('listening', done));
    const run = await bench(`http://127.0.0.1:${server.address().port}`, '--workspace', workspace, '--runs', 1, '--no-limits', '--json');
    server.close();
    assert.equal(run.code, 0, run.err);
    const long = seen.filter((m) => m[0].content.includes('Keep the lamp lit.'));
    assert.ok(long.length >= 3 + 8);
    assert.ok(long.every((m) => m.at(-1).content.includes('Is the lamp lit?')));
    const firsts = new Set(long.map((m) => m[0].content.split('\n')[0]));
    assert.ok(firsts.size >= 2, 'cold runs differ from their first line on');
});

test('a server that fails is left out, the others are shown', async () => {
    const run = await bench('cpu', 'nobody=http://127.0.0.1:1', '--prompt-tokens', 200, '--runs', 1, '--gen-tokens', 4, '--no-limits', '--json');
    assert.equal(run.code, 3);
    assert.match(run.err, /left out: nobody: /);
    assert.deepEqual(Object.keys(JSON.parse(run.out).servers), ['submind cpu']);
});

test('bad use is told what to do', async () => {
    for (const [args, says] of [
        [['llama-server -m x --port 80'], /\{port\}/],
        [['cpu', 'cpu'], /two servers are called/],
        [['no-such-device'], /no-such-device/],
        [['x=/no/such/program --port {port}'], /no\/such\/program|ended with code/],
        [['http://127.0.0.1:1'], /127\.0\.0\.1:1/],
    ]) {
        const run = await bench(...args, ...quick, '--no-limits');
        assert.notEqual(run.code, 0, args.join(' '));
        assert.match(run.err, says);
    }
});
