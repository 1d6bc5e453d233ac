// submind pull against a local server that speaks the hub's API and misbehaves: hangs up, changes files under
// the client's hands, lies about lengths and hashes, knows no ranges, redirects to another host.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { binary, requireBinary, source, startServer, until } from './harness.mjs';

requireBinary();

const dir = mkdtempSync(path.join(os.tmpdir(), 'submind-pull-'));
const models = path.join(dir, 'data/submind/models');
const sha = (bytes) => createHash('sha256').update(bytes).digest('hex');

// Bytes that look like a model, n of them, others for another seed.
function bytes(n, seed) {
    const out = Buffer.alloc(n);
    let x = seed;
    for (let i = 0; i < n; i++) { x = (x * 1103515245 + 12345) & 0x7fffffff; out[i] = x >> 16; }
    out.write('GGUF');
    return out;
}

// The hub: files by path; `bad` says how it misbehaves.
const hub = { files: new Map(), bad: {}, log: [], served: 0 };
let server, cdn, hubUrl;

function sendFile(request, answer, name) {
    const body = hub.files.get(name);
    if (!body) return answer.writeHead(404).end();
    const bad = hub.bad;
    const etag = `"${sha(body).slice(0, 16)}"`;
    const range = request.headers.range?.match(/bytes=(\d+)-(\d+)/);
    hub.log.push({ name, range: request.headers.range, authorization: request.headers.authorization });
    const probe = range && range[2] === '0';
    if (bad.fail?.(hub.log.length)) return answer.writeHead(503).end('busy');
    if (bad.status && !(probe && bad.onlyPieces)) return answer.writeHead(bad.status, bad.headers).end();
    if (bad.limit?.(probe)) return answer.writeHead(429, { 'retry-after': '1' }).end();
    if (!range || bad.noRanges) {
        answer.writeHead(200, { 'content-length': body.length + (bad.lieLength ?? 0), etag });
        if (bad.cutWhole && bad.cutWhole-- > 0) return answer.write(body.subarray(0, body.length / 2), () => answer.destroy());
        return answer.end(body);
    }
    const [from, to] = [Number(range[1]), Math.min(Number(range[2]), body.length - 1)];
    const piece = body.subarray(from, to + 1);
    const total = body.length + (bad.lieTotal ?? 0);
    hub.served += piece.length;
    bad.onPiece?.();
    answer.writeHead(206, { 'content-range': `bytes ${from + (probe ? 0 : bad.shift ?? 0)}-${to}/${total}`, etag, 'content-length': piece.length + (bad.more ?? 0) });
    if (!probe && bad.more) return answer.end(Buffer.concat([piece, Buffer.alloc(bad.more)]));
    if (!probe && bad.drop && Math.random() < bad.drop)
        return answer.write(piece.subarray(0, Math.floor(piece.length * Math.random())), () => answer.destroy());
    if (!probe && bad.changeAfter !== undefined && bad.changeAfter-- === 0) hub.files.set(name, bad.changeTo);
    if (bad.slow && !probe) return setTimeout(() => answer.end(piece), bad.slow);
    answer.end(piece);
}

function route(request, answer) {
    const url = new URL(request.url, 'http://x');
    const tree = url.pathname.match(/^\/api\/models\/(.+?)\/tree\/main$/);
    const file = url.pathname.match(/^\/(.+?\/.+?)\/resolve\/main\/(.+)$/);
    if (hub.bad.token && request.headers.authorization !== `Bearer ${hub.bad.token}`) return answer.writeHead(401).end();
    if (tree) {
        const list = [...hub.files].filter(([name]) => name.startsWith(tree[1] + '/')).map(([name, body]) => ({
            type: 'file', path: name.slice(tree[1].length + 1), size: body.length,
            lfs: { oid: hub.bad.hash ?? sha(body), size: body.length + (hub.bad.lieList ?? 0) },
        }));
        if (list.length === 0) return answer.writeHead(404).end();
        return answer.end(JSON.stringify(list.concat([{ type: 'file', path: 'README.md', size: 10 }])));
    }
    if (!file) return answer.writeHead(404).end();
    const name = decodeURIComponent(`${file[1]}/${file[2]}`);
    if (hub.bad.redirect) return answer.writeHead(302, { location: `http://localhost:${cdn.address().port}/${encodeURIComponent(name)}`, etag: '"of-the-redirect"' }).end();
    sendFile(request, answer, name);
}

