// softmax_xent's kernels for rows that lie in registers, by teams of threads: softmax_xent.cu tells how.
#pragma once

#include "mbarrier.cuh"
#include "softmax_xent.cuh"

#include <cmath>

namespace hw4fast {
namespace {

constexpr int most_threads(int lanes) { return lanes == 32 ? 256 : 512; }  // of a block
// Blocks that are to fit on a multiprocessor: by them the compiler counts out registers. After Hopper it needs more.
constexpr int blocks_that_fit(int lanes) { return lanes == 32 ? 3 : 2; }
constexpr int blocks_at_least([[maybe_unused]] int lanes) {
#if __CUDA_ARCH__ >= 1000
  return 1;
#else
  return blocks_that_fit(lanes);
#endif
}

// What of a row a block takes: `head` elements lie before the first multiple of 16 bytes, then come whole vectors, of
// which `mine` from `first` on are the block's; without a cluster all are.
struct Extent {
  int head, vectors, first, mine;
};
template <class S> __device__ inline Extent extent_of(const S *x, int classes, int team, int rank, int size) {
  constexpr int V = lanes_in<S>;
  Extent e;
  e.head = min(static_cast<int>(-reinterpret_cast<std::intptr_t>(x) & 15) / static_cast<int>(sizeof(S)), classes);
  e.vectors = (classes - e.head) / V;
  e.first = 0, e.mine = e.vectors;
  if (size > 1) {
    const int each = (e.vectors + size * team - 1) / (size * team) * team;
    e.first = min(rank * each, e.vectors), e.mine = min(each, e.vectors - e.first);
  }
  return e;
}

// LANES: of a warp for a row, 0: a block; ITEMS: vectors per thread; CLUSTER: several blocks for a row; AHEAD: the next
// row is copied while this one is computed. ITEMS · 16 bytes of shared memory per thread then.
template <class S, int LANES, int ITEMS, bool SMOOTH, bool CLUSTER, bool AHEAD>
__global__ void __launch_bounds__(most_threads(LANES), blocks_at_least(LANES))
    softmax_xent_rows(const SoftmaxXent<S> p) {
#ifdef __CUDA_ARCH__
  if constexpr (LANES != 4 && AHEAD != (__CUDA_ARCH__ >= 900)) return;  // never launched
#endif
  if (!p.weight_blocks) in_turn();  // else: what softmax_xent_weights has waited for is there
  constexpr int V = lanes_in<S>;
  constexpr int E = LANES == 4 ? (2 * V - 2 + 3) / 4 : 1;  // elements outside of whole vectors, per thread
  __shared__ Sums<float> parts[2][32];
#ifndef HW4FAST_EMULATED
  __shared__ Sums<float> cluster_parts[2][8];
#endif
  const int lane = threadIdx.x % (LANES ? LANES : 1024), team = LANES ? LANES : blockDim.x;
  int rank = 0, size = 1;  // of the block in its cluster
  std::int64_t row = blockIdx.x, step = gridDim.x;
  if (LANES) {
    row = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / team;
    step = std::int64_t{gridDim.x} * blockDim.x / team;
  }
#if __CUDA_ARCH__ >= 900
  if (CLUSTER) {
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    row /= size, step /= size;
  }
#endif
  const int classes = static_cast<int>(p.classes);
#ifdef HW4FAST_MBARRIER
  __shared__ std::uint64_t barriers[LANES ? 8 : 1];  // of each team: its row has come
  HW4FAST_SHARED(ahead);
  const int which = LANES ? threadIdx.x / team : 0;
  uint4 *next = reinterpret_cast<uint4 *>(ahead) + which * ITEMS * team;
  const Shared arrived = shared_address(&barriers[which]);
  const auto ask = [&](std::int64_t of) {
    const S *x = p.logits + of * p.row_stride;
    const Extent e = extent_of(x, classes, team, rank, size);
    const unsigned bytes = static_cast<unsigned>(e.mine) * 16;
    barrier_expect(arrived, bytes);
    if (bytes) bulk_copy(next, x + e.head + e.first * V, bytes, arrived);
  };
  if (AHEAD && lane == 0) {
    barrier_init(arrived, 1);
    fence_proxy_async();
    if (row < p.rows) ask(row);
  }
  if (AHEAD && LANES) __syncwarp();
  if (AHEAD && !LANES) __syncthreads();
#endif
#if __CUDA_ARCH__ >= 900
  if (CLUSTER)  // no block may write into another one's memory before that has begun
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
  constexpr float outside = -INFINITY;                // where there is no class
  const float power = p.scale * 1.4426950408889634f;  // exp(scale·d) = 2^(power·d)
  __shared__ double divisor;
  double losses = 0;
  float per_row = 0;  // 1 / divisor
  int turns = 0;
  std::int64_t next_y = row < p.rows ? p.target[row] : p.ignore_index;
  // a warp's rows begin with its first: its lanes stay together for the shuffles
  for (std::int64_t begin = LANES ? row - threadIdx.x % 32 / team : row; begin < p.rows;
       begin += step, row += step, ++turns) {
    const int turn = turns & 1;
    const bool is_row = row < p.rows;
    const S *x = p.logits + (is_row ? row : 0) * p.row_stride;
    const Extent e = extent_of(x, is_row ? classes : 0, team, rank, size);
    const int head = e.head, vectors = e.vectors, first = e.first, mine = e.mine;
    const int edges = is_row && rank == 0 ? classes - vectors * V : 0;  // elements outside of whole vectors
    const auto edge_at = [&](int i) { return i < head ? i : i + vectors * V; };
    const std::int64_t y = next_y;  // asked for a row ago: x[y] waits for it
    const bool counts = y != p.ignore_index;
    const float logit = counts && is_class(p, y) ? widen(x[y]) : 0.0f;
    next_y = row + step < p.rows ? p.target[row + step] : p.ignore_index;
    uint4 raw[ITEMS];
#ifdef HW4FAST_MBARRIER
    if constexpr (AHEAD) {
      barrier_wait(arrived, static_cast<unsigned>(turn));
#pragma unroll
      for (int k = 0; k < ITEMS; ++k) raw[k] = lane + k * team < mine ? next[lane + k * team] : repeated<S>(outside);
      if (LANES)  // all have it: its place is free
        __syncwarp();
      else
        __syncthreads();
      if (lane == 0 && row + step < p.rows) ask(row + step);
    }
#endif
    if constexpr (!AHEAD) {
#pragma unroll
      for (int k = 0; k < ITEMS; ++k) {
        const int v = lane + k * team;
        raw[k] = v < mine ? __ldcs(reinterpret_cast<const uint4 *>(x + head) + first + v) : repeated<S>(outside);
      }
    }
    float edge[E];
#pragma unroll
    for (int k = 0; k < E; ++k) {
      const int e = lane + k * team;
      edge[k] = e < edges ? widen(x[edge_at(e)]) : outside;
    }

    Sums<float> sums = {-INFINITY, 0, 0, 0};
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
      float z[V];
      unpack<S>(raw[k], z);
#pragma unroll
      for (int i = 0; i < V; ++i) sums.largest = fmaxf(sums.largest, z[i]);
    }
#pragma unroll
    for (int k = 0; k < E; ++k) sums.largest = fmaxf(sums.largest, edge[k]);
    const float from = sums.largest == -INFINITY ? 0.0f : sums.largest;
    const auto add = [&](float logit_j, int j, bool is_there) {
      sums.exps += power_of_two((logit_j - from) * power);
      if (!SMOOTH || !is_there) return;
      const float w = p.weight ? widen(p.weight[j]) : 1.0f;
      sums.weights += w;
      if (w != 0) sums.weighted += w * p.scale * (logit_j - from);
    };
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
      float z[V];
      forget(raw[k], p.nothing);
      unpack<S>(raw[k], z);
      const int v = lane + k * team;
#pragma unroll
      for (int i = 0; i < V; ++i) add(z[i], head + (first + v) * V + i, v < mine);
    }
#pragma unroll
    for (int k = 0; k < E; ++k) add(edge[k], edge_at(lane + k * team), lane + k * team < edges);

