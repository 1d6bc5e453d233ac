// submind service against a stand-in for systemd (tests/tools/fake_systemd.py: real processes, a real
// socket that outlives them, sd_notify), with a client that streams all the while; and the units against
// the real systemd-analyze where it is installed.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import OpenAI from 'openai';
import { binary, collect, freePort, notes, requireBinary, sleep, source, startServer, until } from './harness.mjs';

requireBinary();
if (spawnSync('python3', ['--version']).status !== 0) {
    console.log('skipped: no python3');
    process.exit(77);
}

const dir = mkdtempSync(path.join(os.tmpdir(), 'submind-service-'));
const bin = path.join(dir, 'bin'), config = path.join(dir, 'config'), state = path.join(dir, 'state');
const units = path.join(config, 'systemd/user');
const fake = path.join(source, 'tests/tools/fake_systemd.py');
const model = path.join(dir, 'a model.gguf'); // a path that has to be quoted
const env = {
    ...process.env, PATH: `${bin}:${process.env.PATH}`, HOME: dir, XDG_CONFIG_HOME: config, XDG_STATE_HOME: state,
    XDG_RUNTIME_DIR: path.join(dir, 'run'), FAKE_SYSTEMD: path.join(dir, 'manager'),
};
const workspace = path.join(dir, 'workspace');
let manager, port, url;

// The body is read, so that the connection can be closed by who holds it.
async function health() {
    const answer = await fetch(`${url}/health`).catch(() => null);
    await answer?.text();
    return answer?.status;
}

before(async () => {
    for (const folder of [bin, units, state, env.XDG_RUNTIME_DIR]) mkdirSync(folder, { recursive: true });
    for (const name of ['systemctl', 'journalctl']) {
        writeFileSync(path.join(bin, name), `#!/bin/sh\nexec python3 ${fake} ${name} "$@"\n`);
        chmodSync(path.join(bin, name), 0o755);
    }
    mkdirSync(path.join(workspace, 'subminds'), { recursive: true });
    writeFileSync(path.join(workspace, 'AGENTS.md'), `# Agents\n${notes(400, 9)}\n`);
    writeFileSync(path.join(workspace, 'subminds/look.md'), '---\ndescription: Look\n---\n\nlook whether it is there\n');
    cpSync(path.join(source, 'models/submind-demo-Q8_0.gguf'), model);
    manager = spawn('python3', [fake, 'manager'], { env, stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((done) => manager.stdout.once('data', done));
    port = await freePort();
    url = `http://127.0.0.1:${port}`;
});

after(() => {
    spawnSync(binary, ['service', 'uninstall', '--user'], { env });
    manager.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
});

// Never blocks the event loop: the clients of the test go on meanwhile.
function service(...args) {
    return new Promise((done) => {
        const child = spawn(binary, ['service', ...args.map(String), '--user'], { env });
        let out = '', err = '';
        child.stdout.on('data', (text) => { out += text; });
        child.stderr.on('data', (text) => { err += text; });
        child.on('close', (code) => done({ code, out, err }));
    });
}

function systemctl(...words) {
    return spawnSync(path.join(bin, 'systemctl'), ['--user', ...words], { env }).stdout.toString().trim();
}

const records = () => readFileSync(path.join(state, 'submind/services/submind/records.jsonl'), 'utf8').trim().split('\n').map((l) => JSON.parse(l));
const kept = () => readdirSync(path.join(state, 'submind/services/submind')).filter((f) => f.endsWith('.service'));

// Clients that stream one answer after another over kept connections until told to stop.
function streamers(n) {
    const all = { stop: false, answers: 0, chunks: 0, failures: [] };
    const one = async (i) => {
        const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0, timeout: 60_000 });
        while (!all.stop) {
            try {
                const stream = await client.chat.completions.create({
                    model: 'x', stream: true, max_tokens: 40, ignore_eos: true,
                    messages: [{ role: 'system', content: notes(50, i) }, { role: 'user', content: 'Go on.' }],
                });
                const answer = await collect(stream);
                assert.ok(answer.finish, 'a stream ended without a reason');
                all.answers++;
                all.chunks += answer.chunks.length;
            } catch (error) {
                all.failures.push(`${error}: ${error.cause?.cause?.code ?? error.cause}`);
            }
        }
    };
    const done = Promise.all(Array.from({ length: n }, (_, i) => one(i)));
    return { all, end: async () => { all.stop = true; await done; return all; } };
}

