// Replays captured requests of an agent gateway in order: every prompt must find the longest prefix
// that it shares with anything seen before, less one page.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { collect, requireBinary, shared, startServer } from './harness.mjs';

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
