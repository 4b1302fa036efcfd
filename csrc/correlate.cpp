// Binding of correlate. The arguments are raw addresses; hw4fast/kernels/correlate.py is the safe face and the
// documentation.
#include "kernel.h"
#include "scratch.h"

#include <pybind11/stl.h>
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hw4fast {

constexpr std::int64_t correlate_slack = 64;    // values behind a row, which whole vectors read
constexpr std::int64_t correlate_rows = 128;    // outputs' rows at once, or a few less
constexpr std::int64_t correlate_longest = 31;  // radius of a run: two of its sums are an int16

// A pair of weights (int16, the first in the lower half), and the place of the cells that they are for. Or the two
// places: cells of two rows are added first.
struct CorrelateTap {
  std::int64_t place, other;
  std::int32_t weights;
};

struct Correlate {
  const std::uint8_t *input;
  std::uint8_t *output;
  std::int64_t h, w, c, stride;
  bool mirrored;
  std::int64_t above, below, pitch;        // rows around; values of a row with what lies around it, and slack
  std::vector<std::int64_t> left, right;   // which value of a row each one beside it is
  std::vector<CorrelateTap> pairs;         // places: values from an output to the first pixel
  std::int64_t down, beside;               // rows and values from it to the second one
  std::vector<CorrelateTap> runs, folded;  // instead, of one place and of two: rows from an output, of planes of `span`
  std::vector<std::int64_t> radii;         // of the runs, ascending; two are a plane
  std::int64_t size, span;                 // rows of outputs at once, and with those around them
  int unit;
  std::int32_t rounding;
};

// Where position i of a line of n lies: at its end pixel, or mirrored about it on and on.
static std::int64_t correlate_place(std::int64_t i, std::int64_t n, bool mirrored) {
  if (0 <= i && i < n) return i;
  if (!mirrored) return i < 0 ? 0 : n - 1;
  const std::int64_t period = std::max<std::int64_t>(2 * (n - 1), 1);
  i = (i % period + period) % period;
  return std::min(i, period - i);
}

// Row y of the picture, which may lie above or below it, and what lies beside it.
static void correlate_line(const Correlate &k, std::int64_t y, std::uint8_t *to) {
  const std::uint8_t *row = k.input + correlate_place(y, k.h, k.mirrored) * k.stride;
  std::uint8_t *const end = to + k.pitch;
  for (const std::int64_t at : k.left) *to++ = row[at];
  to = std::copy(row, row + k.w * k.c, to);
  for (const std::int64_t at : k.right) *to++ = row[at];
  std::fill(to, end, std::uint8_t{0});
}

}  // namespace hw4fast

#define HW4FAST_COMMON_INL "bytes.inl"
#define HW4FAST_INL "correlate.inl"
#include "each_isa.h"

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();

struct CorrelateWeight {
  std::int64_t row, column, weight;
  bool operator<(const CorrelateWeight &other) const {
    return row != other.row ? row < other.row : column < other.column;
  }
};
struct CorrelateWeights {
  std::vector<CorrelateWeight> all;                        // in order, each place once
  std::int64_t above = 0, below = 0, left = 0, right = 0;  // how far they reach
  std::vector<CorrelateWeight>::const_iterator find(std::int64_t row, std::int64_t column) const {
    return std::lower_bound(all.begin(), all.end(), CorrelateWeight{row, column, 0});
  }
  std::int64_t of(std::int64_t row, std::int64_t column) const {
    const auto found = find(row, column);
    return found != all.end() && found->row == row && found->column == column ? found->weight : 0;
  }
};

