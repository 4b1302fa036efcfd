// batch_norm_block on a GPU, backward: the gradient's sums, those of weight and bias, then the input's.
#include "batch_norm_block.cuh"

#ifndef __CUDA_ARCH__
#include <pybind11/stl.h>
#endif

namespace hw4fast {
namespace batch_norm {
namespace {

// A window of the input, the gradient of its output and the code that says where it goes.
template <int V, class S> struct Returned {
  Window<V, S> window;
  Neighbours<V, S> grad;
  Neighbours<V, std::uint8_t> codes;
};
template <int V, class S>
__device__ inline void fetch_grad(const BatchNorm<S> &p, int image, int c, int row, int col, Returned<V, S> &to) {
  if (V == 1 || p.grad_by_fours) {
    to.grad = at<V>(p.grad, p.grad_strides, image, c, row, col);
  } else {
#pragma unroll
    for (int k = 0; k < V; ++k) to.grad.number[k] = at<1>(p.grad, p.grad_strides, image, c + k, row, col).number[0];
  }
  to.codes = {};
  if (p.code)
    to.codes = *reinterpret_cast<const Neighbours<V, std::uint8_t> *>(
        p.code + ((std::int64_t{image} * p.rows + row) * p.cols + col) * p.c + c);
}

// The sums of g and of g·(x − mean).
template <class S, int V> __global__ void __launch_bounds__(block_threads)
    batch_norm_gradient_sums(const BatchNorm<S> p) {
  using T = Sum<S>;
  in_turn();
  const Thread t = thread_of<V>(p);
  double sum[V] = {}, product[V] = {};
  if (t.c < p.c) {
    T mean[V];
    parameters(p.mean, t.c, mean);
    walk<2>(
        p, t,
        [&](int image, int row, int col) {
          Returned<V, S> found;
          fetch_grad(p, image, t.c, row, col, found);
          found.window = window_at<V>(p, image, t.c, row, col);
          return found;
        },
        [&](const Returned<V, S> &found, int) {
#pragma unroll
          for (int k = 0; k < V; ++k) {
            const int code = found.codes.number[k];
            T x = loaded(found.window.x[0].number[k]);
#pragma unroll
            for (int i = 1; i < 4; ++i)
              if (p.pool && code == i) x = loaded(found.window.x[i].number[k]);
            const double g = code < dead ? loaded(found.grad.number[k]) : T(0);
            sum[k] += g, product[k] += g * (x - mean[k]);
          }
        });
  }
  give_sums(p, t, sum, product);
}

// The gradients of γ and β, and what the input's is made of.
template <class S> __global__ void __launch_bounds__(block_threads) batch_norm_gradient_scale(const BatchNorm<S> p) {
  using T = Sum<S>;
  in_turn();
  const int c = static_cast<int>((blockIdx.x * block_threads + threadIdx.x) / 32);
  if (c >= p.c) return;
  double sum = 0, product = 0;
  if (p.parts) take_sums(p, c, sum, product);
  if (threadIdx.x % 32) return;
  const double m = static_cast<double>(std::int64_t{p.n} * p.h * p.w);
  const double inverse = 1 / sqrt(static_cast<double>(p.var[c]) + p.eps);
  p.scale[c] = static_cast<T>(static_cast<double>(p.weight[c]) * inverse);
  if (p.grad_bias) p.grad_bias[c] = static_cast<T>(sum);
  if (p.grad_weight) p.grad_weight[c] = static_cast<T>(product * inverse);
  p.shift[c] = static_cast<T>(p.training ? sum / m : 0);
  p.slope[c] = static_cast<T>(p.training ? product * inverse * inverse / m : 0);
}

// scale·(g − shift − (x − mean)·slope); a last row or column that the pool leaves out has windows of its own.
template <class S, int V> __global__ void __launch_bounds__(block_threads)
    batch_norm_input_gradient(const BatchNorm<S> p) {
  using T = Sum<S>;
  in_turn();
  const Thread t = thread_of<V>(p);
  if (t.c >= p.c) return;
  T mean[V], scale[V], even[V], slope[V];
  parameters(p.mean, t.c, mean), parameters(p.scale, t.c, scale);
  parameters(p.shift, t.c, even), parameters(p.slope, t.c, slope);
  const int side = p.pool ? 2 : 1;
  struct Found {
    Returned<V, S> all;
    int image, row, col;
  };
  const auto is_there = [&](const Found &found, int k) {
    return (k == 0 || p.pool) && found.row * side + k / 2 < p.h && found.col * side + k % 2 < p.w;
  };
  walk<2>(
      p, t,
      [&](int image, int row, int col) {
        Found found{{}, image, row, col};
        if (row < p.rows && col < p.cols)
          fetch_grad(p, image, t.c, row, col, found.all);
        else
          for (auto &code : found.all.codes.number) code = dead;
        if (p.training)
#pragma unroll
          for (int k = 0; k < 4; ++k)
            if (is_there(found, k))
              found.all.window.x[k] = at<V>(p.x, p.x_strides, image, t.c, row * side + k / 2, col * side + k % 2);
        return found;
      },
      [&](const Found &found, int) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (!is_there(found, i)) continue;
          Neighbours<V, S> out;
#pragma unroll
          for (int k = 0; k < V; ++k) {
            T g = found.all.codes.number[k] == i ? loaded(found.all.grad.number[k]) : T(0);
            if (p.training) g -= even[k] + (loaded(found.all.window.x[i].number[k]) - mean[k]) * slope[k];
            out.number[k] = rounded<S>(scale[k] * g);
          }
          const std::int64_t line = std::int64_t{found.image} * p.h + found.row * side + i / 2;
          *reinterpret_cast<Neighbours<V, S> *>(p.grad_x + (line * p.w + found.col * side + i % 2) * p.c + t.c) = out;
        }
      });
}

template <class S, int V> void backward(BatchNorm<S> &p, cudaStream_t stream) {
  if (p.n && (p.training || p.grad_weight || p.grad_bias)) {
    set_places(p, p.cols, p.rows);
    walk_with(batch_norm_gradient_sums<S, V>, p, V, 2, most_shares(p.c), stream);
  } else {
    p.parts = nullptr;
  }
  warp_for_each(batch_norm_gradient_scale<S>, p, stream);
  if (!p.n || !p.grad_x) return;
  const int side = p.pool ? 2 : 1;
  set_places(p, static_cast<int>(up(p.w, side)), static_cast<int>(up(p.h, side)));
  walk_with(batch_norm_input_gradient<S, V>, p, V, 2, 0, stream);
}

}  // namespace

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &);
#endif
HW4FAST_CUDA_KERNEL(batch_norm_block_backward, bind);

