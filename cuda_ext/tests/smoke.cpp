// Calls every function of the C ABI on random data, with one and with four threads, in both number types and with every
// instruction set of the machine, and compares the bits. Meant to run under the sanitizers (see CMakeLists.txt).
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "avatar_native.h"

namespace {

std::mt19937 generator(0);

template <typename T>
std::vector<T> uniform(size_t n, double low, double high) {
  std::uniform_real_distribution<double> distribution(low, high);
  std::vector<T> out(n);
  for (T& value : out) value = static_cast<T>(distribution(generator));
  return out;
}

void require(bool good, const char* what, const avatar_call& call) {
  if (good) return;
  std::fprintf(stderr, "smoke: %s failed (dtype %d, isa %d): %s\n", what, call.dtype, call.isa, call.message);
  std::exit(1);
}
#define RUN(function, ...) require(function(&call, __VA_ARGS__) == AVATAR_OK, #function, call)

std::vector<char> bytes(int64_t size) { return std::vector<char>(static_cast<size_t>(size)); }

// Everything that the kernels computed, as raw bytes.
struct Log {
  std::vector<char> data;
  template <typename T>
  void add(const std::vector<T>& values) {
    const char* raw = reinterpret_cast<const char*>(values.data());
    data.insert(data.end(), raw, raw + values.size() * sizeof(T));
  }
};

template <typename T>
std::vector<char> run_all(int dtype, int isa, int threads, int64_t n, int width, int height, int channels) {
  generator.seed(7);
  avatar_call call = {};
  call.dtype = dtype;
  call.isa = isa;
  call.num_threads = threads;
  Log log;

  const int levels = 3, features = 2;
  const int64_t rows = 64;
  const int32_t resolutions[levels] = {3, 8, 30};
  const auto points = uniform<T>(n * 3, -1.2, 1.2), table = uniform<T>(3 * levels * rows * features, -1, 1);
  std::vector<T> encoded(n * 3 * levels * features), v_points(n * 3), v_table(table.size());
  RUN(avatar_triplane_encode, points.data(), table.data(), resolutions, n, levels, rows, features, encoded.data());
  RUN(avatar_triplane_encode_backward, points.data(), table.data(), resolutions, n, levels, rows, features,
      encoded.data(), v_points.data(), v_table.data());
  log.add(encoded);
  log.add(v_points);
  log.add(v_table);

  const auto means = uniform<T>(n * 3, -12, 12), quats = uniform<T>(n * 4, -1, 1), scales = uniform<T>(n * 3, 0.1, 3);
  const T view[16] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 20, 0, 0, 0, 1};
  const T intrinsics[9] = {T(width), 0, T(0.5 * width), 0, T(width), T(0.5 * height), 0, 0, 1};
  std::vector<int32_t> radii(n);
  std::vector<T> means2d(n * 2), depths(n), conics(n * 3);
  RUN(avatar_project, means.data(), quats.data(), scales.data(), view, intrinsics, n, width, height, 0.3, 0.01,
      radii.data(), means2d.data(), depths.data(), conics.data());
  log.add(means2d);
  log.add(conics);

  const auto transforms = uniform<T>(24, -1, 1), transform_quats = uniform<T>(8, -1, 1), weights = uniform<T>(n, 0, 1);
  const auto skin_offsets = uniform<T>(n * 3, -1, 1);
  std::vector<T> posed_means(n * 3), posed_quats(n * 4), v_posed(n * 3), v_turned(n * 4), v_weights(n), v_offsets(n * 3);
  RUN(avatar_skin, means.data(), quats.data(), weights.data(), skin_offsets.data(), transforms.data(), transform_quats.data(), n,
      posed_means.data(), posed_quats.data());
  std::vector<T> v_transforms(24), v_transform_quats(8);
  auto workspace = bytes(avatar_skin_workspace(dtype, n));
  RUN(avatar_skin_backward, means.data(), quats.data(), weights.data(), skin_offsets.data(), transforms.data(), transform_quats.data(), n,
      posed_means.data(), posed_quats.data(), v_posed.data(), v_turned.data(), v_weights.data(), v_offsets.data(),
      v_transforms.data(), v_transform_quats.data(), workspace.data());
  for (const auto* values :
       {&posed_means, &posed_quats, &v_posed, &v_turned, &v_weights, &v_offsets, &v_transforms, &v_transform_quats})
    log.add(*values);

