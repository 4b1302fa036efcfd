// What softmax_xent.cu's kernels are made of: a row's sums and how threads join them, the divisor of the mean, and what
// loss and gradients follow.
#pragma once

#include "losses.cuh"

#include <cmath>
#include <cstring>
#include <type_traits>

namespace hw4fast {
namespace {

constexpr int max_blocks = 4096, max_weight_blocks = 64;
constexpr int few_items = 4, items = 8;  // vectors per thread, of 4 registers each

struct Scratch {
  double weights[max_weight_blocks];  // parts of Σ w_y
  unsigned done;                      // blocks that have written their sum
  double losses[max_blocks];
};

template <class S> struct SoftmaxXent {
  using T = std::conditional_t<std::is_same_v<S, double>, double, float>;
  const S *logits;             // [rows, classes], rows row_stride elements apart
  const std::int64_t *target;  // [rows]
  const S *weight;             // [classes] or null: all ones
  S *loss;                     // [rows] for no reduction, else [1]
  S *grad;                     // [rows, classes], contiguous, or null: not wanted
  Scratch *scratch;
  std::int64_t rows, classes, row_stride, ignore_index;
  T scale, smoothing;
  Reduction reduction;
  unsigned nothing;   // 0
  int weight_blocks;  // of the kernel that went before, 0: there was none
};

__device__ inline float exponential(float x) { return __expf(x); }
// 2^x by the hardware's own instruction, whose relative error is below 2⁻²²; 0 below 2⁻¹²⁶.
__device__ inline float power_of_two(float x) {
#ifdef HW4FAST_EMULATED
  return exp2(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}
__device__ inline double exponential(double x) { return exp(x); }
template <class T> __device__ inline T minus_infinity() { return T(-INFINITY); }

// What a row is to its loss and gradient: its largest logit, Σ exp(scale·(logit − largest)), and for label smoothing
// Σ w·scale·(logit − largest) and Σ w. Logits are subtracted before they are scaled: large ones lose nothing.
template <class T> struct alignas(4 * sizeof(T)) Sums {  // one store into another block's memory
  T largest, exps, weighted, weights;
};

template <bool SMOOTH, class T> __device__ inline Sums<T> join(const Sums<T> &a, const Sums<T> &b, T scale) {
  Sums<T> both;
  both.largest = a.largest > b.largest ? a.largest : b.largest;
  const auto below = [&](const Sums<T> &s) {
    return s.largest == both.largest ? T(0) : scale * (s.largest - both.largest);
  };
  both.exps = a.exps * exponential(below(a)) + b.exps * exponential(below(b));
  both.weighted = both.weights = 0;
  if (SMOOTH) {
    const auto shifted = [&](const Sums<T> &s) {
      return s.weights == 0 ? s.weighted : s.weighted + s.weights * below(s);
    };
    both.weighted = shifted(a) + shifted(b);
    both.weights = a.weights + b.weights;
  }
  return both;
}

// Over `lanes` neighbours of a warp, all of which get it.
template <bool SMOOTH, class T> __device__ inline Sums<T> join_lanes(Sums<T> mine, int lanes, T scale) {
  for (int other = lanes / 2; other; other /= 2) {
    Sums<T> their;
    their.largest = __shfl_xor_sync(~0u, mine.largest, other);
    their.exps = __shfl_xor_sync(~0u, mine.exps, other);
    their.weighted = SMOOTH ? __shfl_xor_sync(~0u, mine.weighted, other) : T(0);
    their.weights = SMOOTH ? __shfl_xor_sync(~0u, mine.weights, other) : T(0);
    mine = join<SMOOTH>(mine, their, scale);
  }
  return mine;
}

// Over a block, all of whose threads get it. parts: [2][32]; turn: alternates, so that one barrier is enough.
template <bool SMOOTH, class T>
__device__ inline Sums<T> join_block(Sums<T> mine, Sums<T> (*parts)[32], int turn, T scale) {
  mine = join_lanes<SMOOTH>(mine, 32, scale);
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  if (warps == 1) return mine;
  if (lane == 0) parts[turn][threadIdx.x / 32] = mine;
  __syncthreads();
  const Sums<T> none = {minus_infinity<T>(), 0, 0, 0};
  return join_lanes<SMOOTH>(lane < warps ? parts[turn][lane] : none, 32, scale);
}

#ifndef HW4FAST_EMULATED
// Over a cluster: each block writes its sums into every block's shared memory. parts: [2][8].
template <bool SMOOTH>
__device__ inline Sums<float> join_cluster(Sums<float> mine, Sums<float> (*parts)[8], int turn, float scale) {
#if __CUDA_ARCH__ >= 900
  unsigned rank, size;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  if (threadIdx.x < size) {
    const unsigned here = static_cast<unsigned>(__cvta_generic_to_shared(&parts[turn][rank]));
    unsigned there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(threadIdx.x));
    asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(there), "f"(mine.largest), "f"(mine.exps),
                 "f"(mine.weighted), "f"(mine.weights)
                 : "memory");
  }
  asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
  Sums<float> all = parts[turn][0];
  for (unsigned i = 1; i < size; ++i) all = join<SMOOTH>(all, parts[turn][i], scale);
  return all;
#else
  return mine;
#endif
}
#endif

template <class S> __device__ inline bool is_class(const SoftmaxXent<S> &p, std::int64_t y) {
  return static_cast<std::uint64_t>(y) < static_cast<std::uint64_t>(p.classes);
}
// w_y; NaN for what is no class, which makes the loss NaN: a kernel can't raise an IndexError.
template <class S> __device__ inline typename SoftmaxXent<S>::T weight_of(const SoftmaxXent<S> &p, std::int64_t y) {
  using T = typename SoftmaxXent<S>::T;
  if (!is_class(p, y)) return T(NAN);
  return p.weight ? T(widen(p.weight[y])) : T(1);
}

// Part of Σ w_y over the rows that count: rows first, first + step, …
template <class S> __device__ inline double weights_of(const SoftmaxXent<S> &p, std::int64_t first, std::int64_t step) {
  double sum = 0;
  for (std::int64_t i = first; i < p.rows; i += step)
    if (p.target[i] != p.ignore_index) sum += weight_of(p, p.target[i]);
  return sum;
}

template <class S> __global__ void __launch_bounds__(1024) softmax_xent_weights(const SoftmaxXent<S> p) {
  in_turn();
  let_next_begin();
  const double sum =
      sum_block(p.reduction == Reduction::mean ? weights_of(p, blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x,
                                                            std::int64_t{gridDim.x} * blockDim.x)
                                               : 0.0);
  if (threadIdx.x) return;
  p.scratch->weights[blockIdx.x] = sum;
  if (blockIdx.x == 0) p.scratch->done = 0;
}

// Σ w_y into shared memory, where all threads of the block may read it then; once per kernel. (There, for registers are
// what the rows need.)
template <class S> __device__ inline void find_divisor(const SoftmaxXent<S> &p, double &divisor) {
  double mine = 0;
  if (p.weight_blocks) {
    in_turn();
    if (static_cast<int>(threadIdx.x) < p.weight_blocks) mine = __ldcg(&p.scratch->weights[threadIdx.x]);
  } else if (p.reduction == Reduction::mean && !p.weight) {  // rows that count, by a barrier of few rounds
    int counted = 0, wrong = 0;
    for (std::int64_t first = 0; first < p.rows; first += blockDim.x) {
      const std::int64_t i = first + threadIdx.x, y = i < p.rows ? p.target[i] : p.ignore_index;
      counted += __syncthreads_count(y != p.ignore_index);
      wrong |= y != p.ignore_index && !is_class(p, y);
    }
    if (__syncthreads_or(wrong)) counted = -1;
    if (threadIdx.x == 0) divisor = counted < 0 ? static_cast<double>(NAN) : counted;
    __syncthreads();
    return;
  } else if (p.reduction == Reduction::mean) {
    mine = weights_of(p, threadIdx.x, blockDim.x);
  }
  mine = sum_block(mine);
  if (threadIdx.x == 0) divisor = p.reduction == Reduction::mean ? mine : 1.0;
  __syncthreads();
}

// All blocks' losses into one; `mine`: this thread's.
template <class S> __device__ inline void finish(const SoftmaxXent<S> &p, double mine, double divisor) {
  using T = typename SoftmaxXent<S>::T;
  __shared__ bool is_last;
  mine = sum_block(mine);
  if (gridDim.x > 1) {
    if (threadIdx.x == 0) {
      p.scratch->losses[blockIdx.x] = mine;
      __threadfence();
      is_last = atomicAdd(&p.scratch->done, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    mine = 0;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += blockDim.x) mine += __ldcg(&p.scratch->losses[i]);
    mine = sum_block(mine);
  }
  if (threadIdx.x == 0) *p.loss = stored<S>(static_cast<T>(mine) / static_cast<T>(divisor));
}

// What a row's gradients are made of: factor·exp(z − largest) − spread·w_j, and − hit for its class.
template <class T> struct Factors {
  T largest, factor, spread, hit;
};

template <class S>
__device__ inline Factors<typename SoftmaxXent<S>::T> factors_of(const SoftmaxXent<S> &p,
                                                                 const Sums<typename SoftmaxXent<S>::T> &row,
                                                                 std::int64_t y, typename SoftmaxXent<S>::T per_row) {
  using T = typename SoftmaxXent<S>::T;
  const T share = (1 - p.smoothing) * weight_of(p, y), each = p.smoothing / static_cast<T>(p.classes);
  const T step = p.scale * per_row;
  return {row.largest, step * (share + each * row.weights) / row.exps, step * each, step * share};
}

// distance: of the row's own z from the largest.
template <class S> __device__ inline typename SoftmaxXent<S>::T loss_of(const SoftmaxXent<S> &p,
                                                                        const Sums<typename SoftmaxXent<S>::T> &row,
                                                                        std::int64_t y,
                                                                        typename SoftmaxXent<S>::T distance) {
  using T = typename SoftmaxXent<S>::T;
  const T log_sum = log(row.exps), w = weight_of(p, y);
  T loss = -(1 - p.smoothing) * w * (distance - log_sum);
  if (w == 0 || p.smoothing == 1) loss = 0;  // not 0·∞
  if (p.smoothing != 0) loss -= p.smoothing / static_cast<T>(p.classes) * (row.weighted - row.weights * log_sum);
  return w == w ? loss : w;
}

template <class S> constexpr int lanes_in = 16 / sizeof(S);  // elements of a vector

template <class S> __device__ inline void unpack(const uint4 &raw, float (&x)[lanes_in<S>]) {
  const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (std::is_same_v<S, float>) {
      x[i] = __uint_as_float(words[i]);
    } else if constexpr (std::is_same_v<S, __nv_bfloat16>) {
      x[2 * i] = __uint_as_float(words[i] << 16), x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    } else {
      __half low, high;
      const unsigned short bits[2] = {static_cast<unsigned short>(words[i]),
                                      static_cast<unsigned short>(words[i] >> 16)};
      memcpy(&low, &bits[0], 2), memcpy(&high, &bits[1], 2);
      x[2 * i] = __half2float(low), x[2 * i + 1] = __half2float(high);
    }
  }
}

// The same numbers, which the compiler takes for new ones: it would keep every z of one loop for the next, and has not
// the registers. nothing: 0, but only at run time.
__device__ inline void forget(uint4 &raw, unsigned nothing) {
  raw.x ^= nothing, raw.y ^= nothing, raw.z ^= nothing, raw.w ^= nothing;
}

template <class S> __device__ inline uint4 repeated(float x) {
  const S value = narrow<S>(x);
  unsigned short half;
  if constexpr (sizeof(S) == 4) {
    const unsigned word = __float_as_uint(x);
    return {word, word, word, word};
  } else {
    memcpy(&half, &value, 2);
    const unsigned word = half * 0x10001u;
    return {word, word, word, word};
  }
}

template <class S> __device__ inline uint4 pack(const float (&x)[lanes_in<S>]) {
  uint4 raw;
  S each[lanes_in<S>];
#pragma unroll
  for (int i = 0; i < lanes_in<S>; ++i) each[i] = narrow<S>(x[i]);
  memcpy(&raw, each, 16);
  return raw;
}

}  // namespace
}  // namespace hw4fast
