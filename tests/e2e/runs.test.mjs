// Definitions, records, retries, notices: `submind run NAME`, check, ls, new, runs, with a scripted server.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { startFake } from './fake_model.mjs';
import { binary, requireBinary, sleep, source, until } from './harness.mjs';

requireBinary();
const scratch = mkdtempSync(path.join(tmpdir(), 'sr-'));
after(() => rmSync(scratch, { recursive: true, force: true }));
let n_states = 0;

// A workspace with definitions and a folder for its records.
function place(definitions, yaml = '') {
    const dir = path.join(scratch, `w${++n_states}`);
    mkdirSync(path.join(dir, 'subminds'), { recursive: true });
    mkdirSync(path.join(dir, 'bin'));
    writeFileSync(path.join(dir, 'AGENTS.md'), 'You help.\n');
    writeFileSync(path.join(dir, 'submind.yaml'),
        yaml || 'sandbox: auto\nexec:\n  path: [bin]\n  allow:\n    - run: [echo, "**"]\n    - run: [sleep, "*"]\n    - run: ["false"]\n');
    for (const [name, text] of Object.entries(definitions)) writeFileSync(path.join(dir, 'subminds', `${name}.md`), text);
    return { dir, state: path.join(dir, '.state') };
}

function start(at, args, env = {}) {
    const child = spawn(binary, args, {
        stdio: ['ignore', 'pipe', 'pipe'], cwd: at.dir,
        env: { ...process.env, SUBMIND_STATE_DIR: at.state, ...env },
    });
    let out = '', err = '';
    child.stdout.on('data', (text) => { out += text; });
    child.stderr.on('data', (text) => { err += text; });
    const ended = new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal, out, err })));
    return { child, ended, out: () => out };
}
const run = (at, ...args) => start(at, args).ended;
const records = async (at, ...args) => JSON.parse((await run(at, 'runs', '--json', ...args)).out);
const record = async (at, id = 'last') => JSON.parse((await run(at, 'runs', 'show', id, '--json')).out);

const says = (content) => () => ({ content });

test('a definition is run with its inputs, and everything about it is kept', async () => {
    const fake = await startFake(({ results }) => (results.length
        ? { content: 'It said hello.' } : { call: ['exec', { command: 'echo hello' }] }));
    const at = place({ greet: '---\ndescription: x\ninputs:\n  who: Ann\n  how: loudly\n---\ngreet {{who}}\n' });
    const { code, out } = await run(at, 'run', '--server', fake.url, 'greet', 'who=Bob "B"');
    assert.equal(code, 0);
    assert.equal(out, 'It said hello.\n');
    const user = fake.requests[0].messages[1].content;
    assert.match(user, /^greet Bob "B"\n\nInputs:\n- how: loudly\n\nRuntime: date=.* \| run=\S+$/);
    const kept = await record(at);
    assert.equal(kept.name, 'greet');
    assert.equal(kept.outcome, 'done');
    assert.deepEqual(kept.inputs, { who: 'Bob "B"', how: 'loudly' });
    assert.equal(kept.report, 'It said hello.');
    assert.equal(kept.exit_code, 0);
    assert.equal(kept.turns.length, 2);
    assert.equal(kept.tool_calls[0].ran, 'echo hello');
    assert.equal(kept.tool_calls[0].exit_code, 0);
    assert.match(kept.tool_calls[0].output, /hello/);
    assert.deepEqual(kept.messages.map((m) => m.role), ['user', 'assistant', 'tool', 'assistant']);
    assert.ok(kept.stages.some((s) => /^tool exec: /.test(s.stage)));
    assert.equal(kept.workspace, at.dir);
    assert.match(kept.definition_hash, /^[0-9a-f]{16}$/);
    const text = await run(at, 'runs');
    assert.match(text.out, /greet .* done .* It said hello\./);
    assert.match((await run(at, 'runs', 'show', kept.id.slice(-8))).out, /tool exec: echo hello -> ok, exit code 0/);
    assert.equal((await records(at, 'greet')).length, 1);
    assert.equal((await records(at, 'other')).length, 0);
    await fake.stop();
});

