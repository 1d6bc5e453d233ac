#!/usr/bin/env python3
"""N agents at once on one new bootstrap, against any OpenAI-compatible server.

    agents.py URL [--agents 8] [--tokens 14000] [--answer 128]

Prints the time until every agent has its first token (all start cold together), and the tokens a second of all
of them once the bootstrap is cached.
"""
import argparse, json, random, threading, time, urllib.request

WORDS = "service port token session worker queue memory tool check refresh status cron backend driver report".split()


def ask(url, system, user, n, out, i):
    body = {"model": "default", "stream": True, "temperature": 0, "max_tokens": n, "ignore_eos": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}]}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    first, last, usage = None, None, {}
    with urllib.request.urlopen(request, timeout=900) as reply:
        for line in reply:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            usage = event.get("usage") or usage
            for choice in event.get("choices") or []:
                delta = choice.get("delta") or {}
                if delta.get("content") or delta.get("reasoning_content") or delta.get("tool_calls"):
                    last = time.perf_counter()
                    first = first or last
    out[i] = (first or time.perf_counter(), last or time.perf_counter(), usage.get("completion_tokens") or n)


def together(url, system, n_agents, n, mark):
    out = [None] * n_agents
    start = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(url, system, f"{mark} {i}: report", n, out, i))
               for i in range(n_agents)]
    for t in threads: t.start()
    for t in threads: t.join()
    return start, out


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("url"); ap.add_argument("--agents", type=int, default=8)
    ap.add_argument("--tokens", type=int, default=14000); ap.add_argument("--answer", type=int, default=128)
    a = ap.parse_args()
    r = random.Random(time.time_ns())
    system = f"run {r.random()}. " + " ".join(r.choice(WORDS) for _ in range(a.tokens))
    start, out = together(a.url.rstrip("/"), system, a.agents, 2, "cold")
    print(f"agents_cold_all_first_s {max(x[0] for x in out) - start:.3f}")
    start, out = together(a.url.rstrip("/"), system, a.agents, a.answer, "warm")
    begin, end = max(x[0] for x in out), max(x[1] for x in out)
    total = sum(x[2] for x in out)
    print(f"agents_decode_all_tps {total / (end - min(x[0] for x in out)):.1f} (first tokens within "
          f"{begin - start:.3f} s)")


if __name__ == "__main__":
    main()
