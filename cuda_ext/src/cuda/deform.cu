// The deformation network behind its cached spatial code: relu(base + attention * condition), a hidden layer, the
// output layer, scaled. One thread per Gaussian; all weights lie in shared memory and are read by a whole warp at once.
#include "device.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kThreads = 128;
constexpr int kHidden = 64;
constexpr int kHalf = kHidden / 2;  // channels staged at a time
constexpr int kRowsAtOnce = 4;      // hidden units computed side by side

// kOutputs: at least the number of outputs, and a multiple of 4.
template <int kOutputs>
__global__ void __launch_bounds__(kThreads)
    deform_kernel(const float* code, const float* condition, const float* middle_weight, const float* middle_bias,
                  const float* head_weight, const float* head_bias, const float* scale, int64_t n, int outputs,
                  float* out) {
  alignas(16) __shared__ float weight1[kHidden][kHidden];
  alignas(16) __shared__ float weight2[kHidden][kOutputs];  // transposed, padded with zeros
  __shared__ float bias1[kHidden], signal[kHidden];
  __shared__ float stage[kThreads / kWarp][kWarp][kHalf + 1];
  start_as_nan(weight1);
  start_as_nan(weight2);
  start_as_nan(bias1);
  start_as_nan(signal);
  start_as_nan(stage);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  for (int i = thread; i < kHidden * kHidden; i += kThreads) weight1[i / kHidden][i % kHidden] = middle_weight[i];
  for (int i = thread; i < kHidden * kOutputs; i += kThreads) {
    const int unit = i / kOutputs, output = i % kOutputs;
    weight2[unit][output] = output < outputs ? head_weight[output * kHidden + unit] : 0.0f;
  }
  if (thread < kHidden) {
    bias1[thread] = middle_bias[thread];
    signal[thread] = condition[thread];
  }
  __syncthreads();

  // Rows are read along their length by a whole warp, and handed over to the thread that owns them.
  float hidden[kHidden];
  const int64_t first = int64_t(blockIdx.x) * kThreads + warp * kWarp, row = first + lane;
  AVATAR_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int channel = half * kHalf + lane;
    for (int r = 0; r < kWarp && first + r < n; ++r) {
      const float* base = code + (first + r) * 2 * kHidden + channel;
      stage[warp][r][lane] = rectified(base[0] + base[kHidden] * signal[channel]);
    }
    __syncwarp();
    AVATAR_UNROLL
    for (int k = 0; k < kHalf; ++k) hidden[half * kHalf + k] = row < n ? stage[warp][lane][k] : 0.0f;
    __syncwarp();
  }

  float result[kOutputs];
  AVATAR_UNROLL
  for (int o = 0; o < kOutputs; ++o) result[o] = 0.0f;
  for (int unit = 0; unit < kHidden; unit += kRowsAtOnce) {
    float sum[kRowsAtOnce];
    AVATAR_UNROLL
    for (int i = 0; i < kRowsAtOnce; ++i) sum[i] = bias1[unit + i];
    AVATAR_UNROLL
    for (int k = 0; k < kHidden; k += 4)
      AVATAR_UNROLL
      for (int i = 0; i < kRowsAtOnce; ++i) {
        const float4 w = *reinterpret_cast<const float4*>(&weight1[unit + i][k]);
        sum[i] += w.x * hidden[k] + w.y * hidden[k + 1] + w.z * hidden[k + 2] + w.w * hidden[k + 3];
      }
    AVATAR_UNROLL
    for (int i = 0; i < kRowsAtOnce; ++i) {
      const float active = rectified(sum[i]);
      AVATAR_UNROLL
      for (int o = 0; o < kOutputs; o += 4) {
        const float4 w = *reinterpret_cast<const float4*>(&weight2[unit + i][o]);
        result[o] += active * w.x;
        result[o + 1] += active * w.y;
        result[o + 2] += active * w.z;
        result[o + 3] += active * w.w;
      }
    }
  }
  if (row >= n) return;
  AVATAR_UNROLL
  for (int o = 0; o < kOutputs; ++o)
    if (o < outputs) out[row * outputs + o] = scale[o] * (result[o] + head_bias[o]);
}

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar

using namespace avatar::AVATAR_ISA;

extern "C" int32_t avatar_cuda_deform_code(avatar_call* call, const void* code, const void* condition,
                                           const void* middle_weight, const void* middle_bias,
                                           const void* head_weight, const void* head_bias, const void* scale,
                                           int64_t n, int32_t hidden, int32_t outputs, void* result, void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, n));
  if (call->dtype != AVATAR_FLOAT32) return fail(call, AVATAR_UNSUPPORTED, "the deformation network is float32 only");
  if (hidden != kHidden || outputs < 1 || outputs > 16)
    return fail(call, AVATAR_UNSUPPORTED, "hidden, outputs are %d, %d; the kernel is for 64 hidden channels, 1 to 16 outputs",
                int(hidden), int(outputs));
  AVATAR_REQUIRE(condition, middle_weight, middle_bias, head_weight, head_bias, scale);
  AVATAR_REQUIRE_IF(n, code, result);
  if (n == 0) return AVATAR_OK;
  return launch(call, outputs <= 12 ? deform_kernel<12> : deform_kernel<16>, blocks_for(n, kThreads), kThreads,
                static_cast<cudaStream_t>(stream), in<float>(code), in<float>(condition), in<float>(middle_weight),
                in<float>(middle_bias), in<float>(head_weight), in<float>(head_bias), in<float>(scale), n, outputs,
                out<float>(result));
}