test('names and inputs that are not there are told with those that are', async () => {
    const at = place({ greet: '---\ninputs:\n  who:\n---\ngreet {{who}}\n', other: 'look\n' });
    const cases = [
        [['greet'], /greet needs the input who: submind run greet who=/],
        [['greet', 'whom=x'], /greet has no input "whom"; inputs: who/],
        [['great'], /there is no sub-mind "great"; there is: greet, other/],
        [['other', 'x=1'], /inputs: none/],
        [['two words', 'more'], /one task is taken/],
    ];
    for (const [words, message] of cases) {
        const { code, err } = await run(at, 'run', '--server', 'http://127.0.0.1:1', ...words);
        assert.match(err, message);
        assert.equal(code, 2);
    }
    assert.equal((await records(at)).length, 0, 'nothing ran');
});

test('new, check and ls', async () => {
    const at = place({});
    assert.match((await run(at, 'ls')).out, /no sub-minds in/);
    assert.equal((await run(at, 'new', 'look')).code, 0);
    assert.match((await run(at, 'new', 'look')).err, /look\.md is there already/);
    assert.match((await run(at, 'new', 'No Name')).err, /is no name/);
    assert.match((await run(at, 'check')).out, /^1 definition, all well\n$/);
    const bare = place({});
    rmSync(path.join(bare.dir, 'submind.yaml'));
    assert.equal((await run(bare, 'new', 'look')).code, 0);
    assert.match((await run(bare, 'check')).out, /^1 definition, all well\nno tools: submind\.yaml allows none/);
    assert.deepEqual(JSON.parse((await run(at, 'check', '--json')).out), { definitions: 1, problems: [] });
    assert.match(JSON.parse((await run(at, 'new', '--json', 'two')).out).path, /subminds\/two\.md$/);
    rmSync(path.join(at.dir, 'subminds/two.md'));
    writeFileSync(path.join(at.dir, 'subminds/a.md'), '---\nschedule: soon\n---\nx\n');
    writeFileSync(path.join(at.dir, 'subminds/b.md'), '---\non_failure: gone\n---\nx\n');
    writeFileSync(path.join(at.dir, 'subminds/c.md'), '---\nschedule: hourly\ndescription: See\n---\nx\n');
    const { code, out } = await run(at, 'check');
    assert.equal(code, 2);
    assert.match(out, /subminds\/a\.md:2: schedule: "soon" is no time/);
    assert.match(out, /subminds\/b\.md:2: on_failure: there is no such sub-mind/);
    assert.equal(out.trim().split('\n').length, 2);
    const { problems } = JSON.parse((await run(at, 'check', '--json')).out);
    assert.deepEqual([problems.length, problems.join('\n')], [2, out.trim()]);
    assert.match((await run(at, 'check', 'c', 'look')).out, /^2 definitions, all well/);
    const wrong = {
        'tools: [exce]': /d\.md:2: tools: there is no tool "exce"; there is: exec, read_file, list_files, http_get, remember, report\n/,
        'tools: [http_get]': /d\.md:2: tools: http_get is not offered: http\.allow of submind\.yaml lists nothing/,
        'allow:\n  - {run: [ls], secrets: [KEY]}': /d\.md:3: allow: there is no secret "KEY"/,
        'notify: {command: mail-me}': /d\.md:2: notify\.command must be a program and its arguments such as/,
    };
    for (const [text, words] of Object.entries(wrong)) {
        writeFileSync(path.join(at.dir, 'subminds/d.md'), `---\n${text}\n---\nx\n`);
        assert.match((await run(at, 'check', 'd')).out, words);
    }
    rmSync(path.join(at.dir, 'subminds/d.md'));
    const fake = await startFake(says('fine'));
    assert.equal((await run(at, 'run', '--server', fake.url, 'c')).code, 0);
    const list = await run(at, 'ls');
    assert.match(list.out, /^c +done, (just now|\d+ s ago) +in \d+ (s|min|h) +See$/m);
    assert.match(list.err, /a\.md:2/);
    rmSync(path.join(at.dir, 'subminds/a.md'));
    const json = JSON.parse((await run(at, 'ls', '--json')).out);
    assert.deepEqual(json.map((d) => d.name), ['b', 'c', 'look']);
    assert.equal(json[1].last_outcome, 'done');
    assert.ok(json[1].next_run > Date.now() / 1000);
    await fake.stop();
});