  const int vertices = 5, warp_rows = 3, warp_columns = 4;
  std::vector<int32_t> bind_index(n * 3);
  for (size_t i = 0; i < bind_index.size(); ++i) bind_index[i] = static_cast<int32_t>(i % 8) - 1;  // some out of range
  const auto logits = uniform<T>(n, -3, 3), rgb = uniform<T>(n * 3, 0, 1), changes = uniform<T>(n / 2 * 10, -0.2, 0.2);
  const auto displacements = uniform<T>(vertices * 3, -1, 1), warp = uniform<T>(warp_rows * warp_columns * 2, -1, 1);
  const T warp_frame[7] = {0, 0, 30, -9, -8, 9, 8};
  std::vector<T> alphas(n), posed_rgb(n * 3);
  RUN(avatar_animate, means.data(), quats.data(), scales.data(), logits.data(), rgb.data(), weights.data(),
      bind_index.data(), skin_offsets.data(), n, changes.data(), n / 2, displacements.data(), vertices, transforms.data(),
      transform_quats.data(), warp.data(), warp_rows, warp_columns, warp_frame, view, intrinsics, width, height, 0.3,
      0.01, radii.data(), means2d.data(), depths.data(), conics.data(), alphas.data(), posed_rgb.data());
  for (const auto* values : {&means2d, &depths, &conics, &alphas, &posed_rgb}) log.add(*values);
  // The rest goes on with the projection of the Gaussians as they are.
  RUN(avatar_project, means.data(), quats.data(), scales.data(), view, intrinsics, n, width, height, 0.3, 0.01,
      radii.data(), means2d.data(), depths.data(), conics.data());

  const auto colors = uniform<T>(n * channels, 0, 1), opacities = uniform<T>(n, 0, 1);
  const auto background = uniform<T>(size_t(width) * height * channels, 0, 1);
  const int64_t tiles = int64_t((width + 15) / 16) * ((height + 15) / 16);
  std::vector<int32_t> slot_offsets(n + 1), tile_offsets(tiles + 1);
  std::vector<T> limits(n);
  int64_t pairs = 0;
  workspace = bytes(avatar_bin_workspace(dtype, n, width, height));
  RUN(avatar_bin_count, means2d.data(), conics.data(), opacities.data(), depths.data(), radii.data(), n, width, height,
      slot_offsets.data(), tile_offsets.data(), &pairs, limits.data(), workspace.data());
  std::vector<int32_t> ids(pairs), slots(pairs);
  RUN(avatar_bin_fill, means2d.data(), conics.data(), opacities.data(), n, width, height, slot_offsets.data(),
      ids.data(), slots.data(), workspace.data());
  log.add(ids);
  log.add(slots);

  const size_t pixels = size_t(width) * height;
  std::vector<T> image(pixels * channels), final_t(pixels);
  std::vector<int32_t> last(pixels);
  workspace = bytes(avatar_rasterize_workspace(dtype, n, 0, channels));
  RUN(avatar_rasterize, means2d.data(), conics.data(), colors.data(), opacities.data(), n, channels, background.data(),
      channels, width, height, limits.data(), tile_offsets.data(), ids.data(), image.data(), final_t.data(),
      last.data(), workspace.data());
  std::vector<uint8_t> drawn(pixels * channels);
  RUN(avatar_draw, means2d.data(), conics.data(), colors.data(), opacities.data(), n, channels, background.data(),
      channels, width, height, limits.data(), tile_offsets.data(), ids.data(), drawn.data(), workspace.data());
  log.add(drawn);
  std::vector<T> v_means2d(n * 2), v_conics(n * 3), v_colors(n * channels), v_opacities(n);
  workspace = bytes(avatar_rasterize_workspace(dtype, n, pairs, channels));
  RUN(avatar_rasterize_backward, means2d.data(), conics.data(), colors.data(), opacities.data(), n, channels,
      background.data(), channels, width, height, limits.data(), tile_offsets.data(), ids.data(), slots.data(),
      slot_offsets.data(), final_t.data(), last.data(), image.data(), final_t.data(), v_means2d.data(),
      v_conics.data(), v_colors.data(), v_opacities.data(), workspace.data());
  log.add(image);
  log.add(last);
  log.add(v_means2d);
  log.add(v_conics);
  log.add(v_colors);
  log.add(v_opacities);

  std::vector<T> v_means(n * 3), v_quats(n * 4), v_scales(n * 3), v_view(16);
  workspace = bytes(avatar_project_workspace(dtype, n));
  RUN(avatar_project_backward, means.data(), quats.data(), scales.data(), view, intrinsics, n, width, height, 0.3,
      radii.data(), v_means2d.data(), depths.data(), v_conics.data(), v_means.data(), v_quats.data(), v_scales.data(),
      v_view.data(), workspace.data());
  log.add(v_means);
  log.add(v_quats);
  log.add(v_view);

