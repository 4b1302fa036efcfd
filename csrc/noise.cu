// noise on a GPU: pictures with noise from counters, bare draws, and pixels that are moved about (csrc/noise.inl has
// the formulas): the CPU's very bytes.
//
// A thread turns one counter into its four words, which are four values, 16 apart: 16 counters, 64 values, are a block
// of the CPU's. Floats are rounded after each operation, as there: a product and a sum are never fused.
#include "cuda.cuh"

#include <algorithm>
#include <array>
#include <cmath>

#ifndef __CUDA_ARCH__
#include <pybind11/stl.h>
#endif

namespace hw4fast {
namespace {

constexpr int threads = 256, counters = 16;
// As hw4fast.kernels.noise.KINDS; the last two are draws, without a picture.
enum class NoiseKind : int { gaussian = 0, speckle = 1, impulse = 2, shot = 3, normal = 4, uniform = 5 };

struct ShotEntry {
  std::uint32_t most;
  std::uint8_t own, other, unused[2];
};

struct Noise {
  const std::uint8_t *input;
  std::uint8_t *output;
  const std::uint64_t *keys;  // [n]
  std::int64_t n, size;       // pictures, values of each
  NoiseKind kind;
  float scale;             // gaussian: standard deviation in grey levels; speckle: as a share of the value
  std::int32_t hit;        // impulse: words of 31 bits up to this one are grains; −1 for none
  const ShotEntry *table;  // shot: [256][2^bits]
  int bits;
};

struct Exact {  // a float that is rounded after each operation
  float x;
};
__device__ inline Exact operator+(Exact a, Exact b) { return {__fadd_rn(a.x, b.x)}; }
__device__ inline Exact operator-(Exact a, Exact b) { return {__fadd_rn(a.x, -b.x)}; }
__device__ inline Exact operator*(Exact a, Exact b) { return {__fmul_rn(a.x, b.x)}; }
__device__ inline Exact operator/(Exact a, Exact b) { return {__fdiv_rn(a.x, b.x)}; }
__device__ inline Exact operator*(Exact a, float b) { return {__fmul_rn(a.x, b)}; }
__device__ inline Exact operator+(Exact a, float b) { return {__fadd_rn(a.x, b)}; }
__device__ inline Exact operator-(Exact a, float b) { return {__fadd_rn(a.x, -b)}; }

// csrc/vector.inl's log_atleast1, of 2^−24 … 1.
__device__ inline Exact logarithm(float of) {
  const int bits = __float_as_int(of) - 0x3f3504f3;
  const Exact e{static_cast<float>(bits >> 23)}, m{__int_as_float((bits & 0x7fffff) + 0x3f3504f3)};
  const Exact t = (m - 1.0f) / (m + 1.0f), z = t * t;
  const Exact l = (z * 2.95800531e-1f + 3.99887783e-1f) * z + 6.66666850e-1f;
  return e * 6.93147181e-1f + t * (z * l + 2.0f);
}

// Two words → two normal deviates, as noise_pair.
__device__ inline void pair(std::uint32_t first, std::uint32_t second, float &one, float &other) {
  const float u = static_cast<float>(static_cast<int>(first >> 8) + 1) * 0x1p-24f;  // exact
  const float radius = __fsqrt_rn(fmaxf(0.0f, (logarithm(u) * -2.0f).x));
  const std::uint32_t quarter = (second + 0x20000000u) >> 30;
  const int rest = static_cast<int>(second - (quarter << 30));
  const Exact x = Exact{static_cast<float>(rest)} * 1.46291807e-9f, z = x * x;
  const Exact sine = x + x * z * ((z * -1.9515295891e-4f + 8.3321608736e-3f) * z + -1.6666654611e-1f);
  const Exact cosine = (Exact{1.0f} - z * 0.5f) +
                       z * z * ((z * 2.443315711809948e-5f + -1.388731625493765e-3f) * z + 4.166664568298827e-2f);
  const bool odd = quarter & 1;
  const float a = odd ? sine.x : cosine.x, b = odd ? cosine.x : sine.x;
  one = __fmul_rn(radius, (quarter + 1) >> 1 & 1 ? -a : a);
  other = __fmul_rn(radius, quarter >> 1 ? -b : b);
}

__device__ inline std::uint8_t rounded_down(Exact v) {
  return static_cast<std::uint8_t>(static_cast<int>(fminf(fmaxf(0.0f, v.x), 255.0f)));
}

__device__ inline void philox(std::uint64_t counter, std::uint64_t key, std::uint32_t (&word)[4]) {
  std::uint32_t c0 = static_cast<std::uint32_t>(counter), c1 = static_cast<std::uint32_t>(counter >> 32), c2 = 0,
                c3 = 0;
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint32_t high0 = __umulhi(c0, 0xD2511F53u), low0 = c0 * 0xD2511F53u;
    const std::uint32_t high1 = __umulhi(c2, 0xCD9E8D57u), low1 = c2 * 0xCD9E8D57u;
    c0 = high1 ^ c1 ^ k0, c1 = low1;
    c2 = high0 ^ c3 ^ k1, c3 = low0;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

// Counters of a picture of `size` values, and the value that word k of one is.
__host__ __device__ inline std::int64_t counters_of(std::int64_t size) {
  return (size + 4 * counters - 1) / (4 * counters) * counters;
}
__device__ inline std::int64_t place_of(std::int64_t counter, int k) {
  return counter / counters * (4 * counters) + k * counters + counter % counters;
}

// Normal deviates, or numbers in [0, 1) of 24 bits: output [n][size].
template <NoiseKind KIND> __global__ void __launch_bounds__(threads) noise_draws(const Noise p) {
  in_turn();
  const std::int64_t each = counters_of(p.size), step = std::int64_t{gridDim.x} * threads;
  for (std::int64_t task = blockIdx.x * std::int64_t{threads} + threadIdx.x; task < p.n * each; task += step) {
    const std::int64_t picture = task / each, counter = task % each;
    std::uint32_t word[4];
    philox(static_cast<std::uint64_t>(counter), p.keys[picture], word);
    float value[4];
    if constexpr (KIND == NoiseKind::normal) {
      pair(word[0], word[1], value[0], value[1]);
      pair(word[2], word[3], value[2], value[3]);
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) value[k] = static_cast<float>(static_cast<int>(word[k] >> 8)) * 0x1p-24f;  // exact
    }
    float *to = reinterpret_cast<float *>(p.output) + picture * p.size;
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (const std::int64_t at = place_of(counter, k); at < p.size) to[at] = value[k];
  }
}

struct Shuffle {
  std::uint8_t *pictures;  // [n][h][w][c], in place
  const std::uint64_t *keys;
  int h, w, c, reach;
  std::int64_t rows;  // those that change, of all turns one after the other
  int columns;        // that change
};

// A block has a picture. A pixel meets at most `reach` columns of the rows that come before its own: a row follows the
// one before it `reach` + 1 pixels behind, and a step moves a pixel of each row that is under way. The next turn's rows
// follow like the picture's own.
__global__ void __launch_bounds__(threads) noise_shuffle(const Shuffle p) {
  in_turn();
  std::uint8_t *picture = p.pictures + blockIdx.x * (std::int64_t{p.h} * p.w * p.c);
  const std::uint64_t key = p.keys[blockIdx.x];
  const int behind = p.reach + 1, high = p.h - 2 * p.reach;
  const std::uint32_t span = 2 * static_cast<std::uint32_t>(p.reach);
  const auto move = [&](std::int64_t row, std::int64_t y, int column) {
    const auto drawn = static_cast<std::uint64_t>(row * p.columns + column);
    std::uint32_t words[4];
    philox(drawn / (4 * counters) * counters + drawn % counters, key, words);
    const auto which = static_cast<unsigned>(drawn / counters % 4);
    const std::uint32_t word = which < 2 ? (which ? words[1] : words[0]) : (which == 2 ? words[2] : words[3]);
    const int dx = static_cast<int>((word >> 16) * span >> 16) - p.reach;
    const int dy = static_cast<int>((word & 0xffff) * span >> 16) - p.reach;
    std::uint8_t *to = picture + (y * p.w + p.w - p.reach - column) * p.c;
    const std::uint8_t *from = to + (std::int64_t{dy} * p.w + dx) * p.c;
    for (int channel = 0; channel < p.c; ++channel) to[channel] = from[channel];
  };
  const auto line = [&](std::int64_t row) { return p.h - p.reach - row % high; };
  // The first row of this thread's that isn't done, and where its pixel is now; negative: it hasn't begun.
  std::int64_t row = threadIdx.x, y = line(row);
  int column = -behind * static_cast<int>(threadIdx.x);
  const std::int64_t steps = p.columns + behind * (p.rows - 1);
  for (std::int64_t step = 0; step < steps; ++step, ++column) {
    if (column == p.columns) row += threads, y = line(row), column -= behind * threads;
    if (column >= 0 && row < p.rows) move(row, y, column);
    for (int others = 1; column >= behind * threads * others && row + threads * others < p.rows; ++others)
      move(row + threads * others, line(row + threads * others), column - behind * threads * others);
    __syncthreads();
  }
}

template <NoiseKind KIND> __global__ void __launch_bounds__(threads) noise_pictures(const Noise p) {
  in_turn();
  const std::int64_t each = counters_of(p.size), step = std::int64_t{gridDim.x} * threads;
  for (std::int64_t task = blockIdx.x * std::int64_t{threads} + threadIdx.x; task < p.n * each; task += step) {
    const std::int64_t picture = task / each, counter = task % each;
    const std::uint8_t *from = p.input + picture * p.size;
    std::uint8_t *to = p.output + picture * p.size;
    std::uint32_t word[4];
    philox(static_cast<std::uint64_t>(counter), p.keys[picture], word);
    float normal[4] = {};
    if constexpr (KIND == NoiseKind::gaussian || KIND == NoiseKind::speckle) {
      pair(word[0], word[1], normal[0], normal[1]);
      pair(word[2], word[3], normal[2], normal[3]);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const std::int64_t at = place_of(counter, k);
      if (at >= p.size) continue;
      const std::uint8_t value = from[at];
      const Exact x{static_cast<float>(value)};
      if constexpr (KIND == NoiseKind::gaussian) {
        to[at] = rounded_down(x + Exact{normal[k]} * p.scale);
      } else if constexpr (KIND == NoiseKind::speckle) {
        to[at] = rounded_down(x + x * (Exact{normal[k]} * p.scale));
      } else if constexpr (KIND == NoiseKind::impulse) {
        to[at] = static_cast<int>(word[k] >> 1) <= p.hit ? static_cast<std::uint8_t>(word[k] & 1 ? 255 : 0) : value;
      } else {
        const ShotEntry entry = p.table[(std::int64_t{value} << p.bits) + (word[k] >> (32 - p.bits))];
        to[at] = (word[k] << p.bits) > entry.most ? entry.other : entry.own;
      }
    }
  }
}

}  // namespace

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &);
#endif
HW4FAST_CUDA_KERNEL(noise, bind);