before(async () => {
    server = http.createServer(route).listen(0, '127.0.0.1');
    cdn = http.createServer((request, answer) => sendFile(request, answer, decodeURIComponent(request.url.slice(1)))).listen(0);
    await Promise.all([server, cdn].map((s) => new Promise((done) => s.once('listening', done))));
    hubUrl = `http://127.0.0.1:${server.address().port}`;
});
after(() => {
    server.closeAllConnections(); server.close();
    cdn.closeAllConnections(); cdn.close();
    rmSync(dir, { recursive: true, force: true });
});
beforeEach(() => {
    hub.files.clear(); hub.bad = {}; hub.log = []; hub.served = 0;
    rmSync(path.join(dir, 'data'), { recursive: true, force: true });
});

const env = { ...process.env, XDG_DATA_HOME: path.join(dir, 'data'), HOME: dir, HF_TOKEN: '', OLLAMA_MODELS: '' };

function start(args, more = {}) {
    const child = spawn(binary, ['pull', '--hub', hubUrl, '--piece-size', '64K', ...args], { env: { ...env, ...more } });
    let out = '', err = '';
    child.stdout.on('data', (text) => { out += text; });
    child.stderr.on('data', (text) => { err += text; });
    const done = new Promise((resolve) => child.on('close', (code) => resolve({ code, out, err })));
    return { child, done };
}
const pull = (args, more) => start([].concat(args), more).done;

async function pullsTo(name, expected, ...args) {
    const run = await pull(args);
    assert.equal(run.code, 0, run.err);
    const file = run.out.split('\n')[0];
    assert.equal(file, path.join(models, name));
    assert.ok(readFileSync(file).equals(expected), 'the bytes are those of the source');
    assert.ok(!existsSync(file + '.part') && !existsSync(file + '.part.state'));
}

test('a model of the hub by its quantisation, in parallel pieces', async () => {
    const body = bytes(1_000_003, 1);
    hub.files.set('a/m-GGUF/m-Q4_K_M.gguf', body);
    hub.files.set('a/m-GGUF/m-Q8_0.gguf', bytes(2000, 2));
    hub.files.set('a/m-GGUF/mmproj-m-F16.gguf', bytes(2000, 3));
    await pullsTo('hf/a/m-GGUF/m-Q4_K_M.gguf', body, 'hf:a/m-GGUF:q4_k_m');
    assert.ok(new Set(hub.log.map((l) => l.range)).size >= 16, 'it came in ranges');
    hub.log = [];
    await pullsTo('hf/a/m-GGUF/m-Q4_K_M.gguf', body, 'hf:a/m-GGUF'); // Q4_K_M is what one usually means
    assert.equal(hub.log.length, 0, 'nothing is fetched twice');
});

test('what there is to choose from is said', async () => {
    hub.files.set('a/m/m-Q5_K_M.gguf', bytes(3000, 1));
    hub.files.set('a/m/m-Q8_0.gguf', bytes(3000, 2));
    for (const [name, code] of [['hf:a/m:Q4_0', 2], ['hf:a/m', 2], ['hf:a/none:Q4_0', 2], ['hf:a', 2], ['nonsense', 2], ['hf:../x/y', 2]]) {
        const run = await pull(name);
        assert.equal(run.code, code, `${name}: ${run.err}`);
        if (name.startsWith('hf:a/m')) assert.match(run.err, /Q5_K_M.*Q8_0/);
    }
});

