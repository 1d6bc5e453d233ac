// The cache explains itself: what a response carries, what /submind/cache shows, and that pins, salts
// and public trunks do what they say.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { binary, events, notes, requireBinary, sleep, startServer, tool } from './harness.mjs';

requireBinary();
let server, page;
before(async () => {
    server = await startServer('--ctx', 2048, '--kv-memory', '15M');
    page = (await server.json('/props')).page_tokens;
});
after(async () => { await server?.stop(); });

const user = (content) => ({ role: 'user', content });
const ask = (system, task, extra = {}) => ({
    model: 'm', temperature: 0, max_tokens: 4, chat_template_kwargs: { enable_thinking: false },
    messages: [{ role: 'system', content: system }, user(task)], ...extra,
});
async function chat(request) {
    const answer = await server.post('/v1/chat/completions', request, { 'X-Submind-Explain': '1' });
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
    return answer.json();
}
const cacheOf = async (request) => (await chat(request)).submind.cache;
const explain = (request) => server.json('/submind/cache/explain', request);
const list = async (query = '') => (await server.json(`/submind/cache${query}`)).trunks;
const drop = () => server.json('/submind/cache/drop', { all: true });
// Tokens that two prompts share from the start.
async function shared(a, b) {
    const render = async (r) => (await server.json('/v1/chat/completions/render', r)).token_ids;
    const [x, y] = [await render(a), await render(b)];
    let n = 0;
    while (n < x.length && x[n] === y[n]) n++;
    return { n, total: y.length };
}

// Of n tokens that are the same: whole pages, and the beginning of one where it is a quarter and more.
const hit = (n) => n % page < page / 4 ? n - n % page : n;

test('a response tells what the cache did, streamed or not', async () => {
    const bootstrap = notes(400, 1);
    const first = ask(bootstrap, 'hello'), second = ask(bootstrap, 'the weather');
    const cold = await chat(first);
    assert.equal(cold.submind.cache.hit_tokens, 0);
    assert.equal(cold.submind.cache.recomputed_tokens, cold.usage.prompt_tokens);
    assert.equal(cold.submind.cache.reason, 'cold');
    const { n, total } = await shared(first, second);
    const answer = await server.post('/v1/chat/completions', { ...second, stream: true }, { 'X-Submind-Explain': '1' });
    const last = (await events(answer)).at(-2).data;
    const c = last.submind.cache;
    assert.equal(c.hit_tokens, hit(n));
    assert.deepEqual([c.device_tokens, c.ram_tokens, c.disk_tokens], [c.hit_tokens, 0, 0]);
    assert.equal(c.recomputed_tokens, total - c.hit_tokens);
    assert.equal((await chat(second)).submind.cache.hit_tokens, hit(total - 1));
    await server.logged(/cached=\d+ .*cache="\w+" diverged_at=\d+/, 2000);
});

test('without the header nothing is added', async () => {
    const answer = await server.json('/v1/chat/completions', ask('a', 'b'));
    assert.equal(answer.submind, undefined);
});

test('explain names the culprit, its place and its price', async () => {
    await drop();
    const tail = notes(500, 2);
    const at = (time) => ask(`You are an agent.\n${notes(200, 4)}\nNow: ${time}\n${tail}`, 'hello');
    const first = at('2026-11-24T10:15:00Z'), second = at('2026-11-24T11:15:07Z');
    const cold = await explain(first);
    assert.equal(cold.reason, 'cold');
    assert.equal(cold.recompute_tokens, cold.prompt_tokens);
    await chat(first);
    const e = await explain(second);
    const { n, total } = await shared(first, second);
    assert.equal(e.reason, 'differs');
    assert.equal(e.diverged_at, n);
    assert.equal(e.hit_tokens, hit(n));
    assert.equal(e.recompute_tokens, total - e.hit_tokens);
    assert.ok(e.recompute_seconds > 0 && e.prefill_tokens_per_second > 0);
    assert.match(e.place.words, /messages\[0\] \(system\)/);
    assert.equal(e.culprit.kind, 'a date with a time');
    assert.equal(e.culprit.ours, '2026-11-24T11:15:07Z');
    assert.equal(e.culprit.theirs, '2026-11-24T10:15:00Z');
    assert.ok(e.text.ours !== e.text.theirs && e.text.before.length > 10);
    const tailTokens = (await server.tokens(tail)).length;
    assert.ok(e.culprit.saves_tokens >= tailTokens - 2 * page, `${e.culprit.saves_tokens} of ${tailTokens}`);
    assert.match(e.advice, /move it to the end.*saves [\d,]+ tokens = [\d.]+ s/);
    assert.equal((await explain(first)).reason, 'whole');
    assert.match((await explain(ask(first.messages[0].content, 'bye'))).advice, /^nothing/);
});