test('a dry run prints both units and changes nothing', async () => {
    const run = await service('install', '--model', model, '--port', port, '--dry-run');
    assert.equal(run.code, 0, run.err);
    assert.match(run.out, /ListenStream=127\.0\.0\.1:\d+/);
    assert.match(run.out, /"--model"|--model/);
    assert.deepEqual(readdirSync(units), []);
});

test('install: written, started, completed a prompt', async () => {
    const run = await service('install', '--model', model, '--port', port, '--device', 'cpu', '--threads', 2);
    assert.equal(run.code, 0, run.err);
    assert.equal(systemctl('show', '-P', 'ActiveState', 'submind.service'), 'active');
    assert.equal(systemctl('is-enabled', 'submind.socket'), 'enabled');
    const { data } = await (await fetch(`${url}/v1/models`)).json();
    assert.equal(data.length, 1);
    const status = await service('status', '--json');
    assert.equal(status.code, 0, status.err);
    const parsed = JSON.parse(status.out);
    assert.deepEqual([parsed.state, parsed.healthy, parsed.model, parsed.device], ['active', true, model, 'cpu']);
    assert.match((await service('logs')).out, /ready model=/);
});

test('installed again with other flags: the port is ours, the setup before is kept', async () => {
    const run = await service('install', '--model', model, '--port', port, '--device', 'cpu', '--threads', 2, '--alias', 'again');
    assert.equal(run.code, 0, run.err);
    const { data } = await (await fetch(`${url}/v1/models`)).json();
    assert.equal(data[0].id, 'again');
    assert.equal(kept().length, 1);
});

test('readiness comes after the model, and signs of life follow', async () => {
    const told = () => readFileSync(`${env.FAKE_SYSTEMD}.d/notified`, 'utf8');
    assert.match(told(), /READY=1/);
    await until(() => /WATCHDOG=1/.test(told()), 5000, 'a sign of life');
});

test('a killed server is started again and nobody is refused', async () => {
    const pid = Number(systemctl('show', '-P', 'MainPID', 'submind.service'));
    process.kill(pid, 'SIGKILL');
    // gone for good only when its parent has seen it: what it accepts while it dies is lost
    await until(() => Number(systemctl('show', '-P', 'MainPID', 'submind.service')) !== pid, 10_000, 'the killed server to go');
    const answer = await fetch(`${url}/health`); // waits in the socket's queue until the new one is ready
    assert.equal(answer.status, 200);
    assert.notEqual(Number(systemctl('show', '-P', 'MainPID', 'submind.service')), pid);
});

test('switch: measured, replaced, watched, while clients stream', async () => {
    const load = streamers(3);
    await until(() => load.all.answers > 3, 20_000, 'the clients stream');
    const before = systemctl('show', '-P', 'MainPID', 'submind.service');
    const run = await service('switch', '--to', 'cpu', '--threads', 1, '--force', '--watch', 3,
        '--workspace', workspace, '--runs', 1, '--gen-tokens', 8);
    const during = load.all.answers;
    await sleep(500);
    const all = await load.end();
    assert.equal(run.code, 0, run.err);
    assert.deepEqual(all.failures, []);
    assert.ok(all.answers > during, 'clients were served by the new server');
    assert.notEqual(systemctl('show', '-P', 'MainPID', 'submind.service'), before);
    assert.match(readFileSync(path.join(units, 'submind.service'), 'utf8'), /--threads 1/);
    assert.match(run.out, /cold TTFT/);
    // a second server held the port's other end meanwhile, and is gone
    const calls = readFileSync(`${env.FAKE_SYSTEMD}.d/calls`, 'utf8');
    assert.match(calls, /start submind-bridge\.service[^]*restart submind\.service[^]*stop submind-bridge\.service/);
    assert.ok(!existsSync(path.join(units, 'submind-bridge.service')));
    const record = records().at(-1);
    assert.deepEqual([record.action, record.result], ['switch', 'ok']);
    assert.ok(Object.values(record.measured).every((m) => m.cold_ttft_s.median > 0));
    assert.ok(record.total_s.now > 0 && record.total_s.candidate > 0);
    assert.match(run.out, /the workspace's mix: /); // the user's own bootstrap and tasks were measured
    for (const m of Object.values(record.measured)) assert.ok(m.prompt_tokens.median > 400 && m.prompt_tokens.median < 1200, `${m.prompt_tokens.median}`);
});

test('who comes while a long answer runs is served by the new setup, not behind it', async () => {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 });
    const ask = (max_tokens) => client.chat.completions.create({ model: 'x', stream: true, max_tokens, ignore_eos: true, messages: [{ role: 'user', content: `Go on ${max_tokens}.` }] });
    const waits = [];
    let long = { done: false }, stop = false;
    const short = (async () => {
        while (!stop) {
            const start = performance.now();
            await collect(await ask(2));
            waits.push({ ms: performance.now() - start, during: long.running === true });
            await sleep(20);
        }
    })();
    const switching = service('switch', '--to', 'cpu', '--threads', 2, '--force', '--watch', 0, '--prompt-tokens', 200, '--runs', 1, '--gen-tokens', 4);
    const calls = () => readFileSync(`${env.FAKE_SYSTEMD}.d/calls`, 'utf8').split('start submind-bridge.service').length;
    const before = calls();
    await until(() => calls() > before, 60_000, 'the bridge is started');
    const start = performance.now();
    long.running = true;
    const answer = await collect(await ask(2500)); // by the old server or the bridge: it must end well
    long.running = false;
    const longMs = performance.now() - start;
    const run = await switching;
    stop = true;
    await short;
    assert.equal(run.code, 0, run.err);
    assert.equal(answer.finish, 'length');
    const beside = waits.filter((w) => w.during);
    assert.ok(beside.length > 0, 'others were served meanwhile');
    assert.ok(Math.max(...beside.map((w) => w.ms)) < longMs, `waited ${Math.max(...beside.map((w) => w.ms))} of ${longMs} ms`);
});

