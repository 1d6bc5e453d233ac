// submind bench ops: the table of kernels, as JSON; and what a wrong flag is told.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { binary, requireBinary } from './harness.mjs';

requireBinary();

function bench(...args) {
    const run = spawnSync(binary, ['bench', ...args], { maxBuffer: 1 << 26 });
    return { code: run.status, out: run.stdout.toString(), err: run.stderr.toString() };
}

const near = (a, b, what) => assert.ok(Math.abs(a / b - 1) < 0.01, `${what}: ${a} for ${b}`);

test('ops: time, rates and percent agree with each other and with the shape', () => {
    const run = bench('ops', '--device', 'cpu', '--format', 'Q8_0', '--op', 'down', '--rows', '4', '--json');
    assert.equal(run.code, 0, run.err);
    const { device, ceilings, ops } = JSON.parse(run.out);
    assert.match(device, /threads/);
    assert.ok(ceilings.read_gb_s > 0.1 && ceilings.gflop_s > 0.1, JSON.stringify(ceilings));
    assert.equal(ops.length, 1);
    const [op] = ops;
    assert.equal(op.op, 'linear');
    assert.equal(op.shape, 'down 1024x3072');
    // 2 a weight and row; 34 bytes a block of 32; rows in and out as f32
    near(op.gflop_s * op.ms * 1e6, 2 * 4 * 1024 * 3072, 'operations');
    near(op.gb_s * op.ms * 1e6, 1024 * 3072 / 32 * 34 + 4 * 4 * (1024 + 3072), 'bytes');
    const rate = op.of === 'bytes' ? op.gb_s / ceilings.read_gb_s : op.gflop_s / ceilings.gflop_s;
    near(op.percent, 100 * rate, 'percent');
});

test('ops: every kind of op is there, on the device that was asked for', () => {
    const run = bench('ops', '--device', 'cpu:portable', '--rows', '1', '--format', 'Q4_0', '--json');
    assert.equal(run.code, 0, run.err);
    const { device, ops } = JSON.parse(run.out);
    assert.match(device, /portable/);
    const kinds = [...new Set(ops.map((x) => x.op))].sort();
    assert.deepEqual(kinds, ['add', 'attention', 'linear', 'rms_norm', 'rope_kv', 'swiglu', 'topk']);
    for (const op of ops) assert.ok(op.ms > 0 && op.percent > 0, JSON.stringify(op));
});

test('ops: keys and values are timed as the device has them, with the bytes that they take', () => {
    const run = bench('ops', '--device', 'cpu', '--op', 'rope_kv', '--rows', '8', '--json');
    assert.equal(run.code, 0, run.err);
    const { ops } = JSON.parse(run.out);
    assert.deepEqual(ops.map((x) => [x.op, x.format]), [['rope_kv', 'q8_0']]);
    // a row of q and k, v in, q out as f32; 2 times 8 vectors of 128 bytes with a scale out
    near(ops[0].gb_s * ops[0].ms * 1e6, 8 * (4 * 2 * (2048 + 1024) + 2 * 8 * (128 + 4)), 'bytes');
});

test('ops: wrong flags are told what there is', () => {
    for (const [args, says] of [
        [['--format', 'Q9'], /no format "Q9"; there are all, F32, .*Q6_K/],
        [['--shape', 'huge'], /no shape "huge"; there are 0.6b, 8b and 32b/],
        [['--device', 'abacus'], /no device "abacus"/],
        [['--op', 'nonsense'], /nothing to time/],
    ]) {
        const run = bench('ops', '--device', 'cpu', ...args);
        assert.notEqual(run.code, 0, args.join(' '));
        assert.match(run.err, says);
    }
    assert.match(bench('everything').err, /no benchmark "everything"/);
});