test('explain names all that changes by itself', async () => {
    await drop();
    const tail = notes(500, 2);
    const at = (day, run, id) => ask(`${notes(100, 4)}\nToday is ${day}\n${notes(60, 5)}\nRun ${run} of it\nsession ${id}\n${tail}`, 'hello');
    await chat(at('2026-11-24', 41, '3f2b8c1e-9d4a-4e6f-8a1b-2c3d4e5f6a7b'));
    const e = await explain(at('2026-11-25', 42, 'a02b8c1e-9d4a-4e6f-8a1b-2c3d4e5f6a7c'));
    assert.equal(e.culprit.kind, 'a date');
    assert.deepEqual(e.more.map((m) => [m.kind, m.ours]), [['a number', '42'], ['a UUID', 'a02b8c1e-9d4a-4e6f-8a1b-2c3d4e5f6a7c']]);
    assert.ok(e.more[1].token > e.more[0].token && e.more[0].token > e.diverged_at);
    const tokens = (await server.tokens(notes(60, 5) + tail)).length;
    assert.ok(Math.abs(e.culprit.saves_tokens - tokens) < 2 * page, `${e.culprit.saves_tokens} of ${tokens}`);
    assert.match(e.advice, /^a date at token .*, a number at token .* and a UUID at token .*: move them to the end/);
});

test('explain shows whole characters', async () => {
    await drop();
    const at = (c) => ask(`${notes(200, 4)}\nfine ${c} it is\n${notes(200, 5)}`, 'hello');
    for (const [a, b] of [['\u00fc', '\u00f6'], ['\u{1f600}', '\u{1f601}']]) {
        await chat(at(a));
        const e = await explain(at(b));
        assert.ok(e.text.ours.startsWith(b) && e.text.theirs.startsWith(a), JSON.stringify(e.text));
        assert.deepEqual([e.culprit.kind, e.culprit.ours, e.culprit.theirs], ['text', b, a]);
        assert.ok(e.culprit.saves_tokens >= 200, `${e.culprit.saves_tokens}`);
        assert.doesNotMatch(JSON.stringify(e), /\ufffd/);
    }
});

test('explain finds a rewritten tool call in the history', async () => {
    await drop();
    const request = (args, reply) => ({ ...ask(notes(100, 4), 'is it up?', { tools: [tool('status', 'name')] }),
        messages: [...ask(notes(100, 4), 'is it up?').messages,
            { role: 'assistant', content: null, tool_calls: [{ id: 'c1', type: 'function', function: { name: 'status', arguments: args } }] },
            { role: 'tool', tool_call_id: 'c1', content: reply }, user(notes(60, 6))] });
    await chat(request('{"name":"a service","deep":true}', 'active since this morning'));
    const e = await explain(request('{"deep": true, "name": "a service"}', 'active since this morning'));
    assert.equal(e.place.words, 'tool_calls[0] (status) of messages[2]');
    assert.equal(e.culprit.kind, 'the same JSON written differently');
    assert.match(e.advice, /send earlier messages again as they were; saves/);
    const e2 = await explain(request('{"name":"a service","deep":true}', 'active since this noon'));
    assert.equal(e2.place.words, 'line 1 of messages[3] (tool)');
    assert.equal(e2.culprit.ours, 'noon');
});

