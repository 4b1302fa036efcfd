// Binding of pixels: brightness, saturation, veils, snow, tables. The arguments are raw addresses;
// hw4fast/kernels/pixels.py is the safe face and the documentation.
#include "kernel.h"

#include <pybind11/stl.h>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include "exact.h"

namespace hw4fast {

// Contiguous [pixels][channels].
struct Pixels {
  const std::uint8_t *input;
  std::uint8_t *output;
  std::int64_t pixels;
};

struct Veil {
  const float *cover;         // [pixels]; 1 everywhere if there is none
  const std::uint8_t *layer;  // [pixels][channels]; if there is none:
  const float *colour;        // [channels]
  float kept, shadow, amount;
};

}  // namespace hw4fast

#define HW4FAST_COMMON_INL "bytes.inl"
#define HW4FAST_INL "pixels.inl"
#include "each_isa.h"

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();

static Pixels pixels_of(std::uintptr_t input, std::uintptr_t output, std::int64_t pixels, int c) {
  if (pixels < 0 || (c != 1 && c != 3)) throw py::value_error("pixels: bad shape");
  if (pixels && !(input && output)) throw py::value_error("pixels was given an array without memory");
  return {pointer<const std::uint8_t>(input), pointer<std::uint8_t>(output), pixels};
}

static void check_finite(const std::vector<float> &numbers) {
  for (const float number : numbers)
    if (!(std::abs(number) <= 1e6f)) throw py::value_error("pixels: numbers must lie within a million");
}

// saturates: saturation × factor + offset, else value + offset; each clipped to 0 … 1.
static void hsv(std::uintptr_t input, std::uintptr_t output, std::int64_t pixels, bool saturates, float factor,
                float offset, const std::string &isa_name) {
  const Isa isa = choose_isa(isa_name);
  this_kernel().count(isa);
  check_finite({factor, offset});
  const Pixels p = pixels_of(input, output, pixels, 3);
  const py::gil_scoped_release release;
  saturates ? HW4FAST_VARIANT(isa, pixels_saturation)(p, factor, offset)
            : HW4FAST_VARIANT(isa, pixels_value)(p, offset);
}

static void veil(std::uintptr_t input, std::uintptr_t output, std::int64_t pixels, int c, std::uintptr_t cover,
                 std::uintptr_t layer, const std::vector<float> &colour, float kept, float shadow, float amount,
                 const std::string &isa_name) {
  const Isa isa = choose_isa(isa_name);
  this_kernel().count(isa);
  const Pixels p = pixels_of(input, output, pixels, c);
  if (!layer && static_cast<int>(colour.size()) != c) throw py::value_error("veil: a number per channel");
  check_finite({kept, shadow, amount});
  check_finite(colour);
  if (layer && (cover || shadow != 0.0f)) throw py::value_error("veil: a layer has no cover");
  const Veil v{pointer<const float>(cover), pointer<const std::uint8_t>(layer), colour.data(), kept, shadow, amount};
  const py::gil_scoped_release release;
  if (layer)
    HW4FAST_VARIANT(isa, pixels_layer)(p, v, pixels * c);
  else if (c == 1)
    HW4FAST_VARIANT(isa, pixels_veil<1>)(p, v);
  else
    HW4FAST_VARIANT(isa, pixels_veil<3>)(p, v);
}

static void snow(std::uintptr_t input, std::uintptr_t output, std::int64_t pixels, int c, std::uintptr_t flakes,
                 float kept, const std::string &isa_name) {
  const Isa isa = choose_isa(isa_name);
  this_kernel().count(isa);
  const Pixels p = pixels_of(input, output, pixels, c);
  check_finite({kept});
  if (pixels && !flakes) throw py::value_error("snow was given an array without memory");
  const py::gil_scoped_release release;
  if (c == 1)
    HW4FAST_VARIANT(isa, pixels_snow<1>)(p, pointer<const std::uint8_t>(flakes), kept);
  else
    HW4FAST_VARIANT(isa, pixels_snow<3>)(p, pointer<const std::uint8_t>(flakes), kept);
}

// tables [c][256]: value v of channel k becomes tables[k][v].
static void look_up(std::uintptr_t input, std::uintptr_t output, std::int64_t pixels, int c, std::uintptr_t tables) {
  this_kernel().count(Isa::baseline);
  const Pixels p = pixels_of(input, output, pixels, c);
  if (!tables) throw py::value_error("look_up was given an array without memory");
  const py::gil_scoped_release release;
  const auto *table = pointer<const std::uint8_t>(tables);
  const auto each = [&](auto channels) {
    constexpr int C = decltype(channels)::value;
    for (std::int64_t i = 0; i < pixels; ++i)
      for (int k = 0; k < C; ++k) p.output[i * C + k] = table[256 * k + p.input[i * C + k]];
  };
  if (c == 1) return each(std::integral_constant<int, 1>());
  each(std::integral_constant<int, 3>());
}

static void bind(py::module_ &m) {
  m.def("hsv", &hsv, py::arg("input"), py::arg("output"), py::arg("pixels"), py::arg("saturates"), py::arg("factor"),
        py::arg("offset"), py::arg("isa") = "");
  m.def("veil", &veil, py::arg("input"), py::arg("output"), py::arg("pixels"), py::arg("c"), py::arg("cover"),
        py::arg("layer"), py::arg("colour"), py::arg("kept"), py::arg("shadow"), py::arg("amount"),
        py::arg("isa") = "");
  m.def("snow", &snow, py::arg("input"), py::arg("output"), py::arg("pixels"), py::arg("c"), py::arg("flakes"),
        py::arg("kept"), py::arg("isa") = "");
  m.def("look_up", &look_up, py::arg("input"), py::arg("output"), py::arg("pixels"), py::arg("c"), py::arg("tables"));
}

HW4FAST_KERNEL(pixels, bind);
static Kernel &this_kernel() { return pixels_kernel; }

}  // namespace hw4fast