  std::vector<T> mean(1), partials(3 * image.size()), partials_b(3 * image.size()), v_image(image.size());
  workspace = bytes(avatar_ssim_workspace(dtype, threads, height, width, channels));
  RUN(avatar_ssim, image.data(), background.data(), height, width, channels, mean.data(), partials.data(),
      partials_b.data(), workspace.data());
  RUN(avatar_ssim_backward, image.data(), background.data(), partials.data(), 1.0, height, width, channels,
      v_image.data(), workspace.data());
  log.add(mean);
  log.add(v_image);

  const auto weight = uniform<T>(pixels, 0, 2);
  std::vector<T> loss_terms(4);
  workspace = bytes(avatar_l1_ssim_workspace(dtype, threads, height, width, channels));
  RUN(avatar_l1_ssim, image.data(), background.data(), weight.data(), 0.2, height, width, channels, loss_terms.data(),
      v_image.data(), workspace.data());
  log.add(loss_terms);
  log.add(v_image);
  RUN(avatar_l1_ssim, image.data(), background.data(), nullptr, 0.2, height, width, channels, loss_terms.data(),
      nullptr, workspace.data());
  log.add(loss_terms);

  const int inputs = 5, hidden = 19, outputs = channels;
  const auto spatial = uniform<T>(2 * hidden * inputs, -1, 1), spatial_bias = uniform<T>(2 * hidden, -1, 1);
  const auto condition = uniform<T>(hidden, -1, 1), middle = uniform<T>(hidden * hidden, -1, 1);
  const auto head = uniform<T>(outputs * hidden, -1, 1), head_bias = uniform<T>(outputs, -1, 1);
  const auto features_in = uniform<T>(n * inputs, -1, 1), code = uniform<T>(n * 2 * hidden, -1, 1);
  std::vector<T> moved(n * outputs), v_features(n * inputs), v_spatial(spatial.size()), v_spatial_bias(2 * hidden);
  std::vector<T> v_condition(hidden), v_middle(middle.size()), v_middle_bias(hidden), v_head(head.size());
  std::vector<T> v_head_bias(outputs);
  workspace = bytes(avatar_deform_mlp_workspace(dtype, threads, inputs, hidden, outputs));
  RUN(avatar_deform_mlp, features_in.data(), nullptr, n, inputs, hidden, outputs, spatial.data(), spatial_bias.data(),
      condition.data(), middle.data(), condition.data(), head.data(), head_bias.data(), head_bias.data(), moved.data(),
      workspace.data());
  log.add(moved);
  RUN(avatar_deform_mlp_backward, features_in.data(), n, inputs, hidden, outputs, spatial.data(), spatial_bias.data(),
      condition.data(), middle.data(), condition.data(), head.data(), head_bias.data(), head_bias.data(), moved.data(),
      v_features.data(), v_spatial.data(), v_spatial_bias.data(), v_condition.data(), v_middle.data(),
      v_middle_bias.data(), v_head.data(), v_head_bias.data(), workspace.data());
  log.add(v_features);
  log.add(v_spatial);
  log.add(v_condition);
  log.add(v_middle);
  log.add(v_head);
  RUN(avatar_deform_mlp, nullptr, code.data(), n, 1, hidden, outputs, nullptr, nullptr, condition.data(),
      middle.data(), condition.data(), head.data(), head_bias.data(), head_bias.data(), moved.data(),
      workspace.data());
  log.add(moved);
  if (dtype == AVATAR_FLOAT32 && isa == AVATAR_ISA_AVX512_BF16) {
    std::vector<uint16_t> half(code.size());
    for (size_t i = 0; i < half.size(); ++i) half[i] = static_cast<uint16_t>(0x3e00 + i % 512);  // 0.125 to 2
    workspace = bytes(avatar_deform_code_bf16_workspace(dtype, threads, hidden, outputs));
    RUN(avatar_deform_code_bf16, half.data(), n, hidden, outputs, condition.data(), middle.data(), condition.data(),
        head.data(), head_bias.data(), head_bias.data(), moved.data(), workspace.data());
    log.add(moved);
  }

