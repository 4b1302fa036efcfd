// What stands around the net in a captured training step: a batch of the pictures that lie on the GPU, and the account
// of the step. As tensor code they are some 25 small kernels, which take as long as the net.
#include "cuda.cuh"

#include <algorithm>
#include <array>

#ifndef __CUDA_ARCH__
#include <pybind11/stl.h>
#endif

namespace hw4fast {
namespace {

constexpr int most_channels = 4;

struct Batch {
  const std::uint8_t *pictures;  // [n, numbers]
  const std::int64_t *labels;    // [n]
  const std::int64_t *order;     // rows of pictures, batch after batch
  const std::int64_t *at;        // which batch
  float *x;                      // [size, numbers]: (picture / 255 − mean) / std, channels last
  std::int64_t *y;               // [size]
  std::int64_t size, stride;     // pictures of this batch, of each batch
  int numbers, channels;
  float mean[most_channels], std[most_channels];
};

__global__ void __launch_bounds__(256) gather(const __grid_constant__ Batch p) {
  in_turn();
  const std::int64_t first = *p.at * p.stride, n = p.size * p.numbers;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < n; i += step) {
    const std::int64_t k = i / p.numbers, number = i - k * p.numbers, row = p.order[first + k];
    const int channel = p.channels == 1 ? 0 : static_cast<int>(number % p.channels);
    p.x[i] = (p.pictures[row * p.numbers + number] / 255.0f - p.mean[channel]) / p.std[channel];
    if (number == 0) p.y[k] = p.labels[row];
  }
}

struct Account {
  const void *logits;     // [size, classes], dense
  const std::int64_t *y;  // [size]
  const float *loss;      // the batch's mean
  std::int64_t size, classes, steps;
  const float *rates;                      // [steps]
  float *rate;                             // of the next step
  std::int64_t *at;                        // steps done
  double *cost;                            // Σ loss·size
  std::int64_t *right, *last_right, *bad;  // right answers so far, of this step; 1 + the first step that isn't finite
};

// One block. Of equal logits the first is the answer, as torch's argmax has it; a NaN is larger than any number.
template <class S> __global__ void __launch_bounds__(1024) tally(const Account p) {
  in_turn();
  __shared__ int parts[32];
  int right = 0;
  for (std::int64_t i = threadIdx.x; i < p.size; i += blockDim.x) {
    const S *row = static_cast<const S *>(p.logits) + i * p.classes;
    float best = widen(row[0]);
    std::int64_t answer = 0;
    for (std::int64_t j = 1; j < p.classes; ++j) {
      const float logit = widen(row[j]);
      if (logit > best || (logit != logit && best == best)) best = logit, answer = j;
    }
    right += answer == p.y[i];
  }
  for (int other = 16; other; other /= 2) right += __shfl_xor_sync(~0u, right, other);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = right;
  __syncthreads();
  if (threadIdx.x) return;
  int all = 0;
  for (unsigned i = 0; i < blockDim.x / 32; ++i) all += parts[i];
  const float loss = *p.loss;
  const std::int64_t done = *p.at + 1;
  *p.last_right = all;
  *p.right += all;
  *p.cost += static_cast<double>(loss) * static_cast<double>(p.size);
  if (*p.bad == 0 && !(fabsf(loss) <= 3.4028234e38f)) *p.bad = done;
  if (p.rate && done < p.steps) *p.rate = p.rates[done];
  *p.at = done;
}

}  // namespace

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &);
#endif
HW4FAST_CUDA_KERNEL(training_step, bind);

// addresses: pictures, labels, order, at, x, y
[[maybe_unused]] static void gather_batch(const std::array<std::uintptr_t, 6> &addresses, std::int64_t size,
                                          std::int64_t stride, std::int64_t numbers, const std::array<float, 4> &mean,
                                          const std::array<float, 4> &std, int channels, std::uintptr_t stream) {
  if (numbers < 1 || numbers > INT32_MAX || channels < 1 || channels > most_channels)
    throw std::invalid_argument("gather_batch takes pictures of 1 to 4 channels");
  for (const std::uintptr_t address : addresses)
    if (!address) throw std::invalid_argument("gather_batch was given a tensor without memory");
  training_step_kernel.count();
  Batch p{pointer<std::uint8_t>(addresses[0]),
          pointer<std::int64_t>(addresses[1]),
          pointer<std::int64_t>(addresses[2]),
          pointer<std::int64_t>(addresses[3]),
          pointer<float>(addresses[4]),
          pointer<std::int64_t>(addresses[5]),
          size,
          stride,
          static_cast<int>(numbers),
          channels,
          {},
          {}};
  std::copy(mean.begin(), mean.end(), p.mean), std::copy(std.begin(), std.end(), p.std);
  const auto blocks = static_cast<unsigned>(
      std::max<std::int64_t>(1, std::min<std::int64_t>((size * numbers + 255) / 256, 8 * multiprocessors())));
  launch("gather_batch", gather, Grid{dim3(blocks), dim3(256), 0, stream_of(stream)}, p);
}

// addresses: logits, y, loss, rates, rate (or 0), at, cost, right, last_right, bad
[[maybe_unused]] static void tally_step(int dtype, const std::array<std::uintptr_t, 10> &addresses, std::int64_t size,
                                        std::int64_t classes, std::int64_t steps, std::uintptr_t stream) {
  if (size < 1 || classes < 1) throw std::invalid_argument("tally_step needs a batch and a class");
  for (int i = 0; i < 10; ++i)
    if (!addresses[i] && i != 4) throw std::invalid_argument("tally_step was given a tensor without memory");
  training_step_kernel.count();
  const Account p{pointer<void>(addresses[0]),
                  pointer<std::int64_t>(addresses[1]),
                  pointer<float>(addresses[2]),
                  size,
                  classes,
                  steps,
                  pointer<float>(addresses[3]),
                  pointer<float>(addresses[4]),
                  pointer<std::int64_t>(addresses[5]),
                  pointer<double>(addresses[6]),
                  pointer<std::int64_t>(addresses[7]),
                  pointer<std::int64_t>(addresses[8]),
                  pointer<std::int64_t>(addresses[9])};
  const int threads = static_cast<int>(std::min<std::int64_t>(1024, (size + 31) / 32 * 32));
  const Grid grid{dim3(1), dim3(threads), 0, stream_of(stream)};
  with_dtype<float, __nv_bfloat16, __half>("tally_step", dtype,
                                           [&](auto zero) { launch("tally_step", tally<decltype(zero)>, grid, p); });
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) {
  m.def("gather_batch", &gather_batch);
  m.def("tally_step", &tally_step);
}
#endif

}  // namespace hw4fast