static std::vector<CorrelateWeight> correlate_checked(const std::vector<std::int64_t> &rows,
                                                      const std::vector<std::int64_t> &columns,
                                                      const std::vector<std::int64_t> &weights, int unit) {
  if (rows.size() != columns.size() || rows.size() != weights.size() || rows.empty() || unit < 1 || unit > 15)
    throw py::value_error("correlate: rows, columns and weights must be as many");
  const auto near = [](std::int64_t by) { return -4096 <= by && by <= 4096; };
  std::vector<CorrelateWeight> taps;
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (!near(rows[i]) || !near(columns[i])) throw py::value_error("correlate: a tap is too far away");
    if (weights[i] < 0 || weights[i] > 32767) throw py::value_error("correlate: weights must fit 15 bits");
    sum += weights[i];
    taps.push_back({rows[i], columns[i], weights[i]});
  }
  if (sum > std::int64_t{1} << unit) throw py::value_error("correlate: the weights sum to more than 1");
  return taps;
}

// Each place once, in units of 2^−unit. A weight of 1 that several taps make is no int16, and the only one: then a bit
// less does.
static CorrelateWeights correlate_weights(std::vector<CorrelateWeight> taps, int &unit) {
  std::sort(taps.begin(), taps.end());
  CorrelateWeights found;
  std::int64_t most = 0;
  for (const CorrelateWeight &tap : taps) {
    if (!found.all.empty() && !(found.all.back() < tap))
      found.all.back().weight += tap.weight;
    else
      found.all.push_back(tap);
    most = std::max(most, found.all.back().weight);
    found.above = std::max(found.above, -tap.row);
    found.below = std::max(found.below, tap.row);
    found.left = std::max(found.left, -tap.column);
    found.right = std::max(found.right, tap.column);
  }
  if (most > 32767) {
    --unit;
    for (CorrelateWeight &tap : found.all) tap.weight /= 2;
  }
  return found;
}

static std::int32_t correlate_two(std::int64_t first, std::int64_t second) {
  return static_cast<std::int32_t>((first & 0xffff) | second * 65536);
}

// Taps by twos, the second of each (down, beside) from the first.
static std::vector<CorrelateTap> correlate_pairs_of(const CorrelateWeights &weights, const Correlate &k,
                                                    std::int64_t down, std::int64_t beside) {
  const auto &all = weights.all;
  std::vector<CorrelateTap> pairs;
  std::vector<bool> taken(all.size(), false);
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (taken[i]) continue;
    const std::int64_t row = all[i].row + down, column = all[i].column + beside;
    const auto second = static_cast<std::size_t>(weights.find(row, column) - all.begin());
    const bool there = second < all.size() && all[second].row == row && all[second].column == column;
    if (there) taken[second] = true;
    pairs.push_back(
        {all[i].row * k.pitch + all[i].column * k.c, 0, correlate_two(all[i].weight, there ? all[second].weight : 0)});
  }
  return pairs;
}

// Along the way that most taps go: a streak's are in a row, in a column or aslant.
static void correlate_choose_pairs(const CorrelateWeights &weights, Correlate &k) {
  constexpr std::int64_t ways[][2] = {{0, 1}, {1, 0}, {1, 1}, {1, -1}};
  for (const auto &[down, beside] : ways) {
    auto pairs = correlate_pairs_of(weights, k, down, beside);
    if (!k.pairs.empty() && pairs.size() >= k.pairs.size()) continue;
    k.pairs = std::move(pairs);
    k.down = down;
    k.beside = beside * k.c;
  }
}

