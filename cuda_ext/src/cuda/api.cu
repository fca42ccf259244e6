// What computes nothing: the version, and whether kernels can be launched at all.
#include "device.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

__global__ void empty_kernel() {}

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar

extern "C" {

int32_t avatar_cuda_abi_version(void) { return AVATAR_CUDA_ABI_VERSION; }

int32_t avatar_cuda_probe(avatar_call* call, void* stream) {
  using namespace avatar::AVATAR_ISA;
  AVATAR_RETURN_IF_BAD(check_call(call, 0));
  static_cast<void>(cudaGetLastError());  // of whoever used CUDA before
  return launch(call, empty_kernel, 1u, 1, static_cast<cudaStream_t>(stream));
}

}  // extern "C"
