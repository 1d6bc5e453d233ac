// The only door to the engine: load a model, hand in jobs, read their streams. serve/, agent/ and
// cmd/ include this and nothing else of engine/.
//
// Threads: one engine thread owns backend, KV pages, prefix tree and scheduler. engine_submit and the
// stream_* calls are for any thread; one stream belongs to one consumer at a time.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "text/chat.h"
#include "text/tokenizer.h"

struct engine;

// ---- opening --------------------------------------------------------------------------------

struct engine_settings {
    const char *model_path;
    const char *device;  // "auto", "cpu", "ref", "cuda:0"
    uint32_t n_threads;  // 0 = one per physical core
    uint32_t n_ctx;      // longest single request; 0 = what the model was trained for
    uint32_t n_parallel; // sequences that run at once; 0 = 16. Never divides the KV
    uint32_t n_queue;    // jobs that wait; 0 = 256
    size_t kv_bytes;     // 0 = a default from n_ctx and memory
    const char *kv_type; // "f16" (a GPU, "ref"), "f32" ("ref"), "q8_0" (a GPU, a CPU); NULL = the
                         // device's own: f16 on a GPU, q8_0 on a CPU, f32 on "ref"
    const char *
        prefill_type; // "exact" (default) or "fp8": long prompts' products in 8-bit floats, if the device can
    uint32_t step_ms;         // time budget of a prefill chunk beside decodes; 0 = 100
    struct str chat_template; // replaces the model's own; empty = the model's
    bool vocab_only;          // tokenizer and template only: no weights, no engine thread
    // Opened to score texts: no engine thread, no jobs; logits of up to so many rows a step. 0 = to serve.
    uint32_t score_rows;
    const char *cache_dir; // where pages outlive the process; NULL = nowhere
    uint64_t
        cache_disk_bytes;     // of all models there; 0 = a quarter of the free ones, at most 64 GiB
    uint32_t cache_quota;     // percent of the cache that one salt may hold; 0 = 25
    bool has_cache_ram;       // cache_ram_bytes was given; otherwise as the device asks for it
    uint64_t cache_ram_bytes; // host memory for pages that the device has no room for
    const char *cache_type;   // of pages there: "exact" (default) or "q8_0", for 16 and 32-bit ones
    bool warm;                // bring pages back from disk before they are asked for
    // Called while loading, from the calling thread: stage "weights", bytes done and in all.
    void (*progress)(void *arg, const char *stage, uint64_t done, uint64_t total);
    void *progress_arg;
};

// Sampling values with a mark which of them are set; engine_sampling fills the rest.
struct sampling {
    bool has_temperature, has_top_k, has_top_p, has_min_p, has_repeat_penalty, has_seed;
    float temperature; // <= 0 is greedy
    float top_p, min_p;
    uint32_t top_k;                            // 0 = all
    float repeat_penalty;                      // 1 = none
    float presence_penalty, frequency_penalty; // 0 = none
    uint64_t seed;
};

struct engine_info {
    struct str model_name; // general.name or the file's name
    struct str arch, file_type, device;
    struct str model_path;
    struct str chat_template; // source text
    uint32_t n_vocab, n_ctx, n_ctx_train, n_embd, n_layers, n_parallel, page_tokens, n_pages;
    uint32_t n_ff, n_kv_heads, head_dim;
    uint64_t n_params, model_bytes, kv_bytes;
    float rope_factor;        // > 1: YaRN is on
    const char *prefill_type; // in effect: "exact" or "fp8"
    const char *cache_type;   // in effect: "exact" or "q8_0"
    const char *kv_type;      // in effect: "f16", "f32" or "q8_0"; "" without a device
    int64_t loaded_unix;
};

bool engine_open(struct engine **out, const struct engine_settings *s, struct err *e);
// Stops the engine thread: running and waiting jobs end with ERR_SHUTDOWN within a step (at most about
// a second), and all consumers are woken. Streams stay readable, even after engine_close; whoever
// holds one still closes it. No engine_* call may run at the same time as engine_close or after it.
void engine_stop(struct engine *en);
void engine_close(struct engine *en); // engine_stop, then frees; NULL is fine
const struct engine_info *engine_info(const struct engine *en);
const struct tokenizer *engine_tokenizer(const struct engine *en);
const struct chat_template *engine_chat(const struct engine *en); // NULL when the model has none
// Fills what s leaves open: flags given at start (engine_set_sampling), then the GGUF's
// general.sampling.*, then the architecture's recommendation, then neutral values.
void engine_sampling(const struct engine *en, bool thinking, struct sampling *s);
// The server's own flags as defaults; call before the first job.
void engine_set_sampling(struct engine *en, const struct sampling *flags);

