// As much of ZeroMQ's wire protocol (ZMTP 3.0, NULL security) and of msgpack as a reader of cache events
// needs, written from their specifications and not from the server: rfc.zeromq.org/spec/23, msgpack.org.
import net from 'node:net';

const greeting = Buffer.concat([
    Buffer.from([0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0]), Buffer.from('NULL'.padEnd(20, '\0')), Buffer.alloc(32),
]);

function frame(body, flags) {
    const head = body.length < 256 ? Buffer.from([flags, body.length]) : Buffer.alloc(9);
    if (body.length >= 256) { head[0] = flags | 2; head.writeBigUInt64BE(BigInt(body.length), 1); }
    return Buffer.concat([head, body]);
}

function ready(type) {
    const name = 'Socket-Type', size = Buffer.alloc(4);
    size.writeUInt32BE(type.length);
    return frame(Buffer.concat([Buffer.from([5]), Buffer.from('READY'), Buffer.from([name.length]), Buffer.from(name), size, Buffer.from(type)]), 4);
}

// Connects as SUB or DEALER; onMessage gets an array of frames.
export function zmtp(port, type, onMessage) {
    let rest = Buffer.alloc(0), greeted = false, parts = [];
    const socket = net.connect(port, '127.0.0.1');
    const opened = new Promise((resolve, reject) => {
        socket.on('error', reject);
        socket.write(greeting);
        socket.on('data', (piece) => {
            rest = Buffer.concat([rest, piece]);
            if (!greeted) {
                if (rest.length < 64) return;
                rest = rest.subarray(64);
                greeted = true;
                socket.write(ready(type));
            }
            for (;;) {
                if (rest.length < 2) return;
                const long = (rest[0] & 2) !== 0;
                if (long && rest.length < 9) return;
                const size = long ? Number(rest.readBigUInt64BE(1)) : rest[1], head = long ? 9 : 2;
                if (rest.length < head + size) return;
                const flags = rest[0], body = Buffer.from(rest.subarray(head, head + size));
                rest = rest.subarray(head + size);
                if (flags & 4) { resolve(); continue; } // the other side's READY
                parts.push(body);
                if (flags & 1) continue;
                onMessage(parts);
                parts = [];
            }
        });
    });
    return {
        opened,
        send(...frames) { frames.forEach((body, i) => socket.write(frame(body, i + 1 < frames.length ? 1 : 0))); },
        close() { socket.destroy(); },
    };
}

// Decodes one msgpack value; 64-bit integers become BigInt, so that nothing is lost. `kinds` collects the
// first byte of every integer, for those who care how it was written.
export function unpack(buffer, kinds = []) {
    let at = 0;
    const text = (n) => buffer.toString('utf8', at, at += n);
    const list = (n) => Array.from({ length: n }, value);
    const map = (n) => Object.fromEntries(Array.from({ length: n }, () => [value(), value()]));
    const read = (method, n) => { const v = buffer[method](at); at += n; return v; };
    function value() {
        const b = buffer[at++];
        if (b < 0x80) return b;
        if (b < 0x90) return map(b & 15);
        if (b < 0xa0) return list(b & 15);
        if (b < 0xc0) return text(b & 31);
        switch (b) {
        case 0xc0: return null;
        case 0xc2: return false;
        case 0xc3: return true;
        case 0xcb: return read('readDoubleBE', 8);
        case 0xcc: return read('readUInt8', 1);
        case 0xcd: return read('readUInt16BE', 2);
        case 0xce: return read('readUInt32BE', 4);
        case 0xcf: kinds.push(b); return read('readBigUInt64BE', 8);
        case 0xd9: return text(read('readUInt8', 1));
        case 0xda: return text(read('readUInt16BE', 2));
        case 0xdc: return list(read('readUInt16BE', 2));
        case 0xdd: return list(read('readUInt32BE', 4));
        case 0xde: return map(read('readUInt16BE', 2));
        default: throw new Error(`msgpack byte ${b.toString(16)} is not expected`);
        }
    }
    const v = value();
    if (at !== buffer.length) throw new Error(`${buffer.length - at} bytes behind the value`);
    return v;
}
