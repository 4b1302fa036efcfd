// What the losses' kernels share: how losses are reduced, their sum over a block's threads, how a result is stored.
#pragma once

#include "cuda.cuh"

namespace hw4fast {

enum class Reduction : int { none, mean, sum };  // REDUCTIONS of hw4fast/kernels/softmax_xent.py

// Σ over the block's threads (whole warps), which thread 0 gets: the same bits with every call.
__device__ inline double sum_block(double mine) {
  __shared__ double parts[32];
  for (int other = 16; other; other /= 2) mine += __shfl_xor_sync(~0u, mine, other);
  __syncthreads();  // the call before may still read
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = mine;
  __syncthreads();
  if (threadIdx.x >= 32) return 0;
  mine = threadIdx.x < blockDim.x / 32 ? parts[threadIdx.x] : 0;
  for (int other = 16; other; other /= 2) mine += __shfl_xor_sync(~0u, mine, other);
  return mine;
}

// A number as tensors of S have it; T: float, or double where S is.
template <class S, class T> __device__ inline S stored(T value) {
  if constexpr (std::is_same_v<S, double>)
    return value;
  else
    return narrow<S>(value);
}

}  // namespace hw4fast
