// Binding of gaussian_blur. The arguments are raw addresses; hw4fast/kernels/gaussian_blur.py is the safe face and
// the documentation.
#include "kernel.h"
#include "parallel.h"
#include "scratch.h"

#include <pybind11/stl.h>
#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hw4fast {

// What the passes work in, 32 bits for all: a float, or for uint8 a pair of int16 that meets a pair of weights.
template <class T> using BlurCell = std::conditional_t<std::is_same_v<T, float>, float, std::int32_t>;
template <class T> constexpr std::int64_t blur_taps = std::is_same_v<T, float> ? 1 : 2;  // per cell
constexpr std::int64_t blur_rows_at_once = 4;

template <class T> struct BlurLine {
  const BlurCell<T> *weights;  // down: [cells][4], a column for each of the rows at once; across: [cells]
  std::int64_t cells, size;    // size: taps
  int shift;                   // uint8: how many bits of a sum are rounded away
  bool nearest = true;         // to the nearest, halves to even; else down
};

enum class BlurBorder { mirror, edge, reflect };  // dcb|abcd, aaa|abcd, cba|abcd

// images [n][planes][h] rows of [w][c] contiguous elements: HWC has one plane, CHW one channel.
template <class T> struct Blur {
  const T *input;
  T *output;  // contiguous
  std::int64_t n, planes, h, w, c;
  std::int64_t image_stride, plane_stride, row_stride;  // of the input, in elements
  BlurLine<T> down, across;
  BlurBorder border;
  const std::int64_t *left, *right;  // [across.size / 2 · c]: which element of a row stands there in its borders
};

// Which of a line of n stands at position i, also far outside.
static inline std::int64_t blur_place(BlurBorder border, std::int64_t i, std::int64_t n) {
  if (0 <= i && i < n) return i;
  if (border == BlurBorder::edge) return i < 0 ? 0 : n - 1;
  const std::int64_t twice = border == BlurBorder::reflect ? 1 : 0;  // whether the end pixel stands there again
  const std::int64_t period = std::max<std::int64_t>(2 * (n - 1 + twice), 1);
  i = (i % period + period) % period;
  return std::min(i, period - twice - i);
}

}  // namespace hw4fast

#define HW4FAST_COMMON_INL "bytes.inl"
#define HW4FAST_INL "gaussian_blur.inl"
#include "each_isa.h"

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();

// Weights w [size] of `rows` neighbouring outputs: [cells][rows], zero beyond a row's own taps.
template <class T, class Weight>
static std::vector<BlurCell<T>> blur_weights(const Weight *w, std::int64_t size, std::int64_t rows) {
  std::vector<BlurCell<T>> cells;
  const auto at = [&](std::int64_t k) { return 0 <= k && k < size ? w[k] : Weight(0); };
  for (std::int64_t j = 0; j < size + rows - 1; j += blur_taps<T>)
    for (std::int64_t row = 0; row < rows; ++row)
      if constexpr (blur_taps<T> == 1)
        cells.push_back(at(j - row));
      else
        cells.push_back(at(j - row) | at(j + 1 - row) << 16);
  return cells;
}

static std::vector<std::int64_t> blur_border(BlurBorder border, std::int64_t pixels, std::int64_t w, std::int64_t c,
                                             std::int64_t first) {
  std::vector<std::int64_t> from;
  for (std::int64_t i = 0; i < pixels * c; ++i) from.push_back(blur_place(border, first + i / c, w) * c + i % c);
  return from;
}

// 15-bit values of `bits` in a fraction of their own are weighted and summed: that must stay below 2^31.
static void check_weights(const std::int16_t *w, std::int64_t size, int unit, int bits) {
  std::int64_t sum = 0;
  bool negative = false;
  for (std::int64_t k = 0; k < size; ++k) {
    negative |= w[k] < 0;
    sum += w[k];
  }
  if (negative || unit < 0 || unit + bits > 23 || sum != std::int64_t{1} << unit)
    throw py::value_error("gaussian_blur: the weights don't fit their unit");
}

