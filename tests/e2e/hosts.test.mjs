// submind doctor on constructed hosts, one row each: what the machine's files hold, and which findings follow.
// Expected findings come from the published facts about such machines (sources and dates: src/host/facts.def),
// not from what the program prints. Then: doing and taking back, and sizing.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { binary, requireBinary, source } from './harness.mjs';

requireBinary();

const GIB = 1024 ** 3;
const scratch = mkdtempSync(path.join(os.tmpdir(), 'submind-hosts-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

// ---- pieces of machines -------------------------------------------------------------------------------

const release = {
    fedora: 'ID=fedora\nVERSION_ID=43\nPRETTY_NAME="Fedora Linux 43"\n',
    ubuntu: 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04 LTS"\n',
    debian: 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
    arch: 'ID=arch\nPRETTY_NAME="Arch Linux"\n',
    nixos: 'ID=nixos\nVERSION_ID="25.11"\nPRETTY_NAME="NixOS 25.11"\n',
};

function base({ os = 'fedora', kernel = '6.18.9-200.fc43.x86_64', cmdline = 'rhgb quiet', memory = 124.9, swap = 8,
    cpu = 'AMD RYZEN AI MAX+ 395 w/ Radeon 8060S', flags = 'fma f16c avx avx2 avx512f' } = {}) {
    return {
        'proc/cmdline': `BOOT_IMAGE=/vmlinuz root=/dev/nvme0n1p3 ro ${cmdline}\n`,
        'proc/cpuinfo': `processor\t: 0\nmodel name\t: ${cpu}\nflags\t\t: ${flags}\n`,
        'proc/meminfo': `MemTotal:       ${Math.floor(memory * 1024 * 1024)} kB\nSwapTotal: ${swap * 1048576} kB\nSwapFree: ${swap * 1048576} kB\n`,
        'proc/sys/kernel/osrelease': kernel + '\n',
        'etc/os-release': release[os],
    };
}

function radeon({ gtt = 62, vram = 0.5, device = '0x1586', mes = null } = {}) {
    return {
        'sys/class/drm/card1/device/vendor': '0x1002\n',
        'sys/class/drm/card1/device/device': device + '\n',
        'sys/class/drm/card1/device/mem_info_vram_total': `${vram * GIB}\n`,
        'sys/class/drm/card1/device/mem_info_gtt_total': `${gtt * GIB}\n`,
        'dev/kfd': '', 'dev/dri/renderD128': '',
        ...(mes === null ? {} : { 'sys/class/drm/card1/device/fw_version/mes_fw_version': mes + '\n' }),
    };
}

const pages = (gib) => ({ 'sys/module/ttm/parameters/pages_limit': `${gib * 262144}\n` });
const tuned = (profile = 'accelerator-performance', { running = true, enabled = true } = {}) => ({
    'usr/sbin/tuned': '', 'etc/tuned/active_profile': profile + '\n',
    ...(enabled ? { 'etc/systemd/system/multi-user.target.wants/tuned.service': '' } : {}),
    ...(running ? { 'run/tuned/tuned.pid': '77\n', 'proc/77/comm': 'tuned\n' } : {}),
});
const user = (groups = 'video render') => ({
    'submind/uid': '1000\n',
    'etc/passwd': 'root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/bash\n',
    'etc/group': `video:x:39:${groups.includes('video') ? 'ada' : ''}\nrender:x:105:${groups.includes('render') ? 'ada' : ''}\n`,
});
const firmware = (version) => ({ 'submind/linux-firmware': version + '\n' });
const dpkg = (...list) => ({ 'var/lib/dpkg/status': list.map(([name, version]) => `Package: ${name}\nStatus: install ok installed\nVersion: ${version}\n\n`).join('') });
const radv = { 'usr/share/vulkan/icd.d/radeon_icd.x86_64.json': '{}', 'usr/lib64/libvulkan.so.1': '' };
const amdvlk = { 'usr/share/vulkan/icd.d/amd_icd64.json': '{}' };
const rocm = (version) => ({ 'opt/rocm/.info/version': version + '\n', 'opt/rocm/lib/libamdhip64.so.7': '', 'opt/rocm/lib/libhipblaslt.so.1': '' });
const nvidia = (driver = true) => ({
    'sys/bus/pci/devices/0000:01:00.0/class': '0x030000\n',
    'sys/bus/pci/devices/0000:01:00.0/vendor': '0x10de\n',
    'sys/bus/pci/devices/0000:01:00.0/device': '0x2684\n',
    ...(driver ? { 'proc/driver/nvidia/version': 'NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06\n', 'usr/lib64/libcuda.so.1': '' } : { 'sys/module/nouveau/x': '' }),
});
const gateway = (provider) => ({ 'home/ada/.openclaw/openclaw.json': `{ // JSON5\n models: { providers: { local: ${provider} } } }` });
// What podman inspect tells of containers, as far as it is read (podman 4.3 and 5).
const podman = (...list) => ({ 'submind/podman-inspect.json': JSON.stringify(list.map((c) => ({
    Name: c.name, ImageName: c.image, State: { Status: 'exited' }, Mounts: (c.mounts ?? []).map((m) => ({ Type: 'bind', Source: m, Destination: m })),
    Config: { Labels: c.toolbox ? { 'com.github.containers.toolbox': 'true' } : null, CreateCommand: ['podman', 'create', '--name', c.name, ...c.words, c.image] },
    HostConfig: { Devices: [], GroupAdd: c.groups ?? [] },
}))) });
// Somebody on port 8080: /proc/net/tcp, and where it may be seen, the process.
const listening = (program, cgroup) => ({
    'proc/net/tcp': '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n'
        + '   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000   992        0 51234 1 0000000000000000 100 0 0 10 0\n',
    ...(program ? { 'proc/4242/comm': program + '\n', 'proc/4242/cgroup': cgroup + '\n', 'proc/4242/fd/3': { link: '/dev/null' }, 'proc/4242/fd/9': { link: 'socket:[51234]' } } : {}),
});
const best = 'amd_iommu=off amdgpu.gttsize=126976 ttm.pages_limit=32505856';

// ---- the hosts ------------------------------------------------------------------------------------------
// Expected: check -> status, or [status, pattern of what was seen], or [status, pattern, pattern of the fix].
// null: the check does not apply.

const desktop = { ...radeon({ gtt: 124, mes: '0x80' }), ...pages(124), ...tuned(), ...user(), ...firmware('20260110'), ...radv };
const hosts = {
    'Framework Desktop, Fedora 43, untuned': [
        { ...base(), ...radeon(), ...user(''), ...firmware('20260110') },
        { gtt: ['problem', /62/, /grubby.*ttm\.pages_limit=32505856/s], iommu: ['attention', /default/, /amd_iommu=off/],
            tuned: ['attention', /not installed/, /dnf install/], groups: ['problem', /./, /usermod -aG video,render ada/], kernel: 'ok', nomodeset: 'ok', cwsr: 'ok' }],
    "the seed's own setup: iommu=pt, 124 GiB": [
        { ...base({ cmdline: 'iommu=pt amdgpu.gttsize=126976 ttm.pages_limit=32505856' }), ...desktop },
        { gtt: 'ok', ttm: 'ok', iommu: ['attention', /gains nothing/], carveout: 'ok', tuned: 'ok', tuned_profile: 'ok', groups: 'ok' }],
    'the best known setup': [
        { ...base({ cmdline: best }), ...desktop },
        { gtt: 'ok', ttm: 'ok', iommu: 'ok', carveout: 'ok', kernel: 'ok', cwsr: 'ok', firmware: 'ok', tuned: 'ok', tuned_profile: 'ok', groups: 'ok', nodes: 'ok', vulkan: 'ok', nomodeset: 'ok' }],
    'all of the memory for the GPU (the recipe before 2025-11-30)': [
        { ...base({ cmdline: 'amd_iommu=off amdgpu.gttsize=131072 ttm.pages_limit=33554432' }), ...desktop, ...radeon({ gtt: 128 }), ...pages(128) },
        { gtt: ['attention', /128/] }],
    'half of the memory given away in the BIOS': [
        { ...base({ cmdline: best, memory: 60 }), ...desktop, ...radeon({ gtt: 30, vram: 64 }), ...pages(124) },
        { carveout: ['problem', /64/, /BIOS/] }],
    'the command line is right, the module is not: no reboot yet': [
        { ...base({ cmdline: best }), ...desktop, ...radeon({ gtt: 62 }), ...pages(62) },
        { ttm: ['problem', /./, /reboot/], gtt: 'problem' }],
    'amdgpu-dkms: the other module\'s name': [
        { ...base({ os: 'ubuntu', kernel: '6.14.0-1018-oem', cmdline: best }), ...radeon({ gtt: 62 }), ...user(), 'sys/module/amdttm/parameters/pages_limit': `${62 * 262144}\n` },
        { ttm: ['problem', /amdttm/, /amdttm\.pages_limit/], kernel: 'ok' }],
    'amd_iommu=pt': [
        { ...base({ cmdline: 'amd_iommu=pt ttm.pages_limit=32505856' }), ...desktop },
        { iommu: ['problem', /Unknown option - 'pt'/], gtt: 'ok' }],
    'nomodeset was forgotten': [
        { ...base({ cmdline: 'nomodeset' }), ...user(), 'sys/bus/pci/devices/0000:c1:00.0/class': '0x038000\n', 'sys/bus/pci/devices/0000:c1:00.0/vendor': '0x1002\n', 'sys/bus/pci/devices/0000:c1:00.0/device': '0x1586\n' },
        { nomodeset: ['problem', /nomodeset/], gpu: ['problem', /no driver/] }],
    'linux-firmware 20251125 hangs the GPU': [
        { ...base({ cmdline: best }), ...desktop, ...firmware('20251125') },
        { firmware: ['problem', /20251125/, /dnf upgrade/] }],
    'good package, but MES 0x83 is loaded': [
        { ...base({ cmdline: best }), ...desktop, ...radeon({ gtt: 124, mes: '0x83' }) },
        { firmware: ['problem', /MES 0x83/] }],
    'kernel before the CWSR fix, no work-around': [
        { ...base({ kernel: '6.17.4-200.fc43.x86_64', cmdline: best }), ...desktop },
        { kernel: 'attention', cwsr: ['problem', /./, /amdgpu\.cwsr_enable=0/] }],
    'kernel before the CWSR fix, with the work-around': [
        { ...base({ kernel: '6.17.4-200.fc43.x86_64', cmdline: `${best} amdgpu.cwsr_enable=0` }), ...desktop },
        { kernel: 'attention', cwsr: 'ok' }],
    'the work-around was left behind': [
        { ...base({ cmdline: `${best} amdgpu.cwsr_enable=0` }), ...desktop },
        { cwsr: ['attention', /has the fix/, /remove-args.*cwsr_enable/s] }],
    'tuned is off after the reboot': [
        { ...base({ cmdline: best }), ...radeon({ gtt: 124 }), ...pages(124), ...user(), ...tuned('accelerator-performance', { running: false, enabled: false }), 'run/tuned/tuned.pid': '78\n' },
        { tuned: ['attention', /not running, does not start/, /systemctl enable --now tuned/] }],
    'tuned with the default profile': [
        { ...base({ cmdline: best }), ...desktop, ...tuned('balanced') },
        { tuned: 'ok', tuned_profile: ['attention', /balanced/, /accelerator-performance/] }],
    'AMDVLK beside RADV': [
        { ...base({ cmdline: best }), ...desktop, ...amdvlk },
        { vulkan: ['problem', /AMDVLK/i, /AMD_VULKAN_ICD=RADV/] }],
    'AMDVLK beside RADV, but RADV is chosen': [
        { ...base({ cmdline: best }), ...desktop, ...amdvlk, 'etc/environment': 'AMD_VULKAN_ICD=RADV\n' },
        { vulkan: 'ok' }],
    'ROCm before 7.2 on a new kernel': [
        { ...base({ cmdline: best }), ...desktop, ...rocm('6.4.4') },
        { rocm: ['problem|attention', /6\.4\.4/] }],
    'ROCm 7.2 with hipBLASLt': [
        { ...base({ cmdline: best }), ...desktop, ...rocm('7.2.4') },
        { rocm: 'ok', hipblaslt: 'ok' }],
    'Ubuntu 24.04 with its OEM kernel': [
        { ...base({ os: 'ubuntu', kernel: '6.17.0-1018-oem', cmdline: 'quiet splash' }), ...radeon(), ...user('video'), ...dpkg(['linux-firmware', '20240318.git3b128b60-0ubuntu2.10']) },
        { kernel: 'ok', gtt: ['problem', /./, /update-grub/], firmware: ['attention', /20240318/, /apt/], groups: ['problem', /render/] }],
    'Arch with systemd-boot, 96 GiB': [
        { ...base({ os: 'arch', kernel: '7.1.3-arch1-1', cmdline: 'ttm.pages_limit=25165824' }), ...desktop, ...radeon({ gtt: 96 }), ...pages(96), 'boot/loader/entries/arch.conf': 'title Arch\noptions root=x\n', 'var/lib/pacman/local/linux-firmware-20260309-1/desc': '', },
        { gtt: ['attention', /96/, /loader\/entries/] }],
    'Arch with GRUB, untuned': [
        { ...base({ os: 'arch', kernel: '6.18.9-arch1-1' }), ...radeon(), ...user(), 'etc/default/grub': 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n' },
        { gtt: ['problem', /./, /grub-mkconfig/], tuned: ['attention', /./, /pacman/] }],
    'NixOS, untuned': [
        { ...base({ os: 'nixos', kernel: '6.18.9' }), ...radeon(), ...user() },
        { gtt: ['problem', /./, /boot\.kernelParams/] }],
    'Fedora Silverblue (rpm-ostree)': [
        { ...base(), ...radeon(), ...user(), 'run/ostree-booted': '' },
        { gtt: ['problem', /./, /rpm-ostree kargs/] }],
    'inside a toolbox': [
        { ...base({ cmdline: best }), ...radeon({ gtt: 124 }), ...pages(124), ...user(), 'run/.toolboxenv': '', 'run/.containerenv': '' },
        { gtt: 'ok', tuned: null, firmware: null }],
    'a 64 GB box with its recipe': [
        { ...base({ cmdline: 'amd_iommu=off amdgpu.gttsize=61440 ttm.pages_limit=15728640', memory: 61.9 }), ...desktop, ...radeon({ gtt: 60 }), ...pages(60) },
        { gtt: 'ok', ttm: 'ok' }],
    'an NVIDIA box': [
        { ...base({ cpu: 'Intel(R) Xeon(R) w5', memory: 125 }), ...nvidia(), ...user(), 'usr/lib64/libcublasLt.so.13': '' },
        { nvidia: ['ok', /580\.65\.06/], cublaslt: 'ok', gtt: null, iommu: null, cwsr: null, rocm: null }],
    'an NVIDIA card on nouveau': [
        { ...base({ os: 'debian', cpu: 'Intel(R) Core(TM) i7', memory: 31 }), ...nvidia(false), ...user() },
        { nvidia: ['problem', /nouveau|not loaded/i, /apt/] }],
    'a CPU-only VM without AVX2': [
        { ...base({ os: 'debian', kernel: '6.1.0-40-amd64', cpu: 'QEMU Virtual CPU', flags: 'sse2', memory: 7.7, swap: 0 }), ...user() },
        { swap: ['attention', /./, /zram/], cpu: ['attention', /no AVX2/], memory: 'attention', gpu: ['attention', /CPU backend/], gtt: null, nvidia: null, kernel: null }],
    'small limits, a full disk, a taken port, huge pages off': [
        { ...base({ cpu: 'AMD EPYC' }), ...user(), 'submind/disk-free': `${2 * GIB}\n`, 'submind/model-mb-s': '140\n', 'submind/cache-mb-s': '2100\n', 'sys/kernel/mm/transparent_hugepage/enabled': 'always madvise [never]\n',
            'proc/self/limits': 'Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 1024                 files     \nMax locked memory         65536                65536                bytes     \n',
            'proc/net/tcp': '  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n' },
        { disk_speed: ['attention', /models 140 MB\/s, cached pages 2100 MB\/s/, /SSD/], disk: 'attention', port: 'attention', limits: ['attention', /1024 files.*64 KiB/], huge_pages: ['attention', /never/, /madvise/] }],
    'models on a rotating disk, nothing to time yet; all of the swap in use': [
        { ...base({ cpu: 'AMD EPYC', flags: 'fma f16c avx2 avx_vnni avx512f avx512_vnni amx_int8' }), ...user(), 'submind/model-disk': '2\n', 'submind/cache-disk': '1\n', 'proc/meminfo': 'MemTotal: 32000000 kB\nSwapTotal: 8000000 kB\nSwapFree: 1000 kB\n' },
        { disk_speed: ['attention', /models on a rotating disk, cached pages on solid state/], swap: ['attention', /7\.6 used/, /Stop what fills/],
            cpu: ['ok', /AVX2, AVX-512, AVX-VNNI, AVX-512 VNNI, AMX/] }],
    'an ARM server': [
        { ...base({ os: 'debian' }), ...user(), 'proc/cpuinfo': 'processor\t: 0\nFeatures\t: fp asimd asimddp i8mm sve\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n' },
        { cpu: ['ok', /aarch64.*0xd40, 1 threads, dot products, i8mm, SVE/] }],
    'a processor\'s small GPU beside two cards': [
        { ...base({ cpu: 'AMD Ryzen 9 9950X' }), ...radeon({ device: '0x13c0' }), ...nvidia(), ...user(), 'sys/bus/pci/devices/0000:02:00.0/class': '0x030000\n', 'sys/bus/pci/devices/0000:02:00.0/vendor': '0x10de\n', 'sys/bus/pci/devices/0000:02:00.0/device': '0x2684\n' },
        { gpu: ['ok', /2 x 10de:2684 at 0000:01:00\.0; 1002:13c0 \(Granite Ridge: APU/], gtt: null, kernel: null }],
    'inside a toolbox that was made without the groups': [
        { ...base({ cmdline: best }), ...radeon({ gtt: 124 }), ...pages(124), ...user(), 'run/.toolboxenv': '', 'submind/nodes-open': '0\n' },
        { nodes: 'ok', groups: ['problem', /cannot be opened/, /keep-groups/] }],
    'a toolbox whose nodes can be opened': [
        { ...base({ cmdline: best }), ...radeon({ gtt: 124 }), ...pages(124), ...user(''), 'run/.toolboxenv': '', 'submind/nodes-open': '1\n' },
        { groups: 'ok' }],
    'member of the groups, but the nodes belong to root (Ubuntu)': [
        { ...base({ os: 'ubuntu', cmdline: best }), ...desktop, 'submind/nodes-open': '0\n' },
        { groups: ['problem', /cannot be opened/, /udev\/rules\.d/], rocm: ['attention', /./, /distrobox create/] }],
    'Debian: its own names for kernel and firmware': [
        { ...base({ os: 'debian', kernel: '6.12.48-amd64' }), ...radeon(), ...user(), ...dpkg(['firmware-amd-graphics', '20250410-2']) },
        { kernel: ['attention', /6\.12/, /backports.*linux-image-amd64/], firmware: ['attention', /20250410/, /firmware-amd-graphics/] }],
    'Arch whose GRUB writes LoaderInfo too': [
        { ...base({ os: 'arch', kernel: '7.1.3-arch1-1' }), ...radeon(), ...user(), 'etc/default/grub': '', 'boot/loader/entries/x.conf': '',
            'sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f': Buffer.concat([Buffer.from([6, 0, 0, 0]), Buffer.from('GRUB 2.12', 'utf16le')]) },
        { gtt: ['problem', /./, /grub-mkconfig/] }],
    'NixOS: snippets, no commands that change nothing': [
        { ...base({ os: 'nixos', kernel: '6.18.9' }), ...radeon(), ...user(), ...radv, ...amdvlk, 'sys/kernel/mm/transparent_hugepage/enabled': 'always madvise [never]\n', 'proc/self/limits': 'Max open files  1024 1024 files\nMax locked memory 65536 65536 bytes\n' },
        { vulkan: ['problem', /./, /environment\.variables/], limits: ['attention', /./, /loginLimits/], huge_pages: ['attention', /./, /tmpfiles\.rules/] }],
    'RADV chosen by the loader\'s list; ROCm of the distribution': [
        { ...base({ cmdline: best }), ...desktop, ...amdvlk, 'etc/environment': 'VK_DRIVER_FILES=/usr/share/vulkan/icd.d/radeon_icd.x86_64.json\n', 'usr/lib64/libamdhip64.so.6': '', 'usr/lib64/libamdhip64.so.6.4.43484': '' },
        { vulkan: 'ok', rocm: ['problem', /6\.4\.43484/] }],
    'two local providers: the one with our port is judged': [
        { ...base({ cmdline: best }), ...desktop, 'home/ada/.openclaw/openclaw.json': '{ models: { providers: { ollama: { baseUrl: "http://127.0.0.1:11434/v1" }, local: { baseUrl: "http://127.0.0.1:8080/v1", apiKey: "x" } } } }' },
        { gateway_url: ['ok', /8080/], gateway_key: 'ok' }],
    "a gateway that will not work": [
        { ...base({ cmdline: best }), ...desktop, ...gateway('{ baseUrl: "http://127.0.0.1:9999/v1", models: [{ id: "q", contextWindow: 32768 }] }') },
        { gateway: 'ok', gateway_url: ['attention', /9999/], gateway_key: 'problem', gateway_context: ['attention', /32768/], gateway_timeout: ['attention', /300 s/] }],
    'a gateway as it should be': [
        { ...base({ cmdline: best }), ...desktop, ...gateway('{ baseUrl: "http://127.0.0.1:8080/v1", apiKey: "sk-local", timeoutSeconds: 900, models: [{ id: "q", contextWindow: 65536 }] }') },
        { gateway: 'ok', gateway_url: 'ok', gateway_key: 'ok', gateway_context: 'ok', gateway_timeout: 'ok' }],
    'our own service, running': [
        { ...base({ cmdline: best }), ...desktop, 'home/ada/.config/systemd/user/submind.service': '[Service]\n', 'sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/submind.service/cgroup.procs': '4242\n',
            'proc/net/tcp': '  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n' },
        { service: ['ok', /running/], port: ['ok', /submind's service/] }],
    'a toolbox without the groups, a container without ROCm\'s node': [ // toolbox itself says --privileged and --volume /dev:/dev:rslave
        { ...base({ cmdline: best }), ...desktop, ...podman(
            { name: 'llama-rocm-7.2', image: 'docker.io/kyuz0/amd-strix-halo-toolboxes:rocm-7.2', words: ['--privileged', '--volume', '/dev:/dev:rslave', '--group-add', 'video'], mounts: ['/dev'], toolbox: true },
            { name: 'rocm-bench', image: 'x:1', words: ['--device', '/dev/dri', '--group-add', 'keep-groups'] },
            { name: 'llama-vulkan-radv', image: 'docker.io/kyuz0/amd-strix-halo-toolboxes:vulkan-radv', words: ['--device', '/dev/dri', '--group-add', 'video'] },
            { name: 'fedora-toolbox-43', image: 'registry.fedoraproject.org/fedora-toolbox:43', words: [] }) },
        { containers: ['attention', /^llama-rocm-7\.2 lacks group render; rocm-bench lacks \/dev\/kfd; llama-vulkan-radv$/,
            /toolbox rm --force llama-rocm-7\.2 && toolbox create llama-rocm-7\.2 --image docker\.io\/kyuz0\/amd-strix-halo-toolboxes:rocm-7\.2 -- .*--device \/dev\/kfd/] }],
    'containers that have it all, each in its own way': [
        { ...base({ cmdline: best }), ...desktop, ...podman(
            { name: 'llama-rocm-7.14', image: 'x:rocm-7.14', words: ['--privileged'], mounts: ['/dev'], groups: ['video', 'render'], toolbox: true },
            { name: 'submind', image: 'localhost/submind:rocm', words: ['--device=/dev/kfd', '--device=/dev/dri', '--group-add=keep-groups'] }) },
        { containers: ['ok', /llama-rocm-7\.14; submind: get what they need/] }],
    'a toolbox where anybody may open the nodes, as on Fedora': [
        { ...base({ cmdline: best }), ...desktop, 'submind/nodes-for-all': '1\n', ...podman({ name: 'llama-rocm-7.2', image: 'x:rocm-7.2', words: ['--privileged'], mounts: ['/dev'], toolbox: true }) },
        { containers: ['ok', /llama-rocm-7\.2: get what they need/] }],
    'an NVIDIA box whose container has no GPU': [
        { ...base({ cpu: 'Intel(R) Xeon(R) w5', memory: 125 }), ...nvidia(), ...user(), ...podman({ name: 'llama', image: 'ghcr.io/ggml-org/llama.cpp:server-cuda', words: [] }) },
        { containers: ['attention', /llama lacks nvidia\.com\/gpu/, /nvidia-ctk cdi generate/] }],
    'a llama-server unit has the port': [
        { ...base({ cmdline: best }), ...desktop, ...listening('llama-server', '0::/user.slice/user-1000.slice/user@1000.service/app.slice/llama.service') },
        { port: ['attention', /llama-server listens \(process 4242 of llama\.service\)/, /submind service adopt llama\.service --user --dry-run/] }],
    'a program without a unit has the port': [
        { ...base({ cmdline: best }), ...desktop, ...listening('ollama', '0::/user.slice/user-1000.slice/session-2.scope') },
        { port: ['attention', /ollama listens \(process 4242\)/, /kill 4242/] }],
    'the port is held by somebody who is not to be seen': [
        { ...base({ cmdline: best }), ...desktop, ...listening(null) },
        { port: ['attention', /process of user 992/, /sudo ss -ltnp 'sport = :8080'/] }],
    'our own service, down': [
        { ...base({ cmdline: best }), ...desktop, 'etc/systemd/system/submind.service': '[Service]\n' },
        { service: ['problem', /not running/, /service logs/] }],
    'a llama-server unit that maps its weights, as 0.5.0 does by itself': [
        { ...base({ cmdline: best }), ...desktop, 'etc/systemd/system/llama.service': '[Service]\nExecStart=/usr/bin/llama-server -m /m.gguf -fa 1 -lm auto\n' },
        { llama_unit: ['attention', /lacks --no-mmap/, /-lm none.*adopt llama\.service/] }],
    'a llama-server unit of 0.5.0 as it should be': [
        { ...base({ cmdline: best }), ...desktop, 'etc/systemd/system/llama.service': '[Service]\nExecStart=/usr/bin/llama-server -m /m.gguf -fa 1 --load-mode=none\n' },
        { llama_unit: 'ok' }],
    'a llama-server unit without -fa': [
        { ...base({ cmdline: best }), ...desktop, 'etc/systemd/system/llama.service': '[Service]\nExecStart=/usr/bin/llama-server -m /m.gguf -c 65536\n' },
        { llama_unit: ['attention', /llama\.service/] }],
};

function build(files) {
    const root = mkdtempSync(path.join(scratch, 'host-'));
    for (const [name, content] of Object.entries(files)) {
        mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
        if (typeof content.link === 'string') symlinkSync(content.link, path.join(root, name));
        else writeFileSync(path.join(root, name), content);
    }
    return root;
}

const doctor = (root, args, options = {}) => {
    const start = performance.now();
    const run = spawnSync(binary, ['doctor', ...(root ? ['--root', root] : []), ...args], { timeout: 20_000, ...options });
    return { code: run.status, out: run.stdout.toString(), err: run.stderr.toString(), ms: performance.now() - start };
};

for (const [name, [files, expected]] of Object.entries(hosts)) {
    test(name, () => {
        const root = build(files);
        const run = doctor(root, ['--json']);
        const found = Object.fromEntries(JSON.parse(run.out).checks.map((c) => [c.id.replaceAll('-', '_'), c]));
        for (const [id, want] of Object.entries(expected)) {
            if (want === null) {
                assert.equal(found[id], undefined, `${id} does not apply`);
                continue;
            }
            const [status, seen, fix] = [want].flat();
            assert.ok(found[id], `${id} is judged`);
            assert.match(found[id].status, new RegExp(`^(${status})$`), `${id}: ${found[id].seen}`);
            if (seen) assert.match(found[id].seen, seen, id);
            if (fix) assert.match(found[id].fix, fix, id);
        }
        const problem = Object.values(found).some((c) => c.status === 'problem');
        assert.equal(run.code, problem ? 1 : 0);
        assert.ok(run.ms < 2000, `${run.ms} ms`);
        const plan = doctor(root, ['--plan']);
        assert.equal(spawnSync('sh', ['-n'], { input: plan.out }).status, 0, plan.out);
    });
}

test('there are at least 25 hosts', () => assert.ok(Object.keys(hosts).length >= 50));

test('this machine, whatever it is, in under two seconds and without root', () => {
    const run = doctor(null, ['--json']);
    assert.ok(JSON.parse(run.out).checks.length > 3);
    assert.ok(run.ms < 2000, `${run.ms} ms`);
});

// ---- doing and taking back --------------------------------------------------------------------------------

// Stand-ins that write down how they were called. `broken` fails.
function standIns(broken = '') {
    const dir = mkdtempSync(path.join(scratch, 'bin-'));
    const log = path.join(dir, 'log');
    for (const name of ['sudo', 'grubby', 'usermod', 'gpasswd', 'tuned-adm', 'systemctl', 'dnf', 'tee', 'toolbox', 'sed']) {
        const body = name === 'sudo' ? 'exec "$@"' : name === 'tee' ? 'cat >/dev/null' : name === broken ? 'exit 1' : ':';
        writeFileSync(path.join(dir, name), `#!/bin/sh\necho "${name} $*" >>${log}\n${body}\n`);
        chmodSync(path.join(dir, name), 0o755);
    }
    const state = mkdtempSync(path.join(scratch, 'state-'));
    const env = { ...process.env, PATH: `${dir}:${process.env.PATH}`, XDG_STATE_HOME: state };
    return { env, calls: () => (existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n').filter((l) => !l.startsWith('sudo ')) : []), state };
}

const untuned = () => build({ ...base({ cmdline: 'iommu=pt quiet' }), ...radeon(), ...user('video'), ...firmware('20260110'), ...tuned('balanced') });

test('--fix does what can be taken back, and nothing of the boot entry', () => {
    const s = standIns();
    const run = doctor(untuned(), ['--fix', '--here', '--yes'], { env: s.env });
    assert.equal(run.code, 0, run.err);
    assert.ok(s.calls().includes('usermod -aG video,render ada'), s.calls().join('\n'));
    assert.ok(s.calls().includes('tuned-adm profile accelerator-performance'));
    assert.ok(!s.calls().some((c) => c.startsWith('grubby')));
    assert.match(run.out, /with --boot this would be done/);
    assert.match(run.out, /reboot/);
    const before = s.calls().length;
    const undo = doctor(null, ['--undo', '--yes'], { env: s.env });
    assert.equal(undo.code, 0, undo.err);
    const back = s.calls().slice(before);
    assert.deepEqual(back, ['tuned-adm profile balanced', 'gpasswd -d ada render']); // the last first, only what was new
    assert.match(doctor(null, ['--undo', '--yes'], { env: s.env }).out, /nothing was done/);
});

test('--fix --boot changes the command line, and --undo brings back what was there', () => {
    const s = standIns();
    const run = doctor(untuned(), ['--fix', '--boot', '--here', '--yes'], { env: s.env });
    assert.equal(run.code, 0, run.err);
    const [forth] = s.calls().filter((c) => c.startsWith('grubby'));
    assert.match(forth, /--remove-args=.*iommu=pt/);
    assert.match(forth, /--args=.*amd_iommu=off/);
    doctor(null, ['--undo', '--yes'], { env: s.env });
    const back = s.calls().filter((c) => c.startsWith('grubby'))[1];
    assert.match(back, /--remove-args=.*amd_iommu=off/);
    assert.match(back, /--args=.*iommu=pt/);
    assert.doesNotMatch(back.split('--args=')[1], /amd_iommu=off/);
});

// ---- the boot entry, really changed ---------------------------------------------------------------------

// What a loader's files make of the kernel's command line.
const grub = (root) => spawnSync('sh', ['-c', `. ./etc/default/grub; for f in etc/default/grub.d/*.cfg; do [ ! -f "$f" ] || . "./$f"; done; echo $GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT`], { cwd: root }).stdout.toString();
const entry = (root) => readFileSync(path.join(root, 'boot/loader/entries/arch.conf'), 'utf8').match(/^options (.*)$/m)[1];
const before = 'iommu=pt quiet iommu.passthrough=1 amd_iommu=pt ttm.pages_limit=1 nomodeset splash';
const grubFiles = { 'etc/default/grub': `GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX='iommu=pt'\nGRUB_CMDLINE_LINUX_DEFAULT="quiet iommu.passthrough=1 amd_iommu=pt ttm.pages_limit=1 nomodeset splash"\n` };
const loaders = {
    'Ubuntu, GRUB with a file in grub.d': ['ubuntu', { ...grubFiles, 'etc/default/grub.d/50-cloud.cfg': 'GRUB_TERMINAL=x\n' }, grub],
    'Debian, GRUB without a grub.d': ['debian', grubFiles, grub],
    'Arch, GRUB': ['arch', grubFiles, grub],
    'Arch, systemd-boot': ['arch', { 'boot/loader/entries/arch.conf': `title Arch\noptions root=x ${before}\n`, 'boot/loader/entries/other.conf': 'title Other\nefi /x.efi\n' }, entry],
};

for (const [name, [distro, files, read]] of Object.entries(loaders)) {
    test(`--fix --boot and --undo on real files: ${name}`, () => {
        const root = build({ ...base({ os: distro, cmdline: before }), ...radeon(), ...user(), ...tuned(), ...radv, ...files });
        const s = standIns();
        const bin = path.dirname(s.env.PATH.split(':')[0] + '/x');
        const script = (file, body) => writeFileSync(path.join(bin, file), `#!/bin/bash\n${body}\n`, { mode: 0o755 });
        // paths of the system lie below the scratch root; all else is the real tool
        script('sudo', `words=(); for w; do case $w in /etc/*|/boot/*) w=${root}$w;; esac; words+=("$w"); done; exec "\${words[@]}"`);
        for (const real of ['sed', 'tee']) rmSync(path.join(bin, real));
        for (const done of ['update-grub', 'grub-mkconfig', 'distrobox']) script(done, ':');
        script('bootctl', `echo ${root}/boot`);
        const words = () => read(root).trim().split(/\s+/).filter((w) => !w.startsWith('root=')).sort();
        const fix = () => doctor(root, ['--fix', '--boot', '--here', '--yes'], { env: s.env });
        const run = fix();
        assert.doesNotMatch(run.out, /failed/);
        const best = ['amd_iommu=off', 'amdgpu.gttsize=126976', 'iommu.passthrough=1', 'quiet', 'splash', 'ttm.pages_limit=32505856'];
        assert.deepEqual(words(), best, run.out);
        fix(); // twice is as good as once
        assert.deepEqual(words(), best);
        doctor(null, ['--undo', '--yes'], { env: s.env });
        assert.deepEqual(words(), before.split(' ').sort());
        if (read === entry) assert.match(readFileSync(path.join(root, 'boot/loader/entries/other.conf'), 'utf8'), /efi/);
    });
}

test('it asks, and a no changes nothing', () => {
    const s = standIns();
    const run = doctor(untuned(), ['--fix', '--here'], { env: s.env, input: 'n\nn\nn\nn\n' });
    assert.equal(run.code, 0, run.err);
    assert.match(run.out, /do this\? \[y\/N\]/);
    assert.deepEqual(s.calls(), []);
    assert.match(run.out, /0 done/);
});

test('a step that fails is said and can be taken back', () => {
    const s = standIns('usermod');
    const run = doctor(untuned(), ['--fix', '--here', '--yes'], { env: s.env });
    assert.match(run.out, /failed: it ended with code 1/);
    const undo = doctor(null, ['--undo', '--yes'], { env: s.env });
    assert.match(undo.out, /3 taken back/);
});

test('a recorded machine is not mended by accident', () => {
    const s = standIns();
    const run = doctor(untuned(), ['--fix', '--yes'], { env: s.env });
    assert.equal(run.code, 2);
    assert.match(run.err, /--here/);
    assert.deepEqual(s.calls(), []);
});

// ---- containers of this machine --------------------------------------------------------------------------

test('podman of this machine is asked by PATH, and is not waited for', () => {
    const bin = mkdtempSync(path.join(scratch, 'podman-'));
    const answer = podman({ name: 'llama-rocm', image: 'x:rocm', words: ['--device', '/dev/kfd'] })['submind/podman-inspect.json'];
    writeFileSync(path.join(bin, 'answer'), answer);
    const put = (body) => writeFileSync(path.join(bin, 'podman'), `#!/bin/sh\necho "$@" >>${bin}/log\n${body}\n`, { mode: 0o755 });
    const env = { ...process.env, PATH: `${bin}:${process.env.PATH}` };
    const found = () => JSON.parse(doctor(null, ['--json'], { env }).out).checks.find((c) => c.id === 'containers');
    put(`case $1 in ps) printf 'deadbeef0123\\nfeed0123beef\\n';; *) cat ${bin}/answer;; esac`);
    assert.match(found().seen, /^llama-rocm/);
    assert.match(readFileSync(path.join(bin, 'log'), 'utf8'), /^container inspect deadbeef0123 feed0123beef$/m);
    put('exit 125');
    assert.match(found().seen, /does not answer/);
    put('sleep 30');
    const start = performance.now();
    assert.match(found().seen, /does not answer/);
    assert.ok(performance.now() - start < 2000, `${performance.now() - start} ms`);
    put(':');
    assert.equal(found(), undefined); // no containers
});

// ---- sizing ---------------------------------------------------------------------------------------------

test('what fits where: the built-in model on a recorded Strix Halo', () => {
    const root = build({ ...base({ cmdline: best }), ...desktop });
    const model = path.join(source, 'models/submind-demo-Q8_0.gguf');
    const run = doctor(root, ['--model', model, '--ctx', 4096, '--parallel', 8, '--json'].map(String));
    assert.equal(run.code, 0, run.err);
    const size = JSON.parse(run.out);
    assert.ok(run.ms < 2000);
    const gpu = size.places.find((p) => p.place.startsWith('GPU'));
    assert.equal(gpu.bytes, 124 * GIB);
    assert.ok(gpu.one_fits && gpu.all_fit);
    // bandwidth over bytes, the published 223 GB/s
    assert.ok(Math.abs(gpu.decode_tps - 223e9 / size.weights_bytes) / gpu.decode_tps < 0.001);
    const each = size.kv_bytes_per_token.f16;
    assert.ok(Math.abs(gpu.decode_full_tps - 223e9 / (size.weights_bytes + 4096 * each)) / gpu.decode_full_tps < 0.001);
    // a Q8_0 weight takes 34/32 bytes; the rest of the file is its vocabulary
    const share = size.parameters * 34 / 32 / size.weights_bytes;
    assert.ok(share > 0.5 && share < 1, `weights are ${share} of the file`);
    assert.ok(gpu.prefill_s >= 2 * size.parameters * 4096 / 17.7e12, 'every weight counts for every token');
    assert.equal(gpu.longest_ctx_f16, Math.floor((gpu.bytes - size.weights_bytes - size.scratch_bytes) / each));
    const cpu = size.places.find((p) => p.place.startsWith('CPU'));
    assert.equal(cpu.decode_tps, 0); // a recorded machine cannot be measured, and nothing is guessed
    // 6 layers, 2 heads of 128 each for keys and values; the CPU has a byte a value and 4 a vector (restart.test.mjs: it does)
    assert.deepEqual(size.kv_bytes_per_token, { f16: 24 * 128 * 2, q8_0: 24 * 128 * 34 / 32, cpu: 24 * (128 + 4) });
    assert.deepEqual([gpu, cpu].map((p) => [p.kv_type, p.kv_bytes_per_token]),
        [['f16', each], ['q8_0', size.kv_bytes_per_token.cpu]]);
    assert.equal(cpu.longest_ctx_q8_0, Math.floor((cpu.bytes - size.weights_bytes - size.scratch_bytes) / size.kv_bytes_per_token.cpu));
    assert.equal(cpu.longest_ctx_f16, undefined);
    const text = doctor(root, ['--model', model]).out;
    assert.match(text, /GPU \(GTT\)[^]*longest context +\d+ tokens, \d+ with --kv-type q8_0\n/);
    assert.match(text, /CPU \(memory\)[^]*longest context +\d+ tokens\n/);
    assert.equal(doctor(root, ['--model', '/no/such.gguf']).code, 2);
});

test('what fits where: an NVIDIA card with little room', () => {
    const root = build({ ...base({ cpu: 'Intel(R) Xeon(R) w5', memory: 125 }), ...nvidia(), ...user(), 'submind/nvidia-free-mib': '100\n' });
    const model = path.join(source, 'models/submind-demo-Q8_0.gguf');
    const size = (...args) => JSON.parse(doctor(root, ['--model', model, ...args, '--json'].map(String)).out);
    const few = size('--ctx', 1024, '--parallel', 1), many = size('--ctx', 1024, '--parallel', 64);
    const gpu = few.places.find((p) => p.place === 'GPU (NVIDIA)');
    assert.equal(gpu.bytes, 100 << 20);
    assert.equal(gpu.one_fits, few.weights_bytes + few.scratch_bytes + 1024 * few.kv_bytes_per_token.f16 <= 100 << 20);
    assert.ok(gpu.one_fits && !many.places.find((p) => p.place === 'GPU (NVIDIA)').all_fit);
    assert.equal(gpu.longest_ctx_f16, Math.floor(((100 << 20) - few.weights_bytes - few.scratch_bytes) / few.kv_bytes_per_token.f16));
    assert.ok(gpu.longest_ctx_q8_0 > 1.8 * gpu.longest_ctx_f16);
    assert.ok(few.places.find((p) => p.place.startsWith('CPU')).bytes === Math.floor(125 * 1024 * 1024) * 1024 - 4 * GIB);
    const text = doctor(root, ['--model', model, '--ctx', '1024', '--parallel', '64']).out;
    assert.match(text, /GPU \(NVIDIA\): 0\.1 GiB[^]*do not fit at once; a shared bootstrap counts once/);
});
