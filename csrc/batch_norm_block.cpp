// Binding of batch_norm_block, forward and backward. The arguments are raw addresses; hw4fast/kernels/
// batch_norm_block.py is the safe face and the documentation.
#include "conv_block.h"
#include "kernel.h"
#include "parallel.h"

#include <pybind11/stl.h>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hw4fast {

template <class T> struct BatchNorm {
  std::int64_t n, c, h, w, rows, cols;  // of the input, and of the output: halves of h and w with the pool
  bool pool;
  Strided<const T> x;
  const T *mean, *scale;  // [c]
};

}  // namespace hw4fast

#define HW4FAST_COMMON_INL "conv.inl"
#define HW4FAST_INL "batch_norm_block.inl"
#include "each_isa.h"

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();
static Kernel &backward_kernel();

using Four = std::array<std::int64_t, 4>;

static void check(const Four &shape, bool pool) {
  if (shape[0] < 0 || shape[1] < 1 || shape[2] < (pool ? 2 : 1) || shape[3] < (pool ? 2 : 1))
    throw py::value_error("batch_norm_block: the input is empty or too small for the pool");
}

template <class T> static BatchNorm<T> described(const Four &shape, const Four &strides, bool pool,
                                                 std::uintptr_t input, const T *mean, const T *scale) {
  const auto [n, c, h, w] = shape;
  const std::int64_t side = pool ? 2 : 1;
  return {n,        c,        h,    w,
          h / side, w / side, pool, {pointer<const T>(input), strides[0], strides[1], strides[2], strides[3]},
          mean,     scale};
}

// work(first row, end, sums [c], more sums [c]) for pieces of some 4096 numbers out of `rows` rows of `row_size`, which
// stay in the cache, and the total of their sums. How the pieces are grouped and added depends on the shape alone.
template <class Work> static void sum_of_pieces(std::int64_t rows, std::int64_t row_size, std::int64_t c, int threads,
                                                double *total, const Work &work) {
  const std::int64_t height = std::max<std::int64_t>(1, 4096 / row_size), pieces = (rows + height - 1) / height;
  const std::int64_t groups = std::min<std::int64_t>(pieces, 64), both = 2 * c;
  const Scratch<double> sums(groups * both), own(groups * both);
  const auto add = [&](const double *more, double *to) {
    for (std::int64_t k = 0; k < both; ++k) to[k] += more[k];
  };
  parallel_for(groups, std::max<std::int64_t>(1, 8192 * groups / (rows * row_size + 1)), threads,
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t group = begin; group < end; ++group) {
                   double *sum = sums.get() + group * both, *piece = own.get() + group * both;
                   std::fill(sum, sum + both, 0.0);
                   for (std::int64_t i = pieces * group / groups; i < pieces * (group + 1) / groups; ++i) {
                     work(i * height, std::min((i + 1) * height, rows), piece, piece + c);
                     add(piece, sum);
                   }
                 }
               });
  std::fill(total, total + both, 0.0);
  for (std::int64_t group = 0; group < groups; ++group) add(sums.get() + group * both, total);
}

// Mean and biased variance of the batch, per channel, in double.
template <class T> static void statistics(const BatchNorm<T> &b, Isa isa, int threads, double *mean, double *var) {
  const auto sums_of = HW4FAST_VARIANT(isa, batch_norm_sums<T>);
  const Scratch<T> origin(b.c);  // the first pixel: sums of squares about it keep their digits under any offset
  for (std::int64_t k = 0; k < b.c; ++k) origin.get()[k] = *b.x.at(0, k, 0);
  const Scratch<double> sums(2 * b.c);
  sum_of_pieces(b.n * b.h, b.w * b.c, b.c, threads, sums.get(),
                [&](std::int64_t begin, std::int64_t end, double *sum, double *square) {
                  sums_of(b, origin.get(), begin, end, sum, square);
                });
  const double m = static_cast<double>(b.n * b.h * b.w);
  for (std::int64_t k = 0; k < b.c; ++k) {
    const double far = sums.get()[k] / m, square = sums.get()[b.c + k] / m;
    mean[k] = static_cast<double>(origin.get()[k]) + far;
    const double variance = square - far * far;
    var[k] = variance < 0 ? 0 : variance;  // a NaN stays
  }
}

static void batch_norm_block(bool is_double, std::uintptr_t input, const Four &strides, std::uintptr_t weight,
                             std::uintptr_t bias, std::uintptr_t mean, std::uintptr_t var, bool training,
                             std::uintptr_t output, std::uintptr_t code, const Four &shape, double eps, bool relu,
                             bool pool, const std::string &isa_name, int threads) {
  check(shape, pool);
  const std::int64_t c = shape[1];
  if (!(weight && bias && mean && var) || (shape[0] > 0 && !(input && output)))
    throw py::value_error("batch_norm_block was given a tensor without memory");
  if (training && shape[0] * shape[2] * shape[3] < 2)
    throw py::value_error("batch_norm_block: one value has no variance");
  const Isa isa = choose_isa(isa_name);
  if (threads < 1) threads = default_threads();
  this_kernel().count(isa);
  const auto typed = [&](auto zero) {
    using T = decltype(zero);
    const py::gil_scoped_release release;
    const Scratch<T> scale(c), shift(c);
    const BatchNorm<T> b = described<T>(shape, strides, pool, input, pointer<T>(mean), scale.get());
    const Scratch<double> exact(2 * c);
    if (training) statistics(b, isa, threads, exact.get(), exact.get() + c);
    for (std::int64_t k = 0; k < c; ++k) {
      T &kept_mean = pointer<T>(mean)[k], &kept_var = pointer<T>(var)[k];
      const double m = training ? exact.get()[k] : static_cast<double>(kept_mean);
      const double v = training ? exact.get()[c + k] : static_cast<double>(kept_var);
      if (training) kept_mean = static_cast<T>(m), kept_var = static_cast<T>(v);
      const double factor = static_cast<double>(pointer<const T>(weight)[k]) / std::sqrt(v + eps);
      scale.get()[k] = static_cast<T>(factor);
      // what the rounding of the mean took away is given back
      shift.get()[k] = static_cast<T>(static_cast<double>(pointer<const T>(bias)[k]) -
                                      (m - static_cast<double>(kept_mean)) * factor);
    }
    const auto rows = HW4FAST_VARIANT(isa, batch_norm_rows<T>);
    parallel_for(b.n * b.rows, std::max<std::int64_t>(1, 8192 / (b.w * c)), threads,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t row = begin; row < end; ++row)  // all channels while they are in the cache
                     rows(b, shift.get(), relu, pointer<T>(output), pointer<std::uint8_t>(code), row, row + 1);
                 });
  };
  is_double ? typed(0.0) : typed(0.0f);
}

