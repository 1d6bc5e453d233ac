// Many runs of sub-minds at once, whose tools hang, crash, flood and print binary, and some of which are
// killed: afterwards every record must be complete, no process and no temporary folder left, and memory flat.
// By hand: node soak_runs.mjs [--runs 1000] [--jobs 8]
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { startFake } from './fake_model.mjs';
import { binary, sleep } from './harness.mjs';

const tools = {
    good: 'echo fine',
    hang: 'exec sleep 97531',
    crash: 'kill -SEGV $$',
    flood: 'yes "a line that comes again and again" | head -c 3000000',
    binary: 'head -c 20000 /dev/urandom',
    stray: 'sleep 97532 & setsid sleep 97533 & echo left two behind',
    fail: 'echo broken >&2; exit 3',
    mute: 'exec >/dev/null 2>&1; exit 0',
};
const kinds = Object.keys(tools);

export async function soakRuns({ runs, jobs, log }) {
    const dir = mkdtempSync(path.join(tmpdir(), 'sk-'));
    const state = path.join(dir, 'state'), temporary = path.join(dir, 'tmp');
    for (const folder of ['bin', 'subminds', 'tmp']) mkdirSync(path.join(dir, folder));
    writeFileSync(path.join(dir, 'AGENTS.md'), 'You help.\n');
    writeFileSync(path.join(dir, 'submind.yaml'), 'sandbox: auto\nexec:\n  path: [bin]\n  timeout: 1\n  output_bytes: 4000\n  allow:\n' +
        kinds.map((k) => `    - run: [do-${k}]\n`).join(''));
    writeFileSync(path.join(dir, 'subminds/chore.md'), '---\ndeadline: 60s\ninputs:\n  kind:\n---\nrun do-{{kind}}\n');
    for (const kind of kinds) {
        const file = path.join(dir, 'bin', `do-${kind}`);
        writeFileSync(file, `#!/bin/sh\n${tools[kind]}\n`);
        chmodSync(file, 0o755);
    }
    const fake = await startFake(({ task, results }) => (results.length
        ? { content: `It said: ${results[0].slice(0, 60)}` }
        : { call: ['exec', { command: `do-${task.match(/do-(\w+)/)[1]}` }] }));
    const environment = { ...process.env, SUBMIND_STATE_DIR: state, TMPDIR: temporary };
    const words = Array.from({ length: runs }, (_, i) => ['chore', `kind=${kinds[i % kinds.length]}`]).flat();
    const start = (list) => spawn(binary, ['run', '--json', '--server', fake.url, '--jobs', `${jobs}`, '--keep-runs', '0', ...list],
        { cwd: dir, env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
    const problems = [];

    // One that is killed in the middle, beside the others.
    const victim = start(['chore', 'kind=hang', 'chore', 'kind=good', 'chore', 'kind=hang']);
    const main = start(words);
    let out = '', err = '';
    const memory = [], files = []; // of the process, over time
    main.stdout.on('data', (text) => { out += text; });
    main.stderr.on('data', (text) => { err += text; });
    const ended = new Promise((resolve) => main.on('close', resolve));
    await sleep(600);
    victim.kill('SIGKILL');
    const watch = setInterval(() => {
        try {
            memory.push(Number(readFileSync(`/proc/${main.pid}/status`, 'utf8').match(/RssAnon:\s+(\d+)/)[1]));
            files.push(readdirSync(`/proc/${main.pid}/fd`).length);
        } catch { /* over */ }
    }, 250);
    const begin = performance.now();
    const code = await ended;
    clearInterval(watch);
    const seconds = (performance.now() - begin) / 1000;
    if (/record/.test(err)) problems.push(err.slice(0, 500));
    if (code > 1) problems.push(`exit code ${code}: ${err.slice(0, 500)}`);
    const results = out.trim().split('\n').map((line) => JSON.parse(line));
    if (results.length !== runs) problems.push(`${results.length} of ${runs} results`);

    // Records: complete, and what they say is what happened.
    const shown = spawnSync(binary, ['runs', '--json', '--limit', '0'], { cwd: dir, env: environment, encoding: 'utf8', maxBuffer: 1 << 30 });
    const records = JSON.parse(shown.stdout);
    const byId = new Map(records.map((r) => [r.id, r]));
    // A crash is exit code 139 inside the sandbox, and a signal where no sandbox can be made.
    const expected = { good: 'done', hang: 'failed', crash: 'done or failed', flood: 'done', binary: 'done', stray: 'done', fail: 'done', mute: 'done' };
    results.forEach((result) => {
        const record = byId.get(result.id);
        if (!record) return problems.push(`no record of ${result.id}`);
        const { kind } = record.inputs;
        if (record.outcome !== result.outcome || !record.ended_ms || record.tool_calls !== 1)
            problems.push(`${kind}: record ${JSON.stringify(record).slice(0, 300)}`);
        if (!expected[kind].split(' or ').includes(record.outcome)) problems.push(`${kind} ended as ${record.outcome}: ${record.reason}`);
    });
    const killed = records.filter((r) => r.outcome === 'interrupted').length;
    if (records.some((r) => r.outcome === 'running')) problems.push('a record still says running');
    if (killed < 1) problems.push('the killed process left no interrupted record');
    const integrity = spawnSync('sqlite3', [path.join(state, 'runs.db'), 'PRAGMA integrity_check'], { encoding: 'utf8' });
    if (integrity.error === undefined && integrity.stdout.trim() !== 'ok') problems.push(`database: ${integrity.stdout}`);

    // Strays: the killed one's own children are nobody's to clean up but the kernel's; all others must be gone.
    await sleep(300);
    const ours = readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && readProc(pid, 'environ').includes(dir) &&
        /^sleep\0?9753[123]/.test(readProc(pid, 'cmdline')));
    if (ours.length > 2) problems.push(`stray processes: ${ours.join('; ')}`); // the victim's
    for (const pid of ours) process.kill(Number(pid), 'SIGKILL');
    const left = readdirSync(temporary);
    if (left.length > 2) problems.push(`temporary files: ${left.slice(0, 5).join(' ')}`);
    const half = Math.floor(memory.length / 2), peak = (list, from, to) => Math.max(...list.slice(from, to), 0);
    const early = peak(memory, 2, half), late = peak(memory, half), early_files = peak(files, 2, half), late_files = peak(files, half);
    const per_run = (late - early) / (runs / 2); // kB; results are kept until the end, and they are not small
    if (runs >= 500 && per_run > 24) problems.push(`memory grows: ${early} -> ${late} kB, ${per_run.toFixed(1)} kB a run`);
    if (runs >= 500 && late_files > early_files + jobs) problems.push(`descriptors grow: ${early_files} -> ${late_files}`);
    const tally = { runs: results.length, seconds: Number(seconds.toFixed(1)), killed, early_kb: early, late_kb: late, early_files, late_files };
    log(`${JSON.stringify(tally)}`);
    await fake.stop();
    rmSync(dir, { recursive: true, force: true });
    return { problems, tally };
}

function readProc(pid, what) {
    try { return readFileSync(`/proc/${pid}/${what}`, 'utf8'); } catch { return ''; }
}

if (process.argv[1] === import.meta.filename) {
    const value = (name, otherwise) => {
        const at = process.argv.indexOf(name);
        return at > 0 ? Number(process.argv[at + 1]) : otherwise;
    };
    const { problems } = await soakRuns({ runs: value('--runs', 1000), jobs: value('--jobs', 8), log: console.log });
    for (const problem of problems) console.error(problem);
    process.exit(problems.length > 0 ? 1 : 0);
}
