// A model file that is cut short under a running server: the server ends and says what happened.
import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { requireBinary, shared, startServer } from './harness.mjs';

requireBinary();

test('a model file that shrinks ends the server with its name and the place', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'submind-truncated-'));
    const model = path.join(folder, 'model.gguf');
    copyFileSync(path.join(shared, 'models/submind-demo-Q8_0.gguf'), model);
    // Portable kernels use the weights where they are mapped.
    const server = await startServer('--model', model, '--device', 'cpu:portable', '--ctx', '2048');
    truncateSync(model, 1 << 20);
    await assert.rejects(server.json('/v1/completions', { prompt: 'Is the service up?', max_tokens: 4 }));
    const { code, signal } = await server.exited;
    rmSync(folder, { recursive: true });
    assert.equal(signal, null);
    assert.equal(code, 1);
    assert.match(server.log, /model\.gguf cannot be read any more at byte \d+ of \d+: it was cut short/);
});
