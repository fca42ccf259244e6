// Which instructions the processor has, and the system saves.
#pragma once

#include <cstdint>

#include "avatar_native.h"

#if defined(AVATAR_WITH_X86)
#include <cpuid.h>

namespace avatar {

// `__builtin_cpu_supports` would say it in a word, but it asks the compiler's runtime library, and Zig's, which wheels
// are compiled with, knows of no processor: everything is missing there.
inline int32_t detect_isa() {
  const auto has = [](uint32_t word, uint32_t bits) { return (word & bits) == bits; };
  const auto bit = [](int number) { return uint32_t{1} << number; };
  uint32_t a, b, c, d;

  if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, bit(12) | bit(27) | bit(28)))  // FMA, OSXSAVE, AVX
    return AVATAR_ISA_BASELINE;
  uint32_t saved, high;  // the registers that the system keeps for each thread
  __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  if (!has(saved, 0x6)) return AVATAR_ISA_BASELINE;  // xmm, ymm
  if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !has(c, bit(5))) return AVATAR_ISA_BASELINE;  // LZCNT
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, bit(3) | bit(5) | bit(8)))  // BMI, AVX2, BMI2
    return AVATAR_ISA_BASELINE;
  // AVX-512 F, DQ, CD, BW, VL; masks and zmm
  if (!has(b, bit(16) | bit(17) | bit(28) | bit(30) | bit(31)) || !has(saved, 0xe6)) return AVATAR_ISA_AVX2;
#if defined(AVATAR_WITH_BF16)
  if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && has(a, bit(5))) return AVATAR_ISA_AVX512_BF16;
#endif
  return AVATAR_ISA_AVX512;
}

}  // namespace avatar
#endif

namespace avatar {

// The best instruction set of this build that the machine has.
inline int32_t best_isa() {
#if defined(AVATAR_WITH_X86)
  static const int32_t best = detect_isa();  // asked once: in a virtual machine the question takes microseconds
  return best;
#else
  return AVATAR_ISA_BASELINE;
#endif
}

}  // namespace avatar
