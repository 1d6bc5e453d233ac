// The short form of soak_runs.mjs; the long one is `make soak`.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requireBinary } from './harness.mjs';
import { soakRuns } from './soak_runs.mjs';

requireBinary();
test('48 runs, 8 at a time, with tools that misbehave', { timeout: 120_000 }, async (t) => {
    const { problems, tally } = await soakRuns({ runs: 48, jobs: 8, log: (text) => t.diagnostic(text) });
    assert.deepEqual(problems, []);
    assert.equal(tally.runs, 48);
});
