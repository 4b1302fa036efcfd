// jpeg on a GPU: what JPEG leaves of a picture, in the integers of csrc/jpeg.inl, its very bytes.
//
// 16 × 16 pixels (a "minimum coded unit") are four blocks of brightness and, of means of 2 × 2, one of each colour.
// jpeg_units takes them through the transform and back, 16 threads a unit, a thread a line of a block: rows, columns,
// columns, rows. jpeg_pixels then puts brightness and colours together, where colours between units need both.
//
// Whole numbers of 32 bits, where the CPU has 16 that saturate or wrap: none goes so far. A block's length (the root of
// its squares' sum) is 8 · 128 at most, and the transform keeps it; steps to 255 add 8 · 127.5. Between the passes back
// it is √8 · 4 times as large, 23,150, and a sum of two numbers √2 times that: 32,740.
#include "cuda.cuh"
#include "jpeg.h"

#include <algorithm>
#include <array>

#ifndef __CUDA_ARCH__
#include <pybind11/stl.h>
#endif

namespace hw4fast {
namespace {

constexpr int threads = 128, beside = 16, units_at_once = threads / beside, side = 8;
constexpr int unit = 2 * side, longest = 65535;

using Block = int[side][side + 1];  // one more: lines and columns meet each bank of shared memory once

struct JpegBatch {
  const std::uint8_t *input;  // [n][h][w][c]
  std::uint8_t *output;
  std::uint8_t *planes;  // [n][16 · down][16 · across] of brightness, [2][n][8 · down][8 · across] of colours
  int n, h, w, down, across, units;
  JpegTable tables[2];  // of brightness, of colour
};

struct Unit {
  int picture, row, column;
};

__device__ inline int clipped(int v) { return min(max(v, 0), 255); }
__device__ inline int rounded(int sum, int bits) { return (sum + (1 << (bits - 1))) >> bits; }

struct Odd {
  int a, b, c, d;
};
__device__ inline Odd odd_part(int a, int b, int c, int d) {
  const int left = a + c, right = b + d;
  const int z3 = left * (jpeg_1_175 - jpeg_1_961) + right * jpeg_1_175;
  const int z4 = left * jpeg_1_175 + right * (jpeg_1_175 - jpeg_0_390);
  return {z3 + a * (jpeg_0_298 - jpeg_0_899) - d * jpeg_0_899, z4 + b * (jpeg_2_053 - jpeg_2_562) - c * jpeg_2_562,
          z3 - b * jpeg_2_562 + c * (jpeg_3_072 - jpeg_2_562), z4 - a * jpeg_0_899 + d * (jpeg_1_501 - jpeg_0_899)};
}

template <bool FIRST> __device__ inline void forward(int (&v)[side]) {
  constexpr int bits = FIRST ? jpeg_bits - jpeg_pass_bits : jpeg_bits + jpeg_pass_bits;
  const int t0 = v[0] + v[7], t1 = v[1] + v[6], t2 = v[2] + v[5], t3 = v[3] + v[4];
  const Odd odd = odd_part(v[3] - v[4], v[2] - v[5], v[1] - v[6], v[0] - v[7]);
  const int even = t0 + t3 + t1 + t2, other = t0 + t3 - t1 - t2, outer = t0 - t3, inner = t1 - t2;
  v[0] = FIRST ? even * (1 << jpeg_pass_bits) : rounded(even, jpeg_pass_bits);
  v[4] = FIRST ? other * (1 << jpeg_pass_bits) : rounded(other, jpeg_pass_bits);
  v[2] = rounded(outer * (jpeg_0_541 + jpeg_0_765) + inner * jpeg_0_541, bits);
  v[6] = rounded(outer * jpeg_0_541 + inner * (jpeg_0_541 - jpeg_1_847), bits);
  v[7] = rounded(odd.a, bits);
  v[5] = rounded(odd.b, bits);
  v[3] = rounded(odd.c, bits);
  v[1] = rounded(odd.d, bits);
}

template <int bits> __device__ inline void backward(int (&v)[side]) {
  const int t0 = (v[0] + v[4]) * (1 << jpeg_bits), t1 = (v[0] - v[4]) * (1 << jpeg_bits);
  const int t2 = v[2] * jpeg_0_541 + v[6] * (jpeg_0_541 - jpeg_1_847);
  const int t3 = v[2] * (jpeg_0_541 + jpeg_0_765) + v[6] * jpeg_0_541;
  const Odd odd = odd_part(v[7], v[5], v[3], v[1]);
  const int even[4] = {t0 + t3, t1 + t2, t1 - t2, t0 - t3}, far[4] = {odd.d, odd.c, odd.b, odd.a};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[i] = rounded(even[i] + far[i], bits);
    v[7 - i] = rounded(even[i] - far[i], bits);
  }
}

// A coefficient, 8 times too large, to the nearest multiple of its step.
__device__ inline int quantised(int v, const JpegTable &table, int at) {
  const int amount = abs(v) + table.correction[at];
  const int steps = (amount * table.reciprocal[at] >> 16) * table.scale[at] >> 16;
  return (v < 0 ? -steps : steps) * table.step[at];
}

template <bool DOWN> __device__ inline void read(const Block &block, int line, int (&v)[side]) {
#pragma unroll
  for (int i = 0; i < side; ++i) v[i] = DOWN ? block[i][line] : block[line][i];
}
template <bool DOWN> __device__ inline void write(Block &block, int line, const int (&v)[side]) {
#pragma unroll
  for (int i = 0; i < side; ++i) (DOWN ? block[i][line] : block[line][i]) = v[i];
}
template <int BLOCKS, class Change> __device__ inline void each_line(int lane, const Change &change) {
#pragma unroll
  for (int block = 0; block < BLOCKS; block += beside / side) change(block + lane / side, lane % side);
}

// A unit's pixels, four times 2 × 2 of them a thread. The last column and the last row are repeated as far as the
// blocks reach: of brightness the row of pixels, of colour that of means.
template <int C> __device__ inline void fill(const JpegBatch &p, const Unit &u, int lane, Block *blocks) {
  const std::uint8_t *from = p.input + std::int64_t{u.picture} * p.h * p.w * C;
  const int x = lane % side, last = (p.h - 1) / 2;
#pragma unroll
  for (int y = lane / side; y < side; y += beside / side) {
    const int wanted = side * u.row + y, pair = min(wanted, last);
    Block &bright = blocks[y / 4 * 2 + x / 4];
    int blue_sum = 1 + x % 2, red_sum = 1 + x % 2;  // means are rounded up and down in turn
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j) {
        const int row = min(2 * pair + i, p.h - 1), column = min(unit * u.column + 2 * x + j, p.w - 1);
        const std::uint8_t *pixel = from + (std::int64_t{row} * p.w + column) * C;
        int value = pixel[0];
        if constexpr (C == 3) {
          const int red = pixel[0], green = pixel[1], blue = pixel[2];
          value = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16;
          blue_sum += (-11059 * red - 21709 * green + 32768 * blue + 8421375) >> 16;
          red_sum += (32768 * red - 27439 * green - 5329 * blue + 8421375) >> 16;
        }
        bright[2 * y % side + i][2 * x % side + j] = value - 128;
        if (i == 1 && wanted > pair) bright[2 * y % side][2 * x % side + j] = value - 128;
      }
    if constexpr (C == 3) {
      blocks[4][y][x] = (blue_sum >> 2) - 128;
      blocks[5][y][x] = (red_sum >> 2) - 128;
    }
  }
}

