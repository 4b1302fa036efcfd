// Binding of conv_block's forward pass. The arguments are raw addresses; hw4fast/kernels/conv_block.py is the safe
// face and the documentation.
#include "conv_ways.h"
#include "kernel.h"
#include "parallel.h"

#include <pybind11/stl.h>

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();

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
    const ConvFilters<T> filters(pointer<const T>(weight), pointer<const T>(bias), s, conv_way<T>(s, false), isa,
                                 threads);
    conv_forward(x, filters, s, pointer<T>(output), pointer<std::uint8_t>(code), threads);
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
