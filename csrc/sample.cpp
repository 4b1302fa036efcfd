// Binding of sample and warp. The arguments are raw addresses; hw4fast/kernels/sample.py is the safe face and the
// documentation.
#include "kernel.h"
#include "parallel.h"
#include "scratch.h"

#include <pybind11/stl.h>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include "exact.h"

namespace hw4fast {

constexpr std::int64_t sample_run = 256;                // pixels whose places are found at once
constexpr std::int64_t sample_slack = 16;               // bytes behind the frame that may be read, and don't count
constexpr std::int64_t sample_longest = (1 << 24) - 2;  // side of a picture: float32 counts as far
constexpr std::int64_t sample_largest = std::int64_t{1} << 31;  // bytes of a frame: int32 reach as far
constexpr int sample_bits = 14;                                 // of a weight: sums of two fit in an int16, too
constexpr std::int32_t sample_one = 1 << sample_bits;
constexpr int sample_dropped = 7;  // bits after the step across: 8 + 7 stay, which is an int16 again
constexpr std::int32_t sample_middle_half = 1 << (sample_dropped - 1);
constexpr int sample_end = 2 * sample_bits - sample_dropped;  // bits of the last sum's fraction

enum class SampleBorder { edge, reflect, constant };

struct Sample {
  const std::uint8_t *frame;  // the picture [h, w, c] with a pixel more on each side, rows `pitch` bytes apart
  std::int64_t h, w, pitch;
  SampleBorder border;
  std::int32_t half, even;      // what is added before the last fraction is dropped: always, and where the rest is odd
  const double *matrix;         // [9], or none: then
  const float *rows, *columns;  // [height, width]
  std::uint8_t *output;         // [height, width, c]
  std::int64_t width;
};

}  // namespace hw4fast

#define HW4FAST_COMMON_INL "bytes.inl"
#define HW4FAST_INL "sample.inl"
#include "each_isa.h"

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();

struct SampleCall {
  std::uintptr_t input;
  std::array<std::int64_t, 3> shape;  // h, w, c
  std::int64_t row_stride;
  std::string border;
  int fill;
  bool down;
  std::uintptr_t output;
  std::array<std::int64_t, 2> size;  // height, width
  int threads;
};

static SampleBorder border_of(const std::string &name) {
  if (name == "edge") return SampleBorder::edge;
  if (name == "reflect") return SampleBorder::reflect;
  if (name == "constant") return SampleBorder::constant;
  throw py::value_error("sample: no border is called '" + name + "'");
}

// The picture with a pixel around it: its own nearest one, or `fill`.
static void frame(const SampleCall &call, SampleBorder border, std::uint8_t *to) {
  const auto [h, w, c] = call.shape;
  const std::int64_t row = w * c, pitch = row + 2 * c;
  const auto *from = pointer<const std::uint8_t>(call.input);
  const auto bytes = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  const auto edge = [&](std::uint8_t *at, const std::uint8_t *nearest, std::int64_t n) {
    border == SampleBorder::constant ? std::memset(at, call.fill, bytes(n)) : std::memcpy(at, nearest, bytes(n));
  };
  for (std::int64_t y = 0; y < h; ++y) {
    std::uint8_t *at = to + (y + 1) * pitch + c;
    std::memcpy(at, from + y * call.row_stride, bytes(row));
    edge(at - c, at, c);
    edge(at + row, at + row - c, c);
  }
  edge(to, to + pitch, pitch);
  edge(to + (h + 1) * pitch, to + h * pitch, pitch);
  std::memset(to + (h + 2) * pitch, 0, bytes(sample_slack));
}

static void run(const SampleCall &call, Sample s, const std::string &isa_name) {
  const auto [h, w, c] = call.shape;
  const auto [height, width] = call.size;
  if (c != 1 && c != 3) throw py::value_error("sample: pictures have 1 or 3 channels");
  if (h < 1 || w < 1) throw py::value_error("sample: there must be pixels");
  if (std::max(h, w) > sample_longest || (h + 2) * (w + 2) * c + sample_slack >= sample_largest)
    throw py::value_error("sample: the picture is too large");
  if (std::min(height, width) < 0 || std::max(height, width) > std::int64_t{1} << 30)
    throw py::value_error("sample: a side is negative or too long");
  if (call.fill < 0 || call.fill > 255) throw py::value_error("sample: fill must lie in 0 … 255");
  s.border = border_of(call.border);
  const Isa isa = choose_isa(isa_name);
  const int threads = call.threads < 1 ? default_threads() : call.threads;
  this_kernel().count(isa);
  if (height == 0 || width == 0) return;
  if (!call.input || !call.output || !(s.matrix || (s.rows && s.columns)))
    throw py::value_error("sample was given an array without memory");

  const py::gil_scoped_release release;
  s.h = h;
  s.w = w;
  s.pitch = (w + 2) * c;
  s.half = call.down ? 0 : (1 << (sample_end - 1)) - 1;
  s.even = call.down ? 0 : 1;
  s.output = pointer<std::uint8_t>(call.output);
  s.width = width;
  const Scratch<std::uint8_t> framed((h + 2) * s.pitch + sample_slack);
  frame(call, s.border, framed.get());
  s.frame = framed.get();
  const auto rows = c == 1 ? HW4FAST_VARIANT(isa, sample_rows<1>) : HW4FAST_VARIANT(isa, sample_rows<3>);
  parallel_for(height, 1 + 20000 / width, threads, [&](std::int64_t begin, std::int64_t end) { rows(s, begin, end); });
}

// At places rows, columns (float32 [height, width]) → uint8 [height, width, c].
static void sample(std::uintptr_t input, std::array<std::int64_t, 3> shape, std::int64_t row_stride,
                   const std::string &border, int fill, bool down, std::uintptr_t rows, std::uintptr_t columns,
                   std::array<std::int64_t, 2> size, std::uintptr_t output, const std::string &isa, int threads) {
  Sample s{};
  s.rows = pointer<const float>(rows);
  s.columns = pointer<const float>(columns);
  run({input, shape, row_stride, border, fill, down, output, size, threads}, s, isa);
}

// At the places of a homography → uint8 [height, width, c].
static void warp(std::uintptr_t input, std::array<std::int64_t, 3> shape, std::int64_t row_stride,
                 const std::string &border, int fill, bool down, const std::array<double, 9> &matrix,
                 std::array<std::int64_t, 2> size, std::uintptr_t output, const std::string &isa, int threads) {
  Sample s{};
  s.matrix = matrix.data();
  run({input, shape, row_stride, border, fill, down, output, size, threads}, s, isa);
}

static void bind(py::module_ &m) {
  m.def("sample", &sample, py::arg("input"), py::arg("shape"), py::arg("row_stride"), py::arg("border"),
        py::arg("fill"), py::arg("down"), py::arg("rows"), py::arg("columns"), py::arg("size"), py::arg("output"),
        py::arg("isa") = "", py::arg("threads") = 1);
  m.def("warp", &warp, py::arg("input"), py::arg("shape"), py::arg("row_stride"), py::arg("border"), py::arg("fill"),
        py::arg("down"), py::arg("matrix"), py::arg("size"), py::arg("output"), py::arg("isa") = "",
        py::arg("threads") = 1);
}

HW4FAST_KERNEL(sample, bind);
static Kernel &this_kernel() { return sample_kernel; }

}  // namespace hw4fast