test('several run at once, each on its own', async () => {
    let now = 0, most = 0;
    const fake = await startFake(async ({ task }) => {
        most = Math.max(most, ++now);
        await sleep(300);
        now--;
        return { content: task.match(/number (\w+)/)[1] };
    });
    const at = place({ count: '---\ninputs:\n  n: zero\n---\nnumber {{n}}\n' });
    const words = ['one', 'two', 'three', 'four', 'five'].flatMap((n) => ['count', `n=${n}`]);
    const { code, out } = await run(at, 'run', '--server', fake.url, '--jobs', '3', '--json', ...words, 'count');
    assert.equal(code, 0);
    const results = out.trim().split('\n').map((line) => JSON.parse(line));
    assert.deepEqual(results.map((r) => r.report).sort(), ['five', 'four', 'one', 'three', 'two', 'zero']);
    assert.equal(new Set(results.map((r) => r.id)).size, 6);
    assert.equal(most, 3);
    assert.equal((await records(at)).filter((r) => r.outcome === 'done').length, 6);
    await fake.stop();
});

test('a run that is killed stays in the records, where it was', async () => {
    const cases = [
        [{ hang: 'queue' }, /queue/],
        [{ hang: 'prefill' }, /prefill 550 of 1000 tokens at 300 tokens\/s/],
        [{ hang: 'generation' }, /generation/],
        [{ call: ['exec', { command: 'sleep 30' }] }, /tool exec: .*sleep 30/],
    ];
    for (const [what, stage] of cases) {
        const fake = await startFake(() => what);
        const at = place({ look: 'look\n' });
        const { child, ended } = start(at, ['run', '--server', fake.url, 'look']);
        await until(async () => (await records(at))[0]?.stage.match(stage), 10_000, `stage ${stage}`);
        assert.equal((await records(at))[0].outcome, 'running');
        child.kill('SIGKILL');
        await ended;
        const kept = await record(at);
        assert.equal(kept.outcome, 'interrupted');
        assert.match(kept.reason, /its process went away/);
        assert.match(kept.stage, stage);
        assert.equal(kept.messages[0].role, 'user');
        await fake.stop();
    }
});

test('follow shows the stages of a run and ends with its exit code', async () => {
    const fake = await startFake(async ({ results }) => {
        await sleep(600);
        return results.length ? { content: 'over' } : { call: ['exec', { command: 'sleep 1' }] };
    });
    const at = place({ look: 'look\n' });
    const following = start(at, ['runs', 'follow', 'look']);
    await sleep(300);
    const { code } = await run(at, 'run', '--server', fake.url, 'look');
    assert.equal(code, 0);
    const seen = await following.ended;
    assert.equal(seen.code, 0, seen.err);
    assert.match(seen.out, /tool exec: .*sleep 1/);
    assert.match(seen.out, /done: over/);
    await fake.stop();
});

