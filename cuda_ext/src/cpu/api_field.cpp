// The C ABI: a radiance field in one pass.
#include "api.h"
#include "avatar_field.h"

using avatar::FieldScene;
using avatar::RadianceSizes;

#define SCENE()                                                                                                        \
  {view, x, y, width, height, places, box, held, occupancy, {depth, cells_high, bytes}, step, darkest, max_samples, front, \
   front_rows, front_columns, rise, neck, moved, {nodes_x, nodes_y, nodes_z}, moved_box, bounds, table, resolutions, \
   levels, features, rows, {inputs, attention, gates, hidden, outputs, color}, parameters}

namespace {

int32_t check_scene(avatar_call* call, const FieldScene& s, const void* image, const void* workspace) {
  const void *view = s.view, *occupancy = s.occupancy, *front = s.front, *neck = s.neck, *moved = s.moved;
  const void *table = s.table, *parameters = s.parameters;
  AVATAR_RETURN_IF_BAD(check_picture(call, s.width, s.height, 4));
  AVATAR_RETURN_IF_BAD(check_grid(call, s.resolutions, s.levels, s.rows, s.features));
  AVATAR_RETURN_IF_BAD(avatar::check_field(call, s));
  AVATAR_REQUIRE(view, occupancy, front, neck, moved, table, parameters, image, workspace);
  return AVATAR_OK;
}

}  // namespace

extern "C" {

int64_t avatar_draw_field_workspace(int32_t dtype, int32_t num_threads, int32_t inputs, int32_t attention,
                                    int32_t gates, int32_t hidden, int32_t outputs, int32_t color) {
  const RadianceSizes sizes = {inputs, attention, gates, hidden, outputs, color};
  if (num_threads < 1 || !avatar::good_radiance(sizes)) return -1;
  return BY_DTYPE(draw_field_workspace, at_most_threads(num_threads), sizes);
}

int32_t avatar_draw_field(avatar_call* call, const double* view, int32_t x, int32_t y, int32_t width, int32_t height,
                          const void* places, const double* box, const double* held, const uint8_t* occupancy, int32_t depth,
                          int32_t cells_high, int32_t bytes, double step, double darkest, int32_t max_samples,
                          const void* front, int32_t front_rows, int32_t front_columns, double rise,
                          const double* neck, const void* moved, int32_t nodes_x, int32_t nodes_y, int32_t nodes_z,
                          const double* moved_box, const double* bounds, const void* table,
                          const int32_t* resolutions, int32_t levels, int64_t rows, int32_t features, int32_t inputs,
                          int32_t attention, int32_t gates, int32_t hidden, int32_t outputs, int32_t color,
                          const void* parameters, void* image, void* workspace) {
  int32_t isa;
  const FieldScene scene = SCENE();
  AVATAR_RETURN_IF_BAD(check(call, 0, &isa));
  AVATAR_RETURN_IF_BAD(check_scene(call, scene, image, workspace));
  DISPATCH(K::draw_field<T>(threads_of(call), scene, out<T>(image), workspace));
}

int64_t avatar_draw_field_bf16_workspace(int32_t dtype, int32_t num_threads, int32_t inputs, int32_t attention,
                                         int32_t gates, int32_t hidden, int32_t outputs, int32_t color) {
  const RadianceSizes sizes = {inputs, attention, gates, hidden, outputs, color};
  if (dtype != AVATAR_FLOAT32 || num_threads < 1 || !avatar::good_radiance(sizes)) return -1;
  if (avatar::best_isa() < AVATAR_ISA_AVX512_BF16) return 0;
#if defined(AVATAR_WITH_BF16)
  return avatar::avx512_bf16::draw_field_bf16_workspace(at_most_threads(num_threads), sizes);
#else
  return 0;
#endif
}

int32_t avatar_draw_field_bf16(avatar_call* call, const double* view, int32_t x, int32_t y, int32_t width,
                               int32_t height, const void* places, const double* box, const double* held,
                               const uint8_t* occupancy, int32_t depth, int32_t cells_high, int32_t bytes, double step,
                               double darkest, int32_t max_samples, const void* front, int32_t front_rows, int32_t front_columns,
                               double rise, const double* neck, const void* moved, int32_t nodes_x, int32_t nodes_y,
                               int32_t nodes_z, const double* moved_box, const double* bounds, const void* table,
                               const int32_t* resolutions, int32_t levels, int64_t rows, int32_t features,
                               int32_t inputs, int32_t attention, int32_t gates, int32_t hidden, int32_t outputs,
                               int32_t color, const void* parameters, void* image, void* workspace) {
  int32_t isa;
  const FieldScene scene = SCENE();
  AVATAR_RETURN_IF_BAD(check(call, 0, &isa));
  AVATAR_RETURN_IF_BAD(check_scene(call, scene, image, workspace));
  AVATAR_RETURN_IF_BAD(check_bf16(call, isa));
#if defined(AVATAR_WITH_BF16)
  avatar::avx512_bf16::draw_field_bf16(threads_of(call), scene, out<float>(image), workspace);
#endif
  return AVATAR_OK;
}

}  // extern "C"
