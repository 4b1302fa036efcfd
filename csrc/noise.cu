// noise on a GPU: pictures with noise from counters (csrc/noise.inl has the formulas), the CPU's very bytes.
//
// A thread turns one counter into its four words, which are four values of a picture, 16 apart: 16 counters, 64 values,
// are a block of the CPU's. Floats are rounded after each operation, as there: a product and a sum are never fused.
#include "cuda.cuh"

#include <algorithm>
#include <cmath>

namespace hw4fast {
namespace {

constexpr int threads = 256, counters = 16;
enum class NoiseKind : int { gaussian = 0, speckle = 1, impulse = 2, shot = 3 };  // as hw4fast.kernels.noise.KINDS

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

template <NoiseKind KIND> __global__ void __launch_bounds__(threads) noise_pictures(const Noise p) {
  in_turn();
  const std::int64_t each = (p.size + 4 * counters - 1) / (4 * counters) * counters;  // counters of a picture
  const std::int64_t step = std::int64_t{gridDim.x} * threads;
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
      const std::int64_t at = counter / counters * (4 * counters) + k * counters + counter % counters;
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

// n pictures of `size` bytes, and a key of 64 bits for each on the device. table: of `shot` alone, on the device.
[[maybe_unused]] static void noise(int kind, std::uintptr_t input, std::uintptr_t output, std::uintptr_t keys,
                                   std::int64_t n, std::int64_t size, double strength, std::uintptr_t table, int bits,
                                   std::uintptr_t stream) {
  if (n < 0 || size < 0 || kind < 0 || kind > static_cast<int>(NoiseKind::shot))
    throw std::invalid_argument("noise: bad request");
  if (!(strength >= 0 && strength <= 1e6)) throw std::invalid_argument("noise: the strength must lie in 0 … 1e6");
  const auto what = static_cast<NoiseKind>(kind);
  if (what == NoiseKind::shot && (!table || bits < 1 || bits > 16)) throw std::invalid_argument("noise: no table");
  if (n == 0 || size == 0) return;
  if (!input || !output || !keys) throw std::invalid_argument("noise was given a tensor without memory");
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
  const std::int64_t tasks = n * ((size + 4 * counters - 1) / (4 * counters) * counters);
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
  }
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) { m.def("noise", &noise); }
#endif

}  // namespace hw4fast