test('tries are made again only where nothing was done', async () => {
    const answers = [{ status: 500 }, { content: '' }, { content: 'third time lucky' }];
    const fake = await startFake(() => answers.shift());
    const at = place({ look: '---\nretries: 2\n---\nlook\n' });
    const { code, out } = await run(at, 'run', '--server', fake.url, 'look');
    assert.equal(code, 0);
    assert.equal(out.trim(), 'third time lucky');
    const kept = await records(at);
    assert.deepEqual(kept.map((r) => [r.attempt, r.outcome]), [[3, 'done'], [2, 'failed'], [1, 'failed']]);
    assert.equal(kept[0].first_id, kept[2].id);
    await fake.stop();
    const doer = await startFake(({ results }) => (results.length ? { content: '' } : { call: ['exec', { command: 'echo sent' }] }));
    const once = place({ look: '---\nretries: 2\n---\nlook\n' });
    const done = await run(once, 'run', '--server', doer.url, 'look');
    assert.equal(done.code, 1);
    assert.match(done.err, /not tried again: a tool had run/);
    assert.equal((await records(once)).length, 1);
    // A rule may say that its command can run again; what was refused never ran.
    const calls = [['exec', { command: 'cat AGENTS.md' }], ['exec', { command: 'whoami' }]];
    doer.answer = ({ results }) => (results.length ? { content: '' } : { calls });
    const again = place({ look: '---\nretries: 1\nallow:\n  - {run: [cat, "*"], repeat: yes}\n---\nlook\n' });
    assert.equal((await run(again, 'run', '--server', doer.url, 'look')).code, 1);
    assert.deepEqual((await records(again)).map((r) => [r.attempt, r.tool_calls]), [[2, 2], [1, 2]]);
    await doer.stop();
});

test('a failure is followed by the sub-mind that is named for it, once', async () => {
    const fake = await startFake(({ task }) => (task.startsWith('tell') ? { content: '' } : { status: 500 }));
    const at = place({
        look: '---\non_failure: tell\n---\nlook\n',
        tell: '---\non_failure: look\ninputs:\n  name:\n  reason: none\n---\ntell of {{name}}: {{reason}}\n',
    });
    assert.match((await run(at, 'check')).out, /2 definitions, all well/);
    const { code } = await run(at, 'run', '--server', fake.url, 'look');
    assert.equal(code, 1, 'the exit code is the first one\'s');
    const kept = await records(at);
    assert.deepEqual(kept.map((r) => r.name), ['tell', 'look']);
    assert.equal(kept[0].cause, `after ${kept[1].id}`);
    assert.match(kept[0].task, /^tell of look: .*scripted/);
    await fake.stop();
});

test('notices: a command, a file, a webhook, the desktop; quiet when all is well', async () => {
    const hooks = [];
    const hook = http.createServer(async (request, response) => {
        let text = '';
        for await (const piece of request) text += piece;
        hooks.push([request.url, JSON.parse(text)]);
        response.writeHead(hooks.length === 1 ? 204 : 500).end();
    });
    await new Promise((resolve) => hook.listen(0, '127.0.0.1', resolve));
    let good = true;
    const fake = await startFake(() => (good ? { content: 'all "well"' } : { status: 500 }));
    const at = place({});
    const notify = (when) => `---\nnotify:\n  when: ${when}\n  command: [bin/tell, "a b"]\n  file: told.jsonl\n  desktop: true\n` +
        `  webhook: http://127.0.0.1:${hook.address().port}/a/b?c=d\n---\nlook\n`;
    writeFileSync(path.join(at.dir, 'subminds/look.md'), notify('failure'));
    writeFileSync(path.join(at.dir, 'bin/tell'), '#!/bin/sh\necho "$1|$SUBMIND_NAME|$SUBMIND_OUTCOME|$SUBMIND_REPORT" >>told.txt\n');
    writeFileSync(path.join(at.dir, 'bin/notify-send'), '#!/bin/sh\necho "$@" >desktop.txt\n');
    for (const name of ['tell', 'notify-send']) chmodSync(path.join(at.dir, 'bin', name), 0o755);
    const env = { PATH: `${path.join(at.dir, 'bin')}:${process.env.PATH}` };
    const go = () => start(at, ['run', '--server', fake.url, 'look'], env).ended;
    assert.equal((await go()).code, 0);
    assert.ok(!existsSync(path.join(at.dir, 'told.jsonl')), 'quiet when all is well');
    good = false;
    assert.equal((await go()).code, 1);
    const lines = readFileSync(path.join(at.dir, 'told.jsonl'), 'utf8').trim().split('\n').map((l) => JSON.parse(l));
    assert.equal(lines.length, 1);
    assert.equal(lines[0].name, 'look');
    assert.equal(lines[0].outcome, 'failed');
    assert.match(lines[0].reason, /scripted/);
    assert.match(readFileSync(path.join(at.dir, 'told.txt'), 'utf8'), /^a b\|look\|failed\|$/m);
    assert.match(readFileSync(path.join(at.dir, 'desktop.txt'), 'utf8'), /look: failed/);
    assert.deepEqual([hooks[0][0], hooks[0][1].outcome], ['/a/b?c=d', 'failed']);
    assert.equal((await record(at)).notified, 'command: done; file: done; webhook: status 204; desktop: done');
    good = true;
    writeFileSync(path.join(at.dir, 'subminds/look.md'), notify('always'));
    const second = await go();
    assert.equal(second.code, 0);
    assert.match(second.err, /the notice of run .* webhook: status 500/, 'a notice that failed is said');
    assert.equal(hooks[1][1].report, 'all "well"');
    hook.close();
    await fake.stop();
});

