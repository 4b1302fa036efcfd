// sample on a GPU: pictures between their pixels, in the fixed point of csrc/sample.inl, the CPU's very bytes.
//
// A thread makes one pixel. Places come from a homography per picture, in float64 and rounded after each operation, or
// are given as float32.
#include "cuda.cuh"

#include <algorithm>
#include <array>

#ifndef __CUDA_ARCH__
#include <pybind11/stl.h>
#endif

namespace hw4fast {
namespace {

constexpr int threads = 256, sample_bits = 14, sample_one = 1 << sample_bits, sample_dropped = 7;
constexpr int sample_end = 2 * sample_bits - sample_dropped, longest = (1 << 24) - 2;
using Strides = std::array<std::int64_t, 3>;  // of picture, row and column, in floats

struct Sample {
  const std::uint8_t *input;  // [n][h][w][c]
  std::uint8_t *output;       // [n][height][width][c]
  std::int64_t n;
  int h, w, height, width, fill;  // fill: −1 for the nearest pixel
  bool reflect;
  int half, even;          // what is added before the last fraction is dropped: always, and where the rest is odd
  const double *matrices;  // [n][9], or [9] for all, or none: then
  std::int64_t matrix_stride;
  const float *rows, *columns;
  std::int64_t row_strides[3], column_strides[3];
};

__device__ inline double line(const double *m, double right, double down) {
  return __dadd_rn(__dmul_rn(m[0], right), __dadd_rn(__dmul_rn(m[1], down), m[2]));
}

// Mirrored at both ends of a line of n pixels (d c b a | a b c d | d c b a). What isn't within 2²⁴ becomes NaN.
__device__ inline float mirrored(float place, float n) {
  const float period = 2 * n, t = fminf(fabsf(place + 0.5f), 0x1p24f);  // at 0
  const auto whole = static_cast<float>(static_cast<int>(t * __fdiv_rn(1.0f, period)));
  const float there = __fadd_rn(t, -__fmul_rn(whole, period));
  return fabsf(place) < 0x1p24f ? fminf(there, period - there) - 0.5f : __int_as_float(0x7fffffff);  // at n
}

// Index −1 … n − 1 of the pixel before a place, and the weight of the one behind it. NaN is as far away as −∞.
__device__ inline int before(float place, int n, int &next) {
  float t = place + 1.0f;
  t = t > 0.0f ? t : 0.0f;
  const float last = static_cast<float>(n + 1);
  t = t < last ? t : last;
  const int index = min(static_cast<int>(t), n);
  next = static_cast<int>((t - static_cast<float>(index)) * static_cast<float>(sample_one) + 0.5f);
  return index - 1;
}

template <int C> __global__ void __launch_bounds__(threads) sample_pixels(const Sample p) {
  in_turn();
  const std::int64_t pixels = std::int64_t{p.height} * p.width, step = std::int64_t{gridDim.x} * threads;
  for (std::int64_t task = blockIdx.x * std::int64_t{threads} + threadIdx.x; task < p.n * pixels; task += step) {
    const std::int64_t picture = task / pixels;
    const int y = static_cast<int>(task % pixels / p.width), x = static_cast<int>(task % pixels % p.width);
    float row, column;
    if (p.matrices) {
      const double *m = p.matrices + picture * p.matrix_stride;
      const double right = x, down = y, depth = line(m + 6, right, down);
      column = static_cast<float>(line(m, right, down) / depth);
      row = static_cast<float>(line(m + 3, right, down) / depth);
    } else {
      row = p.rows[picture * p.row_strides[0] + y * p.row_strides[1] + x * p.row_strides[2]];
      column = p.columns[picture * p.column_strides[0] + y * p.column_strides[1] + x * p.column_strides[2]];
    }
    if (p.reflect) row = mirrored(row, p.h), column = mirrored(column, p.w);
    int lower, beside;
    const int top = before(row, p.h, lower), left = before(column, p.w, beside);
    const std::uint8_t *from = p.input + picture * p.h * p.w * C;
    const auto at = [&](int down, int across, int channel) -> int {
      const bool outside = down < 0 || down >= p.h || across < 0 || across >= p.w;
      if (outside && p.fill >= 0) return p.fill;
      const std::int64_t nearest = min(max(down, 0), p.h - 1), beside_it = min(max(across, 0), p.w - 1);
      return from[(nearest * p.w + beside_it) * C + channel];
    };
#pragma unroll
    for (int channel = 0; channel < C; ++channel) {
      const auto across = [&](int down) {
        const int sum = at(down, left, channel) * (sample_one - beside) + at(down, left + 1, channel) * beside;
        return (sum + (1 << (sample_dropped - 1))) >> sample_dropped;
      };
      const int sum = across(top) * (sample_one - lower) + across(top + 1) * lower;
      p.output[task * C + channel] =
          static_cast<std::uint8_t>((sum + p.half + (sum >> sample_end & p.even)) >> sample_end);
    }
  }
}

}  // namespace

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &);
#endif
HW4FAST_CUDA_KERNEL(sample, bind);