static void batch_norm_block_backward(bool is_double, std::uintptr_t grad, const Four &grad_strides,
                                      std::uintptr_t code, std::uintptr_t input, const Four &strides,
                                      std::uintptr_t weight, std::uintptr_t mean, std::uintptr_t var, bool training,
                                      std::uintptr_t grad_input, std::uintptr_t grad_weight, std::uintptr_t grad_bias,
                                      const Four &shape, double eps, bool pool, const std::string &isa_name,
                                      int threads) {
  check(shape, pool);
  const std::int64_t c = shape[1];
  if (!(weight && mean && var) || (shape[0] > 0 && !(grad && input && (code || !pool))))
    throw py::value_error("batch_norm_block_backward was given a tensor without memory");
  const Isa isa = choose_isa(isa_name);
  if (threads < 1) threads = default_threads();
  backward_kernel().count(isa);
  const auto typed = [&](auto zero) {
    using T = decltype(zero);
    const py::gil_scoped_release release;
    const Scratch<T> scale(c), even(c), slope(c);
    const BatchNorm<T> b = described<T>(shape, strides, pool, input, pointer<const T>(mean), scale.get());
    const Strided<const T> g{pointer<const T>(grad), grad_strides[0], grad_strides[1], grad_strides[2],
                             grad_strides[3]};
    const std::uint8_t *codes = pointer<const std::uint8_t>(code);
    const Scratch<double> sums(2 * c);
    if (training || grad_weight || grad_bias) {
      const auto sums_of = HW4FAST_VARIANT(isa, batch_norm_gradient_sums<T>);
      sum_of_pieces(b.n * b.rows, b.w * c * (pool ? 2 : 1), c, threads, sums.get(),
                    [&](std::int64_t begin, std::int64_t end, double *sum, double *product) {
                      sums_of(b, g, codes, begin, end, sum, product);
                    });
    }
    const double m = static_cast<double>(b.n * b.h * b.w);
    for (std::int64_t k = 0; k < c; ++k) {
      const double inverse = 1 / std::sqrt(static_cast<double>(pointer<const T>(var)[k]) + eps);
      scale.get()[k] = static_cast<T>(static_cast<double>(pointer<const T>(weight)[k]) * inverse);
      if (grad_bias) pointer<T>(grad_bias)[k] = static_cast<T>(sums.get()[k]);
      if (grad_weight) pointer<T>(grad_weight)[k] = static_cast<T>(sums.get()[c + k] * inverse);
      if (training) even.get()[k] = static_cast<T>(sums.get()[k] / m);
      if (training) slope.get()[k] = static_cast<T>(sums.get()[c + k] * inverse * inverse / m);
    }
    if (!grad_input) return;
    const auto rows = HW4FAST_VARIANT(isa, batch_norm_input_gradient<T>);
    parallel_for(b.n * b.rows, std::max<std::int64_t>(1, 8192 / (b.w * c)), threads,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t row = begin; row < end; ++row)
                     rows(b, g, codes, training ? even.get() : nullptr, training ? slope.get() : nullptr,
                          pointer<T>(grad_input), row, row + 1);
                 });
  };
  is_double ? typed(0.0) : typed(0.0f);
}

static void bind(py::module_ &m) {
  m.def("batch_norm_block", &batch_norm_block, py::arg("is_double"), py::arg("input"), py::arg("strides"),
        py::arg("weight"), py::arg("bias"), py::arg("mean"), py::arg("var"), py::arg("training"), py::arg("output"),
        py::arg("code"), py::arg("shape"), py::arg("eps"), py::arg("relu"), py::arg("pool"), py::arg("isa") = "",
        py::arg("threads") = 0);
}
static void bind_backward(py::module_ &m) {
  m.def("batch_norm_block_backward", &batch_norm_block_backward, py::arg("is_double"), py::arg("grad"),
        py::arg("grad_strides"), py::arg("code"), py::arg("input"), py::arg("strides"), py::arg("weight"),
        py::arg("mean"), py::arg("var"), py::arg("training"), py::arg("grad_input"), py::arg("grad_weight"),
        py::arg("grad_bias"), py::arg("shape"), py::arg("eps"), py::arg("pool"), py::arg("isa") = "",
        py::arg("threads") = 0);
}

HW4FAST_KERNEL(batch_norm_block, bind);
HW4FAST_KERNEL(batch_norm_block_backward, bind_backward);
static Kernel &this_kernel() { return batch_norm_block_kernel; }
static Kernel &backward_kernel() { return batch_norm_block_backward_kernel; }

}  // namespace hw4fast
