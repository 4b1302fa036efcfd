// What the losses' kernels share: how losses are reduced, their sum over a block's threads, how a result is stored.
#pragma once

#include "cuda.cuh"

namespace hw4fast {

enum class Reduction : int { none, mean, sum };  // REDUCTIONS of hw4fast/kernels/softmax_xent.py

// Σ over the block's threads (whole warps), which thread 0 gets: the same bits with every call. TREE: it is there
// sooner, but takes registers of what is around it.
template <bool TREE = false> __device__ inline double sum_block(double mine) {
  __shared__ double parts[32];
  for (int other = 16; other; other /= 2) mine += __shfl_xor_sync(~0u, mine, other);
  __syncthreads();  // the call before may still read
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = mine;
  __syncthreads();
  double all = 0;
  if constexpr (TREE) {
    if (threadIdx.x >= 32) return 0;
    all = threadIdx.x < blockDim.x / 32 ? parts[threadIdx.x] : 0;
    for (int other = 16; other; other /= 2) all += __shfl_xor_sync(~0u, all, other);
  } else if (threadIdx.x == 0) {
    for (unsigned i = 0; i < blockDim.x / 32; ++i) all += parts[i];
  }
  return all;
}

// A number as tensors of S have it; T: float, or double where S is.
template <class S, class T> __device__ inline S stored(T value) {
  if constexpr (std::is_same_v<S, double>)
    return value;
  else
    return narrow<S>(value);
}

}  // namespace hw4fast
