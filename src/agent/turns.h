// One sub-mind: bootstrap and task -> answers and tool calls -> report. Whatever happens, the
// result says how far it came and what it cost; there is no empty ending.
#pragma once

#include "agent/client.h"
#include "agent/tool_set.h"

enum run_outcome { RUN_DONE, RUN_FAILED, RUN_TIMEOUT, RUN_CANCELLED, RUN_NO_SERVER, RUN_OUTCOMES };

struct run_turn { // one request to the model
    uint64_t prompt_tokens, cached_tokens, completion_tokens;
    uint64_t prefilled_tokens;         // of the prompt, computed for this request
    double ttft_ms, gen_tps, total_ms; // ttft_ms < 0, gen_tps 0: not known
};

struct run_call { // one tool call, text owned
    struct buf name, arguments, detail, output, log;
    bool refused, could_not_run, failed, has_exit_code, repeatable;
    int exit_code;
    uint32_t n_strays;
    double ms;
};

struct run_result { // text owned
    char id[40];
    enum run_outcome outcome;
    struct err error;  // why it is not done
    struct buf stage;  // where it ended: "answer", "prefill 512 of 15000 tokens", "tool exec: ..."
    struct buf report; // the last answer's text, or the summary of the tool report
    enum report_status report_status; // REPORT_NONE: it was not called
    struct buf report_data;           // what it was given beside the summary, JSON; may be empty
    struct run_turn *turns;
    size_t n_turns;
    struct run_call *calls;
    size_t n_calls;
    struct buf messages; // the transcript: a JSON array as it was sent, with the last answer
    double total_ms;
};

// What a run shows while it goes on. Each may be NULL.
struct run_view {
    void *arg;
    void (*on_status)(void *arg, const struct chat_status *s);
    void (*on_wait)(void *arg, struct str what); // for a server, with no request under way
    void (*on_content)(void *arg, struct str text);
    void (*on_turn)(void *arg, const struct run_turn *t); // a request has ended, well or not
    void (*on_call)(void *arg, struct str name, struct str arguments); // before it runs
    void (*on_result)(void *arg, const struct run_call *call);
    // Messages behind the system message, as they are added: JSON objects with commas between.
    void (*on_transcript)(void *arg, struct str grown);
};

struct run_settings { // all borrowed
    struct str bootstrap, task;
    const char *id;         // run_id_make
    const char *model;      // name to ask for; NULL = "default"
    struct tool_set *tools; // NULL: none
    struct http_client *server;
    // Called when the server is gone; gives another connection, borrowed, or NULL. Without it the
    // same server is asked again, if it had answered before in this run.
    struct http_client *(*reconnect)(void *arg, struct err *e);
    void *reconnect_arg;
    uint64_t deadline_ns; // clock_ns; 0 = none
    double timeout_s;     // for messages
    const atomic_int *cancel;
    uint32_t max_turns, max_tokens;
    bool has_temperature;
    float temperature;
    int thinking; // -1: the server's default
    struct run_view view;
};

// 8 hex digits behind the date and time; out holds at least 40 bytes.
void run_id_make(char *out, size_t size);
// Runs to an end, always. out is owned by the caller: run_result_free.
void run_loop(const struct run_settings *s, struct run_result *out);
void run_result_free(struct run_result *r);
const char *run_outcome_name(enum run_outcome o);
int run_exit_code(const struct run_result *r);

struct run_totals { // of all requests; gen_tps 0: not known
    uint64_t prefilled_tokens, completion_tokens;
    double gen_tps;
};

struct run_totals run_result_totals(const struct run_result *r);
// {"id","outcome","stage","report","prompt_tokens","cached_tokens","ttft_ms","gen_tps",
// "tool_calls",...}.
// prompt_tokens, cached_tokens and ttft_ms are the first request's: that is the bootstrap.
// prefilled_tokens is what all requests together had to compute.
void run_result_json(const struct run_result *r, struct buf *out);
