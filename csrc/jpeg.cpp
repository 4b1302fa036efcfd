// Binding of jpeg. The arguments are raw addresses; hw4fast/kernels/jpeg.py is the safe face and the documentation.
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

constexpr std::int64_t jpeg_side = 8, jpeg_size = jpeg_side * jpeg_side;  // of a block
constexpr std::int64_t jpeg_slack = 64;  // values behind a row, which whole vectors read and write

// Row by row, as the coefficients lie: what quantises and what multiplies again.
struct JpegTable {
  std::int16_t step[jpeg_size], correction[jpeg_size];
  std::uint16_t reciprocal[jpeg_size], scale[jpeg_size];
};

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

// The standard's example tables (ITU-T T.81, annex K), at quality 50.
static const std::uint8_t jpeg_steps[2][jpeg_size] = {
    {16, 11, 10, 16, 24,  40,  51,  61,  12, 12, 14, 19, 26,  58,  60,  55,   //
     14, 13, 16, 24, 40,  57,  69,  56,  14, 17, 22, 29, 51,  87,  80,  62,   //
     18, 22, 37, 56, 68,  109, 103, 77,  24, 35, 55, 64, 81,  104, 113, 92,   //
     49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99},  //
    {17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,          //
     24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,          //
     99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,          //
     99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99}};

// The steps at a quality of 1 … 100, and a multiplication that divides by 8 steps and rounds to the nearest:
// coefficients are 8 times too large until then. (A. Fog's: exact for 16 bits.)
static JpegTable jpeg_table(const std::uint8_t (&steps)[jpeg_size], int quality) {
  const int percent = quality < 50 ? 5000 / quality : 200 - 2 * quality;
  JpegTable table{};
  for (std::int64_t i = 0; i < jpeg_size; ++i) {
    const int step = std::clamp((steps[i] * percent + 50) / 100, 1, 255);
    const std::uint32_t divisor = 8u * static_cast<std::uint32_t>(step);
    int bits = 16;
    while (divisor >> (bits - 15)) ++bits;  // 16 + log2 divisor
    std::uint32_t reciprocal = (1u << bits) / divisor, correction = divisor / 2;
    const std::uint32_t rest = (1u << bits) % divisor;
    if (rest == 0) {
      reciprocal /= 2;
      --bits;
    } else if (rest <= divisor / 2) {
      ++correction;
    } else {
      ++reciprocal;
    }
    table.step[i] = static_cast<std::int16_t>(step);
    table.correction[i] = static_cast<std::int16_t>(correction);
    table.reciprocal[i] = static_cast<std::uint16_t>(reciprocal);
    table.scale[i] = static_cast<std::uint16_t>(1u << (32 - bits));
  }
  return table;
}

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
