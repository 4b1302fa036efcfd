// Binding of noise. The arguments are raw addresses; hw4fast/kernels/noise.py is the safe face and the documentation.
#include "kernel.h"

#include <pybind11/stl.h>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include "exact.h"

namespace hw4fast {

constexpr std::int64_t noise_counters = 16, noise_values = 4 * noise_counters;  // of a block

enum class NoiseKind { gaussian, speckle, impulse, shot, normal, uniform };

// A column of an alias table (A. J. Walker, 1977): a fraction up to `most` means `own`, a greater one `other`.
struct ShotEntry {
  std::uint32_t most;
  std::uint8_t own, other, unused[2];
};

struct Noise {
  NoiseKind kind;
  std::int64_t size;  // values
  std::uint64_t key;
  std::uint32_t stream;
  float scale;             // gaussian: standard deviation in grey levels; speckle: as a share of the value
  std::int32_t hit;        // impulse: words of 31 bits up to this one are grains; −1 for none
  const ShotEntry *table;  // shot: [256][2^bits]
  int bits;
};

struct Shuffle {
  std::int64_t h, w, c, reach;
  int turns;
};

}  // namespace hw4fast

#define HW4FAST_COMMON_INL "bytes.inl"
#define HW4FAST_INL "noise.inl"
#include "each_isa.h"

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();

static void noise(int kind, std::uintptr_t input, std::uintptr_t output, std::int64_t size, double strength,
                  std::uintptr_t table, int bits, std::uint64_t key, std::uint32_t stream,
                  const std::string &isa_name) {
  const Isa isa = choose_isa(isa_name);
  this_kernel().count(isa);
  if (size < 0 || kind < 0 || kind > static_cast<int>(NoiseKind::uniform)) throw py::value_error("noise: bad request");
  const auto k = static_cast<NoiseKind>(kind);
  const bool picture = k < NoiseKind::normal;
  if (!(strength >= 0 && strength <= 1e6)) throw py::value_error("noise: the strength must lie in 0 … 1e6");
  if (k == NoiseKind::impulse && strength > 1) throw py::value_error("noise: the amount must lie in 0 … 1");
  if (k == NoiseKind::shot && (!table || bits < 1 || bits > 16)) throw py::value_error("noise: no table");
  if (size == 0) return;
  if (!output || (picture && !input)) throw py::value_error("noise was given an array without memory");
  const auto hit = static_cast<std::int32_t>(std::floor(std::min(strength, 1.0) * 0x1p31) - 1.0);
  const Noise n{k, size, key, stream, static_cast<float>(strength), hit, pointer<const ShotEntry>(table), bits};
  const py::gil_scoped_release release;
  if (picture)
    HW4FAST_VARIANT(isa, noise_picture)(n, pointer<const std::uint8_t>(input), pointer<std::uint8_t>(output));
  else
    HW4FAST_VARIANT(isa, noise_draws)(n, pointer<float>(output));
}

// In place, of a contiguous picture [h][w][c]. Row h − reach is the first that changes, column w − reach within it.
static void shuffle(std::uintptr_t picture, std::array<std::int64_t, 3> shape, std::int64_t reach, int turns,
                    std::uint64_t key, const std::string &isa_name) {
  const Isa isa = choose_isa(isa_name);
  this_kernel().count(isa);
  const auto [h, w, c] = shape;
  if (h < 0 || w < 0 || c < 1 || reach < 1 || reach > 16383 || turns < 0 || turns > 1000)
    throw py::value_error("shuffle: bad shape, reach or turns");
  if (h == 0 || w == 0) return;
  if (!picture) throw py::value_error("shuffle was given an array without memory");
  Noise n{};
  n.key = key;
  const py::gil_scoped_release release;
  HW4FAST_VARIANT(isa, noise_shuffle)(n, pointer<std::uint8_t>(picture), Shuffle{h, w, c, reach, turns});
}

// Walker's table of one distribution, p [count] with count ≤ 2^bits, which sum to 1.
static void shot_column(const std::vector<double> &p, int bits, const std::vector<std::uint8_t> &grey, ShotEntry *to) {
  const std::size_t columns = std::size_t{1} << bits;
  std::vector<double> share(columns, 0.0);
  std::vector<std::size_t> small, large;
  for (std::size_t i = 0; i < p.size(); ++i) share[i] = p[i] * static_cast<double>(columns);
  for (std::size_t i = columns; i-- > 0;) (share[i] < 1.0 ? small : large).push_back(i);
  const auto grey_of = [&](std::size_t i) { return grey[std::min(i, grey.size() - 1)]; };
  const auto fill = [&](std::size_t i, double part, std::size_t other) {
    to[i] = {static_cast<std::uint32_t>(std::min(std::max(part, 0.0) * 0x1p32, 4294967295.0)),
             grey_of(i),
             grey_of(other),
             {0, 0}};
    if (part <= 0.0) to[i].own = to[i].other;  // a fraction of 0 is `most`, too
  };
  while (!small.empty() && !large.empty()) {
    const std::size_t less = small.back(), more = large.back();
    small.pop_back();
    fill(less, share[less], more);
    share[more] -= 1.0 - share[less];
    if (share[more] < 1.0) {
      large.pop_back();
      small.push_back(more);
    }
  }
  for (const std::size_t i : large) fill(i, 1.0, i);
  for (const std::size_t i : small)
    fill(i, share[i] < 0.5 ? 0.0 : 1.0, share[i] < 0.5 && !p.empty() ? p.size() - 1 : i);
}

// table [256][2^bits]: what becomes of each grey level x, Poisson(photons · x / 255) / photons · 255, rounded down, at
// most 255.
static void shot_table(double photons, int bits, std::uintptr_t table) {
  const auto most = static_cast<std::size_t>(std::ceil(photons));  // so many photons and more are white
  if (!(photons > 0 && photons <= 600) || bits < 1 || bits > 16 || most + 1 > std::size_t{1} << bits || !table)
    throw py::value_error("noise: photons must lie in 0 … 600 and fit the table");
  std::vector<std::uint8_t> grey(most + 1);
  for (std::size_t k = 0; k <= most; ++k)
    grey[k] = static_cast<std::uint8_t>(std::min(static_cast<double>(k) / photons, 1.0) * 255.0);
  std::vector<double> p(most + 1);
  for (int x = 0; x < 256; ++x) {
    const double mean = x / 255.0 * photons;
    double each = std::exp(-mean), rest = 1.0;
    for (std::size_t k = 0; k < most; ++k) {
      p[k] = each;
      rest -= each;
      each *= mean / static_cast<double>(k + 1);
    }
    p[most] = std::max(rest, 0.0);
    shot_column(p, bits, grey, pointer<ShotEntry>(table) + (std::int64_t{x} << bits));
  }
}

static void bind(py::module_ &m) {
  m.def("noise", &noise, py::arg("kind"), py::arg("input"), py::arg("output"), py::arg("size"), py::arg("strength"),
        py::arg("table"), py::arg("bits"), py::arg("key"), py::arg("stream"), py::arg("isa") = "");
  m.def("shuffle", &shuffle, py::arg("picture"), py::arg("shape"), py::arg("reach"), py::arg("turns"), py::arg("key"),
        py::arg("isa") = "");
  m.def("shot_table", &shot_table, py::arg("photons"), py::arg("bits"), py::arg("table"));
}

HW4FAST_KERNEL(noise, bind);
static Kernel &this_kernel() { return noise_kernel; }

}  // namespace hw4fast