test('explain sees tools that changed places', async () => {
    await drop();
    const tools = ['alpha', 'bravo', 'charlie', 'delta', 'echo', 'foxtrot'].map((name) =>
        tool(name, 'path', `The tool ${name}: ${notes(20, name.length + name.charCodeAt(0))}`));
    const request = (list) => ask('You are an agent.', 'hello', { tools: list });
    await chat(request(tools));
    const swapped = [tools[0], tools[1], tools[4], tools[3], tools[2], tools[5]];
    const e = await explain(request(swapped));
    assert.equal(e.culprit.kind, 'lines in another order');
    assert.equal(e.place.what, 'tool');
    assert.equal(e.place.index, 2);
    assert.equal(e.place.name, 'echo');
    assert.ok(e.culprit.saves_tokens > 3 * page, `${e.culprit.saves_tokens}`);
    const fewer = await explain(request(tools.toSpliced(1, 1)));
    assert.equal(fewer.culprit.kind, 'lines that are missing here');
    assert.match(fewer.culprit.theirs, /"name": "bravo"/);
    const keys = structuredClone(tools);
    keys[3].function = { name: 'delta', parameters: keys[3].function.parameters, description: keys[3].function.description };
    const e3 = await explain(request(keys));
    assert.equal(e3.culprit.kind, 'JSON keys in another order');
    assert.equal(e3.place.name, 'delta');
    const example = (n) => ask(`Call {"name": "alpha"} ${n} times at most.`, 'hello', { tools });
    await chat(example(3));
    assert.equal((await explain(example(4))).place.words, 'line 1 of messages[0] (system)', 'not the tool of that name');
    const all = tools.map(({ type, function: f }) => ({ function: { parameters: f.parameters, description: f.description, name: f.name }, type }));
    const e4 = await explain(request(all));
    assert.equal(e4.culprit.kind, 'JSON keys in another order');
    assert.ok(e4.culprit.saves_tokens > 5 * page, `${e4.culprit.saves_tokens}: also the tools behind it`);
});

test('explain shows both sides where they part at the first token of a page', async () => {
    await drop();
    const ids = await server.tokens(notes(300, 6));
    const first = ids.slice(0, 4 * page + 40), second = [...first];
    second[4 * page] = first[4 * page] + 1;
    await server.json('/v1/completions', { prompt: first, max_tokens: 1 });
    const e = await explain({ prompt: second });
    assert.deepEqual([e.hit_tokens, e.diverged_at, e.reason], [4 * page, 4 * page, 'differs']);
    assert.notEqual(e.text.theirs, null);
    assert.notEqual(e.culprit, undefined);
});

test('explain says of a text that ends inside a page that it ends', async () => {
    const prompt = Array.from({ length: 4 * page }, (_, i) => 300 + i);
    const n = 2 * page + page / 2;
    await server.json('/submind/cache/warm', { prompt: prompt.slice(0, n) });
    const e = await explain({ prompt });
    assert.deepEqual([e.reason, e.hit_tokens], ['ends', n]);
    assert.equal(e.culprit, undefined, 'nothing differs, so nobody is to blame');
    assert.match(e.advice, /what is cached ends here/);
});

test('explain knows two conversations from a mistake', async () => {
    await drop();
    const turn = { ...ask(notes(100, 8), 'is it up?'), max_tokens: 16 };
    const { message } = (await chat(turn)).choices[0];
    turn.messages.push(message, user('and now?'));
    await chat(turn);
    const e = await explain({ ...turn, messages: [...turn.messages.slice(0, -1), { role: 'assistant', content: 'Yes, it is.' }, user('good')] });
    assert.equal(e.culprit.kind, 'another message');
    assert.match(e.advice, /nothing to change/);
    const bare = await explain({ messages: [user('hello')] });
    assert.equal(bare.culprit.kind, 'another message');
    assert.match(bare.advice, /begin with the same messages/);
});

test('ls shows trunks as a tree, their words only when asked', async () => {
    await drop();
    assert.deepEqual(await list(), []);
    const bootstrap = notes(300, 7);
    await chat(ask(bootstrap, `repeat: ${notes(60, 1)}`));
    await chat(ask(bootstrap, `check: ${notes(60, 2)}`));
    const trunks = await list();
    assert.equal(trunks.length, 3);
    const [root, a, b] = trunks;
    assert.deepEqual([root.parent, a.parent, b.parent], [null, 0, 0]);
    assert.equal(root.tokens_below, a.tokens + b.tokens);
    assert.equal(a.tokens_before, root.tokens);
    assert.equal(root.hits, 1);
    assert.ok(trunks.every((t) => t.text === undefined && t.tier === 'device' && !t.pinned && t.bytes > 0));
    const [shown] = await list('?show_text=1');
    assert.match(shown.text, /background agent/);
    const before = (await server.json('/submind/cache/stats')).device;
    const pages = (t) => Math.ceil(t.tokens / page); // the last of a text is not full
    assert.equal(pages(root) + pages(a) + pages(b), before.cached);
    assert.equal((await server.json('/submind/cache/drop', { id: a.id })).dropped_tokens, a.tokens);
    assert.equal((await list()).length, 1, 'one branch left: one run');
});

