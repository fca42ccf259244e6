// What is no kernel.
#include "device.h"

extern "C" int32_t avatar_cuda_abi_version(void) { return AVATAR_CUDA_ABI_VERSION; }