test('split files come together, and the first is what is served', async () => {
    const parts = [bytes(200_000, 1), bytes(150_000, 2), bytes(100, 3)];
    parts.forEach((body, i) => hub.files.set(`a/big/Q8_0/big-Q8_0-0000${i + 1}-of-00003.gguf`, body));
    await pullsTo('hf/a/big/Q8_0/big-Q8_0-00001-of-00003.gguf', parts[0], 'hf:a/big:Q8_0');
    for (const i of [1, 2]) assert.ok(readFileSync(path.join(models, `hf/a/big/Q8_0/big-Q8_0-0000${i + 1}-of-00003.gguf`)).equals(parts[i]));
    const list = JSON.parse((await pull(['--list', '--json'])).out).models;
    assert.equal(list.length, 1);
    assert.deepEqual([list[0].name, list[0].bytes, list[0].parts, list[0].complete], ['hf:a/big:Q8_0', 350_100, 3, true]);
    hub.files.delete('a/big/Q8_0/big-Q8_0-00002-of-00003.gguf');
    rmSync(path.join(dir, 'data'), { recursive: true });
    const run = await pull('hf:a/big:Q8_0');
    assert.match(run.err, /2 of the model's 3 parts/);
});

test('connections that break are taken up again', async () => {
    const body = bytes(2_000_000, 7);
    hub.files.set('a/m/m-Q4_0.gguf', body);
    hub.bad = { drop: 0.4, fail: (n) => n % 7 === 0 };
    await pullsTo('hf/a/m/m-Q4_0.gguf', body, 'hf:a/m:Q4_0', '--connections', '4');
});

test('stopped, it goes on where it was', async () => {
    const body = bytes(4_000_000, 8);
    hub.files.set('a/m/m-Q4_0.gguf', body);
    hub.bad = { slow: 60 };
    const first = start(['hf:a/m:Q4_0', '--connections', '2']);
    await until(() => hub.served > 1_500_000, 20_000, 'some of it came');
    first.child.kill('SIGTERM');
    const stopped = await first.done;
    assert.notEqual(stopped.code, 0);
    assert.match(stopped.err, /run it again to go on/);
    const [entry] = JSON.parse((await pull(['--list', '--json'])).out).models;
    assert.ok(entry.done_bytes > 1_000_000 && !entry.complete, JSON.stringify(entry));
    hub.served = 0;
    hub.bad = {};
    await pullsTo('hf/a/m/m-Q4_0.gguf', body, 'hf:a/m:Q4_0');
    assert.ok(hub.served < body.length - 1_000_000, `fetched ${hub.served} again`);
});

test('killed without warning, it still ends with the right bytes', async () => {
    const body = bytes(4_000_000, 9);
    hub.files.set('a/m/m-Q4_0.gguf', body);
    hub.bad = { slow: 40 };
    const first = start(['hf:a/m:Q4_0', '--connections', '3']);
    await until(() => hub.served > 2_000_000, 20_000, 'some of it came');
    first.child.kill('SIGKILL');
    await first.done;
    hub.bad = {};
    await pullsTo('hf/a/m/m-Q4_0.gguf', body, 'hf:a/m:Q4_0');
});

test('a file that changes midway: the new one comes, whole', async () => {
    const old = bytes(1_500_000, 1), fresh = bytes(1_600_000, 2);
    hub.files.set('a/m/m-Q4_0.gguf', old);
    hub.bad = { changeAfter: 6, changeTo: fresh };
    await pullsTo('hf/a/m/m-Q4_0.gguf', fresh, 'hf:a/m:Q4_0');
    // and one that changed between two runs
    rmSync(path.join(dir, 'data'), { recursive: true });
    hub.files.set('a/m/m-Q4_0.gguf', old);
    hub.bad = { slow: 50 };
    const first = start(['hf:a/m:Q4_0', '--connections', '2']);
    hub.served = 0;
    await until(() => hub.served > 500_000, 20_000, 'some of it came');
    first.child.kill('SIGTERM');
    await first.done;
    const same = bytes(old.length, 3); // the same length, other bytes
    hub.files.set('a/m/m-Q4_0.gguf', same);
    hub.bad = {};
    await pullsTo('hf/a/m/m-Q4_0.gguf', same, 'hf:a/m:Q4_0');
});

test('lies are found out, and nothing half stands under the final name', async () => {
    const body = bytes(500_000, 4);
    const lies = {
        'a wrong hash': [{ hash: 'ab'.repeat(32) }, /SHA-256/],
        'a list with another length': [{ lieList: 10 }, /bytes where its source says/],
        'a total that is not true': [{ lieTotal: 1000 }, /bytes where its source says|changed/],
        'another range than asked for': [{ shift: 5 }, /changed while it was fetched/],
        'more bytes than the range': [{ more: 100 }, /changed while it was fetched|run it again/],
        'always busy': [{ fail: () => true }, /run it again|503/],
    };
    for (const [what, [bad, says]] of Object.entries(lies)) {
        hub.files.set('a/m/m-Q4_0.gguf', body);
        hub.bad = bad;
        const run = await pull('hf:a/m:Q4_0');
        assert.notEqual(run.code, 0, what);
        assert.match(run.err, says, what);
        assert.ok(!existsSync(path.join(models, 'hf/a/m/m-Q4_0.gguf')), what);
    }
    hub.bad = {};
    await pullsTo('hf/a/m/m-Q4_0.gguf', body, 'hf:a/m:Q4_0');
});

test('a page that is no model', async () => {
    hub.files.set('a/m/m-Q4_0.gguf', Buffer.from('<html>please log in</html>'));
    const run = await pull('hf:a/m:Q4_0');
    assert.match(run.err, /no GGUF file/);
    assert.ok(!existsSync(path.join(models, 'hf/a/m/m-Q4_0.gguf')));
});

test('a server without ranges', async () => {
    const body = bytes(700_000, 5);
    hub.files.set('a/m/m-Q4_0.gguf', body);
    hub.bad = { noRanges: true, cutWhole: 2 };
    await pullsTo('hf/a/m/m-Q4_0.gguf', body, 'hf:a/m:Q4_0');
});

test('the token goes to the hub and to nobody else', async () => {
    const body = bytes(300_000, 6);
    hub.files.set('a/m/m-Q4_0.gguf', body);
    hub.bad = { token: 'hf_secret', redirect: true };
    const refused = await pull('hf:a/m:Q4_0');
    assert.equal(refused.code, 3);
    assert.match(refused.err, /the name may be wrong.*HF_TOKEN/);
    const token = path.join(dir, 'token');
    writeFileSync(token, 'hf_secret\n');
    const run = await pull(['hf:a/m:Q4_0', '--token-file', token, '--verbose']);
    assert.equal(run.code, 0, run.err);
    assert.doesNotMatch(run.out + run.err, /hf_secret/);
    assert.ok(readFileSync(path.join(models, 'hf/a/m/m-Q4_0.gguf')).equals(body));
    assert.ok(hub.log.length > 0 && hub.log.every((l) => l.authorization === undefined), 'the other host saw no token');
    assert.doesNotMatch(refused.err, /hf_secret/);
});

test('who asks to be left alone for a second is left alone', async () => {
    hub.files.set('o/m/m.gguf', bytes(300_000, 12));
    let left = { probe: 1, piece: 2 };
    const refusedAt = [];
    hub.bad.limit = (probe) => {
        const kind = probe ? 'probe' : 'piece';
        if (left[kind] === 0) return false;
        left[kind]--;
        refusedAt.push(performance.now());
        return true;
    };
    const start = performance.now();
    await pullsTo('hf/o/m/m.gguf', hub.files.get('o/m/m.gguf'), 'hf:o/m', '--connections', 1);
    assert.equal(refusedAt.length, 3);
    for (let i = 1; i < refusedAt.length; i++) assert.ok(refusedAt[i] - refusedAt[i - 1] >= 950, `${refusedAt}`);
    assert.ok(performance.now() - start >= 2900);
});

test('refusals are told apart, and more than the disk holds is not begun', async () => {
    hub.files.set('o/m/m.gguf', bytes(100_000, 13));
    for (const [status, said] of [[401, /token/], [403, /model's terms.*HF_TOKEN/], [404, /is not there/]]) {
        hub.bad = { status };
        const run = await pull('hf:o/m');
        assert.notEqual(run.code, 0);
        assert.match(run.err, said);
    }
    hub.bad = { lieTotal: 2 ** 43 };
    const run = await pull([`${hubUrl}/o/m/resolve/main/m.gguf`, '--piece-size', '16M']);
    assert.notEqual(run.code, 0);
    assert.match(run.err, /the disk has [\d.]+ GB free/);
    assert.doesNotMatch((await pull(['--list'])).out, /o\/m|^m\.gguf/m); // where nothing came, nothing is left
});

// A disk of its own where this machine lets a user make one. The shell goes on after the failure as a user would:
// makes room, calls again.
test('the disk fills up midway: said, nothing half under the final name, and it goes on when there is room', async (t) => {
    if (spawnSync('unshare', ['-rm', 'true']).status !== 0) return t.skip('this machine lets no user have mounts of his own');
    const disk = path.join(dir, 'data');
    mkdirSync(disk, { recursive: true });
    const body = bytes(4_000_000, 21);
    hub.files.set('a/m/m-Q4_0.gguf', body);
    const script = 'mount -t tmpfs -o size=5m none "$XDG_DATA_HOME" || exit 77; "$@"; echo "first $?"; ls -R "$XDG_DATA_HOME"; rm "$XDG_DATA_HOME/fill"; "$@"; echo "second $?"; sha256sum "$XDG_DATA_HOME"/submind/models/hf/a/m/*';
    const child = spawn('unshare', ['-rm', 'sh', '-c', script, 'sh', binary, 'pull', '--hub', hubUrl, '--piece-size', '64K', '--connections', '2', 'hf:a/m:Q4_0'], { env });
    let out = '', err = '';
    child.stdout.on('data', (text) => { out += text; });
    child.stderr.on('data', (text) => { err += text; });
    hub.bad = { slow: 20, onPiece: () => {
        if (hub.served < 1_500_000 || hub.filled) return;
        hub.filled = true;
        try { writeFileSync(`/proc/${child.pid}/root${disk}/fill`, Buffer.alloc(6_000_000)); } catch { /* full: as meant */ }
    } };
    const code = await new Promise((done) => { child.on('error', () => done(77)); child.on('close', done); });
    if (code === 77) return t.skip('this machine lets no user mount');
    const [first, second] = [out.slice(0, out.indexOf('serve it with')), out.split(/^second 0$/m)[1]];
    assert.match(first, /^first [1-9]/m, out + err);
    assert.doesNotMatch(first, /^m-Q4_0.gguf$/m);
    assert.match(err, /No space left on device; what came is kept, make room and run it again/);
    assert.match(second ?? '', new RegExp(`^${sha(body)}`, 'm'), out + err);
    assert.ok(hub.served < 1.8 * body.length, `fetched ${hub.served} in all`);
});

test('a limit on file sizes is an error like any other', async () => {
    hub.files.set('a/m/m-Q4_0.gguf', bytes(1_000_000, 22));
    const run = spawn('sh', ['-c', 'ulimit -f 500; exec "$@"', 'sh', binary, 'pull', '--hub', hubUrl, 'hf:a/m:Q4_0'], { env });
    let err = '';
    run.stderr.on('data', (text) => { err += text; });
    const code = await new Promise((done) => run.on('close', done));
    assert.ok(code > 0, `ended with ${code}, by a signal if null`);
    assert.match(err, /File too large/);
});

test('an address', async () => {
    const body = bytes(400_000, 11);
    hub.files.set('x/y/z.gguf', body);
    const url = `${hubUrl}/x/y/resolve/main/z.gguf?download=true`;
    await pullsTo(`url/127.0.0.1_${server.address().port}/z.gguf`, body, url);
    assert.equal((await pull(`${hubUrl}/index.html`)).code, 2);
});

test('two at once on one file: the second is told', async () => {
    hub.files.set('a/m/m-Q4_0.gguf', bytes(1_000_000, 12));
    hub.bad = { slow: 100 };
    const first = start(['hf:a/m:Q4_0', '--connections', '1']);
    await until(() => hub.served > 100_000, 20_000, 'the first runs');
    const second = await pull('hf:a/m:Q4_0');
    assert.match(second.err, /another process is fetching/);
    first.child.kill('SIGTERM');
    await first.done;
});

test('a blob of Ollama is linked, not copied; serve finds what was pulled by name', async () => {
    const demo = path.join(source, 'models/submind-demo-Q8_0.gguf');
    const ollama = path.join(dir, 'ollama');
    const digest = 'ab'.repeat(32);
    mkdirSync(path.join(ollama, 'manifests/registry.ollama.ai/library/demo'), { recursive: true });
    mkdirSync(path.join(ollama, 'blobs'), { recursive: true });
    symlinkSync(demo, path.join(ollama, 'blobs', `sha256-${digest}`));
    writeFileSync(path.join(ollama, 'manifests/registry.ollama.ai/library/demo/8b'), JSON.stringify({
        layers: [{ mediaType: 'application/vnd.ollama.image.license', digest: 'sha256:00' },
            { mediaType: 'application/vnd.ollama.image.model', digest: `sha256:${digest}` }],
    }));
    const run = await pull('ollama:demo:8b', { OLLAMA_MODELS: ollama });
    assert.equal(run.code, 0, run.err);
    assert.equal(statSync(run.out.split('\n')[0]).size, statSync(demo).size);
    assert.equal((await pull('ollama:demo:70b', { OLLAMA_MODELS: ollama })).code, 2);

    process.env.XDG_DATA_HOME = env.XDG_DATA_HOME;
    const served = await startServer('--model', 'ollama:demo:8b');
    assert.equal((await served.fetch('/health')).status, 200);
    await served.stop();
    // one that is not whole is no candidate beside one that is
    const half = path.join(env.XDG_DATA_HOME, 'submind/models/ollama/demo/half-8b.gguf.part');
    writeFileSync(half, '');
    assert.equal(spawnSync(binary, ['inspect', 'model', '--model', '8b'], { env }).status, 0);
    rmSync(half);
    const unknown = spawnSync(binary, ['serve', '--port', '0', '--model', 'no-such-model'], { env });
    assert.equal(unknown.status, 2);
    assert.match(unknown.stderr.toString(), /submind pull/);
});
