// The next turn of a conversation finds what the turn before computed and generated, with Qwen3's
// template (the built-in model's), with thinking and without, through tool loops, and where the model
// spelled its answer otherwise than the tokenizer would.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { notes, requireBinary, startServer, tool } from './harness.mjs';

requireBinary();
let server, plain, eager, page, dir;
before(async () => {
    dir = mkdtempSync(path.join(tmpdir(), 'submind-turns-'));
    const template = path.join(dir, 'chatml.jinja');
    writeFileSync(template, "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
    server = await startServer('--ctx', 4096, '--cache-ahead', 'off');
    plain = await startServer('--ctx', 4096, '--cache-ahead', 'off', '--chat-template-file', template);
    eager = await startServer('--ctx', 4096);
    page = (await server.json('/props')).page_tokens;
});
after(async () => { await server?.stop(); await plain?.stop(); await eager?.stop(); rmSync(dir, { recursive: true }); });

// Of so many tokens that are the same: whole pages, and the beginning of one where it is a quarter and more.
const hit = (n) => n % page < page / 4 ? n - n % page : n;
const tools = [tool('exec', 'command', 'Run a command and return its output.')];
const user = (content) => ({ role: 'user', content });

async function ask(sv, messages, extra) {
    const answer = await sv.json('/v1/chat/completions', { messages, temperature: 0, max_tokens: 200, ...extra });
    const { prompt_tokens, completion_tokens, prompt_tokens_details } = answer.usage;
    return { message: answer.choices[0].message, prompt: prompt_tokens, generated: completion_tokens, cached: prompt_tokens_details.cached_tokens };
}

// The last sampled token was never run through the model, so its place is computed anew.
const kept = (turn) => hit(turn.prompt + turn.generated - 1);

async function promptIds(messages, extra) {
    return (await server.json('/v1/chat/completions/render', { messages, ...extra })).token_ids;
}

// Tokens at the start of ids that one of the prompts before begins with too.
function shared(ids, seen) {
    const common = (other) => { let n = 0; while (n < ids.length && ids[n] === other[n]) n++; return n; };
    return Math.max(0, ...seen.map(common));
}

test('a tool loop with thinking goes on from what was generated', async (t) => {
    const messages = [{ role: 'system', content: notes(150, 1) }, user('Is the service nginx running?')];
    const extra = { tools, chat_template_kwargs: { enable_thinking: true } };
    const seen = [];
    let last = null, turn = null;
    for (let step = 0; step < 4; step++) {
        seen.push(await promptIds(messages, extra));
        turn = await ask(server, messages, extra);
        t.diagnostic(`step ${step}: prompt ${turn.prompt}, generated ${turn.generated}, cached ${turn.cached}`);
        if (last !== null) assert.ok(turn.cached >= kept(last), `cached ${turn.cached}, but ${kept(last)} were there`);
        if (!turn.message.tool_calls) break;
        assert.ok(turn.message.reasoning_content.length > 0);
        messages.push(turn.message, { role: 'tool', tool_call_id: turn.message.tool_calls[0].id, content: `inactive ${notes(20, step)}` });
        last = turn;
    }
    assert.ok(last !== null, 'the model called a tool');
    // A new question: the loop's thinking is dropped, so the text differs from the loop's first answer on.
    if (!turn.message.tool_calls) messages.push(turn.message);
    messages.push(user('Thank you. And sshd?'));
    const ids = await promptIds(messages, extra), found = shared(ids, seen);
    assert.ok(found >= seen[0].length - 8 && found < seen.at(-1).length, `${found} of ${seen[0].length}`);
    const next = await ask(server, messages, extra);
    t.diagnostic(`new question: prompt ${next.prompt}, the same ${found}, cached ${next.cached}`);
    assert.equal(next.cached, hit(found), 'all that is the same is found, and no more is taken for it');
});

for (const thinking of [true, false])
    test(`a new question finds the history, ${thinking ? 'thinking' : 'no thinking'}`, async (t) => {
        // The template drops earlier thinking, so what is generated stands behind other tokens next time and
        // its keys are others: everything before the answer must be found, and what the second turn
        // computed by the third; all else is computed, and no more than that.
        const messages = [{ role: 'system', content: notes(150, thinking ? 2 : 3) }], seen = [];
        const extra = { chat_template_kwargs: { enable_thinking: thinking } };
        for (let step = 0; step < 3; step++) {
            messages.push(user(`repeat after me: ${notes(40, 10 + step)}`));
            const ids = await promptIds(messages, extra), found = shared(ids, seen);
            const turn = await ask(server, messages, { ...extra, max_tokens: 60 });
            t.diagnostic(`turn ${step}: prompt ${turn.prompt}, the same ${found}, cached ${turn.cached}`);
            assert.equal(turn.prompt, ids.length);
            if (step > 0) assert.ok(found >= seen.at(-1).length - 8, 'up to the answer');
            if (step > 0) assert.equal(turn.cached, hit(found));
            seen.push(ids);
            messages.push(turn.message);
        }
    });

test('an answer spelled in other tokens is found all the same', async (t) => {
    // One token is forced again and again, whatever the model would say; the tokenizer makes fewer,
    // longer ones of the same text.
    let letter = null, id = null;
    for (const text of ['e', 's', 'l', 'o', 't', 'a', '-', '='])
        if (letter === null) {
            const one = await plain.tokens(text), many = await plain.tokens(text.repeat(40));
            if (one.length === 1 && many.length < 40) [letter, id] = [text, one[0]];
        }
    assert.ok(letter !== null, 'a token that the tokenizer would not repeat');
    const messages = [{ role: 'system', content: 'You are a background agent.' }];
    let last = null;
    for (let step = 0; step < 4; step++) {
        messages.push(user(`say something, ${step}`));
        const { token_ids } = await plain.json('/v1/chat/completions/render', { messages });
        const own = await plain.tokens((await plain.json('/apply-template', { messages })).prompt);
        if (step > 0) assert.notDeepEqual(own, token_ids, 'the tokenizer would have spelled the answers otherwise');
        const turn = await ask(plain, messages, { max_tokens: 70, logit_bias: { [id]: 100 } });
        t.diagnostic(`turn ${step}: prompt ${turn.prompt} (${own.length} as the tokenizer has it), generated ${turn.generated}, cached ${turn.cached}`);
        assert.equal(turn.message.content, letter.repeat(70));
        assert.equal(turn.prompt, token_ids.length);
        if (last !== null) assert.ok(turn.cached >= kept(last), `cached ${turn.cached}, but ${kept(last)} were there`);
        messages.push(turn.message);
        last = turn;
    }
});

test('a call that the client wrote anew is found all the same', async (t) => {
    const messages = [{ role: 'system', content: notes(150, 5) }, user('Is the service nginx running?')];
    const extra = { tools, chat_template_kwargs: { enable_thinking: true } };
    const bias = {};
    for (const text of ['systemctl', ' systemctl', 'nginx', ' nginx', '"}', '"}}', '{"', 'command'])
        for (const id of await server.tokens(text)) bias[id] = -2; // other spellings come near
    const first = await ask(server, messages, { ...extra, logit_bias: bias });
    if (!first.message.tool_calls) return t.skip('the model called nothing');
    const call = first.message.tool_calls[0];
    call.function.arguments = JSON.stringify(JSON.parse(call.function.arguments), null, 2);
    messages.push(first.message, { role: 'tool', tool_call_id: call.id, content: 'active' });
    const second = await ask(server, messages, extra);
    t.diagnostic(`prompt ${first.prompt}, generated ${first.generated}, cached ${second.cached}`);
    assert.ok(second.cached >= hit(first.prompt));
});

// ---- computed ahead: where the template drops what was thought, the history comes back as other tokens ----

const metric = async (sv, name) => Number((await (await sv.fetch('/metrics')).text()).match(new RegExp(`^${name}.* (.*)$`, 'm'))[1]);
const aheadDone = () => metric(eager, 'submind:cache_ahead_total{[^}]*end="done"}');
async function aheadEnds(least) {
    for (let i = 0; i < 600; i++) {
        if (await aheadDone() >= least) return;
        await new Promise((r) => setTimeout(r, 50));
    }
    assert.fail('the next turn was not computed ahead');
}

// What the next prompt begins with, whatever is asked: up to the question's text, but for the role's name.
async function foretold(messages, extra) {
    const a = await promptIds([...messages, user('A?')], extra), b = await promptIds([...messages, user('something else')], extra);
    return shared(a, [b]) - 3;
}

for (const thinking of [true, false])
    test(`the history is there before the next question, ${thinking ? 'thinking' : 'no thinking'}`, async (t) => {
        const messages = [{ role: 'system', content: notes(150, thinking ? 12 : 13) }];
        const extra = { chat_template_kwargs: { enable_thinking: thinking } };
        const logit_bias = {}; // the answer is long: it may not end
        for (const end of ['<|im_end|>', '<|endoftext|>'])
            for (const id of await eager.tokens(end)) logit_bias[id] = -100;
        let least = 0;
        for (let step = 0; step < 3; step++) {
            messages.push(user(`repeat after me: ${notes(40, 20 + step)}`));
            const done = await aheadDone(), saved = await metric(eager, 'submind:prefill_tokens_total');
            const turn = await ask(eager, messages, { ...extra, logit_bias, max_tokens: 150 });
            const computed = await metric(eager, 'submind:prefill_tokens_total') - saved;
            t.diagnostic(`turn ${step}: prompt ${turn.prompt}, foretold ${least}, cached ${turn.cached}, generated ${turn.generated}`);
            if (step > 0) assert.ok(turn.cached >= hit(least), `cached ${turn.cached} of ${least} foretold`);
            assert.ok(computed <= turn.prompt - turn.cached + 1, 'computed ahead is not counted as a prompt');
            messages.push(turn.message);
            least = await foretold(messages, extra);
            assert.equal(Boolean(turn.message.reasoning_content), thinking);
            assert.equal(turn.generated, 150);
            await aheadEnds(done + 1);
        }
    });

test('within a tool loop nothing is to be computed ahead, behind it the loop without its thinking', async (t) => {
    const messages = [{ role: 'system', content: notes(150, 14) }, user('Is the service nginx running?')];
    const extra = { tools, chat_template_kwargs: { enable_thinking: true } };
    let turn = null, calls = 0;
    const done = await aheadDone();
    for (let step = 0; step < 6; step++) {
        turn = await ask(eager, messages, { ...extra, ...(step === 2 ? { tools: undefined, max_tokens: 150 } : {}) });
        messages.push(turn.message);
        if (!turn.message.tool_calls) break;
        calls++;
        messages.push({ role: 'tool', tool_call_id: turn.message.tool_calls[0].id, content: `inactive ${notes(20, step)}` });
        assert.equal(await aheadDone(), done, 'the loop goes on with its thinking');
    }
    assert.ok(calls > 0, 'the model called a tool');
    if (turn.message.tool_calls) return t.skip('the model did not come to an end');
    await aheadEnds(done + 1);
    const least = await foretold(messages, extra);
    const next = await ask(eager, [...messages, user('Thank you. And sshd?')], extra);
    t.diagnostic(`after ${calls} calls: prompt ${next.prompt}, foretold ${least}, cached ${next.cached}`);
    assert.ok(next.cached >= hit(least), `cached ${next.cached} of ${least} foretold`);
});

test('who says that nothing follows has nothing computed', async () => {
    const messages = [user(`repeat after me: ${notes(60, 30)}`)], extra = { max_tokens: 100, chat_template_kwargs: { enable_thinking: true } };
    const done = await aheadDone(), tokens = await metric(eager, 'submind:cache_ahead_tokens_total');
    const body = JSON.stringify({ messages, temperature: 0, ...extra });
    const answer = await eager.post('/v1/chat/completions', body, { 'X-Submind-Ahead': '0' });
    assert.equal(answer.status, 200);
    await answer.json();
    await ask(eager, messages, { ...extra, cache_ttl: 0 });
    await new Promise((r) => setTimeout(r, 200));
    assert.equal(await aheadDone(), done);
    assert.equal(await metric(eager, 'submind:cache_ahead_tokens_total'), tokens);
});
