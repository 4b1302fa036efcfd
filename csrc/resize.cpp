// Binding of resize. The arguments are raw addresses; hw4fast/kernels/resize.py is the safe face and the
// documentation.
#include "kernel.h"
#include "parallel.h"
#include "scratch.h"

#include <pybind11/stl.h>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hw4fast {

constexpr std::int64_t resize_rows = 16;        // that the first pass takes at once
constexpr std::int64_t resize_pitch = 64;       // rows of the middle picture have whole vectors
constexpr std::int64_t resize_cache = 1 << 17;  // bytes of them that it turns at once
constexpr int resize_bits = 22;                 // of a weight's fraction
constexpr std::int32_t resize_half = 1 << (resize_bits - 1);

// The inputs first … first + count − 1 and their weights make one output.
struct ResizeTaps {
  const std::int32_t *weights;
  std::int64_t first, count;
};
// Outputs `begin` … begin + size − 1 of a line.
struct ResizeLine {
  std::int64_t size;
  std::vector<std::int32_t> weights;
  std::vector<std::int64_t> first, offset;  // offset: [size + 1], into weights
  ResizeTaps operator[](std::int64_t i) const {
    return {weights.data() + offset[i], first[i], offset[i + 1] - offset[i]};
  }
};

// What a pass reads: rows `pitch` bytes apart. first: the place of its first row (pass down) or pixel (pass across).
struct ResizeFrom {
  const std::uint8_t *rows;
  std::int64_t pitch, first;
};
// Two passes with a middle picture of bytes between them → bytes, rows of [width] (one plane), or floats,
// [planes][down.size][width].
struct Resize {
  ResizeLine across, down;
  bool down_first;
  ResizeFrom from_across, from_down;
  std::int64_t c, planes, width, pitch;  // width: of a plane; pitch: of all planes, up to whole vectors
  std::uint8_t *middle;                  // rows `pitch` apart; when down comes first, `middle_width`
  std::int64_t middle_width;
  std::uint8_t *bytes;
  float *floats;  // (value / 255 − mean) / std
  const float *mean, *std;

  // Where a channel of output x lies in a row.
  std::int64_t place(std::int64_t x, std::int64_t channel) const {
    return planes == 1 ? x * c + channel : channel * width + x;
  }
};

}  // namespace hw4fast

#define HW4FAST_COMMON_INL "bytes.inl"
#define HW4FAST_INL "resize.inl"
#include "each_isa.h"

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();

// Pillow's filters: how far they reach, and their value at a distance.
struct Filter {
  const char *name;
  double reach;
  double (*at)(double);
};
static double sinc(double x) { return x == 0.0 ? 1.0 : std::sin(x * M_PI) / (x * M_PI); }
static const Filter filters[] = {
    {"box", 0.5, [](double x) { return -0.5 < x && x <= 0.5 ? 1.0 : 0.0; }},
    {"bilinear", 1.0, [](double x) { return std::max(0.0, 1.0 - std::abs(x)); }},
    {"bicubic", 2.0,
     [](double x) {
       constexpr double a = -0.5;
       x = std::abs(x);
       if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
       return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
     }},
    {"lanczos", 3.0, [](double x) { return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0; }},
};

// The weights of outputs begin … begin + count − 1 when `in` pixels become `out`: in float64, rounded to 22 bits; the
// filter is stretched when it shrinks, which is what antialiasing means here. In Pillow's order of operations.
static ResizeLine resize_line(const Filter &filter, std::int64_t in, std::int64_t out, std::int64_t begin,
                              std::int64_t count) {
  const double scale = static_cast<double>(in) / static_cast<double>(out), stretch = std::max(scale, 1.0);
  const double reach = filter.reach * stretch, shrink = 1.0 / stretch;
  ResizeLine line{count, {}, {}, {0}};
  std::vector<double> values;
  for (std::int64_t i = begin; i < begin + count; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const std::int64_t first = std::max<std::int64_t>(static_cast<std::int64_t>(centre - reach + 0.5), 0);
    const std::int64_t last = std::min(static_cast<std::int64_t>(centre + reach + 0.5), in);
    double sum = 0.0;
    values.clear();
    for (std::int64_t k = first; k < last; ++k) {
      values.push_back(filter.at((static_cast<double>(k) - centre + 0.5) * shrink));
      sum += values.back();
    }
    for (const double value : values) {
      const double weight = (sum != 0.0 ? value / sum : value) * (1 << resize_bits);
      line.weights.push_back(static_cast<std::int32_t>(weight < 0 ? weight - 0.5 : weight + 0.5));
    }
    line.first.push_back(first);
    line.offset.push_back(static_cast<std::int64_t>(line.weights.size()));
  }
  return line;
}