// n pictures of `size` bytes, and a key of 64 bits for each on the device; of draws no input, and floats. table: of
// `shot` alone, on the device.
[[maybe_unused]] static void noise(int kind, std::uintptr_t input, std::uintptr_t output, std::uintptr_t keys,
                                   std::int64_t n, std::int64_t size, double strength, std::uintptr_t table, int bits,
                                   std::uintptr_t stream) {
  if (n < 0 || size < 0 || kind < 0 || kind > static_cast<int>(NoiseKind::uniform))
    throw std::invalid_argument("noise: bad request");
  if (!(strength >= 0 && strength <= 1e6)) throw std::invalid_argument("noise: the strength must lie in 0 … 1e6");
  const auto what = static_cast<NoiseKind>(kind);
  if (what == NoiseKind::shot && (!table || bits < 1 || bits > 16)) throw std::invalid_argument("noise: no table");
  if (n == 0 || size == 0) return;
  if (!(input || what >= NoiseKind::normal) || !output || !keys)
    throw std::invalid_argument("noise was given a tensor without memory");
  noise_kernel.count();
  const auto hit = static_cast<std::int32_t>(std::floor(std::min(strength, 1.0) * 0x1p31) - 1.0);
  const Noise p{pointer<std::uint8_t>(input),
                pointer<std::uint8_t>(output),
                pointer<std::uint64_t>(keys),
                n,
                size,
                what,
                static_cast<float>(strength),
                hit,
                pointer<ShotEntry>(table),
                bits};
  const std::int64_t tasks = n * counters_of(size);
  const auto blocks = std::min<std::int64_t>((tasks + threads - 1) / threads, 32 * multiprocessors());
  const Grid grid{dim3(static_cast<unsigned>(blocks)), dim3(threads), 0, stream_of(stream)};
  switch (what) {
    case NoiseKind::gaussian:
      return launch("noise", noise_pictures<NoiseKind::gaussian>, grid, p);
    case NoiseKind::speckle:
      return launch("noise", noise_pictures<NoiseKind::speckle>, grid, p);
    case NoiseKind::impulse:
      return launch("noise", noise_pictures<NoiseKind::impulse>, grid, p);
    case NoiseKind::shot:
      return launch("noise", noise_pictures<NoiseKind::shot>, grid, p);
    case NoiseKind::normal:
      return launch("noise", noise_draws<NoiseKind::normal>, grid, p);
    case NoiseKind::uniform:
      return launch("noise", noise_draws<NoiseKind::uniform>, grid, p);
  }
}

