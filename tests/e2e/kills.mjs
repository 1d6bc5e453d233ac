// A server with a cache on disk, warmed at start or not, with host memory or not, that is killed at random points while the
// cache grows, whose files are then cut, lengthened, removed or damaged; every start must come up and answer as a server without a cache does:
//   node.sh kills.mjs --kills 1000 [--seed 1]
import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { notes, requireBinary, sleep, startServer } from './harness.mjs';

// A small generator, so that a run can be repeated.
function random(seed) {
    let state = seed >>> 0;
    return () => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return state / 2 ** 32;
    };
}

// Prompts that share beginnings of every length, so that a wrong page would be asked for.
function makePrompts(n) {
    const trunks = [notes(700, 1), notes(700, 2)];
    return Array.from({ length: n }, (_, i) => ({
        prompt: trunks[i % 2].slice(0, 300 + 331 * i) + ` repeat after me: ${i}`,
        max_tokens: 6, temperature: 0, logprobs: 2,
    }));
}

// All that a client sees of an answer but its times.
async function answerOf(server, request) {
    const answer = await server.json('/v1/completions', request);
    return JSON.stringify([answer.choices[0].text, answer.choices[0].logprobs, answer.usage.prompt_tokens]);
}

export function segmentsOf(dir) {
    const families = readdirSync(dir).filter((name) => /^[0-9a-f]{32}$/.test(name));
    return families.flatMap((family) => readdirSync(path.join(dir, family))
        .filter((name) => name.startsWith('seg-')).map((name) => path.join(dir, family, name)));
}

// Segments most of all, and what else the server reads there: measured speeds, the model's fingerprint.
function filesOf(dir) {
    const others = readdirSync(dir, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile() && !entry.name.startsWith('seg-'))
        .map((entry) => path.join(entry.parentPath, entry.name));
    return [...segmentsOf(dir), ...segmentsOf(dir), ...others];
}

// What crashes, disks and people do: a file ends early, goes on with something else, is gone, or a bit is another.
function damage(file, rand) {
    const { size } = statSync(file), kind = rand();
    if (kind < 0.4) {
        truncateSync(file, Math.floor(rand() * size));
    } else if (kind < 0.5) {
        appendFileSync(file, Buffer.alloc(Math.floor(rand() * 300_000), 0x53));
    } else if (kind < 0.55) {
        rmSync(file);
    } else if (size > 0) {
        const bytes = readFileSync(file);
        bytes[Math.floor(rand() * size)] ^= 1 << Math.floor(rand() * 8);
        writeFileSync(file, bytes);
    }
}

async function killOne(server, prompts, rand) {
    const todo = Array.from({ length: 3 }, () => prompts[Math.floor(rand() * prompts.length)]);
    const asked = Promise.allSettled(todo.map((request) => answerOf(server, request)));
    await sleep(rand() * 250);
    await server.stop('SIGKILL');
    await asked;
}

export async function kills({ n, seed = 1, log = console.log }) {
    const rand = random(seed), prompts = makePrompts(16), problems = [];
    const dir = mkdtempSync(path.join(os.tmpdir(), 'submind-kills-'));
    const flags = ['--cache-dir', dir, '--cache-disk', '8M', '--ctx', '8192', '--threads', '2'];
    const plain = await startServer('--ctx', '8192');
    const want = new Map();
    for (const request of prompts) want.set(request, await answerOf(plain, request));
    await plain.stop();
    const tally = { kills: 0, checked: 0, diskTokens: 0, bad: 0 };
    for (; tally.kills < n && problems.length < 5; tally.kills++) {
        const server = await startServer(...flags, ...(rand() < 0.3 ? ['--warm'] : []),
            ...(rand() < 0.3 ? ['--cache-ram', '2M', '--kv-memory', '28M'] : []));
        if (tally.kills % 5 === 4) { // what is there is used, and right
            for (const request of prompts.slice(0, 6)) {
                tally.checked++;
                if (await answerOf(server, request) !== want.get(request))
                    problems.push(`after ${tally.kills} kills another answer to ${request.prompt.slice(-24)}`);
            }
            const metrics = await (await server.fetch('/metrics')).text();
            tally.diskTokens += Number(metrics.match(/cache_hit_tokens_total\{.*tier="disk"\} (\d+)/)[1]);
            tally.bad += (await server.metrics())['submind:cache_verification_failures_total'];
        }
        await killOne(server, prompts, rand);
        const files = filesOf(dir);
        if (files.length > 0 && rand() < 0.3) damage(files[Math.floor(rand() * files.length)], rand);
        if (tally.kills % 100 === 99) log(JSON.stringify(tally));
    }
    rmSync(dir, { recursive: true });
    return { problems, tally };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
    requireBinary();
    const value = (name, other) => {
        const i = process.argv.indexOf(name);
        return i < 0 ? other : Number(process.argv[i + 1]);
    };
    const { problems, tally } = await kills({ n: value('--kills', 1000), seed: value('--seed', 1) });
    console.log(JSON.stringify(tally));
    problems.forEach((text) => console.log(text));
    process.exit(problems.length > 0 ? 1 : 0);
}
