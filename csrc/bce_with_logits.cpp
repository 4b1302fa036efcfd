// Binding of bce_with_logits: checks what would crash, picks the instruction set, spreads blocks over the cores.
// The arguments are raw addresses; hw4fast/kernels/bce_with_logits.py is the safe face and the documentation.
#include "kernel.h"
#include "parallel.h"
#include "reduction.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hw4fast {

template <class T> struct BceWithLogits {
  const T *logits, *target;      // [n]
  const T *weight, *pos_weight;  // [n] or null: all ones
  T *loss, *grad;                // [n] or null: not wanted
  T factor;                      // of the gradient: 1 / divisor of the reduction
};

}  // namespace hw4fast

#define HW4FAST_INL "bce_with_logits.inl"
#include "each_isa.h"

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();

constexpr std::int64_t bce_with_logits_block = 1024;  // elements whose losses are added up first

// Weights that repeat every `period` elements, once more and a block longer: no block then meets their end. Weights
// as long as the logits are read where they are.
template <class T> class Repeated {
 public:
  Repeated(const T *values, std::int64_t period, std::int64_t n) : values_(values), period_(period) {
    if (!values || period >= n) return;
    const std::int64_t size = period + std::min(bce_with_logits_block, n - period);
    copy_.reset(new T[size]);
    std::copy(values, values + period, copy_.get());
    for (std::int64_t i = period; i < size; ++i) copy_[i] = copy_[i - period];
    values_ = copy_.get();
  }
  const T *at(std::int64_t i) const { return values_ ? values_ + i % period_ : nullptr; }

 private:
  const T *values_;
  std::int64_t period_;
  std::unique_ptr<T[]> copy_;
};

template <class T> static void run(BceWithLogits<T> all, std::int64_t n, std::int64_t weight_period,
                                   std::int64_t pos_weight_period, Reduction reduction, T *loss_out, Isa isa,
                                   int threads) {
  constexpr std::int64_t block = bce_with_logits_block;
  const Repeated<T> weight(all.weight, weight_period, n), pos_weight(all.pos_weight, pos_weight_period, n);
  if (reduction == Reduction::none) all.loss = loss_out;
  if (reduction == Reduction::mean) all.factor = static_cast<T>(1.0 / static_cast<double>(n));
  const std::int64_t blocks = (n + block - 1) / block;
  const std::unique_ptr<double[]> sums(new double[blocks]);  // added in their order, whoever found them
  {
    const py::gil_scoped_release release;
    const auto sum_of_block = HW4FAST_VARIANT(isa, bce_with_logits_sum<T>);
    parallel_for(blocks, 16, threads, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t b = first; b < last; ++b) {
        const std::int64_t i = b * block;
        const BceWithLogits<T> p{all.logits + i,
                                 all.target + i,
                                 weight.at(i),
                                 pos_weight.at(i),
                                 all.loss ? all.loss + i : nullptr,
                                 all.grad ? all.grad + i : nullptr,
                                 all.factor};
        sums[b] = sum_of_block(p, std::min(block, n - i));
      }
    });
  }
  if (reduction == Reduction::none) return;
  const double total = sum(sums.get(), blocks);
  *loss_out = static_cast<T>(reduction == Reduction::mean ? total / static_cast<double>(n) : total);
}

static void bce_with_logits(bool is_double, std::uintptr_t logits, std::uintptr_t target, std::uintptr_t weight,
                            std::int64_t weight_period, std::uintptr_t pos_weight, std::int64_t pos_weight_period,
                            std::uintptr_t loss, std::uintptr_t grad, std::int64_t n, int reduction,
                            const std::string &isa_name, int threads) {
  if (n > 0 && ((weight && weight_period < 1) || (pos_weight && pos_weight_period < 1)))
    throw py::value_error("bce_with_logits was given weights without numbers");
  if (n < 0 || (n > 0 && !(logits && target && loss)))
    throw py::value_error("bce_with_logits was given a tensor without memory");
  const Isa isa = choose_isa(isa_name);
  if (threads < 1) threads = default_threads();
  this_kernel().count(isa);
  const auto typed = [&](auto zero) {
    using T = decltype(zero);
    const BceWithLogits<T> p{pointer<T>(logits),
                             pointer<T>(target),
                             pointer<T>(weight),
                             pointer<T>(pos_weight),
                             nullptr,
                             pointer<T>(grad),
                             T(1)};
    run<T>(p, n, weight_period, pos_weight_period, static_cast<Reduction>(reduction), pointer<T>(loss), isa, threads);
  };
  is_double ? typed(0.0) : typed(0.0f);
}

static void bind(py::module_ &m) {
  m.def("bce_with_logits", &bce_with_logits, py::arg("is_double"), py::arg("logits"), py::arg("target"),
        py::arg("weight"), py::arg("weight_period"), py::arg("pos_weight"), py::arg("pos_weight_period"),
        py::arg("loss"), py::arg("grad"), py::arg("n"), py::arg("reduction"), py::arg("isa") = "",
        py::arg("threads") = 0);
}

HW4FAST_KERNEL(bce_with_logits, bind);
static Kernel &this_kernel() { return bce_with_logits_kernel; }

}  // namespace hw4fast
