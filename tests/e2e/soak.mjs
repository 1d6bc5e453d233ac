// Many streams at once for a long time, with clients that vanish at any moment:
//   node.sh soak.mjs --minutes 10 [--streams 64] [--seed 1]
// Fails on an error that was not asked for, a request that is stuck, or memory that grows.
import { pathToFileURL } from 'node:url';
import { notes, requireBinary, sleep, startServer } from './harness.mjs';

const STUCK_MS = 120_000;
const GROWTH = 16 << 20; // bytes of anonymous memory allowed after warm-up
const WARM_REQUESTS = 500; // so many fill the pages and every connection's arena
const CEILING = (48 + 80) << 20; // the pages, and what the rest may have, warm or not

// A small generator, so that a run can be repeated.
function random(seed) {
    let state = seed >>> 0;
    return () => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return state / 2 ** 32;
    };
}

function makeRequest(rand, trunks) {
    const chat = rand() < 0.8;
    const request = {
        max_tokens: 1 + Math.floor(rand() * 60),
        temperature: rand() < 0.5 ? 0 : 1,
        stream: rand() < 0.85,
        priority: Math.floor(rand() * 3) - 1,
    };
    if (rand() < 0.2) request.stop = ['e', ' the'];
    if (rand() < 0.1) Object.assign(request, chat ? { logprobs: true, top_logprobs: 3 } : { logprobs: 3 });
    if (rand() < 0.05) request.timeout_ms = 50 + Math.floor(rand() * 500); // asks for a 504
    const system = trunks[Math.floor(rand() * trunks.length)];
    const task = `repeat after me: ${Math.floor(rand() * 1e6)}`;
    if (chat) request.messages = [{ role: 'system', content: system }, { role: 'user', content: task }];
    else request.prompt = system.slice(0, 400) + task;
    return { route: chat ? '/v1/chat/completions' : '/v1/completions', request, vanishMs: rand() < 0.35 ? rand() * 3000 : 0 };
}

// One request to its end; counts what became of it.
async function one(server, { route, request, vanishMs }, tally) {
    const abort = new AbortController();
    const timers = [setTimeout(() => { tally.stuck++; abort.abort(); }, STUCK_MS)];
    let vanished = false;
    if (vanishMs) timers.push(setTimeout(() => { vanished = true; abort.abort(); }, vanishMs));
    try {
        const answer = await server.fetch(route, {
            method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(request), signal: abort.signal,
        });
        const text = await answer.text();
        judge(answer.status, text, request, tally);
    } catch (error) {
        if (vanished) tally.vanished++;
        else tally.fail(`${error.name}: ${error.message} ${error.cause?.message ?? ''}`);
    } finally {
        timers.forEach(clearTimeout);
    }
}

function judge(status, text, request, tally) {
    const asked = request.timeout_ms && /timeout_error/.test(text);
    if (status === 429) tally.refused++;
    else if (asked) tally.timedOut++;
    else if (status !== 200) tally.fail(`${status} ${text.slice(0, 300)}`);
    else if (request.stream && !text.endsWith('data: [DONE]\n\n')) tally.fail(`a stream without an end: ${text.slice(-300)}`);
    else tally.done++;
}

export async function soak({ minutes, streams = 64, seed = 1, log = console.log }) {
    const server = await startServer('--parallel', '16', '--queue', '256', '--ctx', '4096', '--kv-memory', '24M');
    const tally = {
        done: 0, vanished: 0, refused: 0, timedOut: 0, stuck: 0, failures: [],
        fail(text) { this.failures.push(text); },
    };
    const trunks = [120, 250, 400, 600].map((n, i) => notes(n, 100 + i));
    const end = Date.now() + minutes * 60_000;
    const warm = Date.now() + Math.min(minutes * 60_000 / 3, 120_000);
    let warmRss = 0, peakRss = 0;
    const worker = async (i) => {
        const rand = random(seed * 1000 + i);
        while (Date.now() < end && tally.failures.length < 20) {
            await one(server, makeRequest(rand, trunks), tally);
            if (rand() < 0.05) await sleep(rand() * 500);
        }
    };
    const watcher = (async () => {
        while (Date.now() < end && server.child.exitCode === null) {
            await sleep(1000);
            const rss = server.rss();
            if (Date.now() < warm || tally.done + tally.vanished < WARM_REQUESTS) warmRss = Math.max(warmRss, rss);
            peakRss = Math.max(peakRss, rss);
        }
    })();
    await Promise.all([watcher, ...Array.from({ length: streams }, (_, i) => worker(i))]);
    return finish(server, tally, { warmRss, peakRss, log });
}

async function finish(server, tally, { warmRss, peakRss, log }) {
    const problems = [...tally.failures];
    if (tally.stuck) problems.push(`${tally.stuck} requests were stuck for ${STUCK_MS} ms`);
    const limit = Date.now() + 10_000; // those that vanished last may take a step to go
    let metrics = await server.metrics();
    while (metrics['vllm:num_requests_running'] + metrics['vllm:num_requests_waiting'] > 0 && Date.now() < limit) {
        await sleep(100);
        metrics = await server.metrics();
    }
    for (const name of ['vllm:num_requests_running', 'vllm:num_requests_waiting', 'vllm:kv_cache_usage_perc'])
        if (metrics[name] !== 0) problems.push(`${name} is ${metrics[name]} with no client left`);
    if (peakRss > warmRss + GROWTH) problems.push(`memory grew from ${warmRss >> 20} to ${peakRss >> 20} MiB`);
    if (peakRss > CEILING) problems.push(`memory grew to ${peakRss >> 20} MiB`);
    const { code, ms } = await server.stop();
    if (code !== 0) problems.push(`the server ended with ${code}`);
    log(`done ${tally.done}, vanished ${tally.vanished}, refused ${tally.refused}, timed out ${tally.timedOut}, ` +
        `failures ${tally.failures.length}; memory warm ${warmRss >> 20} MiB, peak ${peakRss >> 20} MiB; ` +
        `prompt tokens ${metrics['vllm:prompt_tokens_total']}, cached ${metrics['submind:cached_tokens_total']}, ` +
        `generated ${metrics['vllm:generation_tokens_total']}; stopped in ${Math.round(ms)} ms`);
    return { problems, tally };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
    requireBinary();
    const value = (name, fallback) => {
        const at = process.argv.indexOf(name);
        return at < 0 ? fallback : Number(process.argv[at + 1]);
    };
    const { problems } = await soak({ minutes: value('--minutes', 10), streams: value('--streams', 64), seed: value('--seed', 1) });
    problems.forEach((problem) => console.error(problem));
    process.exit(problems.length ? 1 : 0);
}