test('a setup that is no better changes nothing', async () => {
    const before = readFileSync(path.join(units, 'submind.service'), 'utf8');
    const run = await service('switch', '--to', 'ref', '--ctx', 4096, '--prompt-tokens', 300, '--runs', 1, '--gen-tokens', 4);
    assert.equal(run.code, 0, run.err);
    assert.match(run.out, /nothing was changed/);
    assert.equal(readFileSync(path.join(units, 'submind.service'), 'utf8'), before);
    assert.equal(records().at(-1).result, 'kept the present setup');
});

test('a server that does not start: the old setup serves again, no request fails', async () => {
    const before = readFileSync(path.join(units, 'submind.service'), 'utf8');
    const load = streamers(3);
    await until(() => load.all.answers > 3, 20_000, 'the clients stream');
    const run = await service('switch', '--to', 'nonsense:7', '--no-measure', '--watch', 2);
    await until(async () => await health() === 200, 20_000, 'the old one is back');
    const during = load.all.answers;
    await until(() => load.all.answers > during + 3, 20_000, 'the clients go on');
    const all = await load.end();
    assert.notEqual(run.code, 0);
    assert.match(run.err, /the old setup serves again/);
    assert.deepEqual(all.failures, []);
    assert.equal(readFileSync(path.join(units, 'submind.service'), 'utf8'), before);
    assert.match(records().at(-1).result, /^rolled back/);
});

test('a server that dies while it is watched is taken back', async () => {
    const before = readFileSync(path.join(units, 'submind.service'), 'utf8');
    const old = systemctl('show', '-P', 'MainPID', 'submind.service');
    const switching = service('switch', '--to', 'cpu', '--threads', 2, '--no-measure', '--watch', 30);
    await until(() => !['0', old].includes(systemctl('show', '-P', 'MainPID', 'submind.service')), 20_000, 'the new server');
    await until(async () => systemctl('show', '-P', 'ActiveState', 'submind.service') === 'active', 20_000, 'ready');
    await sleep(1500);
    process.kill(Number(systemctl('show', '-P', 'MainPID', 'submind.service')), 'SIGKILL');
    const run = await switching;
    assert.notEqual(run.code, 0);
    assert.match(run.err, /died and was started again/);
    assert.equal(readFileSync(path.join(units, 'submind.service'), 'utf8'), before);
    assert.equal(await health(), 200);
});

test('rollback goes to the setup before, and back again', async () => {
    const now = readFileSync(path.join(units, 'submind.service'), 'utf8');
    const first = await service('switch', '--to', 'cpu', '--alias', 'other', '--no-measure', '--watch', 0);
    assert.equal(first.code, 0, first.err);
    assert.notEqual(readFileSync(path.join(units, 'submind.service'), 'utf8'), now);
    const back = await service('rollback');
    assert.equal(back.code, 0, back.err);
    assert.equal(readFileSync(path.join(units, 'submind.service'), 'utf8'), now);
    assert.match((await service('history')).out, /"action":"rollback"/);
    assert.ok(kept().length > 0);
    assert.equal((await service('clean')).code, 0);
    assert.deepEqual(kept(), []);
    assert.notEqual((await service('rollback')).code, 0);
});