// shape: n, h, w, c; size: height, width; fill: −1 for the nearest pixel, once `reflect` has mirrored the places; down:
// rounded so, else to the nearest, halves to even. matrices: float64 [n or 1][9], or 0: then rows and columns, float32
// at places of those strides. All on the device.
[[maybe_unused]] static void sample(std::uintptr_t input, const std::array<std::int64_t, 4> &shape,
                                    std::uintptr_t output, const std::array<std::int64_t, 2> &size, int fill,
                                    bool reflect, bool down, std::uintptr_t matrices, std::int64_t matrix_stride,
                                    std::uintptr_t rows, const Strides &row_strides, std::uintptr_t columns,
                                    const Strides &column_strides, std::uintptr_t stream) {
  const auto [n, h, w, c] = shape;
  if (c != 1 && c != 3) throw std::invalid_argument("sample: pictures have 1 or 3 channels");
  if (n < 0 || h < 1 || w < 1) throw std::invalid_argument("sample: there must be pixels");
  if (std::max(h, w) > longest) throw std::invalid_argument("sample: the picture is too large");
  if (std::min(size[0], size[1]) < 0 || std::max(size[0], size[1]) > 1 << 30)
    throw std::invalid_argument("sample: a side is negative or too long");
  if (fill < -1 || fill > 255) throw std::invalid_argument("sample: fill must lie in 0 … 255");
  if (n == 0 || size[0] == 0 || size[1] == 0) return;
  if (!input || !output || !(matrices || (rows && columns)))
    throw std::invalid_argument("sample was given a tensor without memory");
  sample_kernel.count();
  Sample p{};
  p.input = pointer<std::uint8_t>(input), p.output = pointer<std::uint8_t>(output), p.n = n;
  p.h = static_cast<int>(h), p.w = static_cast<int>(w), p.fill = fill;
  p.reflect = reflect, p.half = down ? 0 : (1 << (sample_end - 1)) - 1, p.even = down ? 0 : 1;
  p.height = static_cast<int>(size[0]), p.width = static_cast<int>(size[1]);
  p.matrices = pointer<double>(matrices), p.matrix_stride = matrix_stride;
  p.rows = pointer<float>(rows), p.columns = pointer<float>(columns);
  std::copy(row_strides.begin(), row_strides.end(), p.row_strides);
  std::copy(column_strides.begin(), column_strides.end(), p.column_strides);
  const std::int64_t tasks = n * size[0] * size[1];
  const auto blocks = std::min<std::int64_t>((tasks + threads - 1) / threads, 32 * multiprocessors());
  const Grid grid{dim3(static_cast<unsigned>(blocks)), dim3(threads), 0, stream_of(stream)};
  launch("sample", c == 1 ? sample_pixels<1> : sample_pixels<3>, grid, p);
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) { m.def("sample", &sample); }
#endif

}  // namespace hw4fast
