/* C ABI of the CUDA library: the rules of avatar_native.h, with device pointers and a stream (cudaStream_t) as the last
 * argument. Launches only: nothing is synchronised. */
#ifndef AVATAR_CUDA_H
#define AVATAR_CUDA_H

#include "avatar_native.h"

#ifdef __cplusplus
extern "C" {
#endif

AVATAR_API int32_t avatar_cuda_abi_version(void);

AVATAR_API int32_t avatar_cuda_project(avatar_call* call, const void* means, const void* quats, const void* scales,
                                       const void* viewmat, const void* intrinsics, int64_t n, int32_t width,
                                       int32_t height, double eps2d, double near_plane, int32_t* radii, void* means2d,
                                       void* depths, void* conics, void* stream);

AVATAR_API int32_t avatar_cuda_triplane_encode(avatar_call* call, const void* points, const void* table,
                                               const int32_t* resolutions, int64_t n, int32_t levels, int64_t rows,
                                               int32_t features, void* out, void* stream);

#ifdef __cplusplus
}
#endif

#endif
