// `submind schedule`: units as systemd takes them, a recorded systemctl, and the schedule in the foreground.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { startFake } from './fake_model.mjs';
import { binary, requireBinary, sleep, until } from './harness.mjs';

requireBinary();
const scratch = mkdtempSync(path.join(tmpdir(), 'ss-'));
after(() => rmSync(scratch, { recursive: true, force: true }));
let n_places = 0;
// Folders in which units are verified.
const verifying = () => readdirSync('/tmp').filter((name) => name.startsWith('submind-units-'));

// A workspace, a folder of units, and a systemctl that writes down what it is asked.
function place(definitions, { name = `w ${++n_places} 100%` } = {}) {
    const at = { dir: path.join(scratch, name), units: path.join(scratch, `u${n_places}`), bin: path.join(scratch, `b${n_places}`) };
    at.state = path.join(at.dir, '.state');
    at.calls = path.join(at.bin, 'calls');
    mkdirSync(path.join(at.dir, 'subminds'), { recursive: true });
    mkdirSync(at.bin, { recursive: true });
    writeFileSync(path.join(at.dir, 'AGENTS.md'), 'You help.\n');
    at.define = (id, text) => writeFileSync(path.join(at.dir, 'subminds', `${id}.md`), text);
    for (const [id, text] of Object.entries(definitions)) at.define(id, text);
    at.systemctl = (body) => {
        writeFileSync(path.join(at.bin, 'systemctl'), `#!/bin/sh\necho "$@" >>"${at.calls}"\n${body}\n`);
        chmodSync(path.join(at.bin, 'systemctl'), 0o755);
    };
    at.systemctl('[ "$2" = show ] && echo active\nexit 0');
    at.env = { ...process.env, PATH: `${at.bin}:${process.env.PATH}`, SUBMIND_STATE_DIR: at.state };
    at.did = () => {
        const text = existsSync(at.calls) ? readFileSync(at.calls, 'utf8').trim().split('\n') : [];
        rmSync(at.calls, { force: true });
        return text.filter((line) => !line.includes(' show '));
    };
    at.run = (...args) => spawnSync(binary, args, { cwd: at.dir, env: at.env, encoding: 'utf8' });
    at.schedule = (what, ...args) => at.run('schedule', what, '--unit-dir', at.units, ...args);
    at.records = (...args) => JSON.parse(at.run('runs', '--json', ...args).stdout);
    return at;
}

const hasAnalyze = spawnSync('systemd-analyze', ['--version']).status === 0;

test('apply writes units that systemd takes, once; changes and removals are told as a difference', async (t) => {
    const at = place({
        look: '---\ndescription: 100% "sure"?\nschedule: ["0 9 1 * 5", "*:0/15"]\ndelay: 2m\ndeadline: 5m\n---\nlook\n',
        idle: 'no schedule\n',
        later: '---\nschedule: daily\nmissed: skip\n---\nlook\n',
    });
    const old = new Set(verifying());
    delete at.env.XDG_RUNTIME_DIR;
    const dry = at.schedule('apply', '--dry-run');
    assert.equal(dry.status, 0, dry.stderr);
    assert.match(dry.stdout, /submind-look\.timer \(new\)/);
    assert.ok(!existsSync(at.units), 'a dry run writes nothing');
    assert.deepEqual(at.did(), []);
    assert.equal(at.schedule('apply').status, 0);
    await until(() => verifying().every((name) => old.has(name)), 3000, 'its folder to be gone'); // others may verify too
    assert.deepEqual(readdirSync(at.units).sort(), ['later', 'look'].flatMap((n) => [`submind-${n}-failed.service`, `submind-${n}.service`, `submind-${n}.timer`]));
    assert.deepEqual(at.did(), ['--user daemon-reload', '--user enable submind-later.timer', '--user restart submind-later.timer',
        '--user enable submind-look.timer', '--user restart submind-look.timer']);
    const timer = readFileSync(path.join(at.units, 'submind-look.timer'), 'utf8');
    assert.deepEqual(timer.match(/OnCalendar=.*/g), ['OnCalendar=*-*-01 09:00:00', 'OnCalendar=Fri *-*-* 09:00:00', 'OnCalendar=*-*-* *:00,15,30,45:00']);
    assert.match(timer, /RandomizedDelaySec=120\nPersistent=true\n/);
    assert.match(readFileSync(path.join(at.units, 'submind-later.timer'), 'utf8'), /Persistent=false/);
    const service = readFileSync(path.join(at.units, 'submind-look.service'), 'utf8');
    assert.match(service, /Description=Sub-mind look: 100%% "sure"\?\n/);
    assert.match(service, /TimeoutStartSec=390\n/);
    assert.match(service, /OnFailure=submind-look-failed\.service\n/);
    if (hasAnalyze) {
        const files = readdirSync(at.units).map((name) => path.join(at.units, name));
        const verify = spawnSync('systemd-analyze', ['verify', '--user', ...files], { env: { ...process.env, XDG_RUNTIME_DIR: scratch }, encoding: 'utf8' });
        assert.equal(verify.status, 0, verify.stderr);
        assert.equal(verify.stderr.trim(), '');
    } else t.diagnostic('systemd-analyze is not installed');

    assert.match(at.schedule('apply').stdout, /nothing to change/);
    assert.deepEqual(at.did(), []);
    at.define('look', '---\nschedule: hourly\n---\nlook\n');
    const changed = at.schedule('apply', 'look');
    assert.match(changed.stdout, /submind-look\.timer \(changed\)\n( {2}- .*\n)+ {2}\+ OnCalendar=\*-\*-\* \*:00:00\n/);
    assert.deepEqual(at.did(), ['--user daemon-reload', '--user enable submind-look.timer', '--user restart submind-look.timer']);
    rmSync(path.join(at.dir, 'subminds/later.md'));
    assert.match(at.schedule('apply').stdout, /submind-later\.timer \(removed\)/);
    assert.deepEqual(at.did(), ['--user disable submind-later.timer', '--user stop submind-later.timer', '--user daemon-reload']);
    assert.match(at.schedule('ls').stdout, /^look +hourly +active +\w{3} \d{4}-/m);
    assert.equal(at.schedule('remove').status, 0);
    assert.deepEqual(readdirSync(at.units), []);
});

