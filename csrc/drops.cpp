// Binding of drops: what of a field exceeds a threshold, as bytes, and the light on drops. The arguments are raw
// addresses; hw4fast/kernels/drops.py is the safe face and the documentation.
#include "kernel.h"
#include "scratch.h"

#include <pybind11/stl.h>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include "exact.h"

namespace hw4fast {

struct Above {
  const float *field;  // [rows][columns]
  std::int64_t rows, columns, height, width;
  double down, across;  // how far the next row and column of the output lie in the field
  float scale, offset, threshold, rounding;
  std::uint8_t *output;  // [height][width]
};

constexpr std::int64_t drops_margin = 32;    // values on both sides of a row, and rows above and below: two
constexpr std::int16_t drops_one = 1 << 10;  // a distance of 1; 1.4 and 2.1969 are OpenCV's of 5 × 5
constexpr std::int16_t drops_diagonal = 1434, drops_long = 2250, drops_far = 20 * drops_one;
constexpr std::int16_t drops_weak = 50, drops_strong = 150;  // gradients of an edge: Canny's two thresholds

// A picture with a margin around it.
template <class T> struct DropsPlane {
  T *data;
  std::int64_t pitch;
  T *row(std::int64_t y) const { return data + (y + 2) * pitch + drops_margin; }
};

// Only its last four rows.
struct DropsRing {
  std::int16_t *data;
  std::int64_t pitch;
  std::int16_t *row(std::int64_t y) const { return data + (y & 3) * pitch + drops_margin; }
};

struct Drops {
  const std::uint8_t *grey;  // [h][w]
  float *output;             // [h][w]
  std::int64_t h, w;
};

// Position −1 … n of a line of n, mirrored about its end pixels.
static std::int64_t drops_mirrored(std::int64_t i, std::int64_t n) {
  if (n == 1) return 0;
  return i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i;
}

// Weak pixels that touch strong ones become strong, and so on. kinds: 2 strong, 1 weak.
static void drops_spread(const DropsPlane<std::uint8_t> &kinds, std::vector<std::uint8_t *> &found) {
  while (!found.empty()) {
    std::uint8_t *const at = found.back();
    found.pop_back();
    for (std::int64_t row = -1; row <= 1; ++row)
      for (std::int64_t column = -1; column <= 1; ++column) {
        std::uint8_t *const beside = at + row * kinds.pitch + column;
        if (*beside != 1) continue;
        *beside = 2;
        found.push_back(beside);
      }
  }
}

// OpenCV's equalizeHist: what becomes of each of the levels.
constexpr std::int64_t drops_levels = 32;
static void drops_equalised(const std::int64_t (&count)[drops_levels], std::int64_t total,
                            std::uint8_t (&to)[drops_levels]) {
  std::int64_t first = 0;
  while (count[first] == 0) ++first;
  if (count[first] == total) return std::fill(to, to + drops_levels, static_cast<std::uint8_t>(first));
  const float scale = 255.0f / static_cast<float>(total - count[first]);
  std::int64_t sum = 0;
  for (std::int64_t level = 0; level < drops_levels; ++level) {
    if (level > first) sum += count[level];
    to[level] = static_cast<std::uint8_t>(std::nearbyint(static_cast<float>(sum) * scale));
  }
}

}  // namespace hw4fast

#define HW4FAST_INL "drops.inl"
#include "each_isa.h"

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();

static void above(std::uintptr_t field, std::array<std::int64_t, 2> shape, std::uintptr_t output,
                  std::array<std::int64_t, 2> size, std::array<double, 2> steps, float scale, float offset,
                  float threshold, bool nearest, const std::string &isa_name) {
  const Isa isa = choose_isa(isa_name);
  this_kernel().count(isa);
  const auto [rows, columns] = shape;
  const auto [height, width] = size;
  constexpr std::int64_t longest = std::int64_t{1} << 30;
  for (const std::int64_t side : {rows, columns, height, width})
    if (side < 0 || side > longest) throw py::value_error("above: bad shape");
  if (height == 0 || width == 0) return;
  if (rows == 0 || columns == 0) throw py::value_error("above: an empty field");
  for (const double step : steps)
    if (!(step >= 0 && step <= 1)) throw py::value_error("above: steps must lie in 0 … 1");
  if (!field || !output) throw py::value_error("above was given an array without memory");
  const py::gil_scoped_release release;
  HW4FAST_VARIANT(isa, above_all)
  ({pointer<const float>(field), rows, columns, height, width, steps[0], steps[1], scale, offset, threshold,
    nearest ? 0.5f : 0.0f, pointer<std::uint8_t>(output)});
}

static void drops(std::uintptr_t grey, std::uintptr_t output, std::array<std::int64_t, 2> shape,
                  const std::string &isa_name) {
  const Isa isa = choose_isa(isa_name);
  this_kernel().count(isa);
  const auto [h, w] = shape;
  constexpr std::int64_t longest = std::int64_t{1} << 30;
  if (h < 0 || w < 0 || h > longest || w > longest) throw py::value_error("drops: bad shape");
  if (h == 0 || w == 0) return;
  if (!grey || !output) throw py::value_error("drops was given an array without memory");
  const py::gil_scoped_release release;
  HW4FAST_VARIANT(isa, drops_all)({pointer<const std::uint8_t>(grey), pointer<float>(output), h, w});
}

static void bind(py::module_ &m) {
  m.def("above", &above, py::arg("field"), py::arg("shape"), py::arg("output"), py::arg("size"), py::arg("steps"),
        py::arg("scale"), py::arg("offset"), py::arg("threshold"), py::arg("nearest"), py::arg("isa") = "");
  m.def("drops", &drops, py::arg("grey"), py::arg("output"), py::arg("shape"), py::arg("isa") = "");
}

HW4FAST_KERNEL(drops, bind);
static Kernel &this_kernel() { return drops_kernel; }

}  // namespace hw4fast
