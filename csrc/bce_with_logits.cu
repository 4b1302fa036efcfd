// bce_with_logits on a GPU: loss and gradient in one visit, with the formula of bce_with_logits.inl.
//
// Each thread adds its losses up in double, each block writes its sum, and a second kernel adds those in order: the
// same bits with every call on a GPU.
#include "losses.cuh"

#include <algorithm>
#include <type_traits>

namespace hw4fast {
namespace {

constexpr int max_blocks = 2048, block_threads = 256;

template <class S> struct BceWithLogits {
  using T = std::conditional_t<std::is_same_v<S, double>, double, float>;
  const S *logits, *target;      // [n]
  const S *weight, *pos_weight;  // repeated every so many elements, or null: all ones
  S *loss, *grad;                // loss: [n] for no reduction, else [1]; grad: [n] or null: not wanted
  double *sums;                  // [max_blocks]
  std::int64_t n, weight_period, pos_weight_period;
  T factor;  // of the gradient: 1 / divisor of the reduction
  Reduction reduction;
};

template <class S> __global__ void __launch_bounds__(block_threads) bce_with_logits_sums(const BceWithLogits<S> p) {
  using T = typename BceWithLogits<S>::T;
  in_turn();
  let_next_begin();
  double losses = 0;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < p.n; i += step) {
    const T x = widen(p.logits[i]), y = widen(p.target[i]), size = fabs(x), not_y = 1 - y;
    const T t = p.pos_weight ? y * widen(p.pos_weight[i % p.pos_weight_period]) : y;
    const T w = p.weight ? T(widen(p.weight[i % p.weight_period])) : T(1), e = exp(-size);
    const T loss = w * ((x > 0 ? not_y : t) * size + (not_y + t) * log1p(e));
    losses += loss;
    if (p.reduction == Reduction::none) p.loss[i] = stored<S>(loss);
    if (p.grad) p.grad[i] = stored<S>(w * p.factor * (x > 0 ? not_y - t * e : not_y * e - t) / (1 + e));
  }
  if (p.reduction == Reduction::none) return;
  losses = sum_block(losses);
  if (threadIdx.x == 0) p.sums[blockIdx.x] = losses;
}

template <class S> __global__ void __launch_bounds__(block_threads)
    bce_with_logits_total(const BceWithLogits<S> p, int parts) {
  using T = typename BceWithLogits<S>::T;
  in_turn();
  double all = 0;
  for (int i = threadIdx.x; i < parts; i += blockDim.x) all += p.sums[i];
  all = sum_block(all);
  if (threadIdx.x == 0)
    *p.loss = stored<S>(static_cast<T>(p.reduction == Reduction::mean ? all / static_cast<double>(p.n) : all));
}

template <class S> void run(const BceWithLogits<S> &p, cudaStream_t stream) {
  const std::int64_t wanted = (p.n + 4 * block_threads - 1) / (4 * block_threads);
  const std::int64_t fit = std::min<std::int64_t>(max_blocks, 8 * multiprocessors());
  const int blocks = static_cast<int>(std::max<std::int64_t>(1, std::min(wanted, fit)));
  launch("bce_with_logits", bce_with_logits_sums<S>, Grid{dim3(blocks), dim3(block_threads), 0, stream}, p);
  if (p.reduction == Reduction::none) return;
  launch("bce_with_logits", bce_with_logits_total<S>, Grid{dim3(1), dim3(block_threads), 0, stream}, p, blocks);
}

}  // namespace

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &);
#endif
HW4FAST_CUDA_KERNEL(bce_with_logits, bind);

[[maybe_unused]] static void bce_with_logits(int dtype, std::uintptr_t logits, std::uintptr_t target,
                                             std::uintptr_t weight, std::int64_t weight_period,
                                             std::uintptr_t pos_weight, std::int64_t pos_weight_period,
                                             std::uintptr_t loss, std::uintptr_t grad, std::uintptr_t scratch,
                                             std::int64_t n, int reduction, std::uintptr_t stream) {
  if (n > 0 && ((weight && weight_period < 1) || (pos_weight && pos_weight_period < 1)))
    throw std::invalid_argument("bce_with_logits was given weights without numbers");
  const auto how = static_cast<Reduction>(reduction);
  if (n < 0 || !scratch || (!loss && (n > 0 || how != Reduction::none)) || (n > 0 && !(logits && target)))
    throw std::invalid_argument("bce_with_logits was given a tensor without memory");
  bce_with_logits_kernel.count();
  if (n == 0 && how == Reduction::none) return;
  const auto stored_as = [&](auto zero) {
    using S = decltype(zero);
    using T = typename BceWithLogits<S>::T;
    const T factor = how == Reduction::mean ? static_cast<T>(1.0 / static_cast<double>(n)) : T(1);
    run<S>({pointer<S>(logits), pointer<S>(target), pointer<S>(weight), pointer<S>(pos_weight), pointer<S>(loss),
            pointer<S>(grad), pointer<double>(scratch), n, weight_period, pos_weight_period, factor, how},
           stream_of(stream));
  };
  with_dtype<float, double>("bce_with_logits", dtype, stored_as);
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) {
  m.def("bce_with_logits", &bce_with_logits);
  m.attr("bce_with_logits_scratch") = sizeof(double) * max_blocks;
}
#endif

}  // namespace hw4fast
