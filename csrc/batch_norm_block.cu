// batch_norm_block on a GPU, forward: the batch's sums, its mean and variance, then the values.
#include "batch_norm_block.cuh"

#include <cmath>

#ifndef __CUDA_ARCH__
#include <pybind11/stl.h>
#endif

namespace hw4fast {
namespace batch_norm {
namespace {

// The sums of x − origin and of its square; origin: the batch's first pixel, so that squares keep their digits.
template <class S, int V> __global__ void __launch_bounds__(block_threads) batch_norm_sums(const BatchNorm<S> p) {
  in_turn();
  const Thread t = thread_of<V>(p);
  double sum[V] = {}, square[V] = {};
  if (t.c < p.c) {
    const Neighbours<V, S> origin = at<V>(p.x, p.x_strides, 0, t.c, 0, 0);
    walk<8>(
        p, t, [&](int image, int row, int col) { return at<V>(p.x, p.x_strides, image, t.c, row, col); },
        [&](const Neighbours<V, S> &x, int) {
#pragma unroll
          for (int k = 0; k < V; ++k) {
            const double far = loaded(x.number[k]) - loaded(origin.number[k]);
            sum[k] += far, square[k] += far * far;
          }
        });
  }
  give_sums(p, t, sum, square);
}

// Mean and variance of the batch, if they are to be found, and what a value is multiplied with and moved by.
template <class S> __global__ void __launch_bounds__(block_threads) batch_norm_scale(const BatchNorm<S> p) {
  using T = Sum<S>;
  in_turn();
  const int c = static_cast<int>((blockIdx.x * block_threads + threadIdx.x) / 32);
  if (c >= p.c) return;
  double mean = 0, var = 0;
  if (p.training) {
    take_sums(p, c, mean, var);
    const double m = static_cast<double>(std::int64_t{p.n} * p.h * p.w);
    const double far = mean / m, spread = var / m - far * far;
    mean = static_cast<double>(loaded(p.x[c * p.x_strides[1]])) + far;
    var = spread < 0 ? 0 : spread;  // a NaN stays
  } else {
    mean = p.mean[c], var = p.var[c];
  }
  if (threadIdx.x % 32) return;
  if (p.training) p.mean[c] = static_cast<T>(mean), p.var[c] = static_cast<T>(var);
  const double factor = static_cast<double>(p.weight[c]) / sqrt(var + p.eps);
  p.scale[c] = static_cast<T>(factor);
  // what the rounding of the mean took away is given back
  p.shift[c] = static_cast<T>(static_cast<double>(p.bias[c]) - (mean - static_cast<double>(p.mean[c])) * factor);
}

template <class S, int V> __global__ void __launch_bounds__(block_threads) batch_norm_apply(const BatchNorm<S> p) {
  using T = Sum<S>;
  in_turn();
  const Thread t = thread_of<V>(p);
  if (t.c >= p.c) return;
  T mean[V], scale[V], shift[V];
  parameters(p.mean, t.c, mean), parameters(p.scale, t.c, scale), parameters(p.shift, t.c, shift);
  walk<2>(
      p, t, [&](int image, int row, int col) { return window_at<V>(p, image, t.c, row, col); },
      [&](const Window<V, S> &window, int place) {
        Neighbours<V, S> out;
        Neighbours<V, std::uint8_t> codes;
#pragma unroll
        for (int k = 0; k < V; ++k) {
          T four[4];
#pragma unroll
          for (int i = 0; i < 4; ++i)
            four[i] = i == 0 || p.pool ? (loaded(window.x[i].number[k]) - mean[k]) * scale[k] + shift[k] : T(-INFINITY);
          int code;
          out.number[k] = rounded<S>(largest(four, p.relu, code));
          codes.number[k] = static_cast<std::uint8_t>(code);
        }
        const std::int64_t to = std::int64_t{place} * p.c + t.c;
        *reinterpret_cast<Neighbours<V, S> *>(p.out + to) = out;
        if (p.code) *reinterpret_cast<Neighbours<V, std::uint8_t> *>(p.code + to) = codes;
      });
}

template <class S, int V> void forward(BatchNorm<S> &p, cudaStream_t stream) {
  if (p.training) {
    set_places(p, p.w, p.h);
    walk_with(batch_norm_sums<S, V>, p, V, 8, most_shares(p.c), stream);
  }
  warp_for_each(batch_norm_scale<S>, p, stream);
  set_places(p, p.cols, p.rows);
  if (p.n) walk_with(batch_norm_apply<S, V>, p, V, 2, 0, stream);
}

}  // namespace

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &);
#endif
HW4FAST_CUDA_KERNEL(batch_norm_block, bind);

[[maybe_unused]] static void batch_norm_block(int dtype, std::uintptr_t input, const Four &strides,
                                              std::uintptr_t weight, std::uintptr_t bias, std::uintptr_t mean,
                                              std::uintptr_t var, bool training, std::uintptr_t output,
                                              std::uintptr_t code, std::uintptr_t scratch, const Four &shape,
                                              double eps, bool relu, bool pool, std::uintptr_t stream) {
  if (!(weight && bias && mean && var && scratch) || (shape[0] > 0 && !(input && output)))
    throw std::invalid_argument("batch_norm_block was given a tensor without memory");
  batch_norm_block_kernel.count();
  with_dtype<float, double, __nv_bfloat16, __half>("batch_norm_block", dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Sum<S>;
    BatchNorm<S> p{};
    p.x = pointer<const S>(input), p.weight = pointer<const T>(weight), p.bias = pointer<const T>(bias);
    p.mean = pointer<T>(mean), p.var = pointer<T>(var);
    p.out = pointer<S>(output), p.code = pointer<std::uint8_t>(code), p.relu = relu;
    describe(p, shape, strides, scratch, eps, pool, training);
    by_fours(p.x, p.x_strides, p.c) ? forward<S, 4>(p, stream_of(stream)) : forward<S, 1>(p, stream_of(stream));
  });
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) {
  m.def("batch_norm_block", &batch_norm_block);
  m.def("batch_norm_block_scratch", [](int c) { return scratch_of(c); });  // bytes, for either pass
}
#endif

}  // namespace batch_norm
}  // namespace hw4fast