test('a pinned trunk stays under pressure, an unpinned one goes', async () => {
    await drop();
    const bootstrap = notes(300, 11);
    const warm = await server.json('/submind/cache/warm', { ...ask(bootstrap, 'anything'), pin: true, name: 'home' });
    const rest = warm.tokens % page; // a page that is not full is kept from a quarter on
    assert.equal(warm.pinned_tokens, rest < page / 4 ? warm.tokens - rest : warm.tokens);
    assert.ok(warm.pinned_tokens > 300 && warm.pinned_tokens <= warm.tokens);
    const flood = async (seed) => {
        for (let i = 0; i < 5; i++)
            await server.json('/v1/completions', { prompt: Array.from({ length: 1500 }, (_, k) => 200 + (k * 7919 + i * 31 + seed) % 3000), max_tokens: 1 });
    };
    await flood(1);
    const held = await explain(ask(bootstrap, 'hello'));
    assert.ok(held.hit_tokens >= warm.pinned_tokens, `${held.hit_tokens}`);
    const pinned = (await list()).find((t) => t.name === 'home');
    assert.ok(pinned.pinned && pinned.id === warm.id);
    const kept = await server.post('/submind/cache/drop', { id: warm.id });
    assert.equal(kept.status, 400);
    assert.match((await kept.json()).error.message, /pinned \(submind cache unpin\)/);
    assert.equal((await server.json('/submind/cache/unpin', { id: warm.id })).unpinned_tokens, warm.pinned_tokens);
    await flood(2);
    const gone = await explain(ask(bootstrap, 'hello'));
    assert.equal(gone.hit_tokens, 0);
    assert.equal(gone.reason, 'evicted');
    assert.match(gone.advice, /pin it/);
    const metrics = await server.metrics();
    assert.ok(metrics['submind:evictions_total'] > 0);
    assert.equal(metrics['submind:cache_evictions_total'], metrics['submind:evictions_total']);
    assert.equal(metrics['submind:cache_hit_tokens_total'], metrics['submind:cached_tokens_total']);
    assert.equal(metrics['submind:cache_miss_tokens_total'] + metrics['submind:cached_tokens_total'], metrics['vllm:prompt_tokens_total']);
    const { used, cached, page_bytes } = (await server.json('/submind/cache/stats')).device;
    assert.equal(metrics['submind:cache_bytes'], (used + cached) * page_bytes);
});

test('a pin that would leave no room for a request is refused', async () => {
    await drop();
    const stats = (await server.json('/submind/cache/stats')).device;
    let refused = null;
    for (let i = 0; i < 20 && !refused; i++) {
        const answer = await server.post('/submind/cache/warm', { prompt: Array.from({ length: 1000 }, (_, k) => 100 + (k * 13 + i * 17) % 3000), pin: true });
        if (!answer.ok) refused = await answer.json();
    }
    assert.match(refused.error.message, /raise --kv-memory, or unpin/);
    const after = (await server.json('/submind/cache/stats')).device;
    assert.ok(after.pinned > stats.pinned && after.pinned * page + 2048 <= after.pages * page);
    await chat(ask(notes(1200, 3), 'fits'));
    for (const t of await list()) if (t.pinned) await server.post('/submind/cache/unpin', { id: t.id });
    assert.equal((await server.json('/submind/cache/stats')).device.pinned, 0);
});

test('a public trunk is found under every salt, what follows is private', async () => {
    await drop();
    const bootstrap = notes(300, 21);
    const task = (words, salt) => ask(bootstrap, `${words} ${notes(100, 5)}`, salt ? { cache_salt: salt } : {});
    await chat(task('check', 'a'));
    assert.equal((await cacheOf(task('check', 'b'))).hit_tokens, 0, 'salts separate');
    await drop();
    const warm = await server.json('/submind/cache/warm', { ...ask(bootstrap, 'x'), public: true, name: 'everybody' });
    const a1 = await cacheOf(task('check', 'a'));
    assert.equal(a1.hit_tokens, warm.pinned_tokens);
    const a2 = await cacheOf(task('check', 'a'));
    assert.ok(a2.hit_tokens > warm.pinned_tokens, 'its own pages');
    assert.equal((await cacheOf(task('check', 'b'))).hit_tokens, warm.pinned_tokens, 'not those of a');
    const plain = (await cacheOf(task('check', ''))).hit_tokens; // what warmed it had no salt either: the next page's beginning
    assert.ok(plain >= warm.pinned_tokens && plain < warm.pinned_tokens + page, 'not without a salt either');
    const e = await explain(task('other', 'a'));
    assert.equal(e.public_tokens, warm.pinned_tokens);
    const trunks = await list();
    assert.ok(trunks.some((t) => t.public && t.salt === null) && trunks.some((t) => t.salt !== null && !t.public));
    await server.json('/submind/cache/unpin', { id: warm.id });
    assert.equal((await cacheOf(task('new', 'c'))).hit_tokens, 0, 'no longer public');
});