static const Filter &filter_of(const std::string &name) {
  for (const Filter &filter : filters)
    if (name == filter.name) return filter;
  throw py::value_error("resize: no filter is called '" + name + "'");
}

// A picture that has its size already: only the bytes are normalised, each of the 256 once per channel.
static void normalise(const ResizeFrom &picture, std::int64_t h, std::int64_t w, std::int64_t c, const float *mean,
                      const float *std, float *output, int threads) {
  std::vector<float> values(static_cast<std::size_t>(c) * 256);
  for (std::int64_t plane = 0; plane < c; ++plane)
    for (int byte = 0; byte < 256; ++byte)
      values[static_cast<std::size_t>(plane * 256 + byte)] =
          (static_cast<float>(byte) / 255.0f - mean[plane]) / std[plane];
  parallel_for(h, 1 + 300000 / (w * c), threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y)
      for (std::int64_t plane = 0; plane < c; ++plane) {
        const std::uint8_t *from = picture.rows + y * picture.pitch + plane;
        const float *of = values.data() + plane * 256;
        float *to = output + (plane * h + y) * w;
        for (std::int64_t x = 0; x < w; ++x) to[x] = of[from[x * c]];
      }
  });
}

// shape: h, w, c; size: height, width of the whole result; box: top, left, height, width of what is wanted of it.
// mean and std given: float32 [c, height, width] is written, else uint8 [height, width, c].
static void resize(std::uintptr_t input, std::array<std::int64_t, 3> shape, std::int64_t row_stride,
                   std::array<std::int64_t, 2> size, std::array<std::int64_t, 4> box, const std::string &filter_name,
                   std::uintptr_t output, const std::vector<float> &mean, const std::vector<float> &std,
                   const std::string &isa_name, int threads) {
  const auto [h, w, c] = shape;
  const auto [top, left, height, width] = box;
  if (c != 1 && c != 3) throw py::value_error("resize: pictures have 1 or 3 channels");
  if (h < 1 || w < 1 || height < 1 || width < 1) throw py::value_error("resize: there must be pixels");
  if (std::max(size[0], size[1]) > std::int64_t{1} << 30) throw py::value_error("resize: a side is too long");
  if (top < 0 || left < 0 || top > size[0] - height || left > size[1] - width)
    throw py::value_error("resize: the box must lie within the size");
  if (mean.size() != std.size() || (!mean.empty() && static_cast<std::int64_t>(mean.size()) != c))
    throw py::value_error("resize: mean and std must have a value per channel");
  if (!(input && output)) throw py::value_error("resize was given an array without memory");
  const Filter &filter = filter_of(filter_name);
  const Isa isa = choose_isa(isa_name);
  if (threads < 1) threads = default_threads();
  this_kernel().count(isa);

  const py::gil_scoped_release release;
  if (!mean.empty() && size[0] == h && size[1] == w && height == h && width == w)
    return normalise({pointer<const std::uint8_t>(input), row_stride, 0}, h, w, c, mean.data(), std.data(),
                     pointer<float>(output), threads);
  Resize r{};
  r.across = resize_line(filter, w, size[1], left, width);
  r.down = resize_line(filter, h, size[0], top, height);
  const auto span = [](const ResizeLine &line) {
    const ResizeTaps last = line[line.size - 1];
    return last.first + last.count - line[0].first;
  };
  const std::int64_t rows = span(r.down), columns = span(r.across);
  const ResizeFrom picture{pointer<const std::uint8_t>(input) + r.down[0].first * row_stride + r.across[0].first * c,
                           row_stride, 0};
  r.down_first = size[0] < h && h - size[0] > 2 * (w - size[1]);  // as Pillow chooses since its version 13
  r.c = c;
  if (mean.empty())
    r.bytes = pointer<std::uint8_t>(output);
  else
    r.floats = pointer<float>(output);
  r.mean = mean.data();
  r.std = std.data();
  r.planes = mean.empty() ? 1 : c;
  r.width = width * c / r.planes;
  r.pitch = (width * c + resize_pitch - 1) / resize_pitch * resize_pitch;
  r.middle_width = columns * c;
  const Scratch<std::uint8_t> middle(r.down_first ? height * r.middle_width : rows * r.pitch);
  r.middle = middle.get();
  if (r.down_first) {
    r.from_down = picture;
    r.from_across = {r.middle, r.middle_width, 0};
  } else {
    r.from_across = picture;
    r.from_down = {r.middle, r.pitch, 0};
  }
  r.from_down.first = r.down[0].first;
  r.from_across.first = r.across[0].first;

  const auto across = c == 1 ? HW4FAST_VARIANT(isa, resize_across<1>) : HW4FAST_VARIANT(isa, resize_across<3>);
  const auto down = HW4FAST_VARIANT(isa, resize_down);
  const auto grain = [](const ResizeLine &line, std::int64_t values) {  // as many rows as are worth a thread
    const std::int64_t taps = static_cast<std::int64_t>(line.weights.size()) / line.size + 1;
    return 1 + 200000 / (taps * values);
  };
  const auto pass_across = [&] {
    const std::int64_t all = r.down_first ? height : rows, blocks = (all + resize_rows - 1) / resize_rows;
    parallel_for(blocks, 1 + grain(r.across, width * c) / resize_rows, threads,
                 [&](std::int64_t begin, std::int64_t end) {
                   across(r, begin * resize_rows, std::min(end * resize_rows, all));
                 });
  };
  const auto pass_down = [&] {
    parallel_for(height, grain(r.down, r.down_first ? r.middle_width : width * c), threads,
                 [&](std::int64_t begin, std::int64_t end) { down(r, begin, end); });
  };
  if (r.down_first) pass_down();
  pass_across();
  if (!r.down_first) pass_down();
}