[[maybe_unused]] static void batch_norm_block_backward(int dtype, std::uintptr_t grad, const Four &grad_strides,
                                                       std::uintptr_t code, std::uintptr_t input, const Four &strides,
                                                       std::uintptr_t weight, std::uintptr_t mean, std::uintptr_t var,
                                                       bool training, std::uintptr_t grad_input,
                                                       std::uintptr_t grad_weight, std::uintptr_t grad_bias,
                                                       std::uintptr_t scratch, const Four &shape, double eps, bool pool,
                                                       std::uintptr_t stream) {
  if (!(weight && mean && var && scratch) || (shape[0] > 0 && !(grad && input && (code || !pool))))
    throw std::invalid_argument("batch_norm_block_backward was given a tensor without memory");
  batch_norm_block_backward_kernel.count();
  with_dtype<float, double, __nv_bfloat16, __half>("batch_norm_block_backward", dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Sum<S>;
    BatchNorm<S> p{};
    p.x = pointer<const S>(input), p.weight = pointer<const T>(weight);
    p.mean = pointer<T>(mean), p.var = pointer<T>(var), p.code = pointer<std::uint8_t>(code);
    p.grad = pointer<const S>(grad), p.grad_x = pointer<S>(grad_input);
    p.grad_weight = pointer<T>(grad_weight), p.grad_bias = pointer<T>(grad_bias);
    std::copy(grad_strides.begin(), grad_strides.end(), p.grad_strides);
    describe(p, shape, strides, scratch, eps, pool, training);
    p.grad_by_fours = by_fours(p.grad, p.grad_strides, p.c);
    by_fours(p.x, p.x_strides, p.c) ? backward<S, 4>(p, stream_of(stream)) : backward<S, 1>(p, stream_of(stream));
  });
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) { m.def("batch_norm_block_backward", &batch_norm_block_backward); }
#endif

}  // namespace batch_norm
}  // namespace hw4fast