// ---- jobs -----------------------------------------------------------------------------------

struct logit_bias {
    int32_t token;
    float bias;
};

struct grammar;
// What an answer must look like; engine/form.h follows it. References to grammars are taken.
struct job_form {
    struct grammar *answer; // it is one of these texts; NULL: any
    // Calls may stand in it, or instead of such a text: each is one of the texts of `call` (NULL: any)
    // between these tokens. begun: of a call, what the prompt ends with (not kept); empty: it does not.
    bool may_call;
    int32_t call_open, call_close;
    struct grammar *call;
    struct str begun;
    // The tokens around what is thought before, -1: it begins at once; and whether the prompt ends
    // between them.
    int32_t think_open, think_close;
    bool in_thinking;
};

struct job {
    const int32_t *ids; // the prompt, at least one token; copied
    size_t n_ids;
    struct sampling sampling; // complete (engine_sampling)
    uint32_t max_tokens;      // 0 = up to the context
    const struct str *stops;  // at most 16, copied
    size_t n_stops;
    const struct logit_bias *bias; // at most 1024, copied
    size_t n_bias;
    bool ignore_eos;
    struct job_form form;    // all zero: any answer will do
    bool logprobs;           // events carry the token's logprob ...
    uint32_t n_top_logprobs; // ... and these many alternatives, at most 20
    int32_t priority;        // lower first
    uint32_t timeout_ms;     // from submit; 0 = none
    struct str cache_salt;   // isolates prefixes; copied
    bool has_cache_priority, has_cache_ttl;
    uint32_t cache_priority; // of the pages that it leaves: 0 goes first, 100 last
    uint32_t cache_ttl_s;    // so long they go after all others; 0: nobody needs them
};

enum { CACHE_PRIORITY_DEFAULT = 50, CACHE_PRIORITY_MAX = 100 };
// Why a page left the cache: room for others, its salt had more than its share, a command.
// REPLACED: a page that was not full, by one that begins with it.
enum evict_reason { EVICT_ROOM, EVICT_QUOTA, EVICT_DROPPED, EVICT_REPLACED, EVICT_REASONS };

// What became of a text that was computed ahead: all of it is cached; put aside for a job (and taken up later); no memory
// that is worth less; forgotten for later ones, or at the end; the device failed.
enum ahead_end {
    AHEAD_DONE,
    AHEAD_YIELDED,
    AHEAD_NO_ROOM,
    AHEAD_FORGOTTEN,
    AHEAD_FAILED,
    AHEAD_ENDS
};

enum finish { FINISH_NONE, FINISH_STOP, FINISH_STOP_STRING, FINISH_LENGTH, FINISH_ERROR };
enum event_kind { EVENT_TOKEN, EVENT_END };
enum { TOP_LOGPROBS_MAX = 20 };

struct stream_event {
    enum event_kind kind;
    // EVENT_TOKEN: a sampled token, the end-of-turn token excluded. Text: tokenizer_piece. The token
    // that completes a stop string is among them: who shows text runs text/stop.h over the pieces.
    int32_t id;
    float logprob; // after penalties and biases, before temperature
    uint32_t n_top;
    struct {
        int32_t id;
        float logprob;
    } top[TOP_LOGPROBS_MAX];
    // EVENT_END: nothing comes after it.
    enum finish finish;
    struct err error; // FINISH_ERROR
};

enum stream_stage { STAGE_QUEUED, STAGE_WAITING_PREFIX, STAGE_PREFILL, STAGE_GENERATE, STAGE_DONE };

// Why no more of a prompt was cached.
enum cache_reason {
    CACHE_NOT_LOOKED, // the job has not been admitted
    CACHE_WHOLE,      // nothing more could be: the last token is always computed
    CACHE_ENDS,       // nothing differs; what is cached ends here
    CACHE_DIFFERS,    // what is cached goes on with other tokens
    CACHE_COLD,       // nothing in the cache begins like this
    CACHE_EVICTED,    // it was here, and made room for others
    CACHE_REASONS
};
const char *engine_cache_reason(enum cache_reason r); // "whole", "ends", ...