// The same as runs, if every row is the same to both sides and it is worth it: a run of radius r weighs what column r
// has more than column r + 1. If every row is the same as the one on the other side, their runs are added first.
static void correlate_runs_of(const CorrelateWeights &weights, Correlate &k) {
  const std::int64_t reach = weights.right;
  if (weights.left != reach || reach > correlate_longest) return;
  bool folds = weights.above == weights.below;
  for (const auto &[row, column, weight] : weights.all) {
    if (weights.of(row, -column) != weight) return;
    folds = folds && weights.of(-row, column) == weight;
  }
  const auto more = [&](std::int64_t row, std::int64_t r) { return weights.of(row, r) - weights.of(row, r + 1); };
  std::int64_t sum = 0;  // 2^unit, if no row rises outwards
  for (std::int64_t r = 0; r <= reach; ++r) {
    std::int64_t of_radius = 0;
    for (std::int64_t row = -weights.above; row <= weights.below; ++row) of_radius += std::abs(more(row, r));
    if (of_radius) k.radii.push_back(r);
    sum += of_radius * (2 * r + 1);
  }
  if (sum > 2 << k.unit) return;
  for (std::size_t at = 0; at < k.radii.size(); at += 2)
    for (std::int64_t row = folds ? 0 : -weights.above; row <= weights.below; ++row) {
      const std::int64_t first = more(row, k.radii[at]), plane = static_cast<std::int64_t>(at / 2) * k.span;
      const std::int64_t second = at + 1 < k.radii.size() ? more(row, k.radii[at + 1]) : 0;
      if (first || second)
        (folds && row ? k.folded : k.runs).push_back({plane + row, plane - row, correlate_two(first, second)});
    }
  const std::size_t loads = k.runs.size() + 2 * k.folded.size() + static_cast<std::size_t>(reach);
  if (2 * loads >= weights.all.size()) k.runs.clear();
}

static std::vector<std::int64_t> correlate_beside(const Correlate &k, std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> from;
  for (std::int64_t x = begin; x < end; ++x)
    for (std::int64_t channel = 0; channel < k.c; ++channel)
      from.push_back(correlate_place(x, k.w, k.mirrored) * k.c + channel);
  return from;
}

// input [h] rows `stride` bytes apart of [w][c] bytes; rows, columns, weights [taps]: output(y, x) is the sum of
// weight · input(y + row, x + column), with weights in units of 2^−unit, rounded to the nearest or down.
static void correlate(std::uintptr_t input, std::int64_t stride, std::uintptr_t output,
                      std::array<std::int64_t, 3> shape, const std::vector<std::int64_t> &rows,
                      const std::vector<std::int64_t> &columns, const std::vector<std::int64_t> &weights, int unit,
                      bool mirrored, bool nearest, const std::string &isa_name) {
  const Isa isa = choose_isa(isa_name);
  this_kernel().count(isa);
  const auto [h, w, c] = shape;
  if (h < 0 || w < 0 || c < 1 || c > 4) throw py::value_error("correlate: bad shape");
  const auto given = correlate_checked(rows, columns, weights, unit);
  if (h == 0 || w == 0) return;
  if (!input || !output) throw py::value_error("correlate was given an array without memory");
  const py::gil_scoped_release release;
  const CorrelateWeights taps = correlate_weights(given, unit);
  Correlate k{};
  k.input = pointer<const std::uint8_t>(input);
  k.output = pointer<std::uint8_t>(output);
  k.h = h;
  k.w = w;
  k.c = c;
  k.stride = stride;
  k.mirrored = mirrored;
  k.above = taps.above;
  k.below = taps.below;
  k.pitch = (taps.left + w + taps.right + 1) * c + correlate_slack;
  k.left = correlate_beside(k, -taps.left, 0);
  k.right = correlate_beside(k, w, w + taps.right + 1);
  const std::int64_t most = std::max(correlate_rows, taps.above + taps.below), blocks = (h + most - 1) / most;
  k.size = (h + blocks - 1) / blocks;
  k.span = taps.above + k.size + taps.below;
  k.unit = unit;
  k.rounding = nearest ? 1 << (unit - 1) : 0;
  correlate_runs_of(taps, k);
  if (k.runs.empty()) correlate_choose_pairs(taps, k);
  k.runs.empty() ? HW4FAST_VARIANT(isa, correlate_by_pairs)(k) : HW4FAST_VARIANT(isa, correlate_by_runs)(k);
}

static void bind(py::module_ &m) {
  m.def("correlate", &correlate, py::arg("input"), py::arg("stride"), py::arg("output"), py::arg("shape"),
        py::arg("rows"), py::arg("columns"), py::arg("weights"), py::arg("unit"), py::arg("mirrored"),
        py::arg("nearest"), py::arg("isa") = "");
}

HW4FAST_KERNEL(correlate, bind);
static Kernel &this_kernel() { return correlate_kernel; }

}  // namespace hw4fast
