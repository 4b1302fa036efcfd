// batch_norm_block on a GPU: what the kernels of its two passes share, with the formulas of batch_norm_block.inl.
//
// A thread has one channel or four neighbouring ones of some places (pixels, or with the pool windows of 2×2), of which
// it fetches several at a time; the threads of a block lie along the channels first where the input is channels-last,
// and along the places alone where it is not. Sums are double; each block writes its own, and a warp for each channel
// adds those in order. How many blocks there are depends on shape and layout alone: so do the bits that come out.
#pragma once

#include "conv_block.cuh"

#include <algorithm>
#include <array>

namespace hw4fast {
namespace batch_norm {

constexpr int block_threads = 256, most_wide = 32;  // threads along the channels
constexpr int most_blocks = 384;                    // that add up: on an H100 at a time

// What a call's kernels share. T: the parameters' numbers. What is null is not there or not wanted.
template <class S> struct BatchNorm {
  using T = Sum<S>;
  const S *x;
  const T *weight, *bias;
  T *mean, *var;               // [c]; those of a batch are found first
  S *out;                      // [n, rows, cols, c]
  std::uint8_t *code;          // the same
  const S *grad;               // of the output
  S *grad_x;                   // [n, h, w, c]
  T *grad_weight, *grad_bias;  // [c]
  double *parts;               // [c][2][shares]: sums of the blocks
  T *scale, *shift;            // [c]: γ/√(var + ε), and what is added at the end; backward: g's mean, subtracted
  T *slope;                    // [c], backward: what of x − mean is subtracted
  std::int64_t x_strides[4], grad_strides[4];
  int n, c, h, w, rows, cols, shares;
  bool relu, pool, training, grad_by_fours;
  double eps;
  int wide;                  // threads along the channels, a power of two
  Divider by_row, by_image;  // of the places that a kernel walks
  int per_row, per_image, places;
};

// V neighbouring channels at (image, row, col), in a picture whose channels may lie apart if V is 1.
template <int V, class S> __device__ inline Neighbours<V, S> at(const S *x, const std::int64_t (&strides)[4], int image,
                                                                int c, int row, int col) {
  return *reinterpret_cast<const Neighbours<V, S> *>(x + image * strides[0] + c * strides[1] + row * strides[2] +
                                                     col * strides[3]);
}

// Where a thread is: its channels, and its first place of those of the block.
struct Thread {
  int c, first, step;
};
template <int V, class S> __device__ inline Thread thread_of(const BatchNorm<S> &p) {
  const int across = static_cast<int>(threadIdx.x) % p.wide, down = static_cast<int>(threadIdx.x) / p.wide;
  return {(static_cast<int>(blockIdx.y) * p.wide + across) * V, down, block_threads / p.wide};
}

// work(fetched, place) of all places of the block, of which `fetch`(image, row, col) are under way BATCH at a time.
template <int BATCH, class S, class Fetch, class Work>
__device__ inline void walk(const BatchNorm<S> &p, const Thread &t, const Fetch &fetch, const Work &work) {
  const auto border = [&](unsigned share) { return static_cast<int>(std::int64_t{p.places} * share / gridDim.x); };
  const int end = border(blockIdx.x + 1);
  for (int from = border(blockIdx.x) + t.first; from < end; from += BATCH * t.step) {
    decltype(fetch(0, 0, 0)) fetched[BATCH];
#pragma unroll
    for (int k = 0; k < BATCH; ++k) {
      const int place = from + k * t.step, line = p.by_row.quotient(place), image = p.by_image.quotient(line);
      if (place < end) fetched[k] = fetch(image, line - image * p.per_image, place - line * p.per_row);
    }
#pragma unroll
    for (int k = 0; k < BATCH; ++k)
      if (from + k * t.step < end) work(fetched[k], from + k * t.step);
  }
}

// Two sums for each of the block's channels, from those of its threads, to `parts`.
template <int V, class S> __device__ inline void give_sums(const BatchNorm<S> &p, const Thread &t,
                                                           const double (&first)[V], const double (&second)[V]) {
  __shared__ double all[2][V][block_threads];
  const int me = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int k = 0; k < V; ++k) all[0][k][me] = first[k], all[1][k][me] = second[k];
  for (int half = block_threads / 2; half >= p.wide; half /= 2) {
    __syncthreads();
    if (me < half)
#pragma unroll
      for (int k = 0; k < V; ++k)
        for (auto &sums : all) sums[k][me] += sums[k][me + half];
  }
  if (t.first || t.c >= p.c) return;
  for (int k = 0; k < V; ++k)
    for (int which = 0; which < 2; ++which)
      p.parts[(std::int64_t{t.c + k} * 2 + which) * p.shares + blockIdx.x] = all[which][k][me];
}

// A channel's two sums, of all blocks, for all lanes of its warp.
template <class S> __device__ inline void take_sums(const BatchNorm<S> &p, int c, double &first, double &second) {
  const double *from = p.parts + std::int64_t{c} * 2 * p.shares;
  first = second = 0;
  for (int i = static_cast<int>(threadIdx.x) % 32; i < p.shares; i += 32)
    first += from[i], second += from[p.shares + i];
  for (int other = 16; other; other /= 2) {
    first += __shfl_xor_sync(~0u, first, other);
    second += __shfl_xor_sync(~0u, second, other);
  }
}

template <int V, class T> __device__ inline void parameters(const T *from, int c, T (&x)[V]) {
#pragma unroll
  for (int k = 0; k < V; ++k) x[k] = from[c + k];
}

template <int V, class S> struct Window {
  Neighbours<V, S> x[4];
};
template <int V, class S>
__device__ inline Window<V, S> window_at(const BatchNorm<S> &p, int image, int c, int row, int col) {
  Window<V, S> found;
  const int side = p.pool ? 2 : 1;
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (k == 0 || p.pool) found.x[k] = at<V>(p.x, p.x_strides, image, c, row * side + k / 2, col * side + k % 2);
  return found;
}

// Blocks that add up: [c][2] sums of each fit into the scratch memory that `scratch_of` asks for.
inline std::int64_t most_shares(int c) { return up(most_blocks, up(c, 4 * most_wide)); }
inline std::int64_t scratch_of(int c) { return 8 * c * (2 * most_shares(c) + 3); }

// The places that the next kernel walks: per_row × per_image of each picture.
template <class S> void set_places(BatchNorm<S> &p, int per_row, int per_image) {
  p.per_row = per_row, p.per_image = per_image, p.places = p.n * per_row * per_image;
  p.by_row = divider(per_row), p.by_image = divider(per_image);
}

// Starts a kernel that walks: about `batch` places for a thread, but no more blocks than `most` if that is not 0.
template <class S> void walk_with(void (*kernel)(BatchNorm<S>), BatchNorm<S> &p, int v, int batch, std::int64_t most,
                                  cudaStream_t stream) {
  const std::int64_t tiles = up(p.c, std::int64_t{p.wide} * v);
  const std::int64_t wanted = up(p.places, block_threads / p.wide * batch);
  const std::int64_t fit = most ? most : up(std::int64_t{8} * multiprocessors(), tiles);
  p.shares = static_cast<int>(std::max<std::int64_t>(1, std::min(wanted, fit)));
  const dim3 blocks(static_cast<unsigned>(p.shares), static_cast<unsigned>(tiles));
  launch("batch_norm_block", kernel, Grid{blocks, dim3(block_threads), 0, stream}, p);
}

// Starts a kernel that has a warp for each channel.
template <class S> void warp_for_each(void (*kernel)(BatchNorm<S>), const BatchNorm<S> &p, cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>(up(p.c, block_threads / 32)));
  launch("batch_norm_block", kernel, Grid{blocks, dim3(block_threads), 0, stream}, p);
}

