// softmax_xent on a GPU: each logit is read once, each gradient written once, and in between a row lies in registers.
//
// A team of threads takes a row: 4 or 32 lanes of a warp, a block, or a cluster of blocks that exchange their sums
// through each other's shared memory. Each thread holds up to 8 vectors of 16 bytes, and finds their largest z and
// Σ exp(z − largest); the team joins those pairs in one exchange ("online softmax", Milakov and Gimelshein 2018), and
// each thread writes its gradients: exp is computed twice, which is cheaper than a second read.
//
// Rows that don't start at 16 bytes are taken from the multiple of 16 before them; a vector across a row's end is read
// and written by elements. What doesn't fit (float64, logits and gradient that lie differently, rows beyond a cluster)
// goes to softmax_xent_any, which reads the logits twice.
//
// The mean needs Σ w_y before the first gradient: one block finds it itself; for several a small kernel goes before,
// whose end they await only when their first row has been read (wait_for_previous). The losses are summed by block, in
// double, and the last block adds up the blocks in order: the same bits with every call on a GPU.
#include "cuda.cuh"

#include <algorithm>
#include <limits>

namespace hw4fast {
namespace {

enum class Reduction : int { none, mean, sum };  // REDUCTIONS of hw4fast/kernels/softmax_xent.py

constexpr int max_blocks = 4096, max_weight_blocks = 64;
constexpr int items = 8;  // vectors per thread, of 4 registers each

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
  int weight_blocks;  // of the kernel that went before, 0: there was none
};

__device__ inline float exponential(float x) { return __expf(x); }
__device__ inline double exponential(double x) { return exp(x); }
template <class T> __device__ inline T minus_infinity() { return -std::numeric_limits<T>::infinity(); }

// What a row is to its loss and gradient: the largest z, Σ exp(z − largest), and for label smoothing
// Σ w·(z − largest) and Σ w.
template <class T> struct Sums {
  T largest, exps, weighted, weights;
};

template <bool SMOOTH, class T> __device__ inline Sums<T> join(const Sums<T> &a, const Sums<T> &b) {
  Sums<T> both;
  both.largest = a.largest > b.largest ? a.largest : b.largest;
  const T of_a = a.largest == both.largest ? T(1) : exponential(a.largest - both.largest);
  const T of_b = b.largest == both.largest ? T(1) : exponential(b.largest - both.largest);
  both.exps = a.exps * of_a + b.exps * of_b;
  both.weighted = both.weights = 0;
  if (SMOOTH) {
    const auto shifted = [&](const Sums<T> &s) {
      return s.weights == 0 || s.largest == both.largest ? s.weighted
                                                         : s.weighted + s.weights * (s.largest - both.largest);
    };
    both.weighted = shifted(a) + shifted(b);
    both.weights = a.weights + b.weights;
  }
  return both;
}

// Over `lanes` neighbours of a warp, all of which get it.
template <bool SMOOTH, class T> __device__ inline Sums<T> join_lanes(Sums<T> mine, int lanes) {
  for (int other = lanes / 2; other; other /= 2) {
    Sums<T> their;
    their.largest = __shfl_xor_sync(~0u, mine.largest, other);
    their.exps = __shfl_xor_sync(~0u, mine.exps, other);
    their.weighted = SMOOTH ? __shfl_xor_sync(~0u, mine.weighted, other) : T(0);
    their.weights = SMOOTH ? __shfl_xor_sync(~0u, mine.weights, other) : T(0);
    mine = join<SMOOTH>(mine, their);
  }
  return mine;
}

// Over a block, all of whose threads get it. parts: [2][32]; turn: alternates, so that one barrier is enough.
template <bool SMOOTH, class T> __device__ inline Sums<T> join_block(Sums<T> mine, Sums<T> (*parts)[32], int turn) {
  mine = join_lanes<SMOOTH>(mine, 32);
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  if (warps == 1) return mine;
  if (lane == 0) parts[turn][threadIdx.x / 32] = mine;
  __syncthreads();
  const Sums<T> none = {minus_infinity<T>(), 0, 0, 0};
  return join_lanes<SMOOTH>(lane < warps ? parts[turn][lane] : none, 32);
}

#ifndef HW4FAST_EMULATED
// Over a cluster: each block writes its sums into every block's shared memory. parts: [2][8].
template <bool SMOOTH> __device__ inline Sums<float> join_cluster(Sums<float> mine, Sums<float> (*parts)[8], int turn) {
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
  for (unsigned i = 1; i < size; ++i) all = join<SMOOTH>(all, parts[turn][i]);
  return all;
#else
  return mine;
#endif
}
#endif

// Σ over the block's threads, which thread 0 gets.
__device__ inline double sum_block(double mine) {
  __shared__ double parts[32];
  for (int other = 16; other; other /= 2) mine += __shfl_xor_sync(~0u, mine, other);
  __syncthreads();  // the call before may still read
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = mine;
  __syncthreads();
  double all = 0;
  if (threadIdx.x == 0)
    for (unsigned i = 0; i < (blockDim.x + 31) / 32; ++i) all += parts[i];
  return all;
}

template <class S> __device__ inline bool is_class(const SoftmaxXent<S> &p, std::int64_t y) {
  return static_cast<std::uint64_t>(y) < static_cast<std::uint64_t>(p.classes);
}
// w_y; NaN for what is no class, which makes the loss NaN: a kernel can't raise an IndexError.
template <class S> __device__ inline typename SoftmaxXent<S>::T weight_of(const SoftmaxXent<S> &p, std::int64_t y) {
  using T = typename SoftmaxXent<S>::T;
  if (!is_class(p, y)) return std::numeric_limits<T>::quiet_NaN();
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
  let_next_begin();
  const double sum =
      sum_block(p.reduction == Reduction::mean ? weights_of(p, blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x,
                                                            std::int64_t{gridDim.x} * blockDim.x)
                                               : 0.0);
  if (threadIdx.x) return;
  p.scratch->weights[blockIdx.x] = sum;
  if (blockIdx.x == 0) p.scratch->done = 0;
}

// Σ w_y, to all threads of a block; once per kernel.
template <class S> __device__ inline double divisor_of(const SoftmaxXent<S> &p) {
  __shared__ double divisor;
  double mine = 0;
  if (p.weight_blocks) {
    wait_for_previous();
    if (static_cast<int>(threadIdx.x) < p.weight_blocks) mine = __ldcg(&p.scratch->weights[threadIdx.x]);
  } else if (p.reduction == Reduction::mean) {
    mine = weights_of(p, threadIdx.x, blockDim.x);
  }
  mine = sum_block(mine);
  if (threadIdx.x == 0) divisor = mine;
  __syncthreads();
  return p.reduction == Reduction::mean ? divisor : 1.0;
}

template <class S> __device__ inline S stored(typename SoftmaxXent<S>::T value) {
  if constexpr (std::is_same_v<S, double>)
    return value;
  else
    return narrow<S>(value);
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
  if (threadIdx.x == 0) *p.loss = stored<S>(static_cast<T>(mine / divisor));
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

template <class S> __device__ inline typename SoftmaxXent<S>::T loss_of(const SoftmaxXent<S> &p,
                                                                        const Sums<typename SoftmaxXent<S>::T> &row,
                                                                        std::int64_t y,
                                                                        typename SoftmaxXent<S>::T logit) {
  using T = typename SoftmaxXent<S>::T;
  const T log_sum = log(row.exps), w = weight_of(p, y);
  T loss = -(1 - p.smoothing) * w * (p.scale * logit - row.largest - log_sum);
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

template <class S> __device__ inline uint4 pack(const float (&x)[lanes_in<S>]) {
  uint4 raw;
  S each[lanes_in<S>];
#pragma unroll
  for (int i = 0; i < lanes_in<S>; ++i) each[i] = narrow<S>(x[i]);
  memcpy(&raw, each, 16);
  return raw;
}

// LANES: of a warp for a row, 0: a block; ITEMS: vectors per thread; CLUSTER: several blocks for a row.
template <class S, int LANES, int ITEMS, bool SMOOTH, bool CLUSTER> __global__ void __launch_bounds__(1024)
    softmax_xent_rows(const SoftmaxXent<S> p) {
  using T = float;
  constexpr int V = lanes_in<S>;
  __shared__ Sums<T> parts[2][32];
#ifndef HW4FAST_EMULATED
  __shared__ Sums<T> cluster_parts[2][8];
#endif
  int lane = threadIdx.x % (LANES ? LANES : 1024), team = blockDim.x;
  std::int64_t row = blockIdx.x, step = gridDim.x;
  if (LANES) {
    team = LANES;
    row = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / LANES;
    step = std::int64_t{gridDim.x} * blockDim.x / LANES;
  }
#ifndef HW4FAST_EMULATED
  if (CLUSTER) {
    unsigned rank = 0, size = 1;
#if __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
#endif
    const int blocks = static_cast<int>(size);
    lane += static_cast<int>(rank * blockDim.x), team *= blocks;
    row /= blocks, step /= blocks;
  }
#endif
  const int classes = static_cast<int>(p.classes);
  const T other_end = p.scale < 0 ? -minus_infinity<T>() : minus_infinity<T>();  // z = −∞ where there is no class
  double divisor = 0, losses = 0;
  bool has_divisor = false;
  int turn = 0;
  // a warp's rows begin with its first: its lanes stay together for the shuffles
  for (std::int64_t first = LANES ? row - threadIdx.x % 32 / LANES : row; first < p.rows;
       first += step, row += step, turn ^= 1) {
    const bool is_row = row < p.rows;
    const S *x = p.logits + (is_row ? row : 0) * p.row_stride;
    const int before = static_cast<int>((reinterpret_cast<std::uintptr_t>(x) & 15) / sizeof(S));
    uint4 raw[ITEMS];
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
      const int j = (lane + k * team) * V - before;
      if (is_row && j >= 0 && j + V <= classes) {
        raw[k] = __ldcs(reinterpret_cast<const uint4 *>(x + j));
      } else {
        S each[V];
#pragma unroll
        for (int i = 0; i < V; ++i) each[i] = is_row && j + i >= 0 && j + i < classes ? x[j + i] : narrow<S>(other_end);
        memcpy(&raw[k], each, 16);
      }
    }
    const std::int64_t y = is_row ? p.target[row] : p.ignore_index;
    const bool counts = y != p.ignore_index;
    const bool is_first = lane == 0 && counts;
    const T logit = is_first && is_class(p, y) ? widen(x[y]) : T(0);
    if (!has_divisor) {  // now that the first rows are on their way
      divisor = divisor_of(p);
      has_divisor = true;
    }

    Sums<T> row_sums = {minus_infinity<T>(), 0, 0, 0};
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
      T z[V];
      unpack<S>(raw[k], z);
#pragma unroll
      for (int i = 0; i < V; ++i) row_sums.largest = fmaxf(row_sums.largest, z[i] * p.scale);
    }
    const T from = row_sums.largest == minus_infinity<T>() ? T(0) : row_sums.largest;
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
      T z[V];
      unpack<S>(raw[k], z);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const T distance = z[i] * p.scale - from;
        row_sums.exps += exponential(distance);
        if (SMOOTH) {
          const int j = (lane + k * team) * V - before + i;
          const T w = j < 0 || j >= classes ? T(0) : p.weight ? widen(p.weight[j]) : T(1);
          row_sums.weights += w;
          if (w != 0) row_sums.weighted += w * distance;
        }
      }
    }
    if (LANES) {
      row_sums = join_lanes<SMOOTH>(row_sums, LANES);
    } else {
      row_sums = join_block<SMOOTH>(row_sums, parts, turn);
#ifndef HW4FAST_EMULATED
      if constexpr (CLUSTER) row_sums = join_cluster<SMOOTH>(row_sums, cluster_parts, turn);
#endif
    }

