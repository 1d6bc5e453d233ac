// Replays captured requests of an agent gateway in order: every prompt must find the longest prefix
// that it shares with anything seen before, less one page.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { collect, requireBinary, shared, source, startServer } from './harness.mjs';

requireBinary();
const folder = path.join(shared, 'traffic/openclaw');
if (!existsSync(folder)) {
    console.log(`skipped: no captured traffic in ${folder}`);
    process.exit(77);
}

let server, client, page, nCtx;
const seen = []; // token ids of every prompt, with what was generated after it left out
before(async () => {
    server = await startServer();
    client = server.client({ timeout: 280_000 });
    const props = await server.json('/props');
    page = props.page_tokens;
    nCtx = props.default_generation_settings.n_ctx;
});
after(async () => { await server?.stop(); });

function commonPrefix(a, b) {
    const n = Math.min(a.length, b.length);
    for (let i = 0; i < n; i++) if (a[i] !== b[i]) return i;
    return n;
}

for (const file of readdirSync(folder).filter((name) => name.endsWith('.json')).sort()) {
    test(file, async (t) => {
        const request = JSON.parse(readFileSync(path.join(folder, file), 'utf8'));
        const { prompt } = await server.json('/apply-template', request);
        const tokens = await server.tokens(prompt);
        const options = { ...request, max_completion_tokens: 8, temperature: 0 };
        if (tokens.length >= nCtx) {
            await assert.rejects(client.chat.completions.create(options), { status: 400, message: /exceeds the available context size/ });
            t.diagnostic(`${tokens.length} tokens: refused`);
            return;
        }
        const expected = Math.max(0, ...seen.map((other) => commonPrefix(tokens, other)));
        const stream = await collect(await client.chat.completions.create(options));
        const cached = stream.usage.prompt_tokens_details.cached_tokens;
        t.diagnostic(`prompt ${tokens.length}, shared ${expected}, cached ${cached}`);
        seen.push(tokens);
        assert.equal(stream.usage.prompt_tokens, tokens.length);
        assert.ok(cached >= expected - page, `cached ${cached}, but ${expected} tokens were seen before`);
        assert.ok(cached < tokens.length);
        assert.ok(['stop', 'length', 'tool_calls'].includes(stream.finish));
    });
}

test('several trunks live side by side', async (t) => {
    // Turns of the main session, sub-agent, announcement and cron come in turn, as a day mixes them;
    // each must find its own longest prefix, whatever came in between.
    const names = ['06-main', '04-subagent', '05-announce', '11-cron', '21-toolloop', '01-main', '04-subagent', '10-cron', '42-thinking'];
    for (const name of names) {
        const file = readdirSync(folder).find((f) => f.startsWith(name));
        const request = JSON.parse(readFileSync(path.join(folder, file), 'utf8'));
        request.messages.push({ role: 'user', content: `and now something else, ${name}` });
        const { token_ids } = await server.json('/v1/chat/completions/render', request);
        if (token_ids.length >= nCtx) continue;
        const expected = Math.max(...seen.map((other) => commonPrefix(token_ids, other)));
        const answer = await client.chat.completions.create({ ...request, stream: false, stream_options: undefined, max_completion_tokens: 2 });
        const cached = answer.usage.prompt_tokens_details.cached_tokens;
        t.diagnostic(`${name}: prompt ${token_ids.length}, shared ${expected}, cached ${cached}`);
        assert.ok(cached >= expected - page, `${name}: cached ${cached}, but ${expected} tokens were seen before`);
        seen.push(token_ids);
    }
    // A trunk is a prefix of 1,000 tokens or more that several requests went on from.
    const { trunks } = await server.json('/submind/cache');
    const live = trunks.filter((x) => x.tokens_below > 0 && x.tokens_before + x.tokens >= 1000);
    t.diagnostic(`trunks: ${live.map((x) => `${x.tokens_before}+${x.tokens}`)}`);
    assert.ok(live.length >= 4, `${live.length} trunks`);
});

test('under pressure more is found than by plain LRU', (t) => {
    const bench = path.join(process.env.SUBMIND_BUILD ?? '', 'bench/bench_tree');
    if (!existsSync(bench) || spawnSync('python3', ['--version']).status !== 0) return t.skip('no bench_tree or python3');
    const dir = mkdtempSync(path.join(tmpdir(), 'submind-trace-'));
    const made = spawnSync('python3', [path.join(source, 'bench/traces/gateway.py'), '--server', server.url, folder], { encoding: 'utf8', maxBuffer: 1 << 28 });
    assert.equal(made.status, 0, made.stderr);
    writeFileSync(path.join(dir, 'gateway'), made.stdout);
    const run = spawnSync(bench, ['check', path.join(dir, 'gateway'), '20000', '30000', '40000', '60000', '80000', '120000'], { encoding: 'utf8' });
    run.stdout.split('\n').forEach((line) => t.diagnostic(line));
    assert.equal(run.status, 0, run.stdout + run.stderr);
    rmSync(dir, { recursive: true });
});