// A line of a block that is done: of a grey picture to the output, else to its plane.
template <int C>
__device__ inline void store(const JpegBatch &p, const Unit &u, int block, int line, const int (&v)[side]) {
  const bool bright = block < 4;
  const int row = bright ? unit * u.row + block / 2 * side + line : side * u.row + line;
  const int column = bright ? unit * u.column + block % 2 * side : side * u.column;
  if constexpr (C == 1) {
    if (row >= p.h) return;
    std::uint8_t *to = p.output + (std::int64_t{u.picture} * p.h + row) * p.w + column;
#pragma unroll
    for (int i = 0; i < side; ++i)
      if (column + i < p.w) to[i] = static_cast<std::uint8_t>(clipped(v[i] + 128));
  } else {
    const std::int64_t all = std::int64_t{p.units} * side * side;  // of a colour's plane
    std::uint8_t *plane = p.planes + (bright ? 0 : (block == 4 ? 4 : 5) * all);
    const std::int64_t place = bright ? (std::int64_t{u.picture} * p.down * unit + row) * p.across * unit
                                      : (std::int64_t{u.picture} * p.down * side + row) * p.across * side;
    unsigned bytes[2] = {};
#pragma unroll
    for (int i = 0; i < side; ++i) bytes[i / 4] |= static_cast<unsigned>(clipped(v[i] + 128)) << (i % 4 * 8);
    *reinterpret_cast<uint2 *>(plane + place + column) = make_uint2(bytes[0], bytes[1]);
  }
}

