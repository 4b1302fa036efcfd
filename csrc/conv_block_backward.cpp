// Binding of conv_block's backward pass. The arguments are raw addresses; hw4fast/kernels/conv_block.py is the safe
// face and the documentation.
#include "conv_ways.h"
#include "kernel.h"
#include "parallel.h"

#include <pybind11/stl.h>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hw4fast {

template <class T> struct ConvBackward {
  ConvShape shape;
  Strided<const T> x, g;     // [n, c, h, w] and [n, o, rows, cols]
  const std::uint8_t *code;  // [n, rows, cols, o], or null: all 0
  const T *weight;           // as conv_rows_of_weight packs it, or null
  T *dx;                     // [n, h, w, c], or null: not wanted
};

constexpr std::int64_t conv_few_taps = 49;  // kh·kw·c up to which lanes run along the output channels
constexpr std::int64_t conv_group = 8;      // neighbouring outputs whose input gradients are found together

inline std::int64_t conv_padded(const ConvShape &s, std::int64_t vector) {
  return (s.kw * s.c + vector - 1) / vector * vector;
}

// Of a packed picture.
inline std::int64_t conv_columns(const ConvShape &s) { return (s.cols * s.side - 1) * s.across + s.kw; }

}  // namespace hw4fast

#define HW4FAST_COMMON_INL "conv.inl"
#define HW4FAST_INL "conv_block_backward.inl"
#include "each_isa.h"

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();

template <class T> static void run(ConvBackward<T> p, const T *weight, T *dw, T *db, Isa isa, int threads) {
  const ConvShape &s = p.shape;
  const std::int64_t filters = s.o * s.kh * conv_padded(s, 64 / sizeof(T));  // the widest of any instruction set
  // Groups of images have sums of their own, added in order at the end: their number depends on the shape alone, so
  // the result does not depend on the number of threads.
  const std::int64_t groups = std::min<std::int64_t>(s.n, 16), size = filters + s.o;
  const bool sums = dw || db;
  const Scratch<T> packed(p.dx ? filters : 0), parts(sums ? groups * size : 0);
  if (p.dx) {
    HW4FAST_VARIANT(isa, conv_rows_of_weight<T>)(weight, s, packed.get());
    p.weight = packed.get();
  }
  const auto images = HW4FAST_VARIANT(isa, conv_backward_images<T>);
  const auto reduce = HW4FAST_VARIANT(isa, conv_reduce<T>);
  parallel_for(groups, 1, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t group = begin; group < end; ++group) {
      T *part = sums ? parts.get() + group * size : nullptr;
      if (part) std::fill(part, part + size, T(0));
      images(p, s.n * group / groups, s.n * (group + 1) / groups, part);
    }
  });
  if (sums)
    parallel_for(s.o, 8, threads, [&](std::int64_t begin, std::int64_t end) {
      reduce(s, groups, parts.get(), size, dw, db, begin, end);
    });
}

// A code that no forward pass writes would lead out of the picture, and so would lists whose places don't fit.
static void check_backward(const ConvShape &s, const std::uint8_t *code) {
  if (s.o * s.kh * conv_padded(s, 16) > std::numeric_limits<std::int32_t>::max() ||
      (s.kh + s.down) * conv_columns(s) * s.c > std::numeric_limits<std::int32_t>::max())
    throw py::value_error("conv_block_backward: the weight or a few rows of the input have over 2^31 elements");
  bool wrong = false;
  for (std::int64_t i = 0; code && i < s.n * s.rows * s.cols * s.o; ++i)
    wrong |= code[i] > code_dead || (!s.pool && code[i] != 0 && code[i] != code_dead);
  if (wrong) throw py::value_error("conv_block_backward: code holds numbers that conv_block doesn't write");
}

static void conv_block_backward(bool is_double, std::uintptr_t grad, std::array<std::int64_t, 4> grad_strides,
                                std::uintptr_t code, bool is_own_code, std::uintptr_t input,
                                std::array<std::int64_t, 4> strides, std::uintptr_t weight, std::uintptr_t grad_input,
                                std::uintptr_t grad_weight, std::uintptr_t grad_bias, std::array<std::int64_t, 4> shape,
                                std::array<std::int64_t, 4> filters, std::array<std::int64_t, 2> stride,
                                std::array<std::int64_t, 2> padding, bool relu, bool pool, const std::string &isa_name,
                                int threads) {
  const ConvShape s = conv_shape(shape, filters, stride, padding, relu, pool);
  if (s.n > 0 && !(grad && input && weight && (code || !(relu || pool))))
    throw py::value_error("conv_block_backward was given a tensor without memory");
  check_backward(s, pointer<const std::uint8_t>((relu || pool) && !is_own_code ? code : 0));
  const Isa isa = choose_isa(isa_name);
  if (threads < 1) threads = default_threads();
  this_kernel().count(isa);
  const auto typed = [&](auto zero) {
    using T = decltype(zero);
    const ConvBackward<T> p{
        s,
        {pointer<const T>(input), strides[0], strides[1], strides[2], strides[3]},
        {pointer<const T>(grad), grad_strides[0], grad_strides[1], grad_strides[2], grad_strides[3]},
        pointer<const std::uint8_t>(relu || pool ? code : 0),
        nullptr,
        pointer<T>(grad_input)};
    const py::gil_scoped_release release;
    T *dw = pointer<T>(grad_weight), *db = pointer<T>(grad_bias);
    if (s.groups > 1)
      return conv_depthwise_backward(p.x, p.g, p.code, pointer<const T>(weight), s, p.dx, dw, db, isa, threads);
    if constexpr (std::is_same_v<T, float>)
      if (!s.pool && conv_by_winograd<T>(s))  // with the pool, lists of the living outputs are fewer products
        return conv_winograd_backward(p.x, p.g, p.code, pointer<const T>(weight), s, p.dx, dw, db, isa, threads);
    run<T>(p, pointer<const T>(weight), dw, db, isa, threads);
  };
  is_double ? typed(0.0) : typed(0.0f);
}

static void bind(py::module_ &m) {
  m.def("conv_block_backward", &conv_block_backward, py::arg("is_double"), py::arg("grad"), py::arg("grad_strides"),
        py::arg("code"), py::arg("is_own_code"), py::arg("input"), py::arg("strides"), py::arg("weight"),
        py::arg("grad_input"), py::arg("grad_weight"), py::arg("grad_bias"), py::arg("shape"), py::arg("filters"),
        py::arg("stride"), py::arg("padding"), py::arg("relu"), py::arg("pool"), py::arg("isa") = "",
        py::arg("threads") = 0);
}

HW4FAST_KERNEL(conv_block_backward, bind);
static Kernel &this_kernel() { return conv_block_backward_kernel; }

}  // namespace hw4fast