    if (is_first) {
      const T loss = loss_of(p, row_sums, y, logit);
      losses += loss;
      if (p.reduction == Reduction::none) p.loss[row] = narrow<S>(loss);
    } else if (lane == 0 && is_row && p.reduction == Reduction::none) {
      p.loss[row] = narrow<S>(0);
    }
    if (!p.grad || !is_row) continue;
    Factors<T> f = {0, 0, 0, 0};
    if (counts) f = factors_of(p, row_sums, y, static_cast<T>(1 / divisor));
    S *g = p.grad + row * p.classes;
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
      const int j = (lane + k * team) * V - before;
      if (j + V <= 0 || j >= classes) continue;
      T z[V];
      unpack<S>(raw[k], z);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        z[i] = f.factor * exponential(z[i] * p.scale - f.largest);
        if (SMOOTH) {
          const int at = j + i;
          z[i] -= f.spread * (at < 0 || at >= classes ? T(0) : p.weight ? widen(p.weight[at]) : T(1));
        }
        if (j + i == y) z[i] -= f.hit;
        if (!counts) z[i] = 0;  // not 0·NaN
      }
      const uint4 packed = pack<S>(z);
      if (j >= 0 && j + V <= classes) {
        __stcs(reinterpret_cast<uint4 *>(g + j), packed);
      } else {
        S each[V];
        memcpy(each, &packed, 16);
#pragma unroll
        for (int i = 0; i < V; ++i)
          if (j + i >= 0 && j + i < classes) g[j + i] = each[i];
      }
    }
  }
  if (!has_divisor) divisor = divisor_of(p);  // a block without a row must come to finish as well
