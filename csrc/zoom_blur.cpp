// Binding of zoom_blur. The arguments are raw addresses; hw4fast/kernels/zoom_blur.py is the safe face and the
// documentation.
#include "kernel.h"
#include "scratch.h"

#include <pybind11/stl.h>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include "exact.h"

namespace hw4fast {

constexpr int zoom_bits = 14;         // of a share: 1 is an int16, too
constexpr int zoom_dropped = 7;       // bits after the step across: 8 + 7 stay, which is an int16 again
constexpr int zoom_down_dropped = 9;  // bits after the step down: 8 + 12 stay, and there is room for 1,000 copies
constexpr int zoom_end = 2 * zoom_bits - zoom_dropped - zoom_down_dropped;
constexpr std::int64_t zoom_group = 16;      // values of a row
constexpr std::int64_t zoom_window = 32;     // bytes that a group is made from
constexpr std::uint8_t zoom_nothing = 0x80;  // pshufb makes it a 0

struct Zoom {
  const std::uint8_t *input;
  std::uint8_t *output;
  std::int64_t h, w, c, stride;
  std::int32_t own, rounding;  // the picture's own weight; what the sums have lost below their last bits
  float share;
};

// An enlarged copy: which rows and columns its own lie between, and with which shares, as two int16. The values of a
// group and their right neighbours lie within a window; four of them, within four words of 32 bits of it.
struct ZoomCopy {
  std::vector<std::int64_t> upper;  // [h]; the lower row is the next one
  std::vector<std::int32_t> down;   // [h]: of the lower row, of the upper one
  Scratch<std::int32_t> first;      // [groups]: where a window begins in a row
  Scratch<std::int32_t> words;      // [groups][16]: which of its words, four for four values
  Scratch<std::uint8_t> order;      // [groups][64]: pshufb's, which makes int16 of their bytes
  Scratch<std::int32_t> across;     // [groups][16]: of the left pixel, of the right one
};

struct ZoomPlan {
  std::array<std::int64_t, 3> shape;
  std::vector<double> factors;
  std::int32_t own;  // how many of the copies are the picture itself, and itself
  std::vector<ZoomCopy> copies;
};

}  // namespace hw4fast

#define HW4FAST_COMMON_INL "bytes.inl"
#define HW4FAST_INL "zoom_blur.inl"
#include "each_isa.h"

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();

// Where the outputs of a line lie: behind pixel `first`, and the shares of it and of the next one, 0 if nowhere.
struct ZoomLine {
  std::vector<std::int64_t> first;
  std::vector<std::int32_t> shares;
  bool same;  // not enlarged
};

// scipy.ndimage.zoom(order=1) of the middle of n pixels, of which the first n outputs are kept: the ends of the cut lie
// on each other, and what arithmetic puts beyond its last pixel is 0.
static ZoomLine zoom_line(std::int64_t n, double factor) {
  const auto cut = static_cast<std::int64_t>(std::ceil(static_cast<double>(n) / factor));
  const std::int64_t begin = (n - cut) / 2;
  const auto outputs = static_cast<std::int64_t>(std::nearbyint(static_cast<double>(cut) * factor));
  const double step = outputs > 1 ? static_cast<double>(cut - 1) / static_cast<double>(outputs - 1) : 1.0;
  ZoomLine line{{}, {}, cut == n && outputs == n};
  for (std::int64_t i = 0; i < n; ++i) {
    const double at = step * static_cast<double>(i);
    const auto below = std::min(static_cast<std::int64_t>(at), cut - 1);
    const auto next = static_cast<std::int32_t>((at - static_cast<double>(below)) * (1 << zoom_bits) + 0.5);
    const bool inside = i < outputs && at <= static_cast<double>(cut - 1);
    line.first.push_back(begin + below);
    line.shares.push_back(inside ? ((1 << zoom_bits) - next) | next << 16 : 0);
  }
  return line;
}

static ZoomCopy zoom_copy(ZoomLine down, const ZoomLine &across, std::int64_t w, std::int64_t c) {
  const std::int64_t width = w * c, groups = (width + 63) / 64 * 4;  // up to whole vectors
  for (std::int32_t &shares : down.shares) shares = (shares & 0xffff) << 16 | shares >> 16;
  const auto zeros = [&](auto type, std::int64_t each, int value) {
    Scratch<decltype(type)> memory(each * groups);
    std::fill(memory.get(), memory.get() + each * groups, static_cast<decltype(type)>(value));
    return memory;
  };
  ZoomCopy copy{std::move(down.first),
                std::move(down.shares),
                zeros(std::int32_t{}, 1, 0),
                zeros(std::int32_t{}, zoom_group, 0),
                zeros(std::uint8_t{}, 4 * zoom_group, zoom_nothing),
                zeros(std::int32_t{}, zoom_group, 0)};
  const std::int64_t last = std::max<std::int64_t>(width - zoom_window, 0);
  for (std::int64_t i = 0; i < width; ++i) {
    const std::int64_t x = i / c, left = across.first[x] * c;
    std::int32_t &first = copy.first.get()[i / zoom_group], *words = copy.words.get() + i / 4 * 4;
    if (i % zoom_group == 0) first = static_cast<std::int32_t>(std::min(left, last));
    if (i % 4 == 0)
      for (std::int64_t k = 0; k < 4; ++k)
        words[k] = static_cast<std::int32_t>(std::min<std::int64_t>((left - first) / 4, 4) + k);
    const auto at = static_cast<std::uint8_t>(left + i % c - first - 4 * words[0]);
    const std::int32_t shares = across.shares[x];
    copy.order.get()[4 * i] = at;
    copy.order.get()[4 * i + 2] = static_cast<std::uint8_t>(shares >> 16 ? at + c : at);
    copy.across.get()[i] = shares;
  }
  return copy;
}