test('what is not ours is left alone, and nothing is half done', () => {
    const at = place({ look: '---\nschedule: hourly\n---\nlook\n' });
    mkdirSync(at.units);
    const foreign = path.join(at.units, 'submind-look.service');
    writeFileSync(foreign, '[Service]\nExecStart=/bin/true\n');
    const refused = at.schedule('apply');
    assert.equal(refused.status, 2);
    assert.match(refused.stderr, /submind-look\.service is there and is not ours/);
    assert.match(at.schedule('remove').stdout, /nothing to change/);
    assert.equal(readFileSync(foreign, 'utf8'), '[Service]\nExecStart=/bin/true\n');
    rmSync(foreign);
    assert.equal(at.schedule('apply').status, 0);
    const other = place({ look: '---\nschedule: hourly\n---\nlook\n' });
    other.units = at.units;
    assert.match(other.schedule('apply').stderr, /belongs to the workspace .*; give one of the two/);
    at.schedule('remove');
    at.systemctl('echo "Failed to connect to bus" >&2; exit 1');
    const down = at.schedule('apply');
    assert.notEqual(down.status, 0);
    assert.match(down.stderr, /systemd does not answer \(submind schedule run needs none\).*Failed to connect to bus/);
    assert.deepEqual(readdirSync(at.units), []);
    at.define('broken', '---\nschedule: soon\n---\nx\n');
    assert.match(at.schedule('apply').stderr, /broken\.md:2: schedule/);
    assert.match(at.run('schedule').stderr, /say what/);
});

