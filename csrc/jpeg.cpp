// Binding of jpeg. The arguments are raw addresses; hw4fast/kernels/jpeg.py is the safe face and the documentation.
#include "jpeg.h"
#include "kernel.h"
#include "scratch.h"

#include <pybind11/stl.h>
#include <algorithm>
#include <cstring>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hw4fast {

constexpr std::int64_t jpeg_slack = 64;  // values behind a row, which whole vectors read and write

// One component: rows of whole blocks.
struct JpegPlane {
  std::uint8_t *data;
  std::int64_t pitch, rows;
  std::uint8_t *row(std::int64_t y) const { return data + y * pitch; }
};

struct Jpeg {
  const std::uint8_t *input;
  std::uint8_t *output;
  std::int64_t h, w, c, stride;
  JpegTable tables[2];  // of brightness, of colour
};

}  // namespace hw4fast

#define HW4FAST_COMMON_INL "bytes.inl"
#define HW4FAST_INL "jpeg.inl"
#include "each_isa.h"

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();

static void jpeg(std::uintptr_t input, std::int64_t stride, std::uintptr_t output, std::array<std::int64_t, 3> shape,
                 int quality, const std::string &isa_name) {
  const Isa isa = choose_isa(isa_name);
  this_kernel().count(isa);
  const auto [h, w, c] = shape;
  if (h < 0 || w < 0 || (c != 1 && c != 3) || std::max(h, w) > 65535) throw py::value_error("jpeg: bad shape");
  if (quality < 1 || quality > 100) throw py::value_error("jpeg: quality must lie in 1 … 100");
  if (h == 0 || w == 0) return;
  if (!input || !output) throw py::value_error("jpeg was given an array without memory");
  const py::gil_scoped_release release;
  const Jpeg j{pointer<const std::uint8_t>(input),
               pointer<std::uint8_t>(output),
               h,
               w,
               c,
               stride,
               {jpeg_table(jpeg_steps[0], quality), jpeg_table(jpeg_steps[1], quality)}};
  HW4FAST_VARIANT(isa, jpeg_all)(j);
}

static void bind(py::module_ &m) {
  m.def("jpeg", &jpeg, py::arg("input"), py::arg("stride"), py::arg("output"), py::arg("shape"), py::arg("quality"),
        py::arg("isa") = "");
}

HW4FAST_KERNEL(jpeg, bind);
static Kernel &this_kernel() { return jpeg_kernel; }

}  // namespace hw4fast