  // Rays of 0, 1, 2, ... samples, the last with all that are left; one of them long.
  const int64_t rays = n < 20 ? n : 20;
  std::vector<int32_t> offsets(1, 0);
  for (int64_t ray = 0; ray < rays; ++ray)
    offsets.push_back(ray + 1 == rays ? int32_t(n) : offsets.back() + int32_t(ray));
  const auto lengths = uniform<T>(n, 0, 2);
  std::vector<T> edges(n + 1), ray_color(rays * channels), ray_opacity(rays), ray_depth(rays), reached(n);
  for (int64_t i = 0; i < n; ++i) edges[i + 1] = edges[i] + lengths[i];
  const T* ends = edges.data() + 1;
  RUN(avatar_march_rays, offsets.data(), edges.data(), ends, opacities.data(), colors.data(), rays, channels,
      ray_color.data(), ray_opacity.data(), ray_depth.data(), reached.data());
  std::vector<T> v_densities(n), v_ray_colors(n * channels);
  RUN(avatar_march_rays_backward, offsets.data(), edges.data(), ends, opacities.data(), colors.data(), rays, channels,
      ray_opacity.data(), ray_depth.data(), reached.data(), ray_color.data(), ray_opacity.data(), ray_depth.data(),
      v_densities.data(), v_ray_colors.data());
  log.add(ray_color);
  log.add(ray_depth);
  log.add(v_densities);
  log.add(v_ray_colors);

  // A box around the rays' start, half of whose cells are set.
  const double box[6] = {-1, -1, -1, 1, 1, 1};
  const auto ray_origins = uniform<T>(3 * n, -1, 1), ray_directions = uniform<T>(3 * n, -1, 1);
  std::vector<uint8_t> occupancy(8 * 8);
  for (size_t i = 0; i < occupancy.size(); ++i) occupancy[i] = static_cast<uint8_t>(37 * i);
  std::vector<int32_t> sample_offsets(n + 1), totals(2);
  workspace = bytes(avatar_sample_rays_workspace(dtype, n, 8));
  RUN(avatar_sample_rays_count, ray_origins.data(), ray_directions.data(), nullptr, opacities.data(), n, box, occupancy.data(), 8,
      8, 1, 0.05, 8, 5 * n + 1, sample_offsets.data(), totals.data(), workspace.data());
  const int64_t kept = totals[0];
  std::vector<T> begins(kept), stops(kept), middles(3 * kept), v_origins(3 * n), v_directions(3 * n);
  RUN(avatar_sample_rays_fill, n, 0.05, 8, sample_offsets.data(), begins.data(), stops.data(), workspace.data());
  RUN(avatar_ray_points, sample_offsets.data(), begins.data(), stops.data(), ray_origins.data(), ray_directions.data(), n,
      middles.data());
  RUN(avatar_ray_points_backward, sample_offsets.data(), begins.data(), stops.data(), middles.data(), n,
      v_origins.data(), v_directions.data());
  log.add(begins);
  log.add(middles);
  log.add(v_directions);

  const int32_t width_in = 7, attention = 5, gates = 3, wide = 18, results = 9, color = 21;
  const int64_t numbers = attention * (width_in + 1) + gates * (attention + 1) + wide * (width_in + 1) + gates * wide +
                        results * (wide + 1) + color * results + 3 * (color + 1);
  const auto network = uniform<T>(numbers, -0.5, 0.5), sampled = uniform<T>(n * width_in, -1, 1);
  std::vector<T> sampled_densities(n), radiance(3 * n), gate_values(gates * n), v_sampled(n * width_in), v_layers(numbers);
  workspace = bytes(avatar_radiance_mlp_workspace(dtype, threads, width_in, attention, gates, wide, results, color));
  RUN(avatar_radiance_mlp, sampled.data(), n, width_in, attention, gates, wide, results, color, network.data(), sampled_densities.data(),
      radiance.data(), gate_values.data(), workspace.data());
  log.add(sampled_densities);
  log.add(radiance);
  RUN(avatar_radiance_mlp_backward, sampled.data(), n, width_in, attention, gates, wide, results, color, network.data(),
      sampled_densities.data(), radiance.data(), gate_values.data(), v_sampled.data(), v_layers.data(), workspace.data());
  log.add(v_sampled);
  log.add(v_layers);
  if (dtype == AVATAR_FLOAT32 && isa == AVATAR_ISA_AVX512_BF16) {
    workspace = bytes(avatar_radiance_mlp_bf16_workspace(dtype, threads, width_in, attention, gates, wide, results, color));
    RUN(avatar_radiance_mlp_bf16, sampled.data(), n, width_in, attention, gates, wide, results, color, network.data(),
        sampled_densities.data(), radiance.data(), gate_values.data(), workspace.data());
    log.add(sampled_densities);
    log.add(radiance);
  }

