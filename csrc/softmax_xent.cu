// softmax_xent on a GPU: each logit is read once, each gradient written once, and in between a row lies in registers.
//
// A team of threads takes a row: 4 or 32 lanes of a warp, a block, or a cluster of blocks that exchange their sums
// through each other's shared memory. Each thread holds up to 8 vectors of 16 bytes, and finds their largest z and
// Σ exp(z − largest); the team joins those pairs in one exchange ("online softmax", Milakov and Gimelshein 2018), and
// each thread writes its gradients: exp is computed twice, which is cheaper than a second read. From Hopper on the next
// row comes into shared memory meanwhile (AHEAD, mbarrier.cuh): no memory rests while teams compute, exchange or
// write.
//
// A training step's few rows of few classes are one block's (softmax_xent_few), all of whose time is latency.
//
// Of rows that don't start at 16 bytes what lies before the first multiple of 16, and behind the last whole vector, is
// read and written by elements. What doesn't fit (float64, logits and gradient that lie differently, rows beyond a
// cluster) goes to softmax_xent_any, which reads the logits twice.
//
// The mean needs Σ w_y before the first gradient: one block finds it itself; for several a small kernel goes before,
// whose end they await only when their first row has been read (in_turn). The losses are summed by block, in
// double, and the last block adds up the blocks in order: the same bits with every call on a GPU.
#include "softmax_xent_rows.cuh"

#include <algorithm>
#include <cmath>