// Where a prompt's tokens came from.
struct cache_report {
    uint32_t n_device, n_ram, n_disk; // tokens found in each tier
    double restored_ms;               // spent on bringing them back from the lower ones
    uint32_t diverged_at;             // prompt token at which no cached text goes on
    enum cache_reason reason;
};

// How far a job is. Times in ms. All fields are one consistent snapshot.
struct stream_status {
    enum stream_stage stage;
    uint32_t n_prompt;    // prompt tokens
    uint32_t n_cached;    // of them taken from the prefix tree (a joined prefill counts)
    uint32_t n_processed; // of the prompt done so far, the cached ones included
    uint32_t n_generated;
    uint32_t queue_position;                             // jobs before it; 0 when it runs
    double queued_ms, prefill_ms, generate_ms, total_ms; // spent so far in each
    double ttft_ms;                                      // submit to first token; 0 before
    double eta_ms; // until the first token; < 0 = not known yet
    struct cache_report cache;
};

struct stream; // consumer's end of a job

// Checks the job and hands it to the engine thread. ERR_TOO_LONG ("... exceeds the available context
// size ..." with both numbers), ERR_FULL (retry_after_ms set), ERR_SHUTDOWN, ERR_INPUT.
bool engine_submit(struct engine *en, const struct job *job, struct stream **out, struct err *e);
// Computes a job's prompt while no other job runs or waits, for a job that is expected to begin with it: no answer, no
// stream. Put aside within a step when a job comes, taken up again after it; of several the latest goes first, and the
// oldest are forgotten. Takes memory that is free or holds what is worth less.
bool engine_ahead(struct engine *en, const struct job *job, struct err *e);
// The next event if there is one; never blocks.
bool stream_next(struct stream *s, struct stream_event *out);
// Readable (POLLIN) when events may be waiting; stays so until stream_next returned false.
int stream_fd(const struct stream *s);
void stream_status(const struct stream *s, struct stream_status *out);
// The client is gone: the sequence stops within one step, its full pages stay cached.
void stream_cancel(struct stream *s);
// Cancels if it still runs, and gives the stream up. NULL is fine.
void stream_close(struct stream *s);

// ---- the prefix cache -----------------------------------------------------------------------
// For any thread; the engine thread answers between two steps, so within a second or so. All fail
// with ERR_SHUTDOWN when the engine stops.

enum { CACHE_HEAD_TOKENS = 32, CACHE_NAME_BYTES = 64 };

enum cache_tier { CACHE_DEVICE, CACHE_RAM, CACHE_DISK };
// Cached pages in a row without a branch: what `submind cache ls` shows as one line. What is in two tiers stands in the
// upper one only.
struct cache_trunk {
    enum cache_tier tier;
    uint64_t id;         // of its last page: what pin, unpin and drop take
    uint32_t parent;     // index of the trunk that it goes on from, UINT32_MAX = none
    uint32_t n_before;   // tokens in front of it
    uint32_t n_tokens;   // its own
    uint32_t n_below;    // tokens in the trunks that go on from it
    uint32_t hits;       // times that its first page was taken instead of computed
    double idle_s;       // since its last use, on disk since it was written; negative: not known
    uint64_t bytes;      // of its own tokens
    bool in_use;         // by a running request
    bool pinned, public; // its last page is
    uint64_t salt;       // 0: none; else a number for the salt
    char name[CACHE_NAME_BYTES]; // of the pin that ends here
    uint32_t n_head;
    int32_t head[CACHE_HEAD_TOKENS]; // its first tokens
};
// All trunks, parents before children: of the device, the last used first, then those that are in lower tiers only.
// An array that the caller frees.
bool engine_cache_list(struct engine *en, struct cache_trunk **out, size_t *n, struct err *e);

// What would be found for a prompt now, and what is cached in place of its first missing page.
struct cache_probe {
    uint32_t n_hit;       // tokens, of all tiers: whole pages and the beginning of one ...
    uint32_t n_ram;       // ... of them in host memory
    uint32_t n_disk;      // ... or on disk
    uint32_t n_public;    // of them in a public trunk
    uint32_t diverged_at; // first token that no cached text has there
    enum cache_reason reason;
    int32_t *other; // the nearest cached text from token other_from on; owned
    size_t n_other;
    uint32_t other_from; // a page's beginning, not behind n_hit
    double prefill_tps;  // measured; 0 = not known yet
};
bool engine_cache_probe(struct engine *en, const int32_t *ids, size_t n_ids, struct str salt,
                        struct cache_probe *out, struct err *e);
