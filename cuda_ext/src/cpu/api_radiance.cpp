// The C ABI: the radiance field.
#include "api.h"
#include "avatar_radiance.h"

using avatar::RadianceSizes;

extern "C" {

int64_t avatar_radiance_mlp_workspace(int32_t dtype, int32_t num_threads, int32_t inputs, int32_t attention,
                                      int32_t gates, int32_t hidden, int32_t outputs, int32_t color) {
  if (num_threads < 1 || !avatar::good_radiance({inputs, attention, gates, hidden, outputs, color})) return -1;
  // Registers of other instruction sets are narrower or as wide, so the widest padding is enough for all.
  const auto wide = [](int32_t size) { return (size + 15) / 16 * 16; };
  const RadianceSizes most = {wide(inputs), wide(attention), wide(gates), wide(hidden), wide(outputs), wide(color)};
  return BY_DTYPE(radiance_mlp_workspace, at_most_threads(num_threads), most);
}

int32_t avatar_radiance_mlp(avatar_call* call, const void* features, int64_t n, int32_t inputs, int32_t attention,
                            int32_t gates, int32_t hidden, int32_t outputs, int32_t color, const void* parameters,
                            void* densities, void* colors, void* gate_values, void* workspace) {
  int32_t isa;
  const RadianceSizes sizes = {inputs, attention, gates, hidden, outputs, color};
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(avatar::check_radiance(call, sizes));
  AVATAR_REQUIRE(parameters, workspace);
  AVATAR_REQUIRE_IF(n, features, densities, colors, gate_values);
  DISPATCH(K::radiance_mlp<T>(threads_of(call), in<T>(features), n, sizes, in<T>(parameters), out<T>(densities),
                              out<T>(colors), out<T>(gate_values), out<T>(workspace)));
}

int32_t avatar_radiance_mlp_backward(avatar_call* call, const void* features, int64_t n, int32_t inputs,
                                     int32_t attention, int32_t gates, int32_t hidden, int32_t outputs, int32_t color,
                                     const void* parameters, const void* v_densities, const void* v_colors,
                                     const void* v_gates, void* v_features, void* v_parameters, void* workspace) {
  int32_t isa;
  const RadianceSizes sizes = {inputs, attention, gates, hidden, outputs, color};
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(avatar::check_radiance(call, sizes));
  AVATAR_REQUIRE(parameters, v_parameters, workspace);
  AVATAR_REQUIRE_IF(n, features, v_densities, v_colors, v_gates, v_features);
  DISPATCH(K::radiance_mlp_backward<T>(threads_of(call), in<T>(features), n, sizes, in<T>(parameters),
                                       in<T>(v_densities), in<T>(v_colors), in<T>(v_gates), out<T>(v_features),
                                       out<T>(v_parameters), out<T>(workspace)));
}

}  // extern "C"