    if constexpr (LANES > 0) {
      sums = join_lanes<SMOOTH>(sums, LANES, p.scale);
    } else {
      sums = join_block<SMOOTH>(sums, parts, turn, p.scale);
#ifndef HW4FAST_EMULATED
      if constexpr (CLUSTER) sums = join_cluster<SMOOTH>(sums, cluster_parts, turn, p.scale);
#endif
    }

    if (turns == 0) {  // after the first row's sums: other blocks may still be counting
      find_divisor(p, divisor);
      per_row = 1 / static_cast<float>(divisor);
    }
    if (lane == 0 && rank == 0 && is_row) {
      const float loss = counts ? loss_of(p, sums, y, p.scale * (logit - sums.largest)) : 0.0f;
      losses += loss;
      if (p.reduction == Reduction::none) p.loss[row] = narrow<S>(loss);
    }
    // the last block adds up the losses while others write gradients
    if (LANES != 4 && begin + step >= p.rows && p.reduction != Reduction::none) finish(p, losses, divisor);
    if (!p.grad || !is_row) continue;
    S *g = p.grad + row * p.classes;
    if (!counts) {
#pragma unroll
      for (int k = 0; k < ITEMS; ++k)
        if (lane + k * team < mine)
          __stcs(reinterpret_cast<uint4 *>(g + head) + first + lane + k * team, uint4{0, 0, 0, 0});
      for (int e = lane; e < edges; e += team) g[edge_at(e)] = narrow<S>(0.0f);
      continue;
    }
    const Factors<float> f = factors_of(p, sums, y, per_row);
    const auto gradient = [&](float logit_j, int j) {
      float value = f.factor * power_of_two((logit_j - f.largest) * power);
      if (SMOOTH) value -= f.spread * (p.weight ? widen(p.weight[j]) : 1.0f);
      return value;
    };
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
      const int v = lane + k * team;
      if (v >= mine) break;
      float z[V];
      forget(raw[k], p.nothing);
      unpack<S>(raw[k], z);
#pragma unroll
      for (int i = 0; i < V; ++i) z[i] = gradient(z[i], head + (first + v) * V + i);
      __stcs(reinterpret_cast<uint4 *>(g + head) + first + v, pack<S>(z));
    }
#pragma unroll
    for (int k = 0; k < E; ++k) {
      const int e = lane + k * team;
      if (e < edges) g[edge_at(e)] = narrow<S>(gradient(edge[k], edge_at(e)));
    }
    if (!is_class(p, y)) continue;
    // the row's own class again, by the thread that has just written it
    const int at = static_cast<int>(y), beyond = at - head - vectors * V;
    const int vector = (at - head) / V - first;
    const bool is_edge = at < head || beyond >= 0;
    const bool is_mine = is_edge ? rank == 0 : vector >= 0 && vector < mine;
    const int owner = at < head ? at : beyond >= 0 ? head + beyond : vector;
    if (is_mine && owner % team == lane) g[at] = narrow<S>(gradient(logit, at) - f.hit);
  }
  if (turns == 0) find_divisor(p, divisor);  // a warp or block without a row must come here, too, and to finish
  if ((LANES == 4 || turns == 0) && p.reduction != Reduction::none) finish(p, losses, divisor);