#ifndef HW4FAST_EMULATED
#if __CUDA_ARCH__ >= 900
  if (CLUSTER)  // no block may end while another one writes into its memory
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
#endif
  if (p.reduction != Reduction::none) finish(p, losses, divisor);
}

// Any dtype, any rows: a block takes a row, reads it, and reads it again.
template <class S, bool SMOOTH> __global__ void __launch_bounds__(1024) softmax_xent_any(const SoftmaxXent<S> p) {
  using T = typename SoftmaxXent<S>::T;
  __shared__ Sums<T> parts[2][32];
  const double divisor = divisor_of(p);
  double losses = 0;
  int turn = 0;
  for (std::int64_t row = blockIdx.x; row < p.rows; row += gridDim.x, turn ^= 1) {
    const S *x = p.logits + row * p.row_stride;
    const std::int64_t y = p.target[row];
    const bool counts = y != p.ignore_index;
    Sums<T> sums = {minus_infinity<T>(), 0, 0, 0};
    for (std::int64_t j = threadIdx.x; j < p.classes; j += blockDim.x) {
      const T z = p.scale * T(widen(x[j]));
      const T w = !SMOOTH ? T(0) : p.weight ? T(widen(p.weight[j])) : T(1);
      if (z > sums.largest) {
        const T shift = sums.largest == minus_infinity<T>() ? T(0) : sums.largest - z;
        sums.exps = sums.largest == minus_infinity<T>() ? sums.exps : sums.exps * exponential(shift);
        if (SMOOTH && sums.weights != 0) sums.weighted += sums.weights * (sums.largest - z);
        sums.largest = z;
      }
      const T distance = z - (sums.largest == minus_infinity<T>() ? T(0) : sums.largest);
      sums.exps += exponential(distance);
      sums.weights += w;
      if (SMOOTH && w != 0) sums.weighted += w * distance;
    }
    sums = join_block<SMOOTH>(sums, parts, turn);
    if (threadIdx.x == 0) {
      const T loss = counts ? loss_of(p, sums, y, is_class(p, y) ? T(widen(x[y])) : T(0)) : T(0);
      losses += loss;
      if (p.reduction == Reduction::none) p.loss[row] = stored<S>(loss);
    }
    if (!p.grad) continue;
    Factors<T> f = {0, 0, 0, 0};
    if (counts) f = factors_of(p, sums, y, static_cast<T>(1 / divisor));
    S *g = p.grad + row * p.classes;
    for (std::int64_t j = threadIdx.x; j < p.classes; j += blockDim.x) {
      T value = f.factor * exponential(p.scale * T(widen(x[j])) - f.largest);
      if (SMOOTH) value -= f.spread * (p.weight ? T(widen(p.weight[j])) : T(1));
      if (j == y) value -= f.hit;
      g[j] = stored<S>(counts ? value : T(0));
    }
  }
  if (p.reduction != Reduction::none) finish(p, losses, divisor);
}

