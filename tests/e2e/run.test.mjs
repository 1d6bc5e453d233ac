// `submind run` with the real server and the shipped model: tasks, exit codes, private servers, endings.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { binary, requireBinary, sleep, source, startServer, until } from './harness.mjs';

requireBinary();
process.env.SUBMIND_CACHE_DIR = 'off'; // what an earlier run left on disk must not decide what is cached here
const workspace = path.join(source, 'examples/workspace');
const model = path.join(source, 'models/submind-demo-Q8_0.gguf');
const scratch = mkdtempSync(path.join(tmpdir(), 'sm-'));
const nobody = 'http://127.0.0.1:1';
let server;
before(async () => { server = await startServer(); });
after(async () => { await server?.stop(); rmSync(scratch, { recursive: true, force: true }); });

// Runs it; resolves to {code, out, err, ms, json}. signal(child) may act on it meanwhile.
function run(flags, { act } = {}) {
    const start = performance.now();
    const child = spawn(binary, ['run', ...flags], { stdio: ['ignore', 'pipe', 'pipe'], cwd: scratch });
    let out = '', err = '';
    child.stdout.on('data', (text) => { out += text; });
    child.stderr.on('data', (text) => { err += text; });
    act?.(child);
    return new Promise((resolve) => child.on('close', (code) => {
        let json;
        try { json = JSON.parse(out); } catch { /* not asked for */ }
        resolve({ code, out, err, ms: performance.now() - start, json });
    }));
}

const onServer = (...flags) => run(['--workspace', workspace, '--server', server.url, ...flags]);

function smallWorkspace(name, yaml, agents = 'You help in a small place.\n') {
    const dir = path.join(scratch, name);
    cpSync(path.join(workspace, 'bin'), path.join(dir, 'bin'), { recursive: true, verbatimSymlinks: true });
    cpSync(path.join(workspace, 'state'), path.join(dir, 'state'), { recursive: true });
    writeFileSync(path.join(dir, 'submind.yaml'), `temperature: 0\nthinking: off\n${yaml}`);
    writeFileSync(path.join(dir, 'AGENTS.md'), agents);
    return dir;
}
const services = 'sandbox: auto\nexec:\n  path: [bin]\n  allow:\n    - run: [systemctl, is-active, "*"]\n';

test('three tasks on the example workspace, the first one cold', async () => {
    const tasks = [
        ['check whether service mosquitto is active', /mosquitto is active/, 'systemctl is-active mosquitto'],
        ['refresh the credential for mail-relay', /valid until \d{4}-\d\d-\d\d/, 'relayctl renew --now'],
        ['track shipment NP-482913 at Northpost', /in transit, last seen in Porto/,
            'curl -s https://gulls.example.org/lookup/NP-482913'],
    ];
    const runs = [];
    for (const [task, words, command] of tasks) {
        const { code, json, err } = await onServer('--json', task);
        assert.equal(code, 0, err);
        assert.equal(json.outcome, 'done');
        assert.equal(json.stage, 'answer');
        assert.match(json.report, words);
        assert.deepEqual(json.tool_calls.map((c) => [c.name, c.ran, c.exit_code]), [['exec', command, 0]]);
        assert.ok(json.prompt_tokens >= 14_000 && json.prompt_tokens <= 17_000, `${json.prompt_tokens}`);
        assert.ok(json.ttft_ms > 0 && json.gen_tps > 0);
        assert.match(json.id, /^\d{8}-\d{6}-[0-9a-f]{8}$/);
        runs.push(json);
    }
    assert.equal(runs[0].cached_tokens, 0);
    for (const { prompt_tokens, cached_tokens } of runs.slice(1))
        assert.ok(cached_tokens > prompt_tokens - 200, `${cached_tokens} of ${prompt_tokens}`);
    // Tool results ride on what was there: the second request of a run computes only its tail.
    for (const { turns } of runs) assert.ok(turns[1].cached_tokens > turns[0].prompt_tokens - 64);
});

