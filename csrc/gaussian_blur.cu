// gaussian_blur on a GPU: both passes in one kernel, in float.
//
// A block has 32 columns and some rows of one channel of one picture. It brings them to shared memory with all that
// their weights reach, mirrored at the picture's border. Across: a thread has 16 neighbouring numbers of a row, and its
// neighbours have other rows; down: 16 of a column, and its neighbours have other columns: so that a number that was
// read meets 16 weights, and no two threads of a warp ask one bank. Weights come in sixteens and a rest: the last 16
// numbers stay in registers, and each has its place there at compile time.
// Where that is too much for shared memory, each pass is a kernel of its own.
#include "cuda.cuh"

#include <algorithm>
#include <array>

#ifndef __CUDA_ARCH__
#include <pybind11/stl.h>
#endif

namespace hw4fast {
namespace {

constexpr int columns = 32, each = 16, threads = 256, middle_stride = columns + 1;
using Strides = std::array<std::int64_t, 4>;  // of picture, channel, row and column, in numbers

template <class S> struct GaussianBlur {
  const S *input;
  S *output;
  float *middle;               // [n, c, h, w] between two kernels, or null
  const float *across, *down;  // [size]
  std::int64_t input_strides[4], output_strides[4];
  int n, c, h, w, size_across, size_down;
  int padded_across, padded_down;   // sizes filled up to a multiple of 16
  int rows, wide, high, row_bytes;  // outputs of a tile down; inputs that it sees; of a row of them
  int tiles_down, tiles_across;
};

__device__ inline float as_float(float x) { return x; }
__device__ inline float as_float(std::uint8_t x) { return __uint_as_float(0x4b000000u | x) - 8388608.0f; }  // 2²³ + x
template <class S> __device__ inline S as_stored(float x) {
  if constexpr (std::is_same_v<S, float>)
    return x;
  else
    return static_cast<std::uint8_t>(fminf(fmaxf(rintf(x), 0.0f), 255.0f));
}

// Which of a line of n stands at position i, mirrored about its end pixels.
__device__ inline int mirrored(int i, int n) {
  if (i >= 0 && i < n) return i;
  if (n == 1) return 0;
  const int period = 2 * (n - 1);
  i %= period;
  if (i < 0) i += period;
  return i < n ? i : period - i;
}

// sums[j] = Σ_t weight[t] · at(j + t) over `size` weights and no others: 0 times what is not finite is no 0.
template <class At> __device__ inline void weighted(float (&sums)[each], const float *weight, int size, At at) {
  float near[each];
#pragma unroll
  for (int j = 0; j < each; ++j) near[j] = at(j), sums[j] = 0;
  const auto tap = [&](int t, int k) {
    const float w = weight[t + k];
#pragma unroll
    for (int j = 0; j < each; ++j) sums[j] += w * near[(j + k) % each];
    near[k] = at(t + k + each);  // of what lies `each` further: the oldest has met its last weight
  };
  int t = 0;
  for (; t + each <= size; t += each) {
#pragma unroll
    for (int k = 0; k < each; ++k) tap(t, k);
  }
#pragma unroll
  for (int k = 0; k < each - 1; ++k) {
    if (t + k >= size) break;
    tap(t, k);
  }
}

template <class S> __global__ void __launch_bounds__(threads) gaussian_blur_fused(const GaussianBlur<S> p) {
  in_turn();
  HW4FAST_SHARED(shared);
  float *across = reinterpret_cast<float *>(shared), *down = across + p.padded_across;
  float *middle = down + p.padded_down;                                                       // [high][33]
  unsigned char *input = reinterpret_cast<unsigned char *>(middle + p.high * middle_stride);  // [high][row_bytes]
  const int tile_x = blockIdx.x % p.tiles_across, tile_y = blockIdx.x / p.tiles_across % p.tiles_down;
  const std::int64_t plane = blockIdx.x / p.tiles_across / p.tiles_down;
  const std::int64_t image = plane / p.c, channel = plane % p.c;
  const int x0 = tile_x * columns, y0 = tile_y * p.rows;
  const S *from = p.input + image * p.input_strides[0] + channel * p.input_strides[1];
  const int seen = p.rows + p.size_down - 1, see = columns + p.size_across - 1;  // the rest meets no weight
  for (int i = threadIdx.x; i < p.size_across; i += threads) across[i] = p.across[i];
  for (int i = threadIdx.x; i < p.size_down; i += threads) down[i] = p.down[i];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int y = warp; y < seen; y += threads / 32) {
    const std::int64_t row = mirrored(y0 + y - p.size_down / 2, p.h) * p.input_strides[2];
    S *to = reinterpret_cast<S *>(input + y * p.row_bytes);
    for (int x = lane; x < p.wide; x += 32)
      to[x] = x < see ? from[row + mirrored(x0 + x - p.size_across / 2, p.w) * p.input_strides[3]] : S(0);
  }
  __syncthreads();
  for (int task = threadIdx.x; task < p.high * (columns / each); task += threads) {
    const int y = task % p.high, x = task / p.high * each;
    float sums[each] = {};
    if (y < seen) {
      const S *row = reinterpret_cast<const S *>(input + y * p.row_bytes) + x;
      weighted(sums, across, p.size_across, [&](int i) { return as_float(row[i]); });
    }
#pragma unroll
    for (int j = 0; j < each; ++j) middle[y * middle_stride + x + j] = sums[j];
  }
  __syncthreads();
  S *to = p.output + image * p.output_strides[0] + channel * p.output_strides[1];
  for (int task = threadIdx.x; task < (p.rows + each - 1) / each * columns; task += threads) {
    const int x = task % columns, y = task / columns * each;
    float sums[each];
    weighted(sums, down, p.size_down, [&](int i) { return middle[(y + i) * middle_stride + x]; });
#pragma unroll
    for (int j = 0; j < each; ++j)
      if (y + j < p.rows && y0 + y + j < p.h && x0 + x < p.w)
        to[(y0 + y + j) * p.output_strides[2] + (x0 + x) * p.output_strides[3]] = as_stored<S>(sums[j]);
  }
}

template <class S, bool DOWN> __global__ void __launch_bounds__(threads) gaussian_blur_pass(const GaussianBlur<S> p) {
  in_turn();
  const std::int64_t pixels = std::int64_t{p.n} * p.c * p.h * p.w, step = std::int64_t{gridDim.x} * threads;
  for (std::int64_t i = blockIdx.x * std::int64_t{threads} + threadIdx.x; i < pixels; i += step) {
    const int x = static_cast<int>(i % p.w), y = static_cast<int>(i / p.w % p.h);
    const std::int64_t plane = i / p.w / p.h, image = plane / p.c, channel = plane % p.c;
    float sum = 0;
    if (DOWN) {
      const float *from = p.middle + plane * p.h * p.w + x;
      for (int t = 0; t < p.size_down; ++t)
        sum += p.down[t] * from[std::int64_t{mirrored(y + t - p.size_down / 2, p.h)} * p.w];
      p.output[image * p.output_strides[0] + channel * p.output_strides[1] + y * p.output_strides[2] +
               x * p.output_strides[3]] = as_stored<S>(sum);
    } else {
      const S *from = p.input + image * p.input_strides[0] + channel * p.input_strides[1] + y * p.input_strides[2];
      for (int t = 0; t < p.size_across; ++t)
        sum += p.across[t] * as_float(from[mirrored(x + t - p.size_across / 2, p.w) * p.input_strides[3]]);
      p.middle[i] = sum;
    }
  }
}

int filled_up(int size) { return (size + each - 1) / each * each; }

// Fills in the tile; the bytes of shared memory, 0: it doesn't fit.
template <class S> std::size_t tile(GaussianBlur<S> &p) {
  p.padded_across = filled_up(p.size_across), p.padded_down = filled_up(p.size_down);
  p.wide = columns + p.padded_across;
  p.row_bytes = (p.wide * static_cast<int>(sizeof(S)) + 3) / 4 * 4;
  if (p.row_bytes % 8 == 0) p.row_bytes += 4;  // an odd number of words: a warp's rows lie in all banks
  const int most = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  const auto bytes = [&](int rows) {
    p.rows = rows, p.high = (rows + each - 1) / each * each + p.padded_down;
    return sizeof(float) * (p.padded_across + p.padded_down + static_cast<std::size_t>(p.high) * middle_stride) +
           static_cast<std::size_t>(p.high) * p.row_bytes;
  };
  const int most_parts = std::max(16, p.h / 32);
  for (const int limit : {72 << 10, 110 << 10, most})  // three blocks on a multiprocessor, two, one
    for (int parts = 1; parts <= most_parts; ++parts) {
      const int rows = (p.h + parts - 1) / parts;
      if (rows < std::min(p.h, p.size_down) && limit < most) break;  // the border would be most of the work
      const std::size_t needed = bytes(rows);
      if (needed <= static_cast<std::size_t>(std::min(limit, most))) return needed;
    }
  return 0;
}

template <class S> void run(GaussianBlur<S> p, cudaStream_t stream) {
  if (!p.middle) {
    const std::size_t shared = tile(p);
    if (!shared) throw std::invalid_argument("gaussian_blur needs scratch memory for such a kernel");
    p.tiles_down = (p.h + p.rows - 1) / p.rows, p.tiles_across = (p.w + columns - 1) / columns;
    const std::int64_t blocks = std::int64_t{p.n} * p.c * p.tiles_down * p.tiles_across;
    if (blocks > INT32_MAX) throw std::invalid_argument("gaussian_blur: too many pictures for a GPU at once");
    return launch("gaussian_blur", gaussian_blur_fused<S>,
                  Grid{dim3(static_cast<unsigned>(blocks)), dim3(threads), shared, stream}, p);
  }
  const std::int64_t pixels = std::int64_t{p.n} * p.c * p.h * p.w;
  const auto blocks =
      static_cast<unsigned>(std::min<std::int64_t>((pixels + threads - 1) / threads, 16 * multiprocessors()));
  const Grid grid{dim3(blocks), dim3(threads), 0, stream};
  launch("gaussian_blur", gaussian_blur_pass<S, false>, grid, p);
  launch("gaussian_blur", gaussian_blur_pass<S, true>, grid, p);
}

template <class S>
GaussianBlur<S> blur_of(const std::array<std::int64_t, 4> &shape, std::array<std::int64_t, 2> sizes) {
  for (const std::int64_t size : shape)
    if (size < 0 || size > INT32_MAX) throw std::invalid_argument("gaussian_blur: a side is out of range");
  for (const std::int64_t size : sizes)
    if (size < 1 || size % 2 == 0 || size > 999)
      throw std::invalid_argument("gaussian_blur: kernel sizes are odd, 1 … 999");
  GaussianBlur<S> p{};
  p.n = static_cast<int>(shape[0]), p.c = static_cast<int>(shape[1]), p.h = static_cast<int>(shape[2]);
  p.w = static_cast<int>(shape[3]);
  p.size_down = static_cast<int>(sizes[0]), p.size_across = static_cast<int>(sizes[1]);
  return p;
}

}  // namespace

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &);
#endif
HW4FAST_CUDA_KERNEL(gaussian_blur, bind);

