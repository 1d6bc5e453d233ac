// Time. Monotonic nanoseconds for durations, Unix seconds for what people read.
#pragma once

#include <stdint.h>

uint64_t clock_ns(void); // monotonic
double clock_ms_since(uint64_t start_ns);
int64_t clock_unix(void); // seconds since 1970
int64_t clock_unix_ms(void);
void clock_sleep_ms(uint32_t ms); // a signal ends it early
