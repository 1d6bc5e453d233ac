// The prefix tree alone, without a network.
//   bench_tree lookup [PAGES]            time of finding a 17,000-token prompt among PAGES pages (1,000,000)
//   bench_tree trace FILE [TOKENS...]    hit rates of a trace (bench/traces) by policy and cache size
//   bench_tree check FILE [TOKENS...]    the same; ends with 1 where the engine's policy loses to LRU
// Policies: everything fits; plain LRU; what the engine does (evict.c), with other half-lives beside it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "engine/tree.h"

enum { PAGE = 32, LINE_MAX_BYTES = 4 << 20, PROMPTS_MAX = 256, REQUEST_MAX = 1 << 17 };

static void die(const char *what)
{
    fprintf(stderr, "bench_tree: %s\n", what);
    exit(1);
}

static void *take(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (p == NULL) die("no memory");
    return p;
}

static int32_t token(uint64_t seed, uint64_t i)
{
    const uint64_t x[2] = {seed, i};
    return (int32_t)(hash64(x, sizeof x, 1) % 150000);
}

// ---- look-up ------------------------------------------------------------------------------------

static uint32_t publish(struct tree *t, struct hash128 salt, const int32_t *ids, uint32_t n_pages,
                        uint32_t *path)
{
    uint64_t key = tree_root_key(salt);
    uint32_t parent = KV_NONE, i = 0;
    for (; i < n_pages; i++) {
        key = tree_next_key(key, ids + i * PAGE, PAGE);
        const struct tree_ref ref = {parent, key, salt, ids + i * PAGE};
        uint32_t page = tree_find(t, &ref);
        if (page != KV_NONE) {
            tree_pin(t, page);
        } else {
            page = tree_page_take(t);
            if (page == KV_NONE) break;
            page = tree_publish(t, &ref, page);
        }
        parent = path[i] = page;
    }
    return i;
}

static void unpin(struct tree *t, const uint32_t *path, uint32_t n, const struct tree_hint *hint)
{
    while (n > 0) tree_unpin(t, path[--n], hint);
}