test('without --json the report goes to standard output, the rest to standard error', async () => {
    const { code, out, err } = await onServer('what is the gate code?');
    assert.equal(code, 0);
    assert.equal(out, 'The gate code is KB-417.\n');
    assert.match(err, /^done after [\d.]+ s in answer: \d+ prompt tokens \(\d+ cached\)/);
    const quiet = await onServer('--quiet', 'what is the gate code?');
    assert.equal(quiet.err, '');
});

test('on a terminal the steps are shown and the answer streams', async (t) => {
    const terminal = spawnSync('script', ['-qec', 'true', '/dev/null']);
    if (terminal.status !== 0) return t.skip('script(1) cannot make a terminal here');
    const line = `${binary} run --workspace ${workspace} --server ${server.url} 'is mosquitto running?'`;
    const child = spawn('script', ['-qec', line, '/dev/null'], { stdio: ['ignore', 'pipe', 'inherit'], cwd: scratch });
    let out = '';
    child.stdout.on('data', (text) => { out += text; });
    assert.equal(await new Promise((resolve) => child.on('close', resolve)), 0);
    const lines = out.replaceAll('\r\n', '\n').replace(/\r\x1b\[K/g, '\n').split('\n');
    assert.ok(lines.some((l) => /^exec: systemctl is-active mosquitto -> exit code 0, \d+ ms$/.test(l)), out);
    assert.equal(lines.filter((l) => l === 'mosquitto is active.').length, 1, out);
    assert.ok(lines.some((l) => /^done after .* 1 tool call$/.test(l)), out);
});

test('a command that is not allowed is refused and the task has failed', async () => {
    const dir = smallWorkspace('refuse', services);
    const { code, json } = await run(['--workspace', dir, '--server', server.url, '--json', 'run whoami']);
    assert.equal(json.tool_calls[0].ran, 'whoami');
    assert.equal(json.tool_calls[0].refused, true);
    assert.match(json.tool_calls[0].output, /^Error: not allowed: whoami/);
    assert.equal(json.outcome, 'failed');
    assert.equal(code, 1);
});

test('bad use is exit code 2 and says what to do', async () => {
    const broken = smallWorkspace('broken', 'timeot: 5\n');
    const cases = [
        [[], /a task is needed/],
        [['a', 'b'], /put it in quotes/],
        [[''], /the task is empty/],
        [['--no-such-flag', 'x'], /unknown flag --no-such-flag/],
        [['--timeout', 'soon', 'x'], /--timeout takes a whole number/],
        [['--workspace', '/no/such/folder', 'x'], /\/no\/such\/folder/],
        [['--workspace', broken, 'x'], /submind\.yaml:3: there is no setting "timeot"; allowed: .*timeout/],
        [['--thinking', 'maybe', 'x'], /on, off or auto/],
        [['--model', '/no/model.gguf', 'x'], /cannot find the model \/no\/model\.gguf/],
        [['--server', nobody, '--key-file', '/no/key', 'x'], /\/no\/key/],
        [['--server', 'localhost', 'x'], /no server address/],
    ];
    for (const [flags, words] of cases) {
        const { code, err } = await run(flags);
        assert.match(err, words);
        assert.equal(code, 2, flags.join(' '));
    }
    assert.equal((await run(['--help'])).code, 0);
});

test('nobody there is exit code 3, with a record all the same', async () => {
    const { code, json, err } = await run(['--server', nobody, '--json', 'hello']);
    assert.equal(code, 3);
    assert.equal(json.outcome, 'no_server');
    assert.match(err, /no server at http:\/\/127\.0\.0\.1:1/);
    assert.deepEqual(json.tool_calls, []);
});

test('a timeout in the prefill is exit code 124 and says how far it came', async () => {
    const dir = path.join(scratch, 'slow');
    cpSync(workspace, dir, { recursive: true, verbatimSymlinks: true });
    const text = readFileSync(path.join(dir, 'AGENTS.md'), 'utf8');
    writeFileSync(path.join(dir, 'AGENTS.md'), `# Another house\n\n${text}`);
    const { code, json, err, ms } = await run(['--workspace', dir, '--server', server.url, '--timeout', '3', '--json',
        'check whether service mosquitto is active']);
    if (json.outcome === 'done') return; // a machine that is that quick has nothing to show here
    assert.equal(code, 124);
    assert.equal(json.outcome, 'timeout');
    assert.match(json.stage, /^(prefill \d+ of 14\d{3} tokens at \d+ tokens\/s|generation|queue)/);
    assert.match(err, /out of time \(in /);
    assert.ok(ms < 6000, `${ms} ms`);
});

test('Ctrl-C ends a run cleanly', async () => {
    const dir = path.join(scratch, 'interrupted');
    cpSync(workspace, dir, { recursive: true, verbatimSymlinks: true });
    writeFileSync(path.join(dir, 'AGENTS.md'), '# A third house\n');
    const { code, json } = await run(['--workspace', dir, '--server', server.url, '--json', 'is cups running?'],
        { act: (child) => setTimeout(() => child.kill('SIGINT'), 700) });
    if (json.outcome === 'done') return;
    assert.equal(json.outcome, 'cancelled');
    assert.equal(code, 130);
});

test('two runs at once share one private server, the next finds it warm, and it ends when idle', async () => {
    const dir = smallWorkspace('private', services);
    const runtime = path.join(scratch, 'r');
    const flags = ['--workspace', dir, '--runtime-dir', runtime, '--idle-exit', '4', '--model', model, '--json'];
    const [a, b] = await Promise.all([run([...flags, 'is mosquitto running?']), run([...flags, 'is cups running?'])]);
    for (const { code, err } of [a, b]) assert.equal(code, 0, err);
    assert.match(a.json.report, /mosquitto is active/);
    assert.match(b.json.report, /cups is not active/);
    const files = readdirSync(runtime);
    const logs = files.filter((name) => name.endsWith('.log'));
    assert.equal(logs.length, 1, files.join(' '));
    const log = () => readFileSync(path.join(runtime, logs[0]), 'utf8');
    assert.equal(log().match(/ready model=/g).length, 1, 'one server for both');
    const third = await run([...flags, 'is caddy running?']);
    assert.equal(third.code, 0, third.err);
    assert.ok(third.json.cached_tokens > 0, 'the third run finds the server warm');
    assert.equal(log().match(/ready model=/g).length, 1);
    await until(() => /stopped/.test(log()), 20_000, 'the idle server stops');
    const fourth = await run([...flags, 'is mosquitto running?']); // a stale socket is no obstacle
    assert.equal(fourth.code, 0, fourth.err);
    assert.equal(fourth.json.cached_tokens, 0);
});

test('without --server the one on port 8080 is used, but only if it serves models', async (t) => {
    const page = http.createServer((request, answer) => answer.end('a page')).listen(8080, '127.0.0.1');
    const free = await new Promise((resolve) => {
        page.once('listening', () => resolve(true));
        page.once('error', () => resolve(false));
    });
    if (!free) return t.skip('port 8080 is taken on this machine');
    const runtime = path.join(scratch, 'r3');
    const flags = ['--runtime-dir', runtime, '--idle-exit', '2', '--json', 'hello'];
    const beside = await run(flags);
    page.closeAllConnections();
    await new Promise((resolve) => page.close(resolve));
    assert.equal(beside.code, 0, beside.err);
    assert.match(beside.err, /no server was found and no model named, so the built-in one answers/);
    assert.equal(readdirSync(runtime).filter((name) => name.endsWith('.log')).length, 1, 'a private one was started');
    const usual = await startServer('--port', '8080');
    try {
        const { code, err } = await run(flags);
        assert.equal(code, 0, err);
        assert.doesNotMatch(err, /no model named/);
        assert.ok((await usual.metrics())['submind:prefill_tokens_total'] > 0, 'it took the request');
    } finally {
        await usual.stop();
    }
});

test('a private server that cannot start says why', async () => {
    const bad = path.join(scratch, 'bad.gguf');
    writeFileSync(bad, 'this is no model');
    const { code, json, err } = await run(['--runtime-dir', path.join(scratch, 'r2'), '--model', bad, '--json', 'hello']);
    assert.equal(code, 3);
    assert.equal(json.outcome, 'no_server');
    assert.match(err, /the private server ended with code \d+: .*(GGUF|bad\.gguf)/);
    await sleep(0);
    assert.ok(existsSync(bad));
});