template <int C> __global__ void __launch_bounds__(threads) jpeg_units(const JpegBatch p) {
  in_turn();
  constexpr int blocks = C == 1 ? 4 : 6;
  __shared__ Block values[units_at_once][blocks];
  __shared__ JpegTable tables[2];
  static_assert(threads == 2 * jpeg_size);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % beside, i = thread % jpeg_size;
  const JpegTable &from = p.tables[thread / jpeg_size];
  JpegTable &to = tables[thread / jpeg_size];
  to.step[i] = from.step[i], to.correction[i] = from.correction[i];
  to.reciprocal[i] = from.reciprocal[i], to.scale[i] = from.scale[i];
  const int task = static_cast<int>(blockIdx.x) * units_at_once + thread / beside;
  const int at = min(task, p.units - 1), within = at % (p.down * p.across);  // what none needs isn't stored
  const Unit u{at / (p.down * p.across), within / p.across, within % p.across};
  Block *own = values[thread / beside];
  fill<C>(p, u, lane, own);
  __syncthreads();
  each_line<blocks>(lane, [&](int block, int line) {
    int v[side];
    read<false>(own[block], line, v);
    forward<true>(v);
    write<false>(own[block], line, v);
  });
  __syncthreads();
  each_line<blocks>(lane, [&](int block, int line) {
    int v[side];
    read<true>(own[block], line, v);
    forward<false>(v);
#pragma unroll
    for (int k = 0; k < side; ++k) v[k] = quantised(v[k], tables[block / 4], k * side + line);
    backward<jpeg_bits - jpeg_pass_bits>(v);
    write<true>(own[block], line, v);
  });
  __syncthreads();
  if (task >= p.units) return;
  each_line<blocks>(lane, [&](int block, int line) {
    int v[side];
    read<false>(own[block], line, v);
    backward<jpeg_bits + jpeg_pass_bits + 3>(v);
    store<C>(p, u, block, line, v);
  });
}

// One colour of 2 × 2 pixels: 9/16, 3/16, 3/16 and 1/16 of four of its plane. libjpeg repeats pixels where there are
// few.
__device__ inline void doubled(const std::uint8_t *plane, int pitch, int rows, int columns, int y, int x,
                               int (&to)[2][2]) {
  const std::uint8_t *own = plane + std::int64_t{y} * pitch;
  const int before = max(x - 1, 0), behind = min(x + 1, columns - 1);
  for (int i = 0; i < 2; ++i) {
    const std::uint8_t *next = plane + std::int64_t{i ? min(y + 1, rows - 1) : max(y - 1, 0)} * pitch;
    const auto sum = [&](int column) { return 3 * own[column] + next[column]; };
    to[i][0] = columns > 2 ? (3 * sum(x) + sum(before) + 8) >> 4 : own[x];
    to[i][1] = columns > 2 ? (3 * sum(x) + sum(behind) + 7) >> 4 : own[x];
  }
}