template <class T, class Weight>
static void run(Blur<T> b, const Weight *down, const Weight *across, Isa isa, int threads) {
  const py::gil_scoped_release release;
  const auto down_cells = blur_weights<T>(down, b.down.size, blur_rows_at_once);
  const auto across_cells = blur_weights<T>(across, b.across.size, 1);
  b.down.weights = down_cells.data();
  b.down.cells = static_cast<std::int64_t>(down_cells.size()) / blur_rows_at_once;
  b.across.weights = across_cells.data();
  b.across.cells = static_cast<std::int64_t>(across_cells.size());
  const auto left = blur_border(b.border, b.across.size / 2, b.w, b.c, -(b.across.size / 2));
  const auto right = blur_border(b.border, b.across.size / 2, b.w, b.c, b.w);
  b.left = left.data();
  b.right = right.data();
  const auto rows_of = HW4FAST_VARIANT(isa, blur_rows<T>);
  const std::int64_t products = b.w * b.c * (b.down.size + b.across.size);  // per row
  parallel_for(b.n * b.planes * b.h, 1 + 200000 / std::max<std::int64_t>(products, 1), threads,
               [&](std::int64_t begin, std::int64_t end) { rows_of(b, begin, end); });
}

// shape: n, planes, h, w, c; strides: of image, plane and row; sizes, units: down, across. Weights: float32, or int16
// that sum to 2^unit for uint8, of which `kept` bits of a fraction stay between the passes.
static void gaussian_blur(bool is_float, std::uintptr_t input, std::array<std::int64_t, 3> strides,
                          std::uintptr_t output, std::array<std::int64_t, 5> shape, std::uintptr_t down,
                          std::uintptr_t across, std::array<std::int64_t, 2> sizes, std::array<int, 2> units, int kept,
                          const std::string &isa_name, int threads, int border, bool nearest) {
  const auto [n, planes, h, w, c] = shape;
  if (n < 0 || planes < 0 || h < 0 || w < 0 || c < 0) throw py::value_error("gaussian_blur: a negative shape");
  for (const std::int64_t size : sizes)
    if (size < 1 || size % 2 == 0) throw py::value_error("gaussian_blur: kernel sizes are odd");
  if (border < 0 || border > 2) throw py::value_error("gaussian_blur: border must be 0, 1 or 2");
  const Isa isa = choose_isa(isa_name);
  if (threads < 1) threads = default_threads();
  this_kernel().count(isa);
  if (n == 0 || planes == 0 || h == 0 || w == 0 || c == 0) return;
  if (!(input && output && down && across)) throw py::value_error("gaussian_blur was given an array without memory");
  const auto typed = [&](auto zero, auto weight, std::array<int, 2> shifts) {
    using T = decltype(zero);
    using Weight = decltype(weight);
    const Blur<T> b{pointer<T>(input),
                    pointer<T>(output),
                    n,
                    planes,
                    h,
                    w,
                    c,
                    strides[0],
                    strides[1],
                    strides[2],
                    {nullptr, 0, sizes[0], shifts[0]},
                    {nullptr, 0, sizes[1], shifts[1], nearest},
                    static_cast<BlurBorder>(border),
                    nullptr,
                    nullptr};
    run<T>(b, pointer<const Weight>(down), pointer<const Weight>(across), isa, threads);
  };
  if (is_float) return typed(0.0f, 0.0f, {0, 0});
  if (kept < 0 || kept > 7 || kept >= units[0]) throw py::value_error("gaussian_blur: kept bits must lie in 0…7");
  check_weights(pointer<const std::int16_t>(down), sizes[0], units[0], 0);
  check_weights(pointer<const std::int16_t>(across), sizes[1], units[1], kept);
  typed(std::uint8_t{0}, std::int16_t{0}, {units[0] - kept, units[1] + kept});
}

static void bind(py::module_ &m) {
  m.def("gaussian_blur", &gaussian_blur, py::arg("is_float"), py::arg("input"), py::arg("strides"), py::arg("output"),
        py::arg("shape"), py::arg("down"), py::arg("across"), py::arg("sizes"), py::arg("units"), py::arg("kept"),
        py::arg("isa") = "", py::arg("threads") = 0, py::arg("border") = 0, py::arg("nearest") = true);
}

HW4FAST_KERNEL(gaussian_blur, bind);
static Kernel &this_kernel() { return gaussian_blur_kernel; }

}  // namespace hw4fast