void cache_probe_free(struct cache_probe *p);

// Keeps the cached part of ids (whole pages) from eviction; public: for requests of any salt.
// ERR_NOT_FOUND when no page of it is cached, ERR_MEMORY when what is left would be too little for a
// request of full length. *n_tokens: how many tokens are pinned.
bool engine_cache_pin_text(struct engine *en, const int32_t *ids, size_t n_ids, bool public,
                           const char *name, uint64_t *id, uint32_t *n_tokens, struct err *e);
// The same by a trunk's id.
bool engine_cache_pin(struct engine *en, uint64_t id, bool public, const char *name,
                      uint32_t *n_tokens, struct err *e);
bool engine_cache_unpin(struct engine *en, uint64_t id, uint32_t *n_tokens, struct err *e);
// Takes a trunk and all that goes on from it out of all tiers (id 0: everything), except what is pinned or in use.
bool engine_cache_drop(struct engine *en, uint64_t id, uint32_t *n_tokens, struct err *e);

// What comes into the cache and leaves it, for routers. Of the device it is told on the engine thread: must not block
// and must not call the engine.
struct cache_event {
    enum cache_tier tier;  // CACHE_DEVICE, CACHE_DISK
    bool removed;          // else stored
    uint64_t hash, parent; // chained over tokens and salts; parent 0 = the text begins here
    const int32_t *tokens; // [n_tokens] of a stored page; borrowed during the call
    uint32_t n_tokens;
    struct str salt; // of the first page under a cache_salt; empty for all others
};
typedef void cache_listener(void *arg, const struct cache_event *event);
// Tells all that is on the device now, parents first, and from then on what changes. One listener at most;
// NULL ends it. Pages whose salt's text is not known (restored from disk) are told when it is.
bool engine_cache_listen(struct engine *en, cache_listener *listener, void *arg, struct err *e);
// Tells all that is on the device now, once more.
bool engine_cache_announce(struct engine *en, cache_listener *listener, void *arg, struct err *e);

// What of the disk a listener was told: pages whose whole path lies there, each read and hashed as its key says. The
// hashes are those of the device's pages. For one thread of the caller's: it reads the disk in these calls.
struct cache_told;
// *out: the caller's; NULL where nothing is kept on disk, which all others take. Before the engine goes:
bool engine_cache_told_open(struct cache_told **out, struct engine *en, struct err *e);
void cache_told_close(struct cache_told *c);
// Pages under this cache_salt may be told from now on; those of a salt without a name are not.
void cache_told_name(struct cache_told *c, struct str salt);
// Tells what came and went since the last turns, parents first, at most so many. True: there is more. Before the disk's
// index is there nothing is told.
bool cache_told_turn(struct cache_told *c, size_t most, cache_listener *listener, void *arg);
// Tells what was told, once more.
void cache_told_again(struct cache_told *c, cache_listener *listener, void *arg);
// The listener knows nothing any more: the next turns tell all.
void cache_told_forget(struct cache_told *c);

// ---- figures --------------------------------------------------------------------------------

enum { HIST_BUCKETS = 16 };
struct histogram {
    uint64_t counts[HIST_BUCKETS];
    double sum;
    uint64_t n;
};                                                        // bounds: engine_hist_bounds
extern const double engine_hist_bounds[HIST_BUCKETS - 1]; // seconds; the last bucket is +Inf

// The tiers below device memory.
struct tier_figures {
    uint64_t ram_pages, ram_bytes, disk_pages, disk_bytes, disk_cap_bytes; // now
    uint64_t saved, skipped;          // pages; skipped: evicted before they could be saved
    uint64_t ram_tokens, disk_tokens; // of prompts, brought back
    uint64_t restores, warmed, bad;   // bad: pages on disk that did not verify
    double restore_seconds;
    bool disk_open, disk_writer; // there is a disk tier; this process writes it
};

