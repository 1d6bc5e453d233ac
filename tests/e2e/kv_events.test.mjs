// Routers learn from the events what is cached: a reader of our own keeps a picture of the cache from the
// wire alone and must end with what the server says it has.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { freePort, notes, requireBinary, sleep, startServer, until } from './harness.mjs';
import { unpack, zmtp } from './zmtp.mjs';

requireBinary();

// What a router knows of each medium: blocks by hash, with their parents and tokens.
class Picture {
    constructor() { this.media = { GPU: new Map(), STORAGE: new Map() }; this.next = null; this.gaps = 0; this.orphans = 0; this.types = {}; this.topics = new Set(); this.kinds = []; }
    get blocks() { return this.media.GPU; }
    get stored() { return this.media.STORAGE; }
    take([topic, number, payload]) {
        const seq = Number(number.readBigUInt64BE());
        if (this.next !== null && seq !== this.next) this.gaps++;
        this.next = seq + 1;
        this.topics.add(topic.toString());
        const [time, events, rank] = unpack(payload, this.kinds);
        assert.ok(time > started - 1 && time < Date.now() / 1000 + 1 && rank === null); // a replay's are old
        for (const e of events) this.apply(e);
    }
    apply(e) {
        this.types[e.type] = (this.types[e.type] ?? 0) + 1;
        if (e.type === 'AllBlocksCleared') return Object.values(this.media).forEach((m) => m.clear());
        const blocks = this.media[e.medium];
        if (e.type === 'BlockRemoved') return e.block_hashes.forEach((h) => blocks.delete(h));
        assert.equal(e.token_ids.length, e.block_hashes.length * e.block_size);
        let parent = e.parent_block_hash;
        e.block_hashes.forEach((h, i) => {
            assert.equal(typeof h, 'bigint');
            assert.ok(h > 0n && h < 1n << 63n);
            if (parent !== null && !blocks.has(parent)) this.orphans++;
            blocks.set(h, { parent, tokens: e.token_ids.slice(i * e.block_size, (i + 1) * e.block_size), extra: e.extra_keys?.[i] ?? null });
            parent = h;
        });
    }
    // How many tokens of a prompt are cached, as a router would find out.
    hit(ids, salt = null, blocks = this.blocks) {
        let parent = null, n = 0;
        for (;;) {
            const found = [...blocks].find(([, b]) => b.parent === parent && b.tokens.every((t, i) => t === ids[n + i])
                && (n > 0 || (salt === null ? b.extra === null : b.extra?.[0] === salt)));
            if (!found) return n;
            parent = found[0];
            n += found[1].tokens.length;
        }
    }
}

const started = Date.now() / 1000;
let server, pub, replay, picture, sub;
before(async () => {
    [pub, replay] = [await freePort(), await freePort()];
    server = await startServer('--ctx', 1024, '--kv-memory', '10M', '--kv-events', `tcp://*:${pub}`, '--kv-events-replay', `tcp://*:${replay}`);
    picture = new Picture();
    sub = zmtp(pub, 'SUB', (frames) => picture.take(frames));
    await sub.opened;
    sub.send(Buffer.concat([Buffer.from([1]), Buffer.from('kv@')]));
    await sleep(100);
});
after(async () => { sub?.close(); await server?.stop(); });

const ask = (task, extra = {}) => ({ messages: [{ role: 'system', content: notes(150, 1) }, { role: 'user', content: task }], temperature: 0, max_tokens: 4, ...extra });
const device = async () => (await server.json('/submind/cache/stats')).device;
async function agrees() {
    let d = null;
    const same = async () => { d = await device(); return picture.blocks.size === d.cached + d.used - d.parts; };
    await until(same, 3000, 'agreement').catch(() => assert.fail(`${picture.blocks.size} blocks told, the server has ${JSON.stringify(d)}`));
}

test('stored blocks arrive, parents first, and say what is cached', async () => {
    for (const task of ['hello', 'the weather', 'the disk'])
        await server.json('/v1/chat/completions', ask(task));
    await agrees();
    assert.equal(picture.orphans, 0);
    assert.equal(picture.gaps, 0);
    const { token_ids } = await server.json('/v1/chat/completions/render', ask('the weather'));
    const e = await server.json('/submind/cache/explain', ask('the weather'));
    assert.ok(picture.hit(token_ids) >= e.hit_tokens && e.hit_tokens > 100, `${picture.hit(token_ids)} ${e.hit_tokens}`);
    assert.ok(picture.kinds.length > 0 && picture.kinds.every((k) => k === 0xcf), 'hashes are written in full');
    const [topic] = picture.topics;
    const [kv, endpoint, model, ...more] = topic.split('@');
    assert.deepEqual([kv, endpoint, model.length > 0, more], ['kv', `127.0.0.1:${server.port}`, true, []]);
});

test('a salt stands with its first block', async () => {
    await server.json('/v1/chat/completions', ask('salted', { cache_salt: 'tenant-a' }));
    await agrees();
    const { token_ids } = await server.json('/v1/chat/completions/render', ask('salted'));
    assert.ok(picture.hit(token_ids, 'tenant-a') > 100);
    const salted = [...picture.blocks.values()].filter((b) => b.extra !== null);
    assert.deepEqual(salted.map((b) => [b.parent, b.extra]), [[null, ['tenant-a']]]);
});