// The words of an ExecStart line, with systemd's quoting taken back.
function wordsOf(unit) {
    const line = readFileSync(unit, 'utf8').match(/^ExecStart=(.*)$/m)[1];
    return [...line.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map((m) => (m[1] ?? m[2]).replace(/\\(.)/g, '$1').replace(/%%/g, '%').replace(/\$\$/g, '$'));
}

test('what the units start runs, and a run that was killed is told of by the failure unit', async () => {
    let hang = false;
    const fake = await startFake(() => (hang ? { hang: 'prefill' } : { content: 'all well' }));
    const definition = `---\nschedule: hourly\nserver: ${fake.url}\nnotify:\n  file: told.jsonl\n---\nlook\n`;
    const at = place({ look: definition });
    assert.equal(at.schedule('apply', '--state-dir', at.state).status, 0);
    const [program, ...args] = wordsOf(path.join(at.units, 'submind-look.service'));
    const [teller, ...tellerArgs] = wordsOf(path.join(at.units, 'submind-look-failed.service'));
    const tell = () => spawnSync(teller, tellerArgs, { encoding: 'utf8', cwd: '/' });
    const bare = { PATH: '/usr/bin:/bin', HOME: scratch }; // as systemd starts it
    const done = await new Promise((resolve) => spawn(program, args, { cwd: '/', env: bare, stdio: 'inherit' }).on('close', resolve));
    assert.equal(done, 0);
    assert.deepEqual(at.records().map((r) => [r.outcome, r.cause]), [['done', 'schedule']]);
    hang = true;
    const child = spawn(program, args, { cwd: '/', env: bare });
    await until(() => /prefill/.test(at.records()[0].stage), 10_000, 'it hangs in the prefill');
    child.kill('SIGKILL');
    await new Promise((resolve) => child.on('close', resolve));
    assert.equal(tell().status, 0);
    const told = () => readFileSync(path.join(at.dir, 'told.jsonl'), 'utf8').trim().split('\n').map((l) => JSON.parse(l));
    assert.equal(told().length, 1);
    assert.equal(told()[0].outcome, 'interrupted');
    assert.match(told()[0].reason, /its process went away \(in prefill 550 of 1000/);
    assert.equal(tell().status, 0);
    assert.equal(told().length, 1, 'once');
    at.define('look', '---\nbroken: yes\n---\nx\n');
    assert.equal(spawnSync(program, args, { cwd: '/', env: bare }).status, 2);
    assert.equal(tell().status, 0);
    assert.match(at.records()[0].reason, /there is no setting "broken"/);
    at.define('look', definition);
    writeFileSync(path.join(at.dir, 'submind.yaml'), 'timeout: soon\n'); // the workspace is broken, the notice is not
    assert.equal(spawnSync(program, args, { cwd: '/', env: bare }).status, 2);
    assert.equal(tell().status, 0);
    assert.match(at.records()[0].reason, /submind\.yaml:1: timeout must be/);
    assert.deepEqual(told().map((l) => l.outcome), ['interrupted', 'failed']);
    await fake.stop();
});

test('in the foreground runs overlap where they may', async (t) => {
    const fake = await startFake(async () => { await sleep(20_000); return { content: 'tick' }; });
    const at = place({ tick: `---\nschedule: "*-*-* *:*:*"\noverlap: allow\nserver: ${fake.url}\n---\nlook\n` });
    const child = spawn(binary, ['schedule', 'run', '--jobs', '3'], { cwd: at.dir, env: at.env, stdio: 'ignore' });
    t.after(() => child.kill());
    const ended = new Promise((resolve) => child.on('close', resolve));
    await until(() => at.records().filter((r) => r.outcome === 'running').length === 3, 15_000, 'three at once');
    await sleep(1500);
    assert.equal(at.records().length, 3, 'no more than --jobs');
    child.kill('SIGTERM');
    assert.equal(await ended, 0);
    assert.deepEqual(at.records().map((r) => r.outcome), ['cancelled', 'cancelled', 'cancelled']);
    await fake.stop();
});

test('in the foreground: what is due runs, a new definition is taken up, the end is clean', async () => {
    let slow = false;
    const fake = await startFake(async () => { if (slow) await sleep(20_000); return { content: 'tick' }; });
    const at = place({ tick: `---\nschedule: "*-*-* *:*:0/2"\nserver: ${fake.url}\n---\nlook\n`, bad: '---\nschedule: soon\n---\nx\n' });
    const child = spawn(binary, ['schedule', 'run'], { cwd: at.dir, env: at.env, stdio: ['ignore', 'pipe', 'pipe'] });
    const ended = new Promise((resolve) => child.on('close', (code) => resolve(code)));
    let out = '', err = '';
    child.stdout.on('data', (text) => { out += text; });
    child.stderr.on('data', (text) => { err += text; });
    await until(() => at.records('tick').filter((r) => r.outcome === 'done').length >= 2, 15_000, 'two ticks');
    assert.match(err, /bad\.md:2: schedule/);
    at.define('bad', `---\nschedule: "*-*-* *:*:1/2"\nserver: ${fake.url}\n---\nlook\n`);
    await until(() => at.records('bad').some((r) => r.outcome === 'done'), 15_000, 'the mended one runs');
    slow = true;
    await until(() => at.records().some((r) => r.outcome === 'running'), 10_000, 'one runs');
    child.kill('SIGTERM');
    assert.equal(await ended, 0);
    assert.deepEqual([...new Set(at.records().map((r) => r.outcome))].sort(), ['cancelled', 'done']);
    assert.match(out, /tick +started/);
    assert.match(out, /tick +ended with code 0/);
    await fake.stop();
});

test('what was missed runs once at the start, unless it is to be skipped', async (t) => {
    const fake = await startFake(() => ({ content: 'made up for' }));
    for (const [missed, runs] of [['run', 2], ['skip', 1]]) {
        const at = place({ look: `---\nschedule: hourly\nmissed: ${missed}\nserver: ${fake.url}\n---\nlook\n` });
        const first = spawn(binary, ['run', '--scheduled', 'look'], { cwd: at.dir, env: at.env });
        assert.equal(await new Promise((resolve) => first.on('close', resolve)), 0);
        // As if that had been three hours ago.
        const old = spawnSync('sqlite3', [path.join(at.state, 'runs.db'), 'UPDATE runs SET started_ms=started_ms-3*3600000']);
        if (old.status !== 0) return t.skip('sqlite3 is not installed');
        const child = spawn(binary, ['schedule', 'run'], { cwd: at.dir, env: at.env, stdio: 'ignore' });
        await sleep(2500);
        child.kill('SIGTERM');
        await new Promise((resolve) => child.on('close', resolve));
        assert.equal(at.records().length, runs, missed);
    }
    await fake.stop();
});

test('what became due while a long run went on is skipped, wherever the start comes from', async (t) => {
    const fake = await startFake(() => ({ content: 'ok' }));
    const at = place({ look: `---\nschedule: hourly\nserver: ${fake.url}\n---\nlook\n` });
    const go = async () => {
        const child = spawn(binary, ['run', '--scheduled', '--quiet', 'look'], { cwd: at.dir, env: at.env, stdio: 'ignore' });
        assert.equal(await new Promise((resolve) => child.on('close', resolve)), 0);
    };
    const change = (sql) => spawnSync('sqlite3', [path.join(at.state, 'runs.db'), sql]).status === 0;
    await go();
    if (!change('UPDATE runs SET started_ms=started_ms-3*3600000')) return t.skip('sqlite3 is not installed');
    await go(); // as systemd does when the long run has ended
    const [second] = at.records();
    assert.equal(second.outcome, 'skipped');
    assert.match(second.reason, /was due while the run before it still went on/);
    change('UPDATE runs SET ended_ms=ended_ms-3*3600000'); // it ended long ago: this one is due
    await go();
    assert.deepEqual(at.records().map((r) => r.outcome), ['done', 'skipped', 'done']);
    at.define('look', `---\nschedule: hourly\noverlap: wait\nserver: ${fake.url}\n---\nlook\n`);
    change('UPDATE runs SET started_ms=started_ms-3*3600000');
    await go();
    assert.equal(at.records()[0].outcome, 'done', 'who waits is not skipped');
    await fake.stop();
});

test('under a real systemd: runs overlap where they may, are skipped where not, and one that is killed is told of', { timeout: 60_000 }, async (t) => {
    const slow = async () => { await sleep(3500); return { content: 'slowly' }; };
    const fake = await startFake(slow);
    const every = (overlap) => `---\nschedule: "*-*-* *:*:0/2"\noverlap: ${overlap}\nserver: ${fake.url}\nnotify:\n  file: told.jsonl\n---\nlook\n`;
    const at = place({ both: every('allow'), one: every('skip') }, { name: 'w $HOME 100% "x"' });
    const home = path.join(scratch, 'home'), stop = path.join(at.dir, 'stop');
    mkdirSync(home);
    const script = `"$1" schedule apply --state-dir "$2" && until [ -e stop ]; do if [ -e kill ]; then rm kill; systemctl --user kill -s KILL 'submind-both-*'; fi; sleep 0.2; done; "$1" schedule ls --state-dir "$2"; "$1" schedule remove`;
    const child = spawn(path.join(import.meta.dirname, 'user_manager.sh'), ['bash', '-c', script, 'x', binary, at.state],
        { cwd: at.dir, env: { ...process.env, HOME: home, XDG_CONFIG_HOME: path.join(home, '.config') }, stdio: ['ignore', 'pipe', 'pipe'] });
    t.after(() => child.kill());
    let out = '';
    child.stdout.on('data', (text) => { out += text; });
    child.stderr.on('data', (text) => { out += text; });
    const ended = new Promise((resolve) => child.on('close', resolve));
    const began = await Promise.race([ended, until(() => existsSync(at.state) && at.records().length > 0, 15_000, 'a run starts').then(() => 'runs', () => 'none')]);
    if (began === 77) { await fake.stop(); return t.skip('no systemd of our own can be had here'); }
    assert.equal(began, 'runs', out);
    const running = (name) => at.records(name).filter((r) => r.outcome === 'running').length;
    await until(() => running('both') >= 2, 10_000, 'two at once');
    assert.equal(running('one'), 1);
    writeFileSync(path.join(at.dir, 'kill'), '');
    const told = path.join(at.dir, 'told.jsonl');
    const lines = () => (existsSync(told) ? readFileSync(told, 'utf8').split('\n').slice(0, -1).map((l) => JSON.parse(l)) : []); // whole ones
    await until(() => lines().length >= 2, 10_000, 'both are told of');
    assert.ok(lines().every((l) => l.name === 'both' && l.outcome === 'interrupted'), JSON.stringify(lines()));
    assert.equal(new Set(lines().map((l) => l.run)).size, lines().length, 'each once');
    await until(() => at.records('one').some((r) => r.outcome === 'skipped'), 10_000, 'what was due meanwhile is skipped');
    writeFileSync(stop, '');
    assert.equal(await ended, 0, out);
    assert.match(out, /^both +.* +active +/m);
    assert.match(out, /submind-both-failed\.service \(removed\)/);
    await until(() => running('both') + running('one') === 0, 10_000, 'their systemd is gone, and they with it');
    await fake.stop();
});
