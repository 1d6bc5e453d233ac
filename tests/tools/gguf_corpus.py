#!/usr/bin/env python3
"""Write the seed corpus of tests/fuzz/fuzz_gguf.c: gguf_corpus.py FOLDER. Standard library only."""
import os
import struct
import sys

FORMATS = {"F32": (0, 1, 4), "F16": (1, 1, 2), "BF16": (30, 1, 2), "Q8_0": (8, 32, 34), "Q4_0": (2, 32, 18),
           "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210)}


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def u32(key, x):
    return text(key) + struct.pack("<II", 4, x)


def f32(key, x):
    return text(key) + struct.pack("<If", 6, x)


def string(key, x):
    return text(key) + struct.pack("<I", 8) + text(x)


def scalar(key, code, form, x):
    return text(key) + struct.pack("<I" + form, code, x)


def array(key, code, items):
    return text(key) + struct.pack("<IIQ", 9, code, len(items)) + b"".join(items)


def tensors(shapes, align):
    """[(name, format, dims)] -> directory, data"""
    infos, data = b"", b""
    for name, fmt, dims in shapes:
        code, block, size = FORMATS[fmt]
        n = 1
        for d in dims:
            n *= d
        infos += text(name) + struct.pack("<I%dQIQ" % len(dims), len(dims), *dims, code, len(data))
        data += bytes((i * 37 + len(data)) % 251 for i in range(n // block * size))
        data += b"\0" * (-len(data) % align)
    return infos, data


def model(kvs, shapes=(), align=32, version=3):
    infos, data = tensors(shapes, align)
    head = b"GGUF" + struct.pack("<IQQ", version, len(shapes), len(kvs)) + b"".join(kvs) + infos
    return head + (b"\0" * (-len(head) % align) + data if shapes else b"")


def config(arch, layers, embd, heads, kv_heads, head, ff):
    return [string("general.architecture", arch), u32(arch + ".block_count", layers), u32(arch + ".context_length", 64),
            u32(arch + ".embedding_length", embd), u32(arch + ".feed_forward_length", ff),
            u32(arch + ".attention.head_count", heads), u32(arch + ".attention.head_count_kv", kv_heads),
            u32(arch + ".attention.key_length", head), u32(arch + ".attention.value_length", head),
            f32(arch + ".attention.layer_norm_rms_epsilon", 1e-6), f32(arch + ".rope.freq_base", 1e6)]


def layer(i, fmt, embd, q, kv, head, ff, norms, bias):
    p = "blk.%d." % i
    out = [(p + "attn_norm.weight", "F32", (embd,)), (p + "attn_q.weight", fmt, (embd, q)),
           (p + "attn_k.weight", fmt, (embd, kv)), (p + "attn_v.weight", fmt, (embd, kv)),
           (p + "attn_output.weight", fmt, (q, embd)), (p + "ffn_norm.weight", "F32", (embd,)),
           (p + "ffn_gate.weight", fmt, (embd, ff)), (p + "ffn_up.weight", fmt, (embd, ff)),
           (p + "ffn_down.weight", fmt, (ff, embd))]
    if norms:
        out += [(p + "attn_%s_norm.weight" % x, "F32", (head,)) for x in "qk"]
    if bias:
        out += [(p + "attn_%s.bias" % x, "F32", (q if x == "q" else kv,)) for x in "qkv"]
    return out


def whole(arch, fmt, embd, heads, kv_heads, head, ff, vocab, extra=()):
    kvs = config(arch, 1, embd, heads, kv_heads, head, ff) + list(extra)
    kvs.append(array("tokenizer.ggml.tokens", 8, [text("t%d" % i) for i in range(vocab)]))
    kvs.append(array("tokenizer.ggml.token_type", 5, [struct.pack("<i", 1)] * vocab))
    shapes = [("token_embd.weight", fmt, (embd, vocab)), ("output_norm.weight", "F32", (embd,))]
    shapes += layer(0, fmt, embd, heads * head, kv_heads * head, head, ff, arch == "qwen3", arch == "qwen2")
    return model(kvs, shapes)


def all_types():
    kvs = [scalar("u8", 0, "B", 200), scalar("i8", 1, "b", -5), scalar("u16", 2, "H", 60000), scalar("i16", 3, "h", -9),
           u32("u32", 7), scalar("i32", 5, "i", -7), f32("f32", 0.5), scalar("bool", 7, "B", 1), string("string", "abc"),
           scalar("u64", 10, "Q", 2 ** 64 - 1), scalar("i64", 11, "q", -2 ** 63), scalar("f64", 12, "d", 0.1),
           u32("general.alignment", 64)]
    kvs += [array("a%d" % code, code, [struct.pack("<" + form, 1)] * 3)
            for code, form in ((0, "B"), (1, "b"), (2, "H"), (3, "h"), (4, "I"), (5, "i"), (6, "f"), (7, "B"), (10, "Q"),
                               (11, "q"), (12, "d"))]
    kvs += [array("strings", 8, [text("x"), text(""), text("yz")]), array("empty", 8, [])]
    return model(kvs, [("t." + name, name, (256, 2)) for name in FORMATS], align=64)


def split_pair():
    def part(no):
        return [scalar("split.no", 2, "H", no), scalar("split.count", 2, "H", 2), scalar("split.tensors.count", 5, "i", 2)]
    a, b = model(part(0), [("a", "F32", (4,))]), model(part(1), [("b", "Q8_0", (32, 2))])
    return b"S" + struct.pack("<I", len(a)) + a + b


def main():
    yarn = [string("qwen3.rope.scaling.type", "yarn"), f32("qwen3.rope.scaling.factor", 4.0),
            u32("qwen3.rope.scaling.original_context_length", 32), f32("general.sampling.temp", 0.5)]
    files = {"all-types": all_types(), "split-pair": split_pair(), "empty": model([]), "version-2": model([u32("a", 1)], version=2),
             "qwen3-f32": whole("qwen3", "F32", 16, 2, 1, 8, 8, 5), "qwen3-yarn": whole("qwen3", "Q8_0", 32, 1, 1, 32, 32, 4, yarn),
             "qwen2-bf16": whole("qwen2", "BF16", 16, 2, 2, 8, 8, 5), "llama-q4_0": whole("llama", "Q4_0", 32, 1, 1, 32, 32, 3)}
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, data in files.items():
        with open(os.path.join(sys.argv[1], name), "wb") as f:
            f.write(data)


if __name__ == "__main__":
    main()
