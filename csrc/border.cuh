// What lies beyond the ends of a picture's line, for the kernels of bytes.
#pragma once

#include "cuda.cuh"

namespace hw4fast {

// About the end pixel, the end pixel itself, about the end: as hw4fast.kernels.gaussian_blur.BORDERS.
enum class Border : int { mirror = 0, edge = 1, reflect = 2 };

// Where position i of a line of n lies that goes on and on.
__device__ inline int place(Border border, int i, int n) {
  if (i >= 0 && i < n) return i;
  if (border == Border::edge) return i < 0 ? 0 : n - 1;
  const int twice = border == Border::reflect ? 1 : 0, period = max(2 * (n - 1 + twice), 1);
  i %= period;
  if (i < 0) i += period;
  return min(i, period - twice - i);
}

}  // namespace hw4fast
