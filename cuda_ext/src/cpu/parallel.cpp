#include "parallel.h"

#include <atomic>
#include <system_error>
#include <thread>

namespace avatar {
namespace {

constexpr int kMaxThreads = 64;

struct Job {
  std::atomic<int64_t> next{0};
  int64_t items;
  Body body;
  void* context;

  void work(int worker) {
    for (int64_t item = next.fetch_add(1, std::memory_order_relaxed); item < items;
         item = next.fetch_add(1, std::memory_order_relaxed))
      body(context, item, worker);
  }
};

}  // namespace

void run_parallel(int threads, int64_t items, Body body, void* context) {
  if (threads > kMaxThreads) threads = kMaxThreads;
  if (threads > items) threads = static_cast<int>(items);
  Job job;
  job.items = items;
  job.body = body;
  job.context = context;

  std::thread helpers[kMaxThreads];
  int started = 0;
  for (; started < threads - 1; ++started) {
    try {
      helpers[started] = std::thread(&Job::work, &job, started + 1);
    } catch (const std::system_error&) {
      break;
    }
  }
  job.work(0);
  for (int i = 0; i < started; ++i) helpers[i].join();
}

}  // namespace avatar
