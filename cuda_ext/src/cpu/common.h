// What every kernel file needs: the shared mathematics, the lanes and a typed parallel loop.
#pragma once

#include <cstddef>
#include <cstdint>

#include "avatar_math.h"
#include "kernels.inc"
#include "parallel.h"
#include "simd.h"

namespace avatar {
namespace AVATAR_ISA {

// function(item, worker) for every item in [0, items).
template <typename Function>
inline void parallel_for(int threads, int64_t items, const Function& function) {
  run_parallel(
      threads, items,
      [](void* context, int64_t item, int worker) { (*static_cast<const Function*>(context))(item, worker); },
      const_cast<Function*>(&function));
}

// function(begin, end) over [0, n) in blocks, so that one item is worth handing out.
template <typename Function>
inline void parallel_blocks(int threads, int64_t n, int64_t block, const Function& function) {
  parallel_for(threads, (n + block - 1) / block, [&](int64_t item, int) {
    const int64_t begin = item * block, end = begin + block < n ? begin + block : n;
    function(begin, end);
  });
}

}  // namespace AVATAR_ISA
}  // namespace avatar
