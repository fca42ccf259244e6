// The rig: every Gaussian between two rigid motions, and its vector-Jacobian product, one register of Gaussians at a time.
#include "common.h"
#include "rows.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int64_t kBlock = 1024;  // Gaussians per work item; also the unit of the fixed-order sums
constexpr int kMoves = 24, kTurns = 8;

template <typename T>
RigModel<Lanes<T>> broadcast(const T* moves, const T* turns) {
  RigModel<Lanes<T>> rig;
  for (int i = 0; i < kMoves; ++i) rig.moves[i] = Lanes<T>(moves[i]);
  for (int i = 0; i < kTurns; ++i) rig.turns[i] = Lanes<T>(turns[i]);
  return rig;
}

}  // namespace

template <typename T>
void pose(int threads, const T* means, const T* quats, const T* weights, const T* shifts, const T* moves,
          const T* turns, int64_t n, T* posed_means, T* posed_quats) {
  using V = Lanes<T>;
  const RigModel<V> rig = broadcast(moves, turns);
  parallel_blocks(threads, n, kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += V::kCount) {
      V mean[3], quat[4], weight, shift[3], posed_mean[3], posed_quat[4];
      gather_rows<3>(means, first, end, mean);
      gather_rows<4>(quats, first, end, quat);
      gather_rows<1>(weights, first, end, &weight);
      gather_rows<3>(shifts, first, end, shift);
      pose_gaussian(rig, mean, quat, weight, shift, posed_mean, posed_quat);
      scatter_rows<3>(posed_mean, first, end, posed_means);
      scatter_rows<4>(posed_quat, first, end, posed_quats);
    }
  });
}

template <typename T>
int64_t pose_workspace(int64_t n) {
  return (n + kBlock - 1) / kBlock * (kMoves + kTurns) * static_cast<int64_t>(sizeof(double));
}

template <typename T>
void pose_backward(int threads, const T* means, const T* quats, const T* weights, const T* shifts, const T* moves,
                   const T* turns, int64_t n, const T* v_posed_means, const T* v_posed_quats, T* v_means, T* v_quats,
                   T* v_weights, T* v_shifts, T* v_moves, T* v_turns, double* workspace) {
  using V = Lanes<T>;
  const RigModel<V> rig = broadcast(moves, turns);
  const bool need_rig = v_moves != nullptr;
  parallel_blocks(threads, n, kBlock, [&](int64_t begin, int64_t end) {
    double sums[kMoves + kTurns] = {};
    for (int64_t first = begin; first < end; first += V::kCount) {
      V mean[3], quat[4], weight, shift[3], v_mean[3], v_quat[4];
      gather_rows<3>(means, first, end, mean);
      gather_rows<4>(quats, first, end, quat);
      gather_rows<1>(weights, first, end, &weight);
      gather_rows<3>(shifts, first, end, shift);
      gather_rows<3>(v_posed_means, first, end, v_mean);
      gather_rows<4>(v_posed_quats, first, end, v_quat);
      const PoseCotangent<V> v = pose_gaussian_vjp(rig, mean, quat, weight, shift, v_mean, v_quat);
      scatter_rows<3>(v.mean, first, end, v_means);
      scatter_rows<4>(v.quat, first, end, v_quats);
      scatter_rows<1>(&v.weight, first, end, v_weights);
      scatter_rows<3>(v.shift, first, end, v_shifts);
      if (!need_rig) continue;
      for (int k = 0; k < kMoves + kTurns; ++k) {
        T lane_values[V::kCount];
        v.rig[k].store(lane_values);
        for (int lane = 0; lane < V::kCount && first + lane < end; ++lane) sums[k] += lane_values[lane];
      }
    }
    if (need_rig)
      for (int k = 0; k < kMoves + kTurns; ++k) workspace[begin / kBlock * (kMoves + kTurns) + k] = sums[k];
  });
  if (!need_rig) return;
  double total[kMoves + kTurns] = {};
  for (int64_t block = 0; block < (n + kBlock - 1) / kBlock; ++block)
    for (int k = 0; k < kMoves + kTurns; ++k) total[k] += workspace[block * (kMoves + kTurns) + k];
  for (int k = 0; k < kMoves; ++k) v_moves[k] = T(total[k]);
  for (int k = 0; k < kTurns; ++k) v_turns[k] = T(total[kMoves + k]);
}

#define INSTANTIATE(T)                                                                                               \
  template void pose<T>(int, const T*, const T*, const T*, const T*, const T*, const T*, int64_t, T*, T*);           \
  template int64_t pose_workspace<T>(int64_t);                                                                       \
  template void pose_backward<T>(int, const T*, const T*, const T*, const T*, const T*, const T*, int64_t, const T*, \
                                 const T*, T*, T*, T*, T*, T*, T*, double*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