test('removed blocks leave', async () => {
    for (let i = 0; i < 6; i++)
        await server.json('/v1/completions', { prompt: Array.from({ length: 900 }, (_, k) => 200 + (k * 7919 + i * 31) % 3000), max_tokens: 1 });
    await agrees();
    assert.ok(picture.types.BlockRemoved > 0);
    assert.equal(picture.orphans, 0);
    await server.json('/submind/cache/drop', { all: true });
    await agrees();
    assert.equal(picture.blocks.size, 0);
});

async function replayFrom(start, port = replay) {
    const got = new Picture();
    let end = null, first = null;
    const ended = new Promise((resolve) => { end = resolve; });
    const dealer = zmtp(port, 'DEALER', ([empty, topic, number, payload]) => {
        assert.equal(empty.length, 0);
        if (number.readBigUInt64BE() === 0xffffffffffffffffn) return end();
        first ??= Number(number.readBigUInt64BE());
        got.take([topic, number, payload]);
    });
    await dealer.opened;
    const seq = Buffer.alloc(8);
    seq.writeBigUInt64BE(BigInt(start));
    dealer.send(Buffer.alloc(0), seq);
    await Promise.race([ended, sleep(10000).then(() => { throw new Error('the replay does not end'); })]);
    dealer.close();
    return { got, first };
}

test('who comes late asks for a replay', async () => {
    await server.json('/v1/chat/completions', ask('late'));
    await agrees();
    const { got, first } = await replayFrom(0);
    assert.equal(first, 0);
    assert.equal(got.gaps, 0);
    await until(() => picture.next >= got.next, 2000, 'what the replay had'); // it may be ahead of us
    assert.equal(got.next, picture.next);
    assert.deepEqual([...got.blocks.keys()].sort(), [...picture.blocks.keys()].sort());
    assert.equal(got.stored.size, 0, 'there is no disk here');
    assert.equal(got.types.AllBlocksCleared, 1, 'the first batch of a process clears');
    const later = await replayFrom(picture.next - 2);
    assert.equal(later.first, picture.next - 2);
    assert.equal((await replayFrom(picture.next)).first, null, 'nothing is new');
});

// After a restart blocks come back from disk. Those of a salt have no name until somebody uses it.
test('a server that starts again tells what it brings back, also under a salt', async () => {
    const dir = mkdtempSync(path.join(tmpdir(), 'submind-kv-'));
    const salted = (task) => ask(task, { cache_salt: 'tenant-a' });
    const first = await startServer('--ctx', 1024, '--cache-dir', dir);
    for (const request of [ask('hello'), salted('hello')]) await first.json('/v1/chat/completions', request);
    await first.stop();
    const port = await freePort();
    const second = await startServer('--ctx', 1024, '--cache-dir', dir, '--kv-events', `tcp://*:${port}`);
    const seen = new Picture();
    const reader = zmtp(port, 'SUB', (frames) => seen.take(frames));
    try {
        await reader.opened;
        reader.send(Buffer.concat([Buffer.from([1]), Buffer.from('kv@')]));
        await sleep(100);
        const fromDisk = async (request) => {
            const answer = await second.post('/v1/chat/completions', request, { 'X-Submind-Explain': '1' });
            const c = (await answer.json()).submind.cache;
            return c.disk_tokens + c.ram_tokens;
        };
        for (const make of [salted, ask]) assert.ok(await fromDisk(make('the weather')) > 100);
        const { token_ids } = await second.json('/v1/chat/completions/render', ask('the weather'));
        await until(() => seen.hit(token_ids) > 100 && seen.hit(token_ids, 'tenant-a') > 100, 3000, 'both to be told');
        assert.equal(seen.orphans, 0);
    } finally {
        reader.close();
        await second.stop();
        rmSync(dir, { recursive: true });
    }
});

// A router that finds a server again sends it what lies on its disk, before anybody has asked for it.
test('what lies on disk is told at start, as it was before a crash, and taken back when it is dropped', async () => {
    const dir = mkdtempSync(path.join(tmpdir(), 'submind-kv-'));
    const start = async (port) => startServer('--ctx', 1024, '--cache-dir', dir,
        '--kv-events', `tcp://*:${await freePort()}`, '--kv-events-replay', `tcp://*:${port}`);
    const ports = [await freePort(), await freePort()];
    let server = await start(ports[0]);
    const now = async (port) => (await replayFrom(0, port)).got;
    const hashes = (blocks) => [...blocks.keys()].sort();
    try {
        for (const task of ['hello', 'the weather']) await server.json('/v1/chat/completions', ask(task));
        const { token_ids } = await server.json('/v1/chat/completions/render', ask('the weather'));
        let before = null;
        await until(async () => {
            before = await now(ports[0]);
            return before.stored.size > 0 && before.stored.size === before.blocks.size;
        }, 10000, 'all blocks to be told as saved');
        assert.deepEqual(hashes(before.stored), hashes(before.blocks), 'a block has one hash wherever it lies');
        server.child.kill('SIGKILL');
        await server.exited;
        server = await start(ports[1]);
        let after = null;
        await until(async () => (after = await now(ports[1])).stored.size === before.stored.size, 10000, 'the disk to be told');
        assert.equal(after.blocks.size, 0, 'nothing is on the device');
        assert.deepEqual(hashes(after.stored), hashes(before.stored));
        assert.ok(after.hit(token_ids, null, after.stored) > 100);
        assert.deepEqual([after.orphans, after.gaps], [0, 0]);
        await server.json('/submind/cache/drop', { all: true });
        await until(async () => (after = await now(ports[1])).stored.size === 0, 10000, 'the drop to be told');
        assert.ok(after.types.BlockRemoved > 0);
    } finally {
        await server.stop();
        rmSync(dir, { recursive: true });
    }
});