// Whether one kernel does it, and no scratch memory is needed. shape: n, c, h, w; sizes: down, across.
[[maybe_unused]] static bool gaussian_blur_fits(bool is_float, const std::array<std::int64_t, 4> &shape,
                                                const std::array<std::int64_t, 2> &sizes) {
  auto with_float = blur_of<float>(shape, sizes);
  auto with_bytes = blur_of<std::uint8_t>(shape, sizes);
  return (is_float ? tile(with_float) : tile(with_bytes)) > 0;
}

// weights: the addresses of float32 [size] down and across; middle: float32 [n, c, h, w], or 0 where it fits.
[[maybe_unused]] static void gaussian_blur(bool is_float, std::uintptr_t input, const Strides &input_strides,
                                           std::uintptr_t output, const Strides &output_strides,
                                           const std::array<std::int64_t, 4> &shape,
                                           const std::array<std::int64_t, 2> &sizes,
                                           const std::array<std::uintptr_t, 2> &weights, std::uintptr_t middle,
                                           std::uintptr_t stream) {
  if (shape[0] * shape[1] * shape[2] * shape[3] == 0) return;
  if (!input || !output || !weights[0] || !weights[1])
    throw std::invalid_argument("gaussian_blur was given a tensor without memory");
  gaussian_blur_kernel.count();
  const auto typed = [&](auto zero) {
    using S = decltype(zero);
    GaussianBlur<S> p = blur_of<S>(shape, sizes);
    p.input = pointer<S>(input), p.output = pointer<S>(output), p.middle = pointer<float>(middle);
    p.down = pointer<float>(weights[0]), p.across = pointer<float>(weights[1]);
    std::copy(input_strides.begin(), input_strides.end(), p.input_strides);
    std::copy(output_strides.begin(), output_strides.end(), p.output_strides);
    run(p, stream_of(stream));
  };
  is_float ? typed(0.0f) : typed(std::uint8_t{});
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) {
  m.def("gaussian_blur", &gaussian_blur);
  m.def("gaussian_blur_fits", &gaussian_blur_fits);
}
#endif

}  // namespace hw4fast