namespace hw4fast {
namespace {

// Any dtype, any rows: a block takes a row, reads it, and reads it again.
template <class S, bool SMOOTH> __global__ void __launch_bounds__(1024) softmax_xent_any(const SoftmaxXent<S> p) {
  in_turn();
  using T = typename SoftmaxXent<S>::T;
  __shared__ Sums<T> parts[2][32];
  __shared__ double divisor;
  find_divisor(p, divisor);
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
    sums = join_block<SMOOTH>(sums, parts, turn, T(1));
    if (threadIdx.x == 0) {
      const T loss =
          counts ? loss_of(p, sums, y, (is_class(p, y) ? p.scale * T(widen(x[y])) : T(0)) - sums.largest) : T(0);
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

constexpr const char *name = "softmax_xent";

template <class S, bool SMOOTH> void run(SoftmaxXent<S> p, cudaStream_t stream) {
  p.weight_blocks = 0;
  if constexpr (!std::is_same_v<S, double>)
    if (p.rows <= few_rows && p.classes <= few_classes && p.scale > 0) {
      const dim3 threads(static_cast<unsigned>(std::max<std::int64_t>(1, up(p.rows, 8)) * 32));
      return launch(name, softmax_xent_few<S, SMOOTH>, Grid{dim3(1), threads, 0, stream}, p);
    }
  constexpr std::int64_t V = lanes_in<S>;
  const std::int64_t size = sizeof(S);
  const auto address = [](const void *pointer) { return reinterpret_cast<std::uintptr_t>(pointer); };
  const bool lies_alike =
      !p.grad || (((address(p.logits) ^ address(p.grad)) & 15) == 0 && (p.row_stride - p.classes) * size % 16 == 0);
  const std::int64_t vectors = std::max<std::int64_t>(1, p.classes / V);  // the most that a row holds
  const bool ahead = compute_capability() >= 90;  // rows are copied ahead, and clusters are there
  const std::int64_t most = ahead ? 8 * 512 * items : 512 * items;
  const bool in_registers =
      !std::is_same_v<S, double> && lies_alike && p.scale > 0 && p.classes < (1 << 30) && vectors <= most;

  // the shape of the grid: threads of a block, blocks
  int lanes = 0, each = items, threads = 512;
  unsigned cluster = 1;
  std::int64_t blocks = p.rows;
  if (in_registers && vectors <= 32 * items) {
    lanes = vectors <= 4 * few_items ? 4 : 32;
    each = vectors <= lanes * few_items ? few_items : items;
    const int most_here = most_threads(lanes);
    const std::int64_t all = p.rows * lanes;  // one block as long as each thread has few rows: no second kernel
    threads = static_cast<int>(std::min<std::int64_t>(most_here, std::max<std::int64_t>(32, (all + 31) / 32 * 32)));
    blocks = all <= 2 * most_here ? 1 : (all + threads - 1) / threads;
  } else if (in_registers && vectors <= 512 * items) {
    each = vectors <= 512 * few_items ? few_items : items;  // many threads: few rows under way, that soon are done
    threads = static_cast<int>((vectors + each * 32 - 1) / (each * 32) * 32);
  } else if (in_registers) {
    // small blocks: more of them on a multiprocessor, of which some read while others write or wait for each other
    threads = vectors <= 2 * 512 * items || vectors > 8 * 256 * items ? 512 : 256;
    while (vectors > cluster * threads * items) cluster *= 2;
    blocks *= cluster;
  }
  Grid grid{dim3(1), dim3(threads), 0, stream, cluster};
  void (*kernel)(SoftmaxXent<S>) = softmax_xent_any<S, SMOOTH>;
  if constexpr (!std::is_same_v<S, double>) {
    const auto either = [&](auto plain, auto copying) {
      grid.shared = ahead ? std::size_t(each) * threads * 16 : 0;
      return ahead ? copying : plain;
    };
    if (in_registers && lanes == 4)
      kernel = softmax_xent_rows<S, 4, few_items, SMOOTH, false, false>;
    else if (in_registers && lanes == 32 && each == few_items)
      kernel = either(softmax_xent_rows<S, 32, few_items, SMOOTH, false, false>,
                      softmax_xent_rows<S, 32, few_items, SMOOTH, false, true>);
    else if (in_registers && lanes == 32)
      kernel = either(softmax_xent_rows<S, 32, items, SMOOTH, false, false>,
                      softmax_xent_rows<S, 32, items, SMOOTH, false, true>);
    else if (in_registers && cluster == 1 && each == few_items)
      kernel = either(softmax_xent_rows<S, 0, few_items, SMOOTH, false, false>,
                      softmax_xent_rows<S, 0, few_items, SMOOTH, false, true>);
    else if (in_registers && cluster == 1)
      kernel = either(softmax_xent_rows<S, 0, items, SMOOTH, false, false>,
                      softmax_xent_rows<S, 0, items, SMOOTH, false, true>);
    else if (in_registers)
      kernel = either(nullptr, softmax_xent_rows<S, 0, items, SMOOTH, true, true>);
  }
  // as many blocks as can be there at a time
  std::int64_t per_sm = lanes == 32 ? blocks_that_fit(lanes) : std::max(1, 1024 / threads);
  if (grid.shared)
    per_sm = std::min<std::int64_t>(
        per_sm, attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / static_cast<int>(grid.shared + (4 << 10)));
  const std::int64_t fit = std::min<std::int64_t>(multiprocessors() * std::max<std::int64_t>(1, per_sm), max_blocks);
  const std::int64_t clusters = cluster > 1 ? std::min(fit / cluster, clusters_that_fit(name, kernel, grid)) : fit;
  blocks = std::max<std::int64_t>(cluster, std::min(blocks, clusters * cluster));
  grid.blocks = dim3(static_cast<unsigned>(blocks));

  if (blocks > 1 && p.reduction != Reduction::none) {
    p.weight_blocks = static_cast<int>(
        p.reduction == Reduction::mean ? std::min<std::int64_t>(max_weight_blocks, (p.rows + 4095) / 4096) : 1);
    launch(name, softmax_xent_weights<S>, Grid{dim3(p.weight_blocks), dim3(1024), 0, stream}, p);
  }
  launch(name, kernel, grid, p);
}

}  // namespace

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &);
#endif
HW4FAST_CUDA_KERNEL(softmax_xent, bind);

[[maybe_unused]] static void softmax_xent(int dtype, std::uintptr_t logits, std::uintptr_t target,
                                          std::uintptr_t weight, std::uintptr_t loss, std::uintptr_t grad,
                                          std::uintptr_t scratch, std::int64_t rows, std::int64_t classes,
                                          std::int64_t row_stride, double scale, double label_smoothing,
                                          std::int64_t ignore_index, int reduction, std::uintptr_t stream) {
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
                           0,
                           0};
    if (label_smoothing == 0) return run<S, false>(p, stream_of(stream));
    return run<S, true>(p, stream_of(stream));
  };
  with_dtype<float, double, __nv_bfloat16, __half>("softmax_xent", dtype, stored_as);
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) {
  m.def("softmax_xent", &softmax_xent);
  m.attr("softmax_xent_scratch") = sizeof(Scratch);
}
#endif

}  // namespace hw4fast
