// The kernels of conv_block_tensor_backward.cu that make the weight's gradient: a product of matrices whose rows are
// output channels, whose columns are input channels, of which each tap has a sum of its own, and whose inner dimension
// are the convolution's output pixels.
//
// A block takes 8 or 4 chunks of output channels, up to 8 of the input's and some taps; of the pixels it takes every so
// many-th tile of 128. Of each the gradient and the picture that its taps see come to shared memory once, as in
// conv_block_tensor_tile.cuh. There channels lie side by side and pixels, the inner dimension, one below the other:
// ldmatrix turns that round for 16-bit numbers, floats are read one by one, and rounded to tf32 before.
#pragma once

#include "conv_block_tensor_tile.cuh"

#include <algorithm>

namespace hw4fast {

constexpr int pixel_tile = 128;
constexpr int sums_of_warp = 20;  // products of 16 × 8 that a warp sums up
constexpr int most_taps = 49;     // of a filter: 7×7

// f(a constant): the first of these and `most` that is no less than `taps`.
template <int most, int first, int... others, class F> __device__ inline void with_taps(int taps, const F &f) {
  if constexpr (first >= most) {
    f(std::integral_constant<int, most>{});
  } else {
    if (taps <= first) return f(std::integral_constant<int, first>{});
    if constexpr (sizeof...(others) > 0)
      with_taps<most, others...>(taps, f);
    else
      f(std::integral_constant<int, most>{});
  }
}

// Where a byte of pixels of CC chunks lies in shared memory, of its address if all lay in order. Eight pixels' same
// chunks are in different banks, as ldmatrix wants it; of floats four pixels' two chunks, which are read one by one.
template <class T, int CC> __device__ inline Shared crossed(Shared linear) {
  constexpr Shared bits = 16 * (CC - 1);
  return sizeof(T) == 2 ? linear ^ (linear >> 3 & bits) : linear ^ (linear >> 2 & bits & 0x60);
}

struct WeightGradient {
  TensorConv conv;                               // of tiles of 128 pixels, without pool; x is the input
  const void *grad;                              // [n, rows, cols, whole chunks of o]
  float *shares;                                 // [blocks.x, o, taps, c]
  int o_chunks, o_tiles, tap_groups, taps_each;  // taps_each: of a warp
};

template <class T, int CC, int OC> struct WeightTile {
  static constexpr int input_chunks = CC, grad_chunks = OC;
  static constexpr int numbers = 16 / sizeof(T);           // of a chunk
  static constexpr int o_warps = OC * numbers / 16;        // warps side by side over the OC chunks of output channels
  static constexpr int eights = CC * numbers / 8;          // of input channels
  static constexpr int eight_warps = eights >= 4 ? 2 : 1;  // warps side by side over them, and over taps
  static constexpr int tap_warps = 8 / o_warps / eight_warps;
  static constexpr int my_eights = eights / eight_warps, fitting = sums_of_warp / my_eights;
  static constexpr int my_taps = std::min(fitting, (most_taps + tap_warps - 1) / tap_warps);
  static constexpr int taps = tap_warps * my_taps;  // of a block
};

template <class T, int CC, int OC> __global__ void __launch_bounds__(tensor_threads, 2)
    weight_gradient_kernel(const __grid_constant__ WeightGradient p) {
  in_turn();
  let_next_begin();
#ifdef HW4FAST_MMA
  using Warps = WeightTile<T, CC, OC>;
  using Tile = TensorTile<T, 64, 1, CC, false>;
  // depth: pixels of a product
  constexpr int my_taps = Warps::my_taps, my_eights = Warps::my_eights, depth = 32 / sizeof(T);
  constexpr bool floats = sizeof(T) == 4;
  HW4FAST_SHARED(raw);
  const TensorConv &c = p.conv;
  const Shared base = (shared_address(raw) + 1023) & ~static_cast<Shared>(1023);
  constexpr int grad_bytes = pixel_tile * OC * 16, pixel_bytes = CC * 16;
  const int picture_bytes = c.pixels * pixel_bytes, thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32, warp = thread / 32, g = lane / 4, t = lane % 4;
  // from the start: two tiles of the gradient, two pictures; where the rows' pixels begin behind them
  int *pixels = reinterpret_cast<int *>(raw + (base - shared_address(raw)) + 2 * (grad_bytes + picture_bytes));
  const Tile tile_of{c, base + 2 * grad_bytes, 0, lane, 0, 0};
  const int o_tile = static_cast<int>(blockIdx.y) % p.o_tiles, rest = static_cast<int>(blockIdx.y) / p.o_tiles;
  const int part = rest / p.tap_groups, group = rest % p.tap_groups;
  const int o_warp = warp % Warps::o_warps, column_warp = warp / Warps::o_warps;
  const int eight = column_warp % Warps::eight_warps * my_eights;
  const int tap = (group * Warps::tap_warps + column_warp / Warps::eight_warps) * p.taps_each;
  const int taps_here = min(p.taps_each, c.taps - tap);

  auto copy_tile = [&](int tile, int buffer) {
    const int first = tile_of.first_unit(tile), line = tile_of.first_line(tile), strip = c.by_blocks.quotient(tile);
    const Shared grads = base + static_cast<Shared>(buffer * grad_bytes);
    const Shared picture = tile_of.pictures + static_cast<Shared>(buffer * picture_bytes);
    tile_of.copy_picture(
        tile, part, 0, (c.pixels * CC + tensor_threads - 1) / tensor_threads,
        [picture](int pixel, int k) { return crossed<T, CC>(picture + static_cast<Shared>(16 * (pixel * CC + k))); });
    const char *grad = static_cast<const char *>(p.grad);
#pragma unroll
    for (int i = 0; i < pixel_tile * OC / tensor_threads; ++i) {
      const int q = i * tensor_threads + thread, row = q / OC, k = q % OC, unit = first + row, chunk = o_tile * OC + k;
      const TensorPlace at = tile_of.place(unit < c.units ? unit : first);
      const int column = strip * c.columns + at.column;
      const bool there = unit < c.units && column < c.s.cols && chunk < p.o_chunks;
      const std::int64_t pixel = (static_cast<std::int64_t>(at.image) * c.s.rows + at.row) * c.s.cols + column;
      copy_async(crossed<T, OC>(grads + static_cast<Shared>(16 * q)),
                 there ? grad + 16 * (pixel * p.o_chunks + chunk) : grad, there);
    }
    if (thread < pixel_tile) {
      const TensorPlace at = tile_of.place(first + thread < c.units ? first + thread : first);
      const int pixel = (at.image * c.high + at.row * c.s.sh - line) * c.wide + at.column * c.s.sw;
      pixels[buffer * pixel_tile + thread] = pixel_bytes * pixel;
    }
    copies_commit();
  };

  float sums[my_taps][my_eights][4];
#pragma unroll
  for (int i = 0; i < my_taps * my_eights * 4; ++i) sums[i / (4 * my_eights)][i / 4 % my_eights][i % 4] = 0;
  const int tiles = c.blocks * c.strips, from = static_cast<int>(blockIdx.x), stride = static_cast<int>(gridDim.x);
  int offsets[my_taps];  // of the taps, in bytes; who has fewer repeats the first, and keeps only what is its own
  int offset = tap < c.taps ? tap / c.s.kw * c.wide + tap % c.s.kw : 0, across = tap % c.s.kw;
#pragma unroll
  for (int i = 0; i < my_taps; ++i) {
    offsets[i] = i == 0 || i < taps_here ? pixel_bytes * offset : offsets[0];
    ++offset;
    if (++across == c.s.kw) across = 0, offset += c.wide - c.s.kw;
  }
  // What of a pixel this lane reads: of the gradient, of the picture. Its further columns are 32 bytes on each.
  const int grad_lane = floats ? 16 * 4 * o_warp + 4 * g : 16 * (2 * o_warp + lane / 8 % 2);
  const int lane_bytes = floats ? 16 * 2 * eight + 4 * g : 16 * (eight + lane / 16);
  const auto multiply = [&](auto taps_of, Shared grads, Shared picture, const int *rows) {
#pragma unroll(CC == 8 ? 1 : 2)
    for (int k = 0; k < pixel_tile; k += depth) {
      std::uint32_t a[4];
      const auto grad_of = [&](int row, int further) {
        return crossed<T, OC>(grads + static_cast<Shared>(16 * OC * row + grad_lane)) ^ static_cast<Shared>(further);
      };
      const auto picture_of = [&](int pixel, int i) {
        return crossed<T, CC>(picture + static_cast<Shared>(lane_bytes + pixel + offsets[i]));
      };
      if constexpr (floats) {
        const int one = rows[k + t], other = rows[k + t + 4];
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = load_word(grad_of(k + t + i / 2 * 4, i % 2 * 32));
#pragma unroll
        for (int i = 0; i < decltype(taps_of)::value; ++i) {
          const Shared first = picture_of(one, i), second = picture_of(other, i);
#pragma unroll
          for (Shared j = 0; j < my_eights; ++j)
            mma<T>(sums[i][j], a, load_word(first ^ 32 * j), load_word(second ^ 32 * j));
        }
      } else {
        const int pixel = rows[k + lane % 16];
        load_transposed(a, grad_of(k + lane % 8 + lane / 16 * 8, 0));
#pragma unroll
        for (int i = 0; i < decltype(taps_of)::value; ++i) {
          const Shared first = picture_of(pixel, i);
#pragma unroll
          for (Shared j = 0; j < my_eights; j += 2) {
            std::uint32_t b[4];
            load_transposed(b, first ^ 16 * j);
            mma<T>(sums[i][j], a, b[0], b[1]);
            mma<T>(sums[i][j + 1], a, b[2], b[3]);
          }
        }
      }
    }
  };
  if (from < tiles) copy_tile(from, 0);
  for (int tile = from, buffer = 0; tile < tiles; tile += stride, buffer ^= 1) {
    const Shared picture = tile_of.pictures + static_cast<Shared>(buffer * picture_bytes);
    copies_wait<0>();
    if constexpr (floats)  // the gradient came rounded; each thread has its own copies now
      for (int q = thread; q < c.pixels * CC; q += tensor_threads)
        round_chunk(crossed<T, CC>(picture + static_cast<Shared>(16 * q)));
    __syncthreads();
    if (tile + stride < tiles) copy_tile(tile + stride, buffer ^ 1);
    if (taps_here > 0)
      with_taps<my_taps, 1, 2, 3, 4, 5, 7>(p.taps_each, [&](auto taps_of) {
        multiply(taps_of, base + static_cast<Shared>(buffer * grad_bytes), picture, pixels + buffer * pixel_tile);
      });
  }

  const int channels = c.chunks * Warps::numbers;
#pragma unroll
  for (int i = 0; i < my_taps; ++i)
#pragma unroll
    for (int j = 0; j < my_eights; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int o = o_tile * OC * Warps::numbers + o_warp * 16 + g + 8 * half;
        const int channel = part * CC * Warps::numbers + (eight + j) * 8 + 2 * t;
        if (i >= taps_here || o >= c.s.o || channel >= channels) continue;  // channels come in pairs
        float *to = p.shares + ((std::int64_t{1} * blockIdx.x * c.s.o + o) * c.taps + tap + i) * channels + channel;
        *reinterpret_cast<float2 *>(to) = float2{sums[i][j][2 * half], sums[i][j][2 * half + 1]};
      }
#endif
}

// to[of.strides] = the sum of `shares` times [o, taps, c]; likewise the bias's [o] of [shares, padded].
struct Reduce {
  const float *shares, *bias_shares;
  void *to, *bias;
  std::int64_t strides[4];
  int count, bias_count, o, c, kh, kw, padded;
};

// A block has 32 sums, each in eight slices that are added up last.
template <class T> __global__ void __launch_bounds__(256) reduce_kernel(const Reduce p) {
  in_turn();
  __shared__ float slices[8][32];
  const unsigned taps = static_cast<unsigned>(p.kh * p.kw), c = static_cast<unsigned>(p.c);
  const unsigned all = static_cast<unsigned>(p.o) * taps * c, biases = p.bias ? static_cast<unsigned>(p.o) : 0;
  const unsigned i = blockIdx.x * 32 + threadIdx.x, w = i - biases;
  const bool is_bias = i < biases, is_there = i < (p.to ? all : 0) + biases;
  const float *from = is_bias ? p.bias_shares + i : p.shares + w;
  const std::int64_t step = is_bias ? p.padded : all;
  const int count = is_there ? is_bias ? p.bias_count : p.count : 0;
  float sum = 0;
#pragma unroll 16
  for (int k = threadIdx.y; k < count; k += 8) sum += from[k * step];
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y || !is_there) return;
  sum = 0;
#pragma unroll
  for (int y = 0; y < 8; ++y) sum += slices[y][threadIdx.x];
  if (is_bias) {
    static_cast<T *>(p.bias)[i] = narrow<T>(sum);
    return;
  }
  const unsigned tap = w / c % taps;
  const std::int64_t row = w / c / taps, down = tap / static_cast<unsigned>(p.kw), across = tap - down * p.kw;
  const std::int64_t to = row * p.strides[0] + w % c * p.strides[1] + down * p.strides[2] + across * p.strides[3];
  static_cast<T *>(p.to)[to] = narrow<T>(sum);
}

}  // namespace hw4fast