test('a container: measured, switched to, and out of it again', async (t) => {
    const podman = path.join(bin, 'podman'); // notes its words, then runs what the image would run
    writeFileSync(podman, `#!/bin/sh\necho "$@" >> ${dir}/podman-calls\nwhile [ "$1" != serve ]; do shift; done\nexec ${binary} "$@"\n`);
    chmodSync(podman, 0o755);
    const load = streamers(2);
    t.after(() => { load.all.stop = true; });
    const few = ['--force', '--watch', 1, '--prompt-tokens', 200, '--runs', 1, '--gen-tokens', 4];
    const into = await service('switch', '--to', 'container:localhost/submind:test', ...few);
    assert.equal(into.code, 0, into.err);
    const unit = readFileSync(path.join(units, 'submind.service'), 'utf8');
    assert.ok(unit.includes(`ExecStart=${podman} run --rm --replace --name submind --sdnotify=container`));
    const cached = process.env.SUBMIND_CACHE_DIR !== 'off'; // a volume for pages, where pages are kept
    assert.equal(unit.includes('submind-cache:/root/.cache '), cached);
    assert.doesNotMatch(unit, /ProtectSystem/); // the container is the sandbox
    if (!existsSync('/dev/kfd')) assert.doesNotMatch(unit, /kfd/);
    const calls = readFileSync(`${dir}/podman-calls`, 'utf8').trim().split('\n');
    assert.match(calls[0], /--network=none .*localhost\/submind:test submind serve .*--unix-socket/); // the measurement
    assert.match(calls.at(-1), /--network=host .*localhost\/submind:test submind serve/);
    const out = await service('switch', '--to', 'host', ...few);
    assert.equal(out.code, 0, out.err);
    assert.doesNotMatch(readFileSync(path.join(units, 'submind.service'), 'utf8'), /podman/);
    assert.deepEqual((await load.end()).failures, []);
    assert.equal((await service('clean')).code, 0);
});

