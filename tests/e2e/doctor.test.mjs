// submind doctor on constructed hosts. Expected findings follow from the published facts about the machines
// (values, pitfalls and sources stand in src/host/facts.def), not from what the program prints.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { binary, requireBinary } from './harness.mjs';

requireBinary();

const GIB = 1024 ** 3;
const fedora = 'NAME="Fedora Linux"\nID=fedora\nVERSION_ID=43\nPRETTY_NAME="Fedora Linux 43"\n';

// A Framework Desktop: Ryzen AI Max+ 395, 128 GB, Radeon 8060S (gfx1151).
function strixHalo({ cmdline, gttGib, vramGib = 0.5, kernel = '6.18.9-200.fc43.x86_64', release = fedora }) {
    return {
        'proc/cmdline': `BOOT_IMAGE=/vmlinuz root=/dev/nvme0n1p3 ro ${cmdline}\n`,
        'proc/cpuinfo': 'processor\t: 0\nmodel name\t: AMD RYZEN AI MAX+ 395 w/ Radeon 8060S\nflags\t\t: fma f16c avx avx2 avx512f\n',
        'proc/meminfo': `MemTotal:       ${Math.floor(124.9 * 1024 * 1024)} kB\nMemAvailable:   120000000 kB\nSwapTotal: 8388604 kB\nSwapFree: 8388604 kB\n`,
        'proc/sys/kernel/osrelease': kernel + '\n',
        'etc/os-release': release,
        'sys/class/drm/card1/device/vendor': '0x1002\n',
        'sys/class/drm/card1/device/device': '0x1586\n',
        'sys/class/drm/card1/device/mem_info_vram_total': `${vramGib * GIB}\n`,
        'sys/class/drm/card1/device/mem_info_gtt_total': `${gttGib * GIB}\n`,
    };
}

function doctor(files, ...args) {
    const root = mkdtempSync(path.join(os.tmpdir(), 'submind-host-'));
    try {
        for (const [name, content] of Object.entries(files)) {
            mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
            writeFileSync(path.join(root, name), content);
        }
        const run = spawnSync(binary, ['doctor', '--root', root, ...args], { timeout: 10_000 });
        return { code: run.status, out: run.stdout.toString(), err: run.stderr.toString() };
    } finally {
        rmSync(root, { recursive: true, force: true });
    }
}

function findings(files) {
    const run = doctor(files, '--json');
    const { checks } = JSON.parse(run.out);
    for (const c of checks) assert.deepEqual(Object.keys(c), ['id', 'status', 'seen', 'want', 'why', 'fix']);
    return Object.fromEntries(checks.map((c) => [c.id, c]));
}

test('an untuned Strix Halo: half of the memory, and grubby says how to mend it', () => {
    const c = findings(strixHalo({ cmdline: 'rhgb quiet', gttGib: 62 }));
    assert.notEqual(c.gtt.status, 'ok');
    assert.match(c.gtt.fix, /grubby --update-kernel=ALL/);
    assert.match(c.gtt.fix, /ttm\.pages_limit=\d+/);
    assert.equal(c.cpu.status, 'ok');
});

test('the recommended parameters: nothing to say of memory', () => {
    const c = findings(strixHalo({ cmdline: 'amd_iommu=off amdgpu.gttsize=126976 ttm.pages_limit=32505856', gttGib: 124 }));
    assert.equal(c.gtt.status, 'ok');
    assert.equal(c.iommu.status, 'ok');
});

test('one recipe is as good as the other: the result counts', () => {
    const c = findings(strixHalo({ cmdline: 'amd_iommu=off ttm.pages_limit=32505856', gttGib: 124, kernel: '7.1.0-1.fc44.x86_64' }));
    assert.equal(c.gtt.status, 'ok');
});

test('amd_iommu=pt is no value of that parameter', () => {
    const c = findings(strixHalo({ cmdline: 'amd_iommu=pt ttm.pages_limit=32505856', gttGib: 124 }));
    assert.notEqual(c.iommu.status, 'ok');
    assert.match(c.iommu.seen, /amd_iommu=pt/);
});

test('nomodeset leaves no GPU', () => {
    const c = findings(strixHalo({ cmdline: 'nomodeset', gttGib: 62 }));
    assert.equal(c.nomodeset.status, 'problem');
});

test('memory given away in the BIOS is seen', () => {
    const c = findings(strixHalo({ cmdline: '', gttGib: 16, vramGib: 96 }));
    assert.notEqual(c.carveout.status, 'ok');
});

test('other distributions get their own commands', () => {
    const ubuntu = 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04 LTS"\n';
    const run = doctor(strixHalo({ cmdline: '', gttGib: 62, release: ubuntu }), '--plan');
    assert.match(run.out, /update-grub/);
    assert.doesNotMatch(run.out, /grubby/);
    const plan = spawnSync('bash', ['-n'], { input: run.out });
    assert.equal(plan.status, 0, plan.stderr.toString()); // the plan is a script
});

test('hosts that say nothing, or nonsense, are looked at all the same', () => {
    const empty = doctor({ 'etc/hostname': 'x\n' }, '--json');
    assert.ok(JSON.parse(empty.out).checks.length > 0, empty.err);
    const garbage = Buffer.alloc(200_000, '\xff\x00=\n', 'latin1');
    const broken = doctor({
        'proc/cmdline': garbage, 'proc/meminfo': garbage, 'proc/cpuinfo': garbage, 'etc/os-release': garbage,
        'sys/class/drm/card0/device/vendor': garbage, 'sys/class/drm/card0/device/mem_info_gtt_total': '99999999999999999999999',
    }, '--json');
    assert.ok(JSON.parse(broken.out).checks.length > 0, broken.err);
    assert.ok([0, 1].includes(broken.code));
});

test('bad use is told what to do', () => {
    const explained = spawnSync(binary, ['doctor', '--explain', 'vulkan']).stdout.toString();
    assert.match(explained, /source .*kyuz0\/amd-strix-halo-toolboxes@d1a34be \(2026-08-19\)/); // not "[K]"
    const run = spawnSync(binary, ['doctor', '--explain', 'nonsense']);
    assert.equal(run.status, 2);
    assert.match(run.stderr.toString(), /nonsense/);
});
