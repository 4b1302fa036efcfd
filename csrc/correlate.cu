// correlate on a GPU: pictures and lists of taps, in the fixed point of hw4fast/kernels/correlate.py, its very bytes.
//
// A block makes 32 × 32 pixels, of which a thread has four, one below the other. What its taps meet lies in shared
// memory, each channel for itself, so that a warp reads 32 neighbouring bytes at a time; where it doesn't fit, in the
// picture. Sums of integers have no order.
#include "border.cuh"

#include <algorithm>
#include <array>

#ifndef __CUDA_ARCH__
#include <pybind11/stl.h>
#endif

namespace hw4fast {
namespace {

constexpr int side = 32, down_each = 4, threads = side * side / down_each, taps_at_once = 256;

struct Tap {
  int row, column, weight, unused;
};

struct Correlate {
  const std::uint8_t *input;  // [n][h][w][c]
  std::uint8_t *output;
  int h, w;
  const Tap *taps;
  const int *begins, *units;  // [n + 1 or 2]: of a picture's taps; [n or 1]: bits of its weights
  Border border;
  bool alike, nearest;
  int above, below, left, right;  // how far the taps go
  int high, pitch;                // of a channel in shared memory
};

template <int C, bool TILED, class Sum> __global__ void __launch_bounds__(threads) correlate_pixels(const Correlate p) {
  HW4FAST_SHARED(memory);
  __shared__ Tap taps[taps_at_once];
  in_turn();
  const int tiles = (p.w + side - 1) / side, me = static_cast<int>(threadIdx.x);
  const int top = static_cast<int>(blockIdx.x) / tiles * side, first = static_cast<int>(blockIdx.x) % tiles * side;
  const int x = first + me % side, y = top + me / side;
  const std::uint8_t *picture = p.input + std::int64_t{blockIdx.y} * p.h * p.w * C;
  if (TILED) {
    const int wide = side + p.left + p.right;
    for (int i = me; i < p.high * wide; i += threads) {
      const int row = i / wide, column = i - row * wide;
      const int from = place(p.border, top + row - p.above, p.h), at = place(p.border, first + column - p.left, p.w);
#pragma unroll
      for (int channel = 0; channel < C; ++channel)
        memory[(channel * p.high + row) * p.pitch + column] = picture[(std::int64_t{from} * p.w + at) * C + channel];
    }
  }
  const int which = p.alike ? 0 : static_cast<int>(blockIdx.y), end = p.begins[which + 1], unit = p.units[which];
  Sum sum[down_each][C] = {};
  for (int begin = p.begins[which]; begin < end; begin += taps_at_once) {
    __syncthreads();
    const int here = min(taps_at_once, end - begin);
    if (me < here) {
      Tap tap = p.taps[begin + me];  // one that goes farther than was said would be read from elsewhere
      tap.row = min(max(tap.row, -p.above), p.below), tap.column = min(max(tap.column, -p.left), p.right);
      taps[me] = tap;
    }
    __syncthreads();
    for (int i = 0; i < here; ++i) {
      const Tap tap = taps[i];
      const auto add = [&](int k, int channel, std::uint8_t value) { sum[k][channel] += Sum{tap.weight} * value; };
      if (TILED) {
        const std::uint8_t *from = memory + (me / side + p.above + tap.row) * p.pitch + me % side + p.left + tap.column;
#pragma unroll
        for (int channel = 0; channel < C; ++channel)
#pragma unroll
          for (int k = 0; k < down_each; ++k)
            add(k, channel, from[(channel * p.high + k * (side / down_each)) * p.pitch]);
      } else {
        const int column = place(p.border, min(x, p.w - 1) + tap.column, p.w);
#pragma unroll
        for (int k = 0; k < down_each; ++k) {
          const int row = place(p.border, min(y + k * (side / down_each), p.h - 1) + tap.row, p.h);
          const std::uint8_t *from = picture + (std::int64_t{row} * p.w + column) * C;
#pragma unroll
          for (int channel = 0; channel < C; ++channel) add(k, channel, from[channel]);
        }
      }
    }
  }
  if (x >= p.w) return;
  std::uint8_t *out = p.output + std::int64_t{blockIdx.y} * p.h * p.w * C;
  const Sum half = p.nearest ? Sum{1} << (unit - 1) : Sum{0};
#pragma unroll
  for (int k = 0; k < down_each; ++k) {
    const int row = y + k * (side / down_each);
    if (row >= p.h) continue;
#pragma unroll
    for (int channel = 0; channel < C; ++channel)
      out[(std::int64_t{row} * p.w + x) * C + channel] = static_cast<std::uint8_t>((sum[k][channel] + half) >> unit);
  }
}

template <int C> void run(Correlate &p, int n, bool wide_sums, cudaStream_t stream) {
  p.high = side + p.above + p.below;
  p.pitch = (side + p.left + p.right + 3) / 4 * 4;
  const std::int64_t shared = std::int64_t{C} * p.high * p.pitch;
  const bool tiled = shared + static_cast<std::int64_t>(sizeof(Tap)) * taps_at_once <=
                     attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  const std::int64_t blocks = std::int64_t{1} * ((p.w + side - 1) / side) * ((p.h + side - 1) / side);
  if (blocks > 0x7fffffff) throw std::invalid_argument("correlate: a picture is too large");
  const Grid grid{dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(n)), dim3(threads),
                  tiled ? static_cast<std::size_t>(shared) : 0, stream};
  const auto with = [&](auto sums) {
    using Sum = decltype(sums);
    launch("correlate", tiled ? correlate_pixels<C, true, Sum> : correlate_pixels<C, false, Sum>, grid, p);
  };
  wide_sums ? with(std::int64_t{}) : with(int{});
}

}  // namespace

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &);
#endif
HW4FAST_CUDA_KERNEL(correlate, bind);

