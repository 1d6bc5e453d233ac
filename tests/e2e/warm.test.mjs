// A server that knows its workspace has computed its bootstrap before the first run comes.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { binary, notes, requireBinary, startServer } from './harness.mjs';

requireBinary();
let dir;
before(() => {
    dir = mkdtempSync(path.join(tmpdir(), 'submind-warm-'));
    writeFileSync(path.join(dir, 'AGENTS.md'), notes(600, 3));
    writeFileSync(path.join(dir, 'submind.yaml'), 'exec:\n  allow:\n    - echo *\nsandbox: auto\nthinking: off\n');
});
after(() => rmSync(dir, { recursive: true }));

test('the first run of a warmed workspace finds its whole bootstrap', async (t) => {
    const server = await startServer('--ctx', 4096, '--workspace', dir);
    const [, tokens, pinned] = await server.logged(/warm: workspace=.* tokens=(\d+) computed=\d+ pinned=(\d+)/, 20000);
    assert.ok(Number(pinned) > 600 && Number(tokens) - Number(pinned) < 64, `${pinned} of ${tokens}`);
    const run = spawnSync(binary, ['run', '--workspace', dir, '--server', server.url, '--json', 'repeat after me: done'], { encoding: 'utf8', env: { ...process.env, SUBMIND_STATE_DIR: 'off' } });
    await server.logged(/chat\/completions status=200 prompt=(\d+) cached=(\d+)/, 20000);
    const [, prompt, cached] = server.log.match(/chat\/completions status=200 prompt=(\d+) cached=(\d+)/);
    t.diagnostic(`warm ${pinned}, the run's first prompt ${prompt}, cached ${cached}; exit ${run.status} ${run.stderr}`);
    assert.ok(Number(cached) >= Number(pinned), `${cached} of ${pinned}`);
    const ls = spawnSync(binary, ['cache', 'ls', '--server', server.url], { encoding: 'utf8' });
    assert.match(ls.stdout, /pinned .*submind-warm/);
    await server.stop();
});

test('with a key and for all salts', async () => {
    const keys = path.join(dir, 'keys');
    writeFileSync(keys, 'secret-key\n');
    const server = await startServer('--ctx', 4096, '--workspace', dir, '--public', '--api-key-file', keys);
    await server.logged(/warm: workspace=.* pinned=\d+/, 20000);
    const answer = await server.fetch('/submind/cache', { headers: { authorization: 'Bearer secret-key' } });
    const { trunks } = await answer.json();
    assert.ok(trunks.some((x) => x.public && x.pinned));
    assert.equal((await server.fetch('/submind/cache')).status, 401);
    await server.stop();
});

test('a folder that is not there is refused, one without sense is a warning', async () => {
    const gone = spawnSync(binary, ['serve', '--port', '0', '--workspace', '/nowhere'], { encoding: 'utf8' });
    assert.equal(gone.status, 2);
    assert.match(gone.stderr, /--workspace: cannot read/);
    const odd = mkdtempSync(path.join(tmpdir(), 'submind-odd-'));
    writeFileSync(path.join(odd, 'submind.yaml'), 'nonsense: [');
    const server = await startServer('--workspace', odd);
    await server.logged(/WARN warm: workspace=.* is not warm: /, 20000);
    assert.equal((await server.fetch('/health')).status, 200);
    await server.stop();
    rmSync(odd, { recursive: true });
});
