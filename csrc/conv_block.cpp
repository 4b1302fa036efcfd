// Binding of conv_block's forward pass. The arguments are raw addresses; hw4fast/kernels/conv_block.py is the safe
// face and the documentation.
#include "conv_block.h"
#include "conv_ways.h"
#include "kernel.h"
#include "parallel.h"

#include <pybind11/stl.h>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define HW4FAST_COMMON_INL "conv.inl"
#define HW4FAST_INL "conv_block.inl"
#include "each_isa.h"

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();

template <class T> static void run(const Strided<const T> &x, const T *weight, const T *bias, const ConvShape &s,
                                   T *out, std::uint8_t *code, Isa isa, int threads) {
  const std::int64_t padded = (s.o + 31) / 32 * 32;  // the widest block, of any instruction set
  const Scratch<T> packed(padded * s.c * s.kh * s.kw), padded_bias(padded);
  std::fill(padded_bias.get(), padded_bias.get() + padded, T(0));
  if (bias) std::copy(bias, bias + s.o, padded_bias.get());
  HW4FAST_VARIANT(isa, conv_pack_weight<T>)(weight, s, packed.get());
  const auto rows_of = HW4FAST_VARIANT(isa, conv_rows<T>);
  const std::int64_t flops = 2 * s.side * s.side * s.cols * s.o * s.c * s.kh * s.kw;  // per row
  parallel_for(s.n * s.rows, 1 + 200000 / std::max<std::int64_t>(flops, 1), threads,
               [&](std::int64_t begin, std::int64_t end) {
                 rows_of(x, packed.get(), padded_bias.get(), s, out, code, begin, end);
               });
}

static void conv_block(bool is_double, std::uintptr_t input, std::array<std::int64_t, 4> strides, std::uintptr_t weight,
                       std::uintptr_t bias, std::uintptr_t output, std::uintptr_t code,
                       std::array<std::int64_t, 4> shape, std::array<std::int64_t, 4> filters,
                       std::array<std::int64_t, 2> stride, std::array<std::int64_t, 2> padding, bool relu, bool pool,
                       const std::string &isa_name, int threads) {
  const ConvShape s = conv_shape(shape, filters, stride, padding, relu, pool);
  if (s.n > 0 && !(input && weight && output)) throw py::value_error("conv_block was given a tensor without memory");
  const Isa isa = choose_isa(isa_name);
  if (threads < 1) threads = default_threads();
  this_kernel().count(isa);
  const auto typed = [&](auto zero) {
    using T = decltype(zero);
    const Strided<const T> x{pointer<const T>(input), strides[0], strides[1], strides[2], strides[3]};
    const py::gil_scoped_release release;
    if (s.groups > 1)
      return conv_depthwise(x, pointer<const T>(weight), pointer<const T>(bias), s, pointer<T>(output),
                            pointer<std::uint8_t>(code), isa, threads);
    if constexpr (std::is_same_v<T, float>)
      if (conv_winograd_wins(s))
        return conv_winograd(x, pointer<const T>(weight), pointer<const T>(bias), s, pointer<T>(output),
                             pointer<std::uint8_t>(code), isa, threads);
    run<T>(x, pointer<const T>(weight), pointer<const T>(bias), s, pointer<T>(output), pointer<std::uint8_t>(code), isa,
           threads);
  };
  is_double ? typed(0.0) : typed(0.0f);
}

static void bind(py::module_ &m) {
  m.def("conv_block", &conv_block, py::arg("is_double"), py::arg("input"), py::arg("strides"), py::arg("weight"),
        py::arg("bias"), py::arg("output"), py::arg("code"), py::arg("shape"), py::arg("filters"), py::arg("stride"),
        py::arg("padding"), py::arg("relu"), py::arg("pool"), py::arg("isa") = "", py::arg("threads") = 0);
}

HW4FAST_KERNEL(conv_block, bind);
static Kernel &this_kernel() { return conv_block_kernel; }

}  // namespace hw4fast