  // The same box as a radiance field before the camera.
  const double scene[12] = {0.1, 0, -5, 0.02, 0, -1, 0, 0.02, -0.5, 0, 0, 1}, neck[4] = {0.3, 0, 0.2, 0.4};
  const int32_t levels_of_field = 2, side = 3, field_inputs = 12, field_levels[2] = {2, 9};
  const auto planes = uniform<T>(3 * levels_of_field * 16 * 2, -1, 1), field_front = uniform<T>(side * 2, -1, 0);
  const auto field_moved = uniform<T>(3 * side * side * 2, -0.1, 0.1);
  const int64_t field_numbers = attention * (field_inputs + 1) + gates * (attention + 1) + wide * (field_inputs + 1) +
                                gates * wide + results * (wide + 1) + color * results + 3 * (color + 1);
  const auto layers_of_field = uniform<T>(field_numbers, -0.5, 0.5);
  std::vector<T> field_image(int64_t(4) * width * height);
  workspace = bytes(avatar_draw_field_workspace(dtype, threads, field_inputs, attention, gates, wide, results, color));
  RUN(avatar_draw_field, scene, -1, 2, width, height, nullptr, box, box, occupancy.data(), 8, 8, 1, 0.05, 0.001, 8,
      field_front.data(), side, 2, 0.1, neck, field_moved.data(), side, side, 2, box, box, planes.data(), field_levels, levels_of_field, 16, 2,
      field_inputs, attention, gates, wide, results, color, layers_of_field.data(), field_image.data(),
      workspace.data());
  log.add(field_image);
  const auto field_places = uniform<T>(int64_t(2) * width * height, -5, width + 5);
  RUN(avatar_draw_field, scene, -1, 2, width, height, field_places.data(), box, box, occupancy.data(), 8, 8, 1, 0.05, 0.001,
      8, field_front.data(), side, 2, 0.1, neck, field_moved.data(), side, side, 2, box, box, planes.data(), field_levels,
      levels_of_field, 16, 2, field_inputs, attention, gates, wide, results, color, layers_of_field.data(),
      field_image.data(), workspace.data());
  log.add(field_image);
  if (dtype == AVATAR_FLOAT32 && isa == AVATAR_ISA_AVX512_BF16) {
    workspace = bytes(avatar_draw_field_bf16_workspace(dtype, threads, field_inputs, attention, gates, wide, results, color));
    RUN(avatar_draw_field_bf16, scene, -1, 2, width, height, nullptr, box, box, occupancy.data(), 8, 8, 1, 0.05, 0.001, 8,
        field_front.data(), side, 2, 0.1, neck, field_moved.data(), side, side, 2, box, box, planes.data(), field_levels,
        levels_of_field, 16, 2, field_inputs, attention, gates, wide, results, color, layers_of_field.data(),
        field_image.data(), workspace.data());
    log.add(field_image);
  }

  std::vector<T> param = colors, first(colors.size()), second(colors.size());
  RUN(avatar_adam_step, param.data(), v_colors.data(), first.data(), second.data(), int64_t(param.size()), 1e-2, 0.9,
      0.99, 1e-8, 1);
  log.add(param);
  return log.data;
}

}  // namespace

// `smoke quick` leaves out the large cases, for the sanitizers.
int main(int argc, char** argv) {
  const bool quick = argc > 1 && std::strcmp(argv[1], "quick") == 0;
  for (int isa = AVATAR_ISA_BASELINE; isa <= avatar_best_isa(); ++isa)
    for (const int64_t n : {0, 1, 300, 3000})
      for (const int channels : {3, 4, 5})
        for (const int width : {1, 50, 131}) {
          if (quick && (n == 3000 || width == 131)) continue;
          const int height = width == 131 ? 70 : 33;
          const auto one = run_all<float>(AVATAR_FLOAT32, isa, 1, n, width, height, channels);
          const auto four = run_all<float>(AVATAR_FLOAT32, isa, 4, n, width, height, channels);
          const auto one64 = run_all<double>(AVATAR_FLOAT64, isa, 1, n, width, height, channels);
          const auto four64 = run_all<double>(AVATAR_FLOAT64, isa, 4, n, width, height, channels);
          if (one != four || one64 != four64) {
            std::fprintf(stderr, "smoke: results depend on the number of threads (isa %d, n %d)\n", isa, int(n));
            return 1;
          }
        }
  std::puts("smoke: every kernel, instruction set and thread count agrees");
  return 0;
}