struct engine_stats { // counters since start, gauges now; read without the engine thread's help
    uint64_t prompt_tokens, cached_tokens, prefill_tokens, generated_tokens;
    uint64_t requests_done, requests_failed, requests_cancelled, requests_refused, preemptions,
        evictions;
    uint32_t running, waiting;
    uint32_t pages_total, pages_used, pages_cached; // used: by running sequences; cached: tree only
    uint32_t pages_parts;                           // of those in the tree: not full
    uint32_t pages_pinned, pages_public, salts;     // salts with pages, at most 255 and "others"
    uint64_t evicted[EVICT_REASONS];                // their sum, but for REPLACED, is evictions
    uint64_t cached_ram_tokens, cached_disk_tokens; // parts of cached_tokens
    uint64_t requests_by_reason[CACHE_REASONS];     // why no more of their prompts was cached
    uint64_t ahead_tokens, ahead[AHEAD_ENDS];       // computed ahead, beside prefill_tokens; ends
    double prefill_tps;                             // measured lately; 0 = not known yet
    double prefill_seconds, generate_seconds;
    struct histogram ttft, queue, e2e;
    struct tier_figures tiers;
};
void engine_stats(const struct engine *en, struct engine_stats *out);
// True once the device is lost: every job is refused, and only a new process brings it back. *e says why.
bool engine_lost(const struct engine *en, struct err *e);

// One running or waiting job, for /slots.
struct engine_slot {
    uint64_t job_id;
    struct stream_status status;
    int32_t priority;
};
size_t engine_slots(const struct engine *en, struct engine_slot *out, size_t max);

// What a check of every page on disk found.
struct cache_check {
    uint64_t pages, bytes, bad; // bad: did not verify; they are gone now
    double seconds;
};
// Reads every page on disk and verifies it, on the caller's thread, while requests go on.
// ERR_UNSUPPORTED where nothing is kept on disk, ERR_SHUTDOWN when the engine stops meanwhile.
bool engine_cache_verify(struct engine *en, struct cache_check *out, struct err *e);

// ---- for inspect, bench and tests: no server, same functions ---------------------------------

// Logits [n_vocab] of the last position of ids, through the same scheduler and forward pass.
bool engine_logits(struct engine *en, const int32_t *ids, size_t n_ids, float *logits,
                   struct err *e);

struct engine_score {
    double nll;        // sum of -log p over the scored tokens, in nats
    uint64_t n_tokens; // scored: all but the first of each window
    uint32_t n_ctx;    // tokens of a window
    uint32_t n_rows;   // rows of a step: 1 runs what decoding runs, many what prefill runs
};
// Scores a text with an engine that was opened with score_rows, in windows of the context.
bool engine_score(struct engine *en, const int32_t *ids, size_t n_ids, struct engine_score *out,
                  struct err *e);

// ---- timing single ops: no model ----------------------------------------------------------------

struct engine_ceilings {
    const char *device, *how;    // what was measured, for people; valid during the call
    double read_bytes_s, flop_s; // at most
};

// One device that this build could run on.
struct engine_device {
    char name[48]; // for --device: "cpu", "cuda:1"
    char what[128];
    uint64_t mem_total_bytes, mem_free_bytes;
    const char *kv_type; // of keys and values where --kv-type is left out
    bool usable;
    struct err why; // where it is not
};
// Asks every backend for its devices; a backend without one gives an entry that says why. Returns how many
// of max were filled.
size_t engine_devices(struct engine_device *out, size_t max);

// One op (or a pair that backends fuse) in one shape.
struct engine_op_timing {
    const char *op, *what, *format; // "linear", "gate+up 3072x1024", "Q4_K"; valid during the call
    uint32_t rows;                  // of the batch
    double ms;                      // the quickest of several
    double bytes, flops;            // that it must move and do; weights and pages come from memory
    double percent;                 // of what the ceilings allow; above 100 caches helped
    bool by_flops;                  // the ceiling is the arithmetic, not the memory
};

struct engine_ops_settings {
    const char *device;
    uint32_t n_threads;
    const char *shape;        // "0.6b", "8b", "32b": of Qwen3; NULL = by the device
    const char *format;       // of weights; NULL = the usual ones, "all" = every one
    const char *op;           // only ops whose name or shape holds this text; NULL = all
    uint32_t rows;            // only batches of so many rows; 0 = all sizes
    const char *prefill_type; // as in engine_settings
    void (*on_ceilings)(void *arg, const struct engine_ceilings *c);
    void (*on_op)(void *arg, const struct engine_op_timing *t);
    const atomic_int *cancel; // not 0: stop with ERR_CANCELLED; may be NULL
    void *arg;
};

// Times every kind of op over the backend seam, in the shapes of a model, with random data.
bool engine_bench_ops(const struct engine_ops_settings *s, struct err *e);
