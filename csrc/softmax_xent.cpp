// Binding of softmax_xent: checks what would crash, picks the instruction set, spreads rows over the cores.
// The arguments are raw addresses; hw4fast/kernels/softmax_xent.py is the safe face and the documentation.
#include "bfloat16.h"
#include "kernel.h"
#include "parallel.h"
#include "reduction.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hw4fast {

template <class S> struct SoftmaxXent {
  using T = Computing<S>;
  const S *logits;             // [rows, classes], rows row_stride elements apart
  const std::int64_t *target;  // [rows]
  const S *logits_end;         // behind the last row's last class
  const T *weight;             // [classes] or null: all ones
  T *loss;                     // [rows]
  S *grad;                     // [rows, classes], contiguous, or null: not wanted
  T *scratch;                  // [classes], one per thread, where S is not T
  std::int64_t classes, row_stride, ignore_index;
  T scale, smoothing, weight_sum, factor;  // factor: 1 / divisor of the reduction
};

// Below this many classes lanes run across the rows (see softmax_xent.inl).
template <class T> constexpr std::int64_t softmax_xent_short = 256 / sizeof(T);

}  // namespace hw4fast

#define HW4FAST_INL "softmax_xent.inl"
#include "each_isa.h"

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();

enum class Dtype : int { float32, float64, bfloat16 };  // DTYPES of hw4fast/kernels/softmax_xent.py

struct Divisor {
  double weights = 0;     // Σ w_y over the rows that count
  std::int64_t bad = -1;  // the first row whose target is out of range
};

// Stored numbers as they are computed with: themselves, or a copy in float.
template <class S> struct Widened {
  const Computing<S> *values = nullptr;
  std::unique_ptr<Computing<S>[]> copy;

  Widened(const S *stored, std::int64_t n) {
    if constexpr (std::is_same_v<S, Computing<S>>) {
      values = stored;
    } else if (stored) {
      copy.reset(new Computing<S>[n]);
      std::transform(stored, stored + n, copy.get(), [](S value) { return widen(value); });
      values = copy.get();
    }
  }
};

template <class S> static Divisor check_targets(const SoftmaxXent<S> &p, std::int64_t rows) {
  Divisor result;
  std::int64_t counted = 0, wrong = 0;  // without a branch per row, which is most of the time at ten classes
  for (std::int64_t i = 0; i < rows; ++i) {
    const bool counts = p.target[i] != p.ignore_index;
    const bool is_class = static_cast<std::uint64_t>(p.target[i]) < static_cast<std::uint64_t>(p.classes);
    counted += counts;
    wrong += counts && !is_class;
  }
  if (wrong) {
    const auto is_wrong = [&](std::int64_t y) { return y != p.ignore_index && (y < 0 || y >= p.classes); };
    result.bad = std::find_if(p.target, p.target + rows, is_wrong) - p.target;
    return result;
  }
  result.weights = static_cast<double>(counted);
  if (p.weight) {
    result.weights = 0;
    for (std::int64_t i = 0; i < rows; ++i)
      if (p.target[i] != p.ignore_index) result.weights += static_cast<double>(p.weight[p.target[i]]);
  }
  return result;
}

template <class S> static void run(SoftmaxXent<S> p, const S *weight, std::int64_t rows, Reduction reduction,
                                   S *loss_out, Isa isa, int threads) {
  using T = Computing<S>;
  constexpr bool same = std::is_same_v<S, T>;
  const Widened<S> weights(weight, p.classes);
  p.weight = weights.values;
  const Divisor divisor = check_targets(p, rows);
  if (divisor.bad >= 0)
    throw py::index_error("target[" + std::to_string(divisor.bad) + "] is " + std::to_string(p.target[divisor.bad]) +
                          ": neither a class 0…" + std::to_string(p.classes - 1) + " nor ignore_index " +
                          std::to_string(p.ignore_index));
  p.factor = reduction == Reduction::mean ? static_cast<T>(1.0 / divisor.weights) : T(1);
  p.weight_sum = static_cast<T>(p.classes);
  if (p.weight) p.weight_sum = static_cast<T>(sum(p.weight, p.classes));
  std::unique_ptr<T[]> row_losses;
  if constexpr (same) p.loss = loss_out;
  if (!same || reduction != Reduction::none) {
    row_losses.reset(new T[rows]);
    p.loss = row_losses.get();
  }
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(p.classes, 1));
  {
    const py::gil_scoped_release release;
    const auto rows_of = HW4FAST_VARIANT(isa, softmax_xent_rows<S>);
    parallel_for(rows, grain, threads, [&](std::int64_t begin, std::int64_t end) {
      const std::unique_ptr<T[]> scratch(same || !p.grad ? nullptr : new T[p.classes]);
      SoftmaxXent<S> mine = p;
      mine.scratch = scratch.get();
      rows_of(mine, begin, end);
    });
  }
  if (reduction != Reduction::none) {
    const double total = sum(row_losses.get(), rows);
    narrow(static_cast<T>(reduction == Reduction::mean ? total / divisor.weights : total), loss_out);
  } else if (!same) {
    for (std::int64_t i = 0; i < rows; ++i) narrow(row_losses[i], loss_out + i);
  }
}

static void softmax_xent(int dtype, std::uintptr_t logits, std::uintptr_t target, std::uintptr_t weight,
                         std::uintptr_t loss, std::uintptr_t grad, std::int64_t rows, std::int64_t classes,
                         std::int64_t row_stride, double scale, double label_smoothing, std::int64_t ignore_index,
                         int reduction, const std::string &isa_name, int threads) {
  if (rows < 0 || classes < 0 || (rows > 0 && classes < 1))
    throw py::value_error("softmax_xent needs at least one class");
  if (rows > 0 && !(logits && target && loss)) throw py::value_error("softmax_xent was given a tensor without memory");
  const Isa isa = choose_isa(isa_name);
  if (threads < 1) threads = default_threads();
  this_kernel().count(isa);
  const auto stored_as = [&](auto zero) {
    using S = decltype(zero);
    using T = Computing<S>;
    const SoftmaxXent<S> p{pointer<S>(logits),
                           pointer<std::int64_t>(target),
                           rows ? pointer<S>(logits) + (rows - 1) * row_stride + classes : nullptr,
                           nullptr,
                           nullptr,
                           pointer<S>(grad),
                           nullptr,
                           classes,
                           row_stride,
                           ignore_index,
                           static_cast<T>(scale),
                           static_cast<T>(label_smoothing),
                           0,
                           1};
    run<S>(p, pointer<S>(weight), rows, static_cast<Reduction>(reduction), pointer<S>(loss), isa, threads);
  };
  switch (static_cast<Dtype>(dtype)) {
    case Dtype::float32:
      return stored_as(0.0f);
    case Dtype::float64:
      return stored_as(0.0);
    case Dtype::bfloat16:
      return stored_as(BFloat16{});
  }
  throw py::value_error("softmax_xent knows no dtype " + std::to_string(dtype));
}

static void bind(py::module_ &m) {
  m.def("softmax_xent", &softmax_xent, py::arg("dtype"), py::arg("logits"), py::arg("target"), py::arg("weight"),
        py::arg("loss"), py::arg("grad"), py::arg("rows"), py::arg("classes"), py::arg("row_stride"), py::arg("scale"),
        py::arg("label_smoothing"), py::arg("ignore_index"), py::arg("reduction"), py::arg("isa") = "",
        py::arg("threads") = 0);
}

HW4FAST_KERNEL(softmax_xent, bind);
static Kernel &this_kernel() { return softmax_xent_kernel; }

}  // namespace hw4fast
