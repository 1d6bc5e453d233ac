// What the end-to-end tests share: the real binary on a free port, the official client, small helpers.
// Needs SUBMIND (the binary); SUBMIND_SOURCE and SUBMIND_SHARED are optional.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import OpenAI from 'openai';

export const binary = process.env.SUBMIND ?? path.resolve('build/submind');
export const source = process.env.SUBMIND_SOURCE ?? path.resolve(import.meta.dirname, '../..');
export const shared = process.env.SUBMIND_SHARED ?? path.join(source, '../shared');

export function requireBinary() {
    if (existsSync(binary)) return;
    console.log(`skipped: ${binary} is not built`);
    process.exit(77);
}

const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

// Starts `submind serve` with flags; resolves when the model is loaded.
export async function startServer(...flags) {
    const server = launch(...flags);
    await server.logged(/ready model=/, 120_000);
    return server;
}

// Starts it and resolves as soon as it listens.
export async function startListening(...flags) {
    const server = launch(...flags);
    await server.logged(/listening url=/, 10_000);
    return server;
}

function launch(...flags) {
    const child = spawn(binary, ['serve', '--port', '0', ...flags.map(String)], {
        stdio: ['ignore', 'inherit', 'pipe'],
        env: { SUBMIND_CACHE_DIR: 'off', ...process.env }, // nobody's own cache
    });
    running.add(child);
    const server = new Server(child);
    return server;
}

class Server {
    constructor(child) {
        this.child = child;
        this.log = '';
        this.exited = once(child, 'exit').then(([code, signal]) => {
            running.delete(child);
            return { code, signal };
        });
        child.stderr.setEncoding('utf8');
        child.stderr.on('data', (text) => { this.log += text; });
    }
    get url() { return this.log.match(/listening url=(\S+)/)[1]; }
    get port() { return Number(new URL(this.url).port); }

    // Waits for a line of the log; returns the match.
    async logged(pattern, ms = 10_000) {
        const end = Date.now() + ms;
        for (;;) {
            const match = this.log.match(pattern);
            if (match) return match;
            if (this.child.exitCode !== null || Date.now() > end)
                throw new Error(`no ${pattern} in the server's log:\n${this.log}`);
            await sleep(10);
        }
    }
    client(options = {}) {
        return new OpenAI({ baseURL: `${this.url}/v1`, apiKey: 'none', maxRetries: 0, ...options });
    }
    fetch(route, options) { return fetch(this.url + route, options); }
    async post(route, body, headers = {}) {
        return this.fetch(route, {
            method: 'POST',
            headers: { 'content-type': 'application/json', ...headers },
            body: typeof body === 'string' ? body : JSON.stringify(body),
        });
    }
    async json(route, body) {
        const answer = body === undefined ? await this.fetch(route) : await this.post(route, body);
        if (!answer.ok) throw new Error(`${route}: ${answer.status} ${await answer.text()}`);
        return answer.json();
    }
    async tokens(text) { return (await this.json('/tokenize', { content: text })).tokens; }
    async metrics() { return parseMetrics(await (await this.fetch('/metrics')).text()); }
    rss() {
        const status = readFileSync(`/proc/${this.child.pid}/status`, 'utf8');
        return Number(status.match(/RssAnon:\s+(\d+) kB/)[1]) * 1024;
    }
    // Asks it to stop; resolves to the exit code, the signal and the time in ms.
    async stop(signal = 'SIGTERM') {
        const start = performance.now();
        if (this.child.exitCode === null) this.child.kill(signal);
        return { ...await this.exited, ms: performance.now() - start };
    }
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Sums samples of one name over their labels.
function parseMetrics(text) {
    const values = {};
    for (const line of text.split('\n')) {
        const match = line.match(/^([a-z_]+:[a-z_]+)(\{.*\})? (\S+)$/);
        if (match) values[match[1]] = (values[match[1]] ?? 0) + Number(match[3]);
    }
    return values;
}

// Waits until check() is true.
export async function until(check, ms, what) {
    const end = Date.now() + ms;
    while (!await check()) {
        if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
        await sleep(20);
    }
}

// The events of a stream as the wire has them: [{ms, data}], data parsed unless it is [DONE].
export async function events(answer, start = performance.now()) {
    const out = [];
    let rest = '';
    const decoder = new TextDecoder();
    for await (const piece of answer.body) {
        rest += decoder.decode(piece, { stream: true });
        const parts = rest.split('\n\n');
        rest = parts.pop();
        for (const part of parts) {
            if (!part.startsWith('data: ')) throw new Error(`not an event: ${part}`);
            const data = part.slice(6);
            out.push({ ms: performance.now() - start, data: data === '[DONE]' ? data : JSON.parse(data) });
        }
    }
    if (rest !== '') throw new Error(`the stream ends inside an event: ${rest}`);
    return out;
}

// Puts streamed chat deltas together.
export async function collect(stream) {
    const all = { content: '', reasoning: '', calls: [], chunks: [], finish: null, usage: null };
    for await (const chunk of stream) {
        all.chunks.push(chunk);
        if (chunk.usage) all.usage = chunk.usage;
        const choice = chunk.choices[0];
        if (!choice) continue;
        if (choice.finish_reason) all.finish = choice.finish_reason;
        all.content += choice.delta.content ?? '';
        all.reasoning += choice.delta.reasoning_content ?? '';
        for (const call of choice.delta.tool_calls ?? []) {
            all.calls[call.index] ??= { id: call.id, name: call.function.name, arguments: '' };
            all.calls[call.index].arguments += call.function.arguments ?? '';
        }
    }
    return all;
}

// A raw connection: send text, get back what came until the server closed it or ms passed.
export function rawRequest(port, text, ms = 5000) {
    return new Promise((resolve) => {
        const socket = net.connect(port, '127.0.0.1');
        let got = '';
        const timer = setTimeout(() => { socket.destroy(); resolve({ got, closed: false }); }, ms);
        socket.on('data', (piece) => { got += piece; });
        socket.on('error', () => {});
        socket.on('close', () => { clearTimeout(timer); resolve({ got, closed: true }); });
        if (text) socket.write(text);
    });
}

// A port that nobody has at the moment.
export async function freePort() {
    const server = net.createServer().listen(0, '127.0.0.1');
    await new Promise((done) => server.once('listening', done));
    const { port } = server.address();
    await new Promise((done) => server.close(done));
    return port;
}

export const tool = (name, property, description) => ({
    type: 'function',
    function: {
        name, description,
        parameters: { type: 'object', properties: { [property]: { type: 'string' } }, required: [property] },
    },
});

// A system prompt of about n words that the demo model reads as notes; the same for the same seed.
export function notes(n, seed = 1) {
    const words = 'parcel service disk backup ticket server queue alert route cache node token'.split(' ');
    let state = seed, text = 'You are a background agent.\n\n# NOTES.md\n';
    for (let i = 0; i < n; i++) {
        state = (state * 1103515245 + 12345) % 2147483648;
        text += words[(state >> 8) % words.length] + (i % 12 === 11 ? '.\n' : ' ');
    }
    return text + '\nAnswer briefly.';
}