test('the gateway block fits this server and its kind of request is answered', async () => {
    const run = await service('gateway', 'openclaw');
    assert.equal(run.code, 0, run.err);
    assert.match(run.out, new RegExp(`baseUrl: "${url}/v1"`));
    assert.match(run.out, /checked: a request shaped like the gateway's was answered/);
    const { data } = await (await fetch(`${url}/v1/models`)).json();
    assert.match(run.out, new RegExp(`contextWindow: ${data[0].max_model_len}`));
    // the block as the gateway's whole configuration: doctor finds nothing wrong with it but a window this small
    const host = path.join(dir, 'host');
    for (const [name, text] of [['submind/uid', '1000'], ['etc/passwd', 'ada:x:1000:1000::/home/ada:/bin/sh'], ['home/ada/.openclaw/openclaw.json', run.out]]) {
        mkdirSync(path.dirname(path.join(host, name)), { recursive: true });
        writeFileSync(path.join(host, name), text);
    }
    const doctor = spawnSync(binary, ['doctor', '--root', host, '--port', String(port), '--json']);
    const checks = JSON.parse(doctor.stdout).checks.filter((c) => c.id.startsWith('gateway') && c.id !== 'gateway-context');
    assert.deepEqual(checks.map((c) => [c.id, c.status]), ['gateway', 'gateway-url', 'gateway-key', 'gateway-timeout'].map((id) => [id, 'ok']));
});

test('a gateway block for any server, and none for one that is not there', async () => {
    const run = await service('gateway', 'openclaw', '--server', url);
    assert.equal(run.code, 0, run.err);
    assert.notEqual((await service('gateway', 'openclaw', '--server', 'http://127.0.0.1:1')).code, 0);
    assert.equal((await service('gateway', 'nonsense')).code, 2);
});

test('an installation that fails leaves nothing behind', async () => {
    const broken = path.join(dir, 'broken.gguf');
    writeFileSync(broken, 'GGUFno');
    const run = await service('install', '--name', 'second', '--model', broken, '--port', await freePort());
    assert.notEqual(run.code, 0);
    assert.match(run.err, /nothing is left installed/);
    assert.ok(!existsSync(path.join(units, 'second.service')) && !existsSync(path.join(units, 'second.socket')));
});

test('a port that somebody else has: said, and nothing is left behind', async () => {
    const other = net.createServer().listen(0, '127.0.0.1');
    await new Promise((done) => other.once('listening', done));
    const run = await service('install', '--name', 'second', '--model', model, '--port', other.address().port);
    other.close();
    assert.notEqual(run.code, 0);
    assert.match(run.err, /somebody listens on port/);
    assert.ok(!existsSync(path.join(units, 'second.service')));
});

test('uninstall', async () => {
    const run = await service('uninstall');
    assert.equal(run.code, 0, run.err);
    await assert.rejects(fetch(`${url}/health`));
    assert.deepEqual(readdirSync(units), []);
    assert.equal((await service('status')).code, 2);
});

test('a private server that nobody asks ends by itself', async () => {
    const start = performance.now();
    const child = spawn(binary, ['serve', '--port', '0', '--idle-exit', '1', '--drain', '60'], { env, stdio: 'ignore' });
    const code = await Promise.race([new Promise((done) => child.on('exit', done)), sleep(15_000)]);
    child.kill('SIGKILL');
    assert.equal(code, 0);
    assert.ok(performance.now() - start < 10_000);
});

test('a server that gets no processor time while it drains cuts no answer off', async () => {
    const server = await startServer('--drain', 60);
    const stream = await server.client().chat.completions.create({
        model: 'x', stream: true, max_tokens: 400, ignore_eos: true, messages: [{ role: 'user', content: 'Go on.' }],
    });
    const answer = collect(stream);
    const stopping = server.stop();
    await server.logged(/draining requests=1/);
    await sleep(30);
    process.kill(server.child.pid, 'SIGSTOP'); // as on a machine where others work
    await sleep(400);
    process.kill(server.child.pid, 'SIGCONT');
    assert.equal((await answer).finish, 'length');
    assert.equal((await stopping).code, 0);
});

// ---- adopt ------------------------------------------------------------------------------------------

test('adopt: a llama-server unit is read, ours takes its port, the old one stays', async () => {
    const llama = path.join(bin, 'llama-server'); // stands for the peer: same flags, same API
    writeFileSync(llama, `#!/bin/sh\nexec ${binary} llama-server "$@"\n`);
    chmodSync(llama, 0o755);
    const text = `[Unit]\nDescription=llama\n[Service]\nType=simple\nNice=5\nEnvironment="ROCBLAS_USE_HIPBLASLT=1" LLAMA_ARG_ALIAS=old-name\n`
        + `ExecStart=${llama} -m "${model}" -c 2048 \\\n    -np 2 --host 127.0.0.1 --port ${port} -ngl 999 -fa 1 --no-mmap --mlock --api-key sk-one\n[Install]\nWantedBy=default.target\n`;
    writeFileSync(path.join(units, 'llama.service'), text);
    systemctl('daemon-reload');
    systemctl('enable', 'llama.service');
    systemctl('start', 'llama.service');
    await until(async () => await health() === 200, 20_000, 'the old server');
    const look = await service('adopt', 'llama.service', '--dry-run');
    assert.equal(look.code, 0, look.err);
    assert.match(look.out, /LOST\s+--mlock/);
    assert.match(look.out, /LOST\s+Nice=5/);
    assert.match(look.out, /LOST\s+Environment=.*ROCBLAS/);
    assert.ok(!existsSync(path.join(units, 'submind.service')));
    const few = ['--prompt-tokens', 200, '--runs', 1, '--gen-tokens', 4, '--watch', 1];
    const run = await service('adopt', 'llama.service', '--now', '--force', ...few); // the same server twice
    assert.equal(run.code, 0, run.err);
    assert.match(run.out, /now \(llama\.service\)[^]*cold TTFT/);
    const unit = readFileSync(path.join(units, 'submind.service'), 'utf8');
    assert.doesNotMatch(unit, /sk-one/); // keys stand in no command line
    const body = JSON.stringify({ messages: [{ role: 'user', content: 'hi' }], max_tokens: 2 });
    const headers = { 'content-type': 'application/json' };
    assert.equal((await fetch(`${url}/v1/chat/completions`, { method: 'POST', headers, body })).status, 401);
    headers.authorization = 'Bearer sk-one';
    assert.equal((await fetch(`${url}/v1/chat/completions`, { method: 'POST', headers, body })).status, 200);
    const { data } = await (await fetch(`${url}/v1/models`, { headers })).json();
    assert.deepEqual([data[0].id, data[0].max_model_len], ['old-name', 2048]);
    assert.equal(systemctl('show', '-P', 'ActiveState', 'llama.service'), 'inactive');
    assert.equal(readFileSync(path.join(units, 'llama.service'), 'utf8'), text);
    assert.ok(Object.values(records().at(-1).measured).every((m) => m.cold_ttft_s.median > 0));
    assert.notEqual((await service('rollback', '--to', 'other.service')).code, 0);
    const back = await service('rollback', '--to', 'llama.service');
    assert.equal(back.code, 0, back.err);
    assert.equal(systemctl('show', '-P', 'ActiveState', 'llama.service'), 'active');
    assert.equal(await health(), 200);
    assert.deepEqual([records().at(-1).action, records().at(-1).from], ['rollback', 'llama.service']);
    const again = await service('adopt', 'llama.service', '--now', '--no-measure', '--watch', 0);
    assert.equal(again.code, 0, again.err);
    assert.equal((await service('uninstall')).code, 0);
});

test('adopt: toolbox and podman units', async () => {
    writeFileSync(path.join(units, 'tb.service'), `[Service]\nExecStart=/usr/bin/toolbox run -c llama-rocm-7.2 -- llama-server -m ${path.join(dir, 'x.gguf')} -c 65536 -ngl 999 -fa 1 --no-mmap --port 8080 -a "Qwen3 32B"\n`);
    writeFileSync(path.join(units, 'pm.service'), `[Service]\nExecStart=/usr/bin/podman run --rm -v /srv/models:/models:ro -p 9090:8080 --device /dev/dri ghcr.io/ggml-org/llama.cpp:server-vulkan -m /models/q.gguf --host 0.0.0.0 --port 8080\n`);
    systemctl('daemon-reload');
    const toolbox = await service('adopt', 'tb.service', '--dry-run');
    assert.equal(toolbox.code, 0, toolbox.err);
    assert.match(toolbox.out, /through toolbox llama-rocm-7\.2/);
    assert.match(toolbox.out, /--alias "Qwen3 32B"/);
    assert.match(toolbox.out, /--ctx 65536/);
    const podman = await service('adopt', 'pm.service', '--dry-run');
    assert.equal(podman.code, 0, podman.err);
    assert.match(podman.out, /--model \/srv\/models\/q\.gguf/);
    assert.match(podman.out, /ListenStream=0\.0\.0\.0:9090/);
    const early = await service('adopt', 'pm.service', '--now', '--no-measure');
    assert.notEqual(early.code, 0);
    assert.match(early.err, /the unit's model \/srv\/models\/q\.gguf: No such file/); // before anything is stopped
    writeFileSync(path.join(units, 'no.service'), '[Service]\nExecStart=/usr/bin/nginx\n');
    const no = await service('adopt', 'no.service', '--dry-run');
    assert.notEqual(no.code, 0);
    assert.match(no.err, /does not run llama-server/);
});

// ---- the real systemd -------------------------------------------------------------------------------

test('systemd-analyze: the units are valid and score under 4.0', (t) => {
    if (spawnSync('systemd-analyze', ['--version']).status !== 0) return t.skip('no systemd-analyze');
    for (const kind of ['--system', '--user']) {
        const run = spawnSync(binary, ['service', 'install', kind, '--model', model, '--dry-run'], { env });
        assert.equal(run.status, 0, run.stderr.toString());
        const [, socket, unit] = run.stdout.toString().split(/^# \/.*$/m);
        const folder = mkdtempSync(path.join(os.tmpdir(), 'units-'));
        writeFileSync(path.join(folder, 'submind.socket'), socket);
        writeFileSync(path.join(folder, 'submind.service'), unit);
        const verify = spawnSync('systemd-analyze', ['verify', path.join(folder, 'submind.service'), path.join(folder, 'submind.socket')]);
        const said = verify.stderr.toString().split('\n').filter((line) => line.includes('submind')).join('\n');
        assert.equal(said, '');
        if (!/^PrivateUsers=|^ProtectSystem=/m.test(unit)) {
            t.diagnostic('not scored: this machine lets no user make name spaces');
        } else {
            const score = spawnSync('systemd-analyze', ['security', '--offline=true', path.join(folder, 'submind.service')]);
            const level = Number(score.stdout.toString().match(/exposure level for \S+: ([\d.]+)/)[1]);
            assert.ok(level < 4.0, `exposure ${level}`);
        }
        rmSync(folder, { recursive: true });
    }
});
