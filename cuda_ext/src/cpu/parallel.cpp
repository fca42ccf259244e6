#include "parallel.h"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

namespace avatar {
namespace {

// Shared with the helpers, one of which may first run after the caller has left: then it finds the job closed, and
// touches neither body nor context.
struct Job {
  std::atomic<int64_t> next{0};
  int64_t items;
  Body body;
  void* context;

  std::mutex mutex;
  std::condition_variable idle;
  int working = 0;  // helpers inside work(); guarded by mutex
  bool closed = false;

  void work(int worker) {
    for (int64_t item = next.fetch_add(1, std::memory_order_relaxed); item < items;
         item = next.fetch_add(1, std::memory_order_relaxed))
      body(context, item, worker);
  }

  void help(int worker) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (closed) return;
      ++working;
    }
    work(worker);
    const std::lock_guard<std::mutex> lock(mutex);
    if (--working == 0) idle.notify_one();
  }

  void close() {
    std::unique_lock<std::mutex> lock(mutex);
    closed = true;
    idle.wait(lock, [this] { return working == 0; });
  }
};

}  // namespace

void run_parallel(int threads, int64_t items, Body body, void* context) {
  if (threads > items) threads = static_cast<int>(items);
  if (threads <= 1) {
    for (int64_t item = 0; item < items; ++item) body(context, item, 0);
    return;
  }
  const auto job = std::make_shared<Job>();
  job->items = items;
  job->body = body;
  job->context = context;
  try {
    for (int worker = 1; worker < threads; ++worker) std::thread([job, worker] { job->help(worker); }).detach();
  } catch (const std::exception&) {  // no more threads, or no memory for one: go on with those there are
  }
  job->work(0);
  job->close();
}

}  // namespace avatar