test('hints are checked, and ttl 0 goes first', async () => {
    await drop();
    for (const [field, value] of [['cache_ttl', -1], ['cache_ttl', 'x'], ['cache_priority', 101]]) {
        const answer = await server.post('/v1/chat/completions', ask('a', 'b', { [field]: value }));
        assert.equal(answer.status, 400);
        assert.match((await answer.json()).error.message, new RegExp(field));
    }
    const keep = ask(notes(300, 31), 'keep'), once = ask(notes(300, 32), 'once', { cache_ttl: 0 });
    await chat(keep);
    await chat(once);
    const stats = (await server.json('/submind/cache/stats')).device;
    const free = stats.pages - stats.cached - stats.used;
    for (let left = (free + 4) * page, i = 0; left > 0; left -= 1500, i++)
        await server.json('/v1/completions', { prompt: Array.from({ length: Math.max(page, Math.min(1500, left)) }, (_, k) => 300 + (k * 11 + i * 37) % 2000), max_tokens: 1 });
    assert.ok((await explain(keep)).reason === 'whole', 'older, but wanted');
    assert.ok((await explain(once)).hit_tokens < (await explain(keep)).hit_tokens);
});

test('errors say what to do', async () => {
    for (const [path, body, status, words] of [
        ['/submind/cache/pin', { id: 'zz' }, 400, /submind cache ls/],
        ['/submind/cache/pin', { id: 'abcdef' }, 404, /no trunk/],
        ['/submind/cache/unpin', {}, 400, /id/],
        ['/submind/cache/explain', {}, 400, /messages/],
        ['/submind/cache/warm', { ...ask('a', 'b'), pin: 'yes' }, 400, /"pin" must be true or false/],
        ['/submind/cache/warm', { ...ask('a', 'b', { cache_salt: 's' }), pin: true }, 400, /cache_salt/],
        ['/submind/cache/warm', { prompt: 'one two', pin: true }, 400, /fills no page/],
        ['/submind/cache/drop', { id: 'abcdef' }, 404, /no trunk has the id/],
        ['/v1/chat/completions/render', {}, 400, /messages/],
    ]) {
        const answer = await server.post(path, body);
        assert.equal(answer.status, status, path);
        assert.match((await answer.json()).error.message, words);
    }
});

test('render gives the tokens that a request runs on', async () => {
    const request = ask('You are.', 'hello');
    const { token_ids } = await server.json('/v1/chat/completions/render', request);
    const { prompt } = await server.json('/apply-template', request);
    assert.deepEqual(token_ids, await server.tokens(prompt));
    assert.equal((await server.json('/v1/chat/completions', request)).usage.prompt_tokens, token_ids.length);
    assert.deepEqual(await server.json('/v1/completions/render', { prompt: 'one two' }), [{ token_ids: await server.tokens('one two') }]);
});

// ---- the command --------------------------------------------------------------------------------

function command(args, input) {
    const r = spawnSync(binary, ['cache', ...args.map(String), '--server', server.url], { input, encoding: 'utf8' });
    return { code: r.status, out: r.stdout, err: r.stderr };
}