void softmax_xent(int, std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t,
                  std::int64_t, std::int64_t, std::int64_t, double, double, std::int64_t, int, std::uintptr_t);

constexpr const char *name = "softmax_xent";

template <class S, bool SMOOTH> void run(SoftmaxXent<S> p, cudaStream_t stream) {
  constexpr std::int64_t V = lanes_in<S>;
  const std::int64_t size = sizeof(S);
  const auto address = [](const void *pointer) { return reinterpret_cast<std::uintptr_t>(pointer); };
  const bool lies_alike =
      !p.grad || (((address(p.logits) ^ address(p.grad)) & 15) == 0 && (p.row_stride - p.classes) * size % 16 == 0);
  const std::int64_t vectors = (p.classes + V - 1) / V + 1;  // the most that a row touches
  const int sms = multiprocessors();
  const bool has_clusters = compute_capability() >= 90;
  constexpr std::int64_t in_block = 1024 * items;
  bool in_registers = lies_alike && p.scale != 0 && vectors <= (has_clusters ? 8 : 1) * in_block;
  if (std::is_same_v<S, double>) in_registers = false;

  // the shape of the grid: threads of a block, blocks; some 1,024 threads of 64 registers fit on a multiprocessor
  int lanes = 0, threads = 1024;
  unsigned cluster = 1;
  std::int64_t blocks = p.rows;
  if (in_registers && vectors <= 32 * items) {
    lanes = vectors <= 4 * 4 ? 4 : 32;
    const std::int64_t all = p.rows * lanes;  // one block as long as each thread has few rows: no second kernel
    threads = all <= 1024 ? static_cast<int>(std::max<std::int64_t>(32, (all + 31) / 32 * 32)) : 512;
    blocks = all <= 2048 ? 1 : (all + threads - 1) / threads;
  } else if (in_registers) {
    while (vectors > cluster * (cluster < 8 ? 512 : 1024) * items) cluster *= 2;
    if (vectors <= in_block) cluster = 1;
    if (!has_clusters || cluster == 1) {
      cluster = 1;
      threads = static_cast<int>((vectors + items * 32 - 1) / (items * 32) * 32);
    } else {
      threads = vectors <= cluster * 512 * items ? 512 : 1024;
    }
    blocks *= cluster;
  }
  const std::int64_t fit = std::min<std::int64_t>(std::int64_t{sms} * std::max(1, 1024 / threads), max_blocks);
  blocks = std::max<std::int64_t>(1, std::min(blocks, fit / cluster * cluster));

  p.weight_blocks = 0;
  if (blocks > 1 && p.reduction != Reduction::none) {
    p.weight_blocks = static_cast<int>(
        p.reduction == Reduction::mean ? std::min<std::int64_t>(max_weight_blocks, (p.rows + 4095) / 4096) : 1);
    launch(name, softmax_xent_weights<S>, Grid{dim3(p.weight_blocks), dim3(1024), 0, stream}, p);
  }
  const Grid grid{dim3(static_cast<unsigned>(blocks)), dim3(threads), 0, stream, cluster, p.weight_blocks > 0};
  if constexpr (!std::is_same_v<S, double>) {
    if (in_registers && lanes == 4) return launch(name, softmax_xent_rows<S, 4, 4, SMOOTH, false>, grid, p);
    if (in_registers && lanes == 32 && vectors <= 64)
      return launch(name, softmax_xent_rows<S, 32, 2, SMOOTH, false>, grid, p);
    if (in_registers && lanes == 32) return launch(name, softmax_xent_rows<S, 32, items, SMOOTH, false>, grid, p);
    if (in_registers && cluster == 1) return launch(name, softmax_xent_rows<S, 0, items, SMOOTH, false>, grid, p);
    if (in_registers) return launch(name, softmax_xent_rows<S, 0, items, SMOOTH, true>, grid, p);
  }
  launch(name, softmax_xent_any<S, SMOOTH>, grid, p);
}