using Four = std::array<std::int64_t, 4>;

template <class S> void describe(BatchNorm<S> &p, const Four &shape, const Four &strides, std::uintptr_t scratch,
                                 double eps, bool pool, bool training) {
  const auto [n, c, h, w] = shape;
  const std::int64_t side = pool ? 2 : 1;
  if (n < 0 || c < 1 || h < side || w < side)
    throw std::invalid_argument("batch_norm_block: the input is empty or too small for the pool");
  if (std::max(c, n * h * w) > 0x7fffffff - 16 * block_threads)  // a walk's last batch may count beyond
    throw std::invalid_argument("batch_norm_block on a GPU: over 2^31 pixels or channels");
  if (training && n * h * w < 2) throw std::invalid_argument("batch_norm_block: one value has no variance");
  p.n = static_cast<int>(n), p.c = static_cast<int>(c), p.h = static_cast<int>(h), p.w = static_cast<int>(w);
  p.rows = static_cast<int>(h / side), p.cols = static_cast<int>(w / side);
  p.pool = pool, p.training = training, p.eps = eps;
  std::copy(strides.begin(), strides.end(), p.x_strides);
  p.parts = pointer<double>(scratch);
  p.scale = reinterpret_cast<Sum<S> *>(p.parts + 2 * c * most_shares(p.c));
  p.shift = p.scale + c, p.slope = p.shift + c;
  const std::int64_t groups = by_fours(p.x, p.x_strides, p.c) ? c / 4 : c;
  p.wide = 1;
  while (p.wide < (p.x_strides[1] == 1 ? most_wide : 1) && p.wide < groups) p.wide *= 2;
  if (up(groups, p.wide) > 65535) p.wide = block_threads;  // so many blocks are side by side at most
}

}  // namespace batch_norm
}  // namespace hw4fast
