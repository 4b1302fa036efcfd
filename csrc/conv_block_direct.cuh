// What conv_block_direct.cu's kernels share, and those of them that make the weight's gradient.
//
// The weight's gradient: only one of a window's four places has a gradient, so a thread that has an output and an input
// channel and their K² sums looks at that one's code, and adds K² products. Blocks have shares of the image rows; a
// second kernel adds their sums in order: the same bits with every call on a GPU.
#pragma once

#include "conv_block.cuh"
#include "conv_block_tensor.cuh"  // Divider, Turn

#include <algorithm>

namespace hw4fast {
namespace {

// A number on its way to shared memory: nothing waits for it before value() does.
template <class S> struct Coming {
  S number;
  int code = 0, place = -1;  // zero where they differ
  int to = 0;

  __device__ float value() const { return code == place ? widen(number) : 0.0f; }
};
// Loads and then stores `all` numbers: a thread has several on their way at once.
template <class S, int batch, class Load, class Store>
__device__ inline void in_batches(int all, const Load &load, const Store &store) {
  const int threads = static_cast<int>(blockDim.x);
  for (int from = static_cast<int>(threadIdx.x); from < all; from += batch * threads) {
    Coming<S> coming[batch];
#pragma unroll
    for (int k = 0; k < batch; ++k)
      if (from + k * threads < all) coming[k] = load(from + k * threads);
#pragma unroll
    for (int k = 0; k < batch; ++k)
      if (from + k * threads < all) store(coming[k]);
  }
}

// What one block of the weight's gradient has: a tile of output times input channels. A thread has a pair of them;
// where there are few pairs, a warp has one, and its lanes take turns at the columns.
struct Tile {
  int outs, ins;  // of a tile
  int out_tiles, in_tiles;
  int lanes;       // of a pair: 1 or 32
  int rows, down;  // of the output that a share's piece has; such pieces of an image
  int shares;      // of the pieces of all images
  int high, wide;  // of the input that a piece sees
};

constexpr int max_pair_threads = 512;
constexpr std::int64_t shared_limit = 96 << 10, shared_wanted = 40 << 10;

std::int64_t shared_of(const Tile &t, const ConvShape &s) {
  return std::int64_t{4} * t.high * t.wide * t.ins + std::int64_t{5} * t.rows * s.cols * t.outs;
}

Tile tile_of(const ConvShape &s) {
  Tile t{};
  t.lanes = std::int64_t{s.o} * s.c <= 128 ? 32 : 1;
  t.ins = std::min(s.c, t.lanes == 1 ? 16 : 4);
  t.outs = std::min(s.o, max_pair_threads / t.lanes / t.ins);
  t.in_tiles = (s.c + t.ins - 1) / t.ins, t.out_tiles = (s.o + t.outs - 1) / t.outs;
  const int side = s.pool ? 2 : 1, tiles = t.in_tiles * t.out_tiles;
  t.wide = side * s.cols + s.kw - 1;
  for (t.rows = std::max(1, s.rows); t.rows > 0; --t.rows) {
    t.high = side * t.rows + s.kh - 1;
    if (t.rows == 1 || shared_of(t, s) <= shared_wanted) break;
  }
  t.down = (s.rows + t.rows - 1) / t.rows;
  const std::int64_t pieces = std::int64_t{s.n} * t.down;
  t.shares = static_cast<int>(std::min<std::int64_t>(pieces, std::max(1, 2 * multiprocessors() / tiles)));
  return t;
}

// parts: [shares][K·K·o·c + o], a tap's pairs together; the last o are the bias's. Blocks: shares, tiles.
template <class S, int K, int LANES> __global__ void __launch_bounds__(max_pair_threads, 2)
    conv_direct_weights(const ConvShape s, const ConvData<S> d, const Tile t) {
  in_turn();
  HW4FAST_SHARED(shared);
  float *input = reinterpret_cast<float *>(shared);                                        // [high][wide][ins]
  float *grad = input + t.high * t.wide * t.ins;                                           // [rows][cols][outs]
  std::uint8_t *code = reinterpret_cast<std::uint8_t *>(grad + t.rows * s.cols * t.outs);  // the same
  const int o0 = static_cast<int>(blockIdx.y) / t.in_tiles * t.outs;
  const int c0 = static_cast<int>(blockIdx.y) % t.in_tiles * t.ins;
  const int here = static_cast<int>(threadIdx.x), pair_here = here / LANES, lane = here % LANES;
  const int o = pair_here / t.ins, c = pair_here % t.ins;
  const bool works = o < t.outs;
  const int side = s.pool ? 2 : 1;
  const std::int64_t pieces = std::int64_t{s.n} * t.down;
  const std::int64_t begin = pieces * blockIdx.x / t.shares, end = pieces * (blockIdx.x + 1) / t.shares;
  const bool by_channel = s.x_strides[1] == 1;
  float sums[K][K] = {}, bias = 0;
  for (std::int64_t at = begin; at < end; ++at) {
    const int image = static_cast<int>(at / t.down), row0 = static_cast<int>(at % t.down) * t.rows;
    const int rows = min(t.rows, s.rows - row0);
    __syncthreads();
    const auto number = [&](int i) {
      const int k = by_channel ? i % t.ins : i / (t.high * t.wide);
      const int pixel = by_channel ? i / t.ins : i % (t.high * t.wide);
      const int y = side * row0 + pixel / t.wide - s.ph, x = pixel % t.wide - s.pw;
      Coming<S> found;
      found.to = pixel * t.ins + k;
      if (c0 + k < s.c && y >= 0 && y < s.h && x >= 0 && x < s.w) {
        found.place = 0;
        found.number =
            d.x[image * s.x_strides[0] + (c0 + k) * s.x_strides[1] + y * s.x_strides[2] + x * s.x_strides[3]];
      }
      return found;
    };
    in_batches<S, 3>(t.high * t.wide * t.ins, number, [&](const Coming<S> &found) { input[found.to] = found.value(); });
    const auto gradient = [&](int i) {
      const int window = i / t.outs, k = o0 + i % t.outs, row = row0 + window / s.cols, col = window % s.cols;
      const std::int64_t where = ((std::int64_t{image} * s.rows + row) * s.cols + col) * s.o + k;
      Coming<S> found;
      found.to = i, found.code = dead;
      if (k < s.o) {
        found.code = d.code ? d.code[where] : 0;
        found.number = d.grad[image * s.grad_strides[0] + k * s.grad_strides[1] + row * s.grad_strides[2] +
                              col * s.grad_strides[3]];
      }
      return found;
    };
    in_batches<S, 4>(rows * s.cols * t.outs, gradient, [&](const Coming<S> &found) {
      code[found.to] = found.code == dead ? 0 : static_cast<std::uint8_t>(found.code);
      grad[found.to] = found.code == dead ? 0.0f : widen(found.number);
    });
    __syncthreads();
    if (!works) continue;
    int row = lane / s.cols, col = lane % s.cols;
    for (int k = lane; k < rows * s.cols; k += LANES) {
      const int i = k * t.outs + o, place = code[i];
      const float g = grad[i];
      const float *from = input + ((side * row + (place >> 1)) * t.wide + side * col + (place & 1)) * t.ins + c;
      bias += g;
#pragma unroll
      for (int i = 0; i < K; ++i)
#pragma unroll
        for (int j = 0; j < K; ++j) sums[i][j] += g * from[(i * t.wide + j) * t.ins];
      for (col += LANES; col >= s.cols; col -= s.cols) ++row;
    }
  }
  if (LANES > 1) {  // whole warps work, or none of a warp's lanes
    if (!works) return;
#pragma unroll
    for (int other = LANES / 2; other; other /= 2) {
      bias += __shfl_xor_sync(~0u, bias, other);
#pragma unroll
      for (int tap = 0; tap < K * K; ++tap)
        sums[tap / K][tap % K] += __shfl_xor_sync(~0u, sums[tap / K][tap % K], other);
    }
  }
  if (!works || o0 + o >= s.o || c0 + c >= s.c) return;
  const std::int64_t pairs = std::int64_t{s.o} * s.c, pair = std::int64_t{o0 + o} * s.c + c0 + c;
  float *parts = d.scratch + blockIdx.x * (K * K * pairs + s.o);
#pragma unroll
  for (int tap = 0; tap < K * K; ++tap)
    if (tap % LANES == lane) parts[tap * pairs + pair] = sums[tap / K][tap % K];
  if (c0 + c == 0 && lane == 0) parts[K * K * pairs + o0 + o] = bias;
}

// A block has 32 sums, each in eight slices that are added up last.
template <class S> __global__ void __launch_bounds__(256)
    conv_direct_totals(const ConvShape s, const ConvData<S> d, int shares) {
  in_turn();
  __shared__ float slices[8][32];
  const std::int64_t pairs = std::int64_t{s.o} * s.c, all = s.kh * s.kw * pairs + s.o;
  const std::int64_t at = blockIdx.x * std::int64_t{32} + threadIdx.x;
  float sum = 0;
#pragma unroll 8
  for (int i = threadIdx.y; i < (at < all ? shares : 0); i += 8) sum += d.scratch[i * all + at];
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y || at >= all) return;
  sum = 0;
#pragma unroll
  for (int y = 0; y < 8; ++y) sum += slices[y][threadIdx.x];
  if (at >= all - s.o) {
    if (d.grad_bias) d.grad_bias[at - (all - s.o)] = narrow<S>(sum);
  } else if (d.grad_weight) {
    d.grad_weight[at % pairs * (s.kh * s.kw) + at / pairs] = narrow<S>(sum);
  }
}

}  // namespace
}  // namespace hw4fast