#ifndef __CUDA_ARCH__
void bind(pybind11::module_ &m) {
  m.def("softmax_xent", &softmax_xent);
  m.attr("softmax_xent_scratch") = sizeof(Scratch);
}
#endif
}  // namespace

#ifdef __CUDA_ARCH__
namespace {
void bind(pybind11::module_ &);
}
#endif
HW4FAST_CUDA_KERNEL(softmax_xent, bind);

namespace {
void softmax_xent(int dtype, std::uintptr_t logits, std::uintptr_t target, std::uintptr_t weight, std::uintptr_t loss,
                  std::uintptr_t grad, std::uintptr_t scratch, std::int64_t rows, std::int64_t classes,
                  std::int64_t row_stride, double scale, double label_smoothing, std::int64_t ignore_index,
                  int reduction, std::uintptr_t stream) {
  if (rows < 0 || classes < 0 || (rows > 0 && classes < 1))
    throw std::invalid_argument("softmax_xent needs at least one class");
  if (!loss || !scratch || (rows > 0 && !(logits && target)))
    throw std::invalid_argument("softmax_xent was given a tensor without memory");
  softmax_xent_kernel.count();
  const auto stored_as = [&](auto zero) {
    using S = decltype(zero);
    using T = typename SoftmaxXent<S>::T;
    const SoftmaxXent<S> p{pointer<S>(logits),
                           pointer<std::int64_t>(target),
                           pointer<S>(weight),
                           pointer<S>(loss),
                           pointer<S>(grad),
                           pointer<Scratch>(scratch),
                           rows,
                           classes,
                           row_stride,
                           ignore_index,
                           static_cast<T>(scale),
                           static_cast<T>(label_smoothing),
                           static_cast<Reduction>(reduction),
                           0};
    if (label_smoothing == 0) return run<S, false>(p, stream_of(stream));
    return run<S, true>(p, stream_of(stream));
  };
  switch (static_cast<Dtype>(dtype)) {
    case Dtype::float32:
      return stored_as(0.0f);
    case Dtype::float64:
      return stored_as(0.0);
    case Dtype::bfloat16:
      return stored_as(__nv_bfloat16{});
    case Dtype::float16:
      return stored_as(__half{});
    default:
      throw std::invalid_argument("softmax_xent knows no dtype " + std::to_string(dtype));
  }
}
}  // namespace
}  // namespace hw4fast