test('the command warms, lists, explains, pins and drops', async () => {
    await drop();
    const dir = mkdtempSync(path.join(tmpdir(), 'submind-cache-'));
    const file = path.join(dir, 'request.json');
    const bootstrap = notes(300, 41);
    writeFileSync(file, JSON.stringify(ask(`Date: 2026-11-24\n${bootstrap}`, 'hello', { stream: true })));
    const warm = command(['warm', file, '--pin', '--name', 'home']);
    assert.equal(warm.code, 0, warm.err);
    assert.match(warm.out, /tokens, 0 were cached, \d+ computed[\s\S]*pinned as [0-9a-f]{16}/);
    const ls = command(['ls', '--show-text']);
    assert.match(ls.out, /pinned home {2}".*Date: 2026-11-24/);
    const id = ls.out.match(/^[0-9a-f]{16}/m)[0];
    assert.match(command(['ls']).out, /1 trunk, [\d,]+ tokens/); // all of it is pinned, also the page that is not full
    assert.doesNotMatch(command(['ls']).out, /Date/);
    writeFileSync(file, JSON.stringify(ask(`Date: 2026-11-25\n${bootstrap}`, 'hello')));
    const why = command(['explain', file]);
    assert.equal(why.code, 0, why.err);
    assert.match(why.out, /state {6}differs/);
    assert.match(why.out, /at {9}token [\d,]+, line 1 of messages\[0\] \(system\)/);
    assert.match(why.out, /what {7}a date: "2026-11-25" here, "2026-11-24" in the cache/);
    assert.match(why.out, /do .*move it to the end.*saves [\d,]+ tokens = [\d.]+ s a run/);
    await chat(ask(`\u001b[2Jclear\u009b2Jit ${bootstrap}`, 'hello'));
    const tame = command(['ls', '--show-text']).out;
    assert.match(tame, /\\x1b\[2Jclear\\x9b2Jit/);
    assert.doesNotMatch(tame, /[\u001b\u0080-\u009f]/);
    const json = JSON.parse(command(['explain', '-', '--json'], JSON.stringify(ask('x', 'y'))).out);
    assert.equal(json.hit_tokens, 0);
    assert.equal(command(['unpin', id]).code, 0);
    assert.match(command(['drop', id]).out, /dropped_tokens +\d+/);
    assert.match(command(['stats']).out, /hit rate[\s\S]*hit_tokens.device[\s\S]*evictions.dropped/);
    rmSync(dir, { recursive: true });
});

test('a workspace is warmed by its folder', async () => {
    await drop();
    const dir = mkdtempSync(path.join(tmpdir(), 'submind-workspace-'));
    writeFileSync(path.join(dir, 'AGENTS.md'), notes(200, 51));
    const first = command(['warm', dir, '--pin']);
    assert.equal(first.code, 0, first.err);
    assert.match(command(['warm', dir]).out, /tokens, (?!0 were)\d+ were cached/);
    const [t] = await list('?show_text=1');
    assert.ok(t.pinned && t.name.startsWith('/') && t.text.includes('system'));
    await server.json('/submind/cache/unpin', { id: t.id });
    rmSync(dir, { recursive: true });
});

test('the command says what is wrong', () => {
    for (const [args, words, code, input] of [
        [[], /say what: ls, explain/, 2],
        [['dance'], /there is no "dance"/, 2],
        [['ls', 'x'], /takes no argument/, 2],
        [['explain'], /a file with a request/, 2],
        [['explain', '/nowhere.json'], /no \/nowhere\.json; name a file/, 2],
        [['explain', '-'], /standard input is not JSON: .*line 1/, 2, 'hello'],
        [['explain', '-'], /holds no request: it must be a JSON object/, 2, '[1]'],
        [['warm', path.join(import.meta.dirname, 'node_modules')], /no workspace: it has no AGENTS\.md/, 2],
        [['pin', 'zz'], /trunk's id/, 2],
        [['drop'], /id is needed/, 2],
        [['drop', '12', '--all'], /not both/, 2],
        [['unpin', '--all'], /--all is for drop/, 2],
    ]) {
        const r = command(args, input);
        assert.match(r.err, words, args.join(' '));
        assert.equal(r.code, code, `${args.join(' ')}: ${r.err}`);
    }
    const away = spawnSync(binary, ['cache', 'ls', '--server', 'http://127.0.0.1:1'], { encoding: 'utf8' });
    assert.equal(away.status, 3);
    assert.match(away.stderr, /no server answers.*submind serve/);
});

test('what is on disk only is listed, and dropped for good', async () => {
    const dir = mkdtempSync(path.join(tmpdir(), 'submind-below-'));
    const start = () => startServer('--ctx', 2048, '--cache-dir', dir);
    const trunk = notes(300, 71), tasks = [1, 2, 3].map((i) => ask(trunk, `${i}: ${notes(60, i)}`));
    const other = ask(notes(200, 72), 'hello');
    let sv = await start();
    for (const request of [...tasks, other]) await sv.json('/v1/chat/completions', request);
    const before = (await sv.json('/submind/cache')).trunks;
    assert.equal(before.length, 5);
    assert.ok(before.every((t) => t.tier === 'device'));
    await sv.stop();

    sv = await start();
    const below = (await sv.json('/submind/cache?show_text=1')).trunks;
    const sizes = (trunks) => trunks.map((t) => t.tokens).sort((a, b) => a - b);
    assert.deepEqual(sizes(below), sizes(before));
    assert.ok(below.every((t) => t.tier === 'disk' && t.bytes > 0 && t.text.length > 10));
    const root = below.findIndex((t) => t.tokens_below > 0);
    assert.equal(below.filter((t) => t.parent === root).length, 3);
    // One comes back: what goes on from it stays on disk, under it.
    await sv.json('/v1/chat/completions', tasks[0]);
    const mixed = (await sv.json('/submind/cache')).trunks;
    assert.equal(mixed.filter((t) => t.tier === 'disk').length, 3);
    const on = mixed.findIndex((t) => t.tier === 'device');
    assert.equal(mixed.filter((t) => t.tier === 'disk' && t.parent === on).length, 2);
    const out = spawnSync(binary, ['cache', 'ls', '--server', sv.url], { encoding: 'utf8' });
    assert.match(out.stdout, /\bdisk\b/);
    // One on disk is dropped, then the trunk itself with all that goes on from it, in every tier.
    const leaf = mixed.find((t) => t.tier === 'disk' && t.parent === on);
    assert.equal((await sv.json('/submind/cache/drop', { id: leaf.id })).dropped_tokens, leaf.tokens);
    assert.equal((await sv.json('/submind/cache')).trunks.length, mixed.length - 1);
    const gone = (await sv.json('/submind/cache/drop', { id: mixed[on].id })).dropped_tokens;
    assert.ok(gone > mixed[on].tokens, `${gone} of ${mixed[on].tokens}`);
    assert.equal((await sv.json('/submind/cache/explain', tasks[1])).hit_tokens, 0);
    assert.ok((await sv.json('/submind/cache/explain', other)).disk_tokens > 0);
    await sv.stop();

    sv = await start();
    for (const request of tasks) assert.equal((await sv.json('/submind/cache/explain', request)).hit_tokens, 0);
    assert.equal((await sv.json('/submind/cache')).trunks.length, 1);
    await sv.json('/submind/cache/drop', { all: true });
    await sv.stop();
    sv = await start();
    assert.deepEqual((await sv.json('/submind/cache')).trunks, []);
    assert.equal((await sv.json('/submind/cache/stats')).disk.pages, 0);
    await sv.stop();
    rmSync(dir, { recursive: true });
});

test('after a restart explain counts what is on disk', async () => {
    const dir = mkdtempSync(path.join(tmpdir(), 'submind-disk-'));
    const request = ask(notes(400, 61), 'hello');
    const first = await startServer('--ctx', 2048, '--cache-dir', dir);
    await first.json('/v1/chat/completions', request);
    await first.stop();
    const second = await startServer('--ctx', 2048, '--cache-dir', dir);
    let e = null;
    for (let i = 0; i < 100 && !(e?.hit_tokens > 0); i++) { // the fingerprint is known a little later
        e = await second.json('/submind/cache/explain', request);
        await sleep(50);
    }
    assert.ok(e.hit_tokens > 300 && e.disk_tokens + e.ram_tokens > 0, JSON.stringify(e));
    assert.equal(e.recompute_tokens, e.prompt_tokens - e.hit_tokens);
    const out = spawnSync(binary, ['cache', 'explain', '-', '--server', second.url], { input: JSON.stringify(request), encoding: 'utf8' });
    assert.match(out.stdout, /cached \(\d+ %\), \d+ of them from (disk|host memory); to compute/);
    const answer = await (await second.post('/v1/chat/completions', request, { 'X-Submind-Explain': '1' })).json();
    const c = answer.submind.cache;
    assert.equal(c.hit_tokens, c.device_tokens + c.ram_tokens + c.disk_tokens);
    assert.ok(c.hit_tokens <= e.hit_tokens && (c.hit_tokens === 0 || c.disk_tokens + c.ram_tokens > 0), JSON.stringify(c));
    await second.stop();
    rmSync(dir, { recursive: true });
});
