// Fork-join over std::thread. Threads live for one call: no pool is kept, so a process may fork between calls, and no
// state is shared with the thread pool of torch. The caller works too and never waits for a helper that the system has
// not scheduled yet: on a busy machine a call takes the time of one thread, not that of the scheduler.
#pragma once

#include <cstdint>

namespace avatar {

using Body = void (*)(void* context, int64_t item, int worker);

// Run body(context, item, worker) once for every item in [0, items), with 0 <= worker < threads. Items are handed out
// dynamically. Falls back to fewer threads when the system refuses one.
void run_parallel(int threads, int64_t items, Body body, void* context);

}  // namespace avatar