// For a GPU: of outputs begin … begin + count − 1 of `out` made of `in` the first input, how many, and their weights,
// [most][count], 0 where an output has fewer.
static std::vector<std::int32_t> resize_table(const std::string &filter, std::int64_t in, std::int64_t out,
                                              std::int64_t begin, std::int64_t count) {
  if (in < 1 || count < 1 || begin < 0 || begin > out - count || std::max(in, out) > std::int64_t{1} << 30)
    throw py::value_error("resize: there must be pixels, and they must lie within the size");
  const ResizeLine line = resize_line(filter_of(filter), in, out, begin, count);
  std::int64_t most = 0;
  for (std::int64_t i = 0; i < count; ++i) most = std::max(most, line[i].count);
  std::vector<std::int32_t> table(static_cast<std::size_t>((2 + most) * count));
  for (std::int64_t i = 0; i < count; ++i) {
    const ResizeTaps taps = line[i];
    table[i] = static_cast<std::int32_t>(taps.first);
    table[count + i] = static_cast<std::int32_t>(taps.count);
    for (std::int64_t k = 0; k < taps.count; ++k) table[(2 + k) * count + i] = taps.weights[k];
  }
  return table;
}

static void bind(py::module_ &m) {
  m.def("resize_table", &resize_table, py::arg("filter"), py::arg("in"), py::arg("out"), py::arg("begin"),
        py::arg("count"));
  m.def("resize", &resize, py::arg("input"), py::arg("shape"), py::arg("row_stride"), py::arg("size"), py::arg("box"),
        py::arg("filter"), py::arg("output"), py::arg("mean"), py::arg("std"), py::arg("isa") = "",
        py::arg("threads") = 0);
}

HW4FAST_KERNEL(resize, bind);
static Kernel &this_kernel() { return resize_kernel; }

}  // namespace hw4fast
