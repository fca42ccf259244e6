// Fork-join over std::thread. Threads live for one call: nothing persists between calls, so a process may fork
// between them, and no state is shared with the thread pool of torch.
#pragma once

#include <cstdint>

namespace avatar {

using Body = void (*)(void* context, int64_t item, int worker);

// Run body(context, item, worker) once for every item in [0, items), with 0 <= worker < threads. Items are handed out
// dynamically. Falls back to fewer threads when the system refuses one.
void run_parallel(int threads, int64_t items, Body body, void* context);

}  // namespace avatar