// A thread makes 2 × 2 pixels.
__global__ void __launch_bounds__(threads) jpeg_pixels(const JpegBatch p) {
  in_turn();
  const int rows = (p.h + 1) / 2, columns = (p.w + 1) / 2, pitch = p.across * side;
  const int place = static_cast<int>(blockIdx.x) * threads + static_cast<int>(threadIdx.x);
  const int y = place / columns, x = place % columns;
  if (y >= rows) return;
  const std::int64_t plane = std::int64_t{p.down} * side * pitch;
  for (std::int64_t picture = blockIdx.y; picture < p.n; picture += gridDim.y) {
    const std::uint8_t *bright = p.planes + 4 * plane * picture + (std::int64_t{y} * 2 * pitch + x) * 2;
    int blue[2][2], red[2][2];
    doubled(p.planes + (4 * std::int64_t{p.n} + picture) * plane, pitch, rows, columns, y, x, blue);
    doubled(p.planes + (5 * std::int64_t{p.n} + picture) * plane, pitch, rows, columns, y, x, red);
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        if (2 * y + i >= p.h || 2 * x + j >= p.w) continue;
        std::uint8_t *to = p.output + ((picture * p.h + 2 * y + i) * p.w + 2 * x + j) * 3;
        const int value = bright[i * 2 * pitch + j], b = blue[i][j] - 128, r = red[i][j] - 128;
        to[0] = static_cast<std::uint8_t>(clipped(value + ((91881 * r + 32768) >> 16)));
        to[1] = static_cast<std::uint8_t>(clipped(value + ((-22554 * b - 46802 * r + 32768) >> 16)));
        to[2] = static_cast<std::uint8_t>(clipped(value + ((116130 * b + 32768) >> 16)));
      }
  }
}

}  // namespace

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &);
#endif
HW4FAST_CUDA_KERNEL(jpeg, bind);

// shape: n, h, w, c, contiguous; planes: of pictures in colour, scratch of 384 bytes, at an address that 8 divides, for
// each 16 × 16 pixels or a part of them. All on the device.
[[maybe_unused]] static void jpeg(std::uintptr_t input, std::uintptr_t output, std::uintptr_t planes,
                                  const std::array<std::int64_t, 4> &shape, int quality, std::uintptr_t stream) {
  const auto [n, h, w, c] = shape;
  if (c != 1 && c != 3) throw std::invalid_argument("jpeg: pictures have 1 or 3 channels");
  if (n < 0 || std::min(h, w) < 0 || std::max(h, w) > longest) throw std::invalid_argument("jpeg: bad shape");
  if (quality < 1 || quality > 100) throw std::invalid_argument("jpeg: quality must lie in 1 … 100");
  if (n == 0 || h == 0 || w == 0) return;
  const std::int64_t down = up(h, unit), across = up(w, unit);
  if (n > (1 << 30) / (down * across)) throw std::invalid_argument("jpeg: too many pictures at once");
  if (!input || !output || (c == 3 && !planes)) throw std::invalid_argument("jpeg was given a tensor without memory");
  jpeg_kernel.count();
  const JpegBatch p{pointer<const std::uint8_t>(input),
                    pointer<std::uint8_t>(output),
                    pointer<std::uint8_t>(planes),
                    static_cast<int>(n),
                    static_cast<int>(h),
                    static_cast<int>(w),
                    static_cast<int>(down),
                    static_cast<int>(across),
                    static_cast<int>(n * down * across),
                    {jpeg_table(jpeg_steps[0], quality), jpeg_table(jpeg_steps[1], quality)}};
  const dim3 units(static_cast<unsigned>(up(p.units, units_at_once)));
  launch("jpeg", c == 1 ? jpeg_units<1> : jpeg_units<3>, Grid{units, dim3(threads), 0, stream_of(stream)}, p);
  if (c == 1) return;
  const dim3 quads(static_cast<unsigned>(up(up(h, 2) * up(w, 2), threads)),
                   static_cast<unsigned>(std::min<std::int64_t>(n, 65535)));
  launch("jpeg", jpeg_pixels, Grid{quads, dim3(threads), 0, stream_of(stream)}, p);
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) { m.def("jpeg", &jpeg); }
#endif

}  // namespace hw4fast