// shape: n, h, w, c. taps: int32 [all of them][4], row, column, weight and nothing; begins, units: int32; alike: all
// pictures have the first ones; all on the device. most_unit: of the units; reach: rows above and below, columns left
// and right that the taps go at most.
[[maybe_unused]] static void correlate(std::uintptr_t input, std::uintptr_t output,
                                       const std::array<std::int64_t, 4> &shape, std::uintptr_t taps,
                                       std::uintptr_t begins, std::uintptr_t units, bool alike, int most_unit,
                                       const std::array<int, 4> &reach, bool mirrored, bool nearest,
                                       std::uintptr_t stream) {
  const auto [n, h, w, c] = shape;
  if (c != 1 && c != 3) throw std::invalid_argument("correlate: pictures have 1 or 3 channels");
  if (n < 0 || n > 65535) throw std::invalid_argument("correlate: at most 65,535 pictures at a time");
  if (h < 1 || w < 1 || std::max(h, w) > 1 << 28) throw std::invalid_argument("correlate: sides of 1 … 2^28 pixels");
  if (most_unit < 1 || most_unit > 30) throw std::invalid_argument("correlate: weights have 1 … 30 bits");
  for (const int far : reach)
    if (far < 0 || far > 4096) throw std::invalid_argument("correlate: a tap is too far away");
  if (n == 0) return;
  if (!(input && output && taps && begins && units))
    throw std::invalid_argument("correlate was given a tensor without memory");
  correlate_kernel.count();
  Correlate p{};
  p.input = pointer<const std::uint8_t>(input), p.output = pointer<std::uint8_t>(output);
  p.h = static_cast<int>(h), p.w = static_cast<int>(w);
  p.taps = pointer<const Tap>(taps), p.begins = pointer<const int>(begins), p.units = pointer<const int>(units);
  p.border = mirrored ? Border::mirror : Border::edge, p.alike = alike, p.nearest = nearest;
  p.above = reach[0], p.below = reach[1], p.left = reach[2], p.right = reach[3];
  const bool wide_sums = most_unit > 23;  // 256 · 2²³ is an int's end
  c == 1 ? run<1>(p, static_cast<int>(n), wide_sums, stream_of(stream))
         : run<3>(p, static_cast<int>(n), wide_sums, stream_of(stream));
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) { m.def("correlate", &correlate); }
#endif

}  // namespace hw4fast