// The last plan is kept: most pictures that follow another are as large and as blurred.
static std::shared_ptr<const ZoomPlan> zoom_plan(std::array<std::int64_t, 3> shape,
                                                 const std::vector<double> &factors) {
  static std::mutex mutex;
  static std::shared_ptr<const ZoomPlan> kept;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (kept && kept->shape == shape && kept->factors == factors) return kept;
  }
  auto plan = std::make_shared<ZoomPlan>(ZoomPlan{shape, factors, 1, {}});
  const auto [h, w, c] = shape;
  for (const double factor : factors) {
    ZoomLine down = zoom_line(h, factor);
    const ZoomLine across = zoom_line(w, factor);
    if (down.same && across.same)
      ++plan->own;
    else
      plan->copies.push_back(zoom_copy(std::move(down), across, w, c));
  }
  constexpr std::int64_t most = std::int64_t{1} << 22;  // values of all copies' lines: some 40 MB
  if (static_cast<std::int64_t>(factors.size()) * (h + w * c) <= most) {
    const std::lock_guard<std::mutex> lock(mutex);
    kept = plan;
  }
  return plan;
}

// What the copies' sums have lost: rounded down twice, on average half a unit across, at most one down.
static std::int32_t zoom_lost(std::int64_t copies) {
  return static_cast<std::int32_t>(copies) * ((1 << (zoom_bits - zoom_down_dropped - 1)) + 1);
}
// Of the sum over so many factors' copies and the picture.
static float zoom_share(std::size_t factors) { return 1.0f / static_cast<float>((factors + 1) << zoom_end); }

static void zoom_checked(const std::vector<double> &factors) {
  for (const double factor : factors)
    if (!(factor >= 1 && factor <= 100)) throw py::value_error("zoom_blur: factors must lie in 1 … 100");
  if (factors.size() > 1000) throw py::value_error("zoom_blur: too many factors (1000 factors at most)");
}

// For csrc/zoom_blur.cu: int32 [copies][h + w][2], in which the rows of all copies come before all columns: the pixel
// before each place, and the share of the next one in 2¹⁴, −1 where there is none of the copy; and how many copies
// there are, what the picture itself weighs, what is given back and what the sum is multiplied with.
static py::tuple zoom_blur_tables(std::int64_t h, std::int64_t w, const std::vector<double> &factors) {
  zoom_checked(factors);
  if (h < 1 || w < 1 || std::max(h, w) > 1 << 28) throw py::value_error("zoom_blur: bad shape");
  std::vector<std::int32_t> rows, columns;
  std::int32_t own = 1;
  std::int64_t copies = 0;
  const auto put = [](const ZoomLine &line, std::vector<std::int32_t> &to) {
    for (std::size_t i = 0; i < line.first.size(); ++i) {
      to.push_back(static_cast<std::int32_t>(line.first[i]));
      to.push_back(line.shares[i] ? line.shares[i] >> 16 : -1);
    }
  };
  for (const double factor : factors) {
    const ZoomLine down = zoom_line(h, factor), across = zoom_line(w, factor);
    if (down.same && across.same) {
      ++own;
      continue;
    }
    put(down, rows), put(across, columns), ++copies;
  }
  rows.insert(rows.end(), columns.begin(), columns.end());
  const py::bytes table(reinterpret_cast<const char *>(rows.data()), rows.size() * sizeof(std::int32_t));
  return py::make_tuple(table, copies, own << zoom_end, zoom_lost(copies), zoom_share(factors.size()));
}

static void zoom_blur(std::uintptr_t input, std::int64_t stride, std::uintptr_t output,
                      std::array<std::int64_t, 3> shape, const std::vector<double> &factors,
                      const std::string &isa_name) {
  const Isa isa = choose_isa(isa_name);
  this_kernel().count(isa);
  const auto [h, w, c] = shape;
  if (h < 0 || w < 0 || (c != 1 && c != 3) || w > 1 << 28) throw py::value_error("zoom_blur: bad shape");
  zoom_checked(factors);
  if (h == 0 || w == 0) return;
  if (!input || !output) throw py::value_error("zoom_blur was given an array without memory");
  const py::gil_scoped_release release;
  const auto plan = zoom_plan(shape, factors);
  Zoom z{pointer<const std::uint8_t>(input),
         pointer<std::uint8_t>(output),
         h,
         w,
         c,
         stride,
         plan->own << zoom_end,
         zoom_lost(static_cast<std::int64_t>(plan->copies.size())),
         zoom_share(factors.size())};
  const bool narrow = w * c < zoom_window;  // a window would reach beyond the last row
  const Scratch<std::uint8_t> wide(narrow ? h * zoom_window : 0);
  if (narrow) {
    std::fill(wide.get(), wide.get() + h * zoom_window, std::uint8_t{0});
    for (std::int64_t y = 0; y < h; ++y)
      std::memcpy(wide.get() + y * zoom_window, z.input + y * stride, static_cast<std::size_t>(w * c));
    z.input = wide.get();
    z.stride = zoom_window;
  }
  HW4FAST_VARIANT(isa, zoom_all)(z, plan->copies);
}

static void bind(py::module_ &m) {
  m.def("zoom_blur", &zoom_blur, py::arg("input"), py::arg("stride"), py::arg("output"), py::arg("shape"),
        py::arg("factors"), py::arg("isa") = "");
  m.def("zoom_blur_tables", &zoom_blur_tables, py::arg("h"), py::arg("w"), py::arg("factors"));
}

HW4FAST_KERNEL(zoom_blur, bind);
static Kernel &this_kernel() { return zoom_blur_kernel; }

}  // namespace hw4fast
