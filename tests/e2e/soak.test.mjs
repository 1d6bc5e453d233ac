// One minute of the soak (soak.mjs); the long form is `make soak`.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requireBinary } from './harness.mjs';
import { soak } from './soak.mjs';

requireBinary();
test('64 streams for a minute', { timeout: 200_000 }, async (t) => {
    const { problems, tally } = await soak({ minutes: 1, log: (text) => t.diagnostic(text) });
    assert.deepEqual(problems, []);
    assert.ok(tally.done > 20, `${tally.done} done`);
});
