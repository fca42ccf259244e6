// What every file of the C ABI needs: checks that cannot be left to the caller, and the choice of the instruction set.
#pragma once

#include <algorithm>
#include <cstdint>

#include "avatar_checks.h"
#include "processor.h"

#define AVATAR_ISA baseline
#include "kernels.inc"
#undef AVATAR_ISA
#if defined(AVATAR_WITH_X86)
#define AVATAR_ISA avx2
#include "kernels.inc"
#undef AVATAR_ISA
#define AVATAR_ISA avx512
#include "kernels.inc"
#undef AVATAR_ISA
#endif
#if defined(AVATAR_WITH_BF16)
#include "draw_field_bf16.h"
#include "mlp_bf16.h"
#include "radiance_bf16.h"
#endif

namespace {

constexpr int32_t kMaxThreads = 64;

// Refuse what only AVX512_BF16 multiplies.
[[maybe_unused]] int32_t check_bf16(avatar_call* call, int32_t isa) {
  if (isa >= AVATAR_ISA_AVX512_BF16 && call->dtype == AVATAR_FLOAT32) return AVATAR_OK;
  return avatar::fail(call, AVATAR_UNSUPPORTED, "isa, dtype are %d, %d; expected %d (AVX512_BF16) and float32 (0)",
                      int(isa), int(call->dtype), int(AVATAR_ISA_AVX512_BF16));
}

// Common checks; on success `*isa` is the instruction set to use.
int32_t check(avatar_call* call, int64_t n, int32_t* isa) {
  AVATAR_RETURN_IF_BAD(avatar::check_call(call, n));
  const int32_t best = avatar::best_isa();
  *isa = call->isa == AVATAR_ISA_AUTO ? best : call->isa;
  if (*isa < AVATAR_ISA_BASELINE || *isa > best)
    return avatar::fail(call, AVATAR_UNSUPPORTED, "isa is %d; this machine or build has 1 to %d", int(call->isa),
                        int(best));
  return AVATAR_OK;
}

int32_t at_most_threads(int32_t threads) { return threads < kMaxThreads ? threads : kMaxThreads; }
int32_t threads_of(const avatar_call* call) { return at_most_threads(call->num_threads); }

template <typename T>
const T* in(const void* pointer) {
  return static_cast<const T*>(pointer);
}
template <typename T>
T* out(void* pointer) {
  return static_cast<T*>(pointer);
}

}  // namespace

// Run `expression`, in which `K` is the namespace of an instruction set and `T` the number type.
#if defined(AVATAR_WITH_X86)
#define WITH_ISA(expression)                  \
  if (isa >= AVATAR_ISA_AVX512) {             \
    namespace K = avatar::avx512;             \
    expression;                               \
  } else if (isa == AVATAR_ISA_AVX2) {        \
    namespace K = avatar::avx2;               \
    expression;                               \
  } else {                                    \
    namespace K = avatar::baseline;           \
    expression;                               \
  }
#else
#define WITH_ISA(expression)        \
  {                                 \
    namespace K = avatar::baseline; \
    expression;                     \
  }
#endif
#define DISPATCH(...)                      \
  if (call->dtype == AVATAR_FLOAT32) {     \
    using T = float;                       \
    WITH_ISA((__VA_ARGS__))                \
  } else {                                 \
    using T = double;                      \
    WITH_ISA((__VA_ARGS__))                \
  }                                        \
  return AVATAR_OK
// Size of a workspace: the most that an instruction set of this machine needs, as each pads rows to registers of its own.
// Those that it lacks are not asked: their size functions are compiled for them, too.
#if defined(AVATAR_WITH_X86)
#define MOST_OF_ISAS(T, function, ...)                                                                         \
  (avatar::best_isa() >= AVATAR_ISA_AVX512                                                                     \
       ? std::max({avatar::baseline::function<T>(__VA_ARGS__), avatar::avx2::function<T>(__VA_ARGS__),         \
                   avatar::avx512::function<T>(__VA_ARGS__)})                                                  \
   : avatar::best_isa() >= AVATAR_ISA_AVX2                                                                     \
       ? std::max(avatar::baseline::function<T>(__VA_ARGS__), avatar::avx2::function<T>(__VA_ARGS__))          \
       : avatar::baseline::function<T>(__VA_ARGS__))
#else
#define MOST_OF_ISAS(T, function, ...) avatar::baseline::function<T>(__VA_ARGS__)
#endif
#define BY_DTYPE(function, ...)                                        \
  (dtype == AVATAR_FLOAT32 ? MOST_OF_ISAS(float, function, __VA_ARGS__) \
                           : MOST_OF_ISAS(double, function, __VA_ARGS__))

using avatar::check_channels;
using avatar::check_grid;
using avatar::check_network;
using avatar::check_picture;
using avatar::fail;