static uint32_t match(const struct tree *t, struct hash128 salt, const int32_t *ids,
                      uint32_t n_pages)
{
    uint64_t key = tree_root_key(salt);
    uint32_t parent = KV_NONE, i = 0;
    for (; i < n_pages; i++) {
        key = tree_next_key(key, ids + i * PAGE, PAGE);
        const struct tree_ref ref = {parent, key, salt, ids + i * PAGE};
        parent = tree_find(t, &ref);
        if (parent == KV_NONE) break;
    }
    return i;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The processor's time of this thread: what neighbours take is not in it.
static double thread_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void lookup(uint32_t n_pages)
{
    enum { PROMPT = 17000 / PAGE, TIMES = 200 };
    struct kv_pool pool;
    struct tree t;
    struct err e = {0};
    const struct hash128 salt = {1, 1};
    if (!kv_init(&pool, n_pages, PAGE, &e) || !tree_init(&t, &pool, &e)) die(e.msg);
    int32_t *ids = take((size_t)PROMPT * PAGE, sizeof *ids);
    uint32_t *path = take(PROMPT, sizeof *path);
    double ms[TIMES], cpu_ms[TIMES];
    const uint64_t start = clock_ns();
    uint32_t n_texts = n_pages / PROMPT;
    for (uint32_t k = 0; k < n_texts; k++) {
        for (uint32_t i = 0; i < PROMPT * PAGE; i++) ids[i] = token(k, i);
        unpin(&t, path, publish(&t, salt, ids, PROMPT, path), NULL);
    }
    printf("%u pages of %d tokens in %.1f s\n", t.n_nodes, PAGE, clock_ms_since(start) / 1000);
    for (int k = 0; k < TIMES;
         k++) { // each time another text, whose pages no cache has seen lately
        const uint32_t text = (uint32_t)k * 7919u % n_texts;
        for (uint32_t i = 0; i < PROMPT * PAGE; i++) ids[i] = token(text, i);
        const double cpu = thread_ms();
        const uint64_t from = clock_ns();
        if (match(&t, salt, ids, PROMPT) != PROMPT) die("a text was not found");
        ms[k] = clock_ms_since(from);
        cpu_ms[k] = thread_ms() - cpu;
    }
    qsort(ms, TIMES, sizeof *ms, by_value);
    qsort(cpu_ms, TIMES, sizeof *cpu_ms, by_value);
    printf("look-up of %d tokens: median %.3f ms, slowest of %d %.3f ms; by the thread's own time "
           "%.3f and %.3f ms\n",
           PROMPT * PAGE, ms[TIMES / 2], TIMES, ms[TIMES - 1], cpu_ms[TIMES / 2],
           cpu_ms[TIMES - 1]);
    const uint64_t evict = clock_ns();
    for (int k = 0; k < 100000; k++) tree_evict(&t);
    printf("eviction: %.0f ns each\n", clock_ms_since(evict) * 1e6 / 100000);
    tree_deinit(&t);
    kv_deinit(&pool);
    free(ids);
    free(path);
}

// ---- traces -------------------------------------------------------------------------------------

struct request {
    double at_s;
    uint64_t salt;
    struct tree_hint hint;
    uint32_t n_prompt, n_ids; // generated tokens stand behind the prompt
    int32_t *ids;
};

struct trace {
    struct request *items;
    size_t n, cap;
    int32_t *prompts[PROMPTS_MAX];
    uint32_t n_tokens[PROMPTS_MAX];
};

static void read_prompt(struct trace *tr, char *line)
{
    char *p = line + 1;
    const unsigned long i = strtoul(p, &p, 10);
    if (i >= PROMPTS_MAX) die("too many prompts in the trace");
    int32_t *ids = take(REQUEST_MAX, sizeof *ids);
    uint32_t n = 0;
    for (char *end = p; n < REQUEST_MAX; p = end) {
        const long id = strtol(p, &end, 10);
        if (end == p) break;
        ids[n++] = (int32_t)id;
    }
    tr->prompts[i] = ids;
    tr->n_tokens[i] = n;
}

static void add_segment(struct trace *tr, struct request *q, const char *word)
{
    char *rest;
    const bool stored = word[0] == '=';
    const unsigned long long seed = strtoull(word + stored, &rest, 10);
    const unsigned long n = *rest == ':' ? strtoul(rest + 1, NULL, 10) : 0;
    if (n == 0 || q->n_ids + n > REQUEST_MAX ||
        (stored && (seed >= PROMPTS_MAX || n > tr->n_tokens[seed])))
        die("a bad segment in the trace");
    for (unsigned long i = 0; i < n; i++)
        q->ids[q->n_ids++] = stored ? tr->prompts[seed][i] : token(seed, i);
}

static void read_request(struct trace *tr, char *line)
{
    struct request q = {.hint = {.priority = CACHE_PRIORITY_DEFAULT}};
    int32_t *room = take(REQUEST_MAX, sizeof *room);
    char priority[16], ttl[16], how[16];
    int used = 0;
    unsigned long long salt;
    if (sscanf(line, "%lf %llu %15s %15s %15s %n", &q.at_s, &salt, priority, ttl, how, &used) < 5)
        die("a bad line in the trace");
    q.salt = salt;
    q.ids = room;
    q.hint.paused = strcmp(how, "call") == 0;
    if (priority[0] != '-') q.hint.priority = (uint8_t)atoi(priority);
    q.hint.has_ttl = ttl[0] != '-';
    if (q.hint.has_ttl) q.hint.ttl_s = (uint32_t)atoi(ttl);
    for (char *word = strtok(line + used, " \n"); word != NULL; word = strtok(NULL, " \n")) {
        if (strcmp(word, "|") == 0)
            q.n_prompt = q.n_ids;
        else
            add_segment(tr, &q, word);
    }
    if (q.n_prompt == 0) q.n_prompt = q.n_ids;
    q.ids = realloc(room, q.n_ids * sizeof *room);
    if (tr->n == tr->cap) {
        tr->cap = tr->cap == 0 ? 1024 : tr->cap * 2;
        tr->items = realloc(tr->items, tr->cap * sizeof *tr->items);
    }
    if (tr->items == NULL || q.ids == NULL) die("no memory");
    tr->items[tr->n++] = q;
}

static void read_trace(struct trace *tr, const char *path)
{
    FILE *f = fopen(path, "r");
    char *line = take(LINE_MAX_BYTES, 1);
    if (f == NULL) die("cannot open the trace");
    while (fgets(line, LINE_MAX_BYTES, f) != NULL) {
        if (line[0] == '=')
            read_prompt(tr, line);
        else if (line[0] >= '0' && line[0] <= '9')
            read_request(tr, line);
    }
    fclose(f);
    free(line);
}

static double rank_lru(const struct tree *t, uint32_t page)
{
    return (double)t->nodes[page].used;
}

struct policy {
    const char *name;
    double half_life_s; // 0: LRU; < 0: the engine's own
};

struct score {
    double hit, all, plain_hit, plain_all; // prompt tokens; those of requests without a salt
    double cost_saved, cost;               // weighted by what a token costs at its place
};

static double cost_of(const struct tree *t, uint32_t from, uint32_t to)
{
    const double a = from, b = to; // integral of 1 + x / attend
    return b - a + (b * b - a * a) / 2 / t->attend_tokens;
}

static struct score run(const struct trace *tr, uint32_t n_pages, const struct policy *p,
                        uint32_t quota)
{
    struct kv_pool pool;
    struct tree t;
    struct err e = {0};
    struct score s = {0};
    uint32_t *path = take(REQUEST_MAX / PAGE + 1, sizeof *path);
    if (!kv_init(&pool, n_pages, PAGE, &e) || !tree_init(&t, &pool, &e)) die(e.msg);
    if (p->half_life_s > 0) t.half_life_s = p->half_life_s;
    if (p->half_life_s == 0) t.rank = rank_lru;
    t.quota_pages = quota;
    t.exempt = (struct hash128){0, 7}; // salt 0 of a trace
    for (size_t i = 0; i < tr->n; i++) {
        const struct request *q = &tr->items[i];
        const struct hash128 salt = {q->salt, 7};
        if (q->n_ids / PAGE > n_pages) continue; // could never run
        t.now_s = q->at_s;
        const uint32_t hit = match(&t, salt, q->ids, (q->n_prompt - 1) / PAGE) * PAGE;
        const uint32_t n = publish(&t, salt, q->ids, q->n_ids / PAGE, path);
        unpin(&t, path, n, &q->hint);
        s.all += q->n_prompt;
        s.hit += hit;
        s.cost += cost_of(&t, 0, q->n_prompt);
        s.cost_saved += cost_of(&t, 0, hit);
        if (q->salt != 0) continue;
        s.plain_all += q->n_prompt;
        s.plain_hit += hit;
    }
    tree_deinit(&t);
    kv_deinit(&pool);
    free(path);
    return s;
}

// What those without a salt still find when a tenant with one sends much.
static void show_quota(const struct trace *tr, uint32_t n_pages, const struct policy *p)
{
    static const uint32_t percents[] = {100, 50, 25};
    for (int i = 0; i < 3; i++) {
        const uint32_t quota = percents[i] == 100 ? 0 : n_pages * percents[i] / 100;
        const struct score s = run(tr, n_pages, p, quota);
        if (s.plain_all == s.all) return; // no salts in this trace
        printf("%-16u %s, a salt may hold %u %%: the others hit %.1f %%\n", n_pages * PAGE, p->name,
               percents[i], 100 * s.plain_hit / s.plain_all);
    }
}

static bool trace(const char *path, int n_sizes, char **sizes)
{
    bool won = true;
    static const struct policy policies[] = {{"LRU", 0},
                                             {"worth", -1},
                                             {"worth, 60 s", 60},
                                             {"worth, 300 s", 300},
                                             {"worth, 20 min", 1200}};
    static const char *const usual[] = {"24000", "40000", "60000", "80000", "120000"};
    struct trace tr = {0};
    read_trace(&tr, path);
    const struct score all = run(&tr, 1u << 18, &policies[0], 0);
    printf("%zu requests, %.0f prompt tokens; with room for all %.1f %% hit\n", tr.n, all.all,
           100 * all.hit / all.all);
    printf("%-16s", "tokens of room");
    for (size_t k = 0; k < sizeof policies / sizeof policies[0]; k++)
        printf(" %13s", policies[k].name);
    printf("   (%% of prompt tokens hit; in brackets %% of compute time saved)\n");
    for (int i = 0; i < (n_sizes > 0 ? n_sizes : 5); i++) {
        const uint32_t n_pages =
            (uint32_t)strtoul(n_sizes > 0 ? sizes[i] : usual[i], NULL, 10) / PAGE;
        struct score lru = {0};
        printf("%-16u", n_pages * PAGE);
        for (size_t k = 0; k < sizeof policies / sizeof policies[0]; k++) {
            const struct score s = run(&tr, n_pages, &policies[k], 0);
            if (k == 0) lru = s;
            if (k == 1 && s.hit <= lru.hit) won = false;
            printf("   %5.1f (%4.1f)", 100 * s.hit / s.all, 100 * s.cost_saved / s.cost);
        }
        printf("\n");
        show_quota(&tr, n_pages, &policies[1]);
    }
    for (size_t i = 0; i < tr.n; i++) free(tr.items[i].ids);
    for (size_t i = 0; i < PROMPTS_MAX; i++) free(tr.prompts[i]);
    free(tr.items);
    return won;
}

int main(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "lookup") == 0)
        lookup(argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1000000);
    else if (argc >= 3 && strcmp(argv[1], "trace") == 0)
        trace(argv[2], argc - 3, argv + 3);
    else if (argc >= 3 && strcmp(argv[1], "check") == 0)
        return trace(argv[2], argc - 3, argv + 3) ? 0 : 1;
    else
        die("usage: bench_tree lookup [PAGES] | trace|check FILE [TOKENS...]");
    return 0;
}