// In place, of contiguous pictures n, h, w, c; a key of 64 bits for each. All on the device.
[[maybe_unused]] static void shuffle(std::uintptr_t pictures, const std::array<std::int64_t, 4> &shape,
                                     std::int64_t reach, int turns, std::uintptr_t keys, std::uintptr_t stream) {
  const auto [n, h, w, c] = shape;
  if (n < 0 || n > INT32_MAX || std::min(h, w) < 0 || std::max(h, w) > 1 << 24 || c < 1 || c > 1024)
    throw std::invalid_argument("shuffle: bad shape");
  if (reach < 1 || reach > 16383 || turns < 0 || turns > 1000)
    throw std::invalid_argument("shuffle: bad reach or turns");
  const std::int64_t rows = turns * (h - 2 * reach), columns = w - 2 * reach;
  if (n == 0 || rows < 1 || columns < 1) return;
  if (!pictures || !keys) throw std::invalid_argument("shuffle was given a tensor without memory");
  noise_kernel.count();
  const Shuffle p{pointer<std::uint8_t>(pictures),
                  pointer<std::uint64_t>(keys),
                  static_cast<int>(h),
                  static_cast<int>(w),
                  static_cast<int>(c),
                  static_cast<int>(reach),
                  rows,
                  static_cast<int>(columns)};
  launch("shuffle", noise_shuffle, Grid{dim3(static_cast<unsigned>(n)), dim3(threads), 0, stream_of(stream)}, p);
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) {
  m.def("noise", &noise);
  m.def("shuffle", &shuffle);
}
#endif

}  // namespace hw4fast