test('overlap: a due run is skipped, waits, or goes on beside the other', async () => {
    const fake = await startFake(async () => { await sleep(1500); return { content: 'ok' }; });
    for (const [overlap, outcomes] of [['skip', ['done', 'skipped']], ['wait', ['done', 'done']], ['allow', ['done', 'done']]]) {
        const at = place({ look: `---\noverlap: ${overlap}\n---\nlook\n` });
        const first = start(at, ['run', '--scheduled', '--server', fake.url, 'look']);
        await until(async () => (await records(at)).length === 1, 5000, 'the first runs');
        const since = performance.now();
        const second = await run(at, 'run', '--scheduled', '--server', fake.url, 'look');
        const ms = performance.now() - since;
        assert.equal(second.code, 0);
        assert.equal((await first.ended).code, 0);
        const kept = await records(at);
        assert.deepEqual(kept.map((r) => r.outcome).sort(), outcomes, overlap);
        if (overlap === 'skip') assert.match(kept.find((r) => r.outcome === 'skipped').reason, /still goes on/);
        if (overlap === 'wait') assert.ok(ms > 1800, `${ms}`);
        if (overlap === 'allow') assert.ok(ms < 2800, `${ms}`);
        assert.equal(kept[0].cause, 'schedule');
    }
    await fake.stop();
});

test('records have limits, and a state folder that cannot be written does not stop a run', async () => {
    const fake = await startFake(says('ok'));
    const at = place({ look: 'look\n', other: 'look\n' });
    await run(at, 'run', '--server', fake.url, '--jobs', '1', ...Array(6).fill('look'), 'other');
    await run(at, 'run', '--server', fake.url, '--keep-runs', '3', 'look');
    assert.equal((await records(at, 'look')).length, 3);
    assert.equal((await records(at, 'other')).length, 1);
    writeFileSync(path.join(at.dir, 'nofolder'), '');
    const { code, err } = await start(at, ['run', '--server', fake.url, 'look'],
        { SUBMIND_STATE_DIR: path.join(at.dir, 'nofolder/x') }).ended;
    assert.equal(code, 0);
    assert.match(err, /leaves no record: .*nofolder/);
    await fake.stop();
});

test('sqlite3 finds the file whole', async (t) => {
    const fake = await startFake(says('ok'));
    const at = place({ look: 'look\n' });
    await run(at, 'run', '--server', fake.url, 'look');
    try {
        const answer = execFileSync('sqlite3', [path.join(at.state, 'runs.db'), 'PRAGMA integrity_check; SELECT count(*) FROM runs']);
        assert.equal(answer.toString(), 'ok\n1\n');
    } catch (problem) {
        if (problem.code === 'ENOENT') return t.skip('sqlite3 is not installed');
        throw problem;
    } finally {
        await fake.stop();
    }
});

test('the example workspace holds definitions that are valid', async () => {
    const at = { dir: path.join(source, 'examples/workspace'), state: path.join(scratch, 'example') };
    assert.match((await run(at, 'check')).out, /^\d definitions, all well/);
});