#if __CUDA_ARCH__ >= 900
  if (CLUSTER)  // no block may end while another one writes into its memory
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// A batch's last layer: few rows of few classes, in one block. Latencies are all that it takes: it asks for everything
// at once, and its code is short. Four lanes have a row, and each of them every fourth logit.
constexpr int few_classes = 16, few_rows = 256;
template <class S, bool SMOOTH> __global__ void __launch_bounds__(4 * few_rows)
    softmax_xent_few(const SoftmaxXent<S> p) {
  in_turn();
  constexpr int each = few_classes / 4;
  const int row = static_cast<int>(threadIdx.x) / 4, lane = static_cast<int>(threadIdx.x) % 4;
  const int classes = row < p.rows ? static_cast<int>(p.classes) : 0;
  const std::int64_t y = row < p.rows ? p.target[row] : p.ignore_index;
  const S *x = p.logits + row * p.row_stride;
  float z[each];
#pragma unroll
  for (int k = 0; k < each; ++k) z[k] = lane + 4 * k < classes ? widen(x[lane + 4 * k]) : -INFINITY;
  const bool counts = y != p.ignore_index;
  double divisor = 1;
  if (p.reduction == Reduction::mean && p.weight) {
    __shared__ double weights;
    const double sum = sum_block<true>(counts && lane == 0 ? weight_of(p, y) : 0);
    if (threadIdx.x == 0) weights = sum;
    __syncthreads();
    divisor = weights;
  } else if (p.reduction == Reduction::mean) {  // the barriers wait for targets while logits come
    divisor = __syncthreads_count(counts && lane == 0);
    if (__syncthreads_or(counts && !is_class(p, y))) divisor = NAN;
  }
  const auto over_lanes = [](float mine, auto both) {
    for (int other = 2; other; other /= 2) mine = both(mine, __shfl_xor_sync(~0u, mine, other));
    return mine;
  };
  const auto add = [](float a, float b) { return a + b; };

  Sums<float> sums = {-INFINITY, 0, 0, 0};
  float logit = 0;  // of the row's own class
  const float power = p.scale * 1.4426950408889634f;
#pragma unroll
  for (int k = 0; k < each; ++k) {
    sums.largest = fmaxf(sums.largest, z[k]);
    if (lane + 4 * k == y) logit = z[k];
  }
  sums.largest = over_lanes(sums.largest, [](float a, float b) { return fmaxf(a, b); });
  logit = over_lanes(logit, add);
  const float from = sums.largest == -INFINITY ? 0.0f : sums.largest;
#pragma unroll
  for (int k = 0; k < each; ++k) {
    sums.exps += power_of_two((z[k] - from) * power);
    if (!SMOOTH || lane + 4 * k >= classes) continue;
    const float w = p.weight ? widen(p.weight[lane + 4 * k]) : 1.0f;
    sums.weights += w;
    if (w != 0) sums.weighted += w * p.scale * (z[k] - from);
  }
  sums.exps = over_lanes(sums.exps, add);
  if (SMOOTH) sums.weights = over_lanes(sums.weights, add), sums.weighted = over_lanes(sums.weighted, add);

  const float loss = counts && lane == 0 ? loss_of(p, sums, y, p.scale * (logit - sums.largest)) : 0.0f;
  if (p.reduction == Reduction::none && lane == 0 && classes) p.loss[row] = narrow<S>(loss);
  if (p.grad) {
    const Factors<float> f = factors_of(p, sums, y, 1 / static_cast<float>(divisor));
#pragma unroll
    for (int k = 0; k < each; ++k) {
      const int j = lane + 4 * k;
      if (j >= classes) break;
      float value = f.factor * power_of_two((z[k] - f.largest) * power);
      if (SMOOTH) value -= f.spread * (p.weight ? widen(p.weight[j]) : 1.0f);
      if (j == y) value -= f.hit;
      p.grad[row * p.classes + j] = narrow<S>(counts ? value : 0.0f);
    }
  }
  if (p.reduction == Reduction::none) return;
  const double all = sum_block<true>(loss);
  if (threadIdx.x == 0) *p.loss = narrow<S>(static_cast<float>(all) / static_cast<float>(divisor));
}

}  // namespace
}  // namespace hw4fast
