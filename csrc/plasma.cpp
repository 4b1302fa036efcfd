// Binding and maths of plasma: a fractal height map by midpoints. The arguments are raw addresses;
// hw4fast/kernels/plasma.py is the safe face and the documentation. Every level is a pass over memory and a small
// part of the time that the draws take, so there is one variant.
#include "kernel.h"

#include <pybind11/stl.h>
#include <algorithm>
#include "exact.h"

namespace py = pybind11;

namespace hw4fast {
static Kernel &this_kernel();

// map [size][size], size a power of two; draws: size² − 1 numbers in 0 … 1 in the order in which points are set.
static void plasma(std::uintptr_t map_address, std::uintptr_t draws_address, std::int64_t size, double decay) {
  this_kernel().count(Isa::baseline);
  if (size < 1 || size > 16384 || (size & (size - 1))) throw py::value_error("plasma: size must be a power of two");
  if (!(decay >= 0.1 && decay <= 1000))  // at 0.01 the finest levels would be infinite
    throw py::value_error("plasma: decay must lie in 0.1 … 1000");
  if (!map_address || !draws_address) throw py::value_error("plasma was given an array without memory");
  const py::gil_scoped_release release;
  float *const map = pointer<float>(map_address);
  const float *draw = pointer<const float>(draws_address);
  map[0] = 0.0f;
  const std::int64_t mask = size - 1;  // the map's opposite sides are neighbours
  float wibble = 100.0f;
  const auto at = [&](std::int64_t y, std::int64_t x) { return map[(y & mask) * size + (x & mask)]; };
  for (std::int64_t step = size; step >= 2; step /= 2, wibble /= static_cast<float>(decay)) {
    const std::int64_t half = step / 2;
    const float range = wibble * wibble;  // the published code multiplies the range by itself
    const auto point = [&](std::int64_t y, std::int64_t x, float sum) {
      map[y * size + x] = sum * 0.25f + range * (2.0f * *draw++ - 1.0f);
    };
    for (std::int64_t y = 0; y < size; y += step)  // the middle of each square
      for (std::int64_t x = 0; x < size; x += step)
        point(y + half, x + half, at(y, x) + at(y + step, x) + at(y, x + step) + at(y + step, x + step));
    for (std::int64_t y = 0; y < size; y += step)  // the middle of each upper side
      for (std::int64_t x = 0; x < size; x += step)
        point(y, x + half, at(y + half, x + half) + at(y - half, x + half) + at(y, x) + at(y, x + step));
    for (std::int64_t y = 0; y < size; y += step)  // the middle of each left side
      for (std::int64_t x = 0; x < size; x += step)
        point(y + half, x, at(y + half, x + half) + at(y + half, x - half) + at(y, x) + at(y + step, x));
  }
  const auto [least, most] = std::minmax_element(map, map + size * size);
  const float low = *least, range = *most - low;
  for (std::int64_t i = 0; i < size * size; ++i) map[i] = range > 0.0f ? (map[i] - low) / range : 0.0f;
}

static void bind(py::module_ &m) {
  m.def("plasma", &plasma, py::arg("map"), py::arg("draws"), py::arg("size"), py::arg("decay"));
}

HW4FAST_KERNEL(plasma, bind);
static Kernel &this_kernel() { return plasma_kernel; }

}  // namespace hw4fast
