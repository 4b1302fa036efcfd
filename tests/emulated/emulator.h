// Runs the kernels of csrc/*.cu on the CPU, so that their arithmetic and their
// barriers can be tested without a GPU: g++ -x c++ -DHW4FAST_EMULATED -include
// emulator.h csrc/NAME.cu (build.py does it).
//
// A CUDA thread is a fiber (ucontext), a block is run by one core, the fibers
// between two barriers in random order, so that a missing barrier shows. Shared
// memory is poisoned before each block. A shuffle is an exchange among the
// fibers of a warp. What it can't show: races within a warp, clusters, tensor
// cores (csrc/mma.cuh has plain twins), speed.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <setjmp.h>
#include <ucontext.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace hw4fast {
namespace emulator {

constexpr int lanes = 32;
constexpr std::size_t stack_bytes = 128 << 10;

enum class Wait { none, warp, block, phase, finished };

struct Phases {  // the twin of an mbarrier: `count` arrivals end a phase, once no bytes are awaited
  std::uint16_t count, pending;
  std::uint32_t bytes : 31, parity : 1;
};
struct Copy {
  Phases *counted_by;
  void *to;
  const void *from;
  unsigned bytes;
};

struct Fiber {
  ucontext_t context;    // enters it
  jmp_buf place;         // where it waits: swapcontext would ask the system
  bool entered = false;  // each time
  uint3 thread;
  int number = 0;
  Wait wait = Wait::none;
  unsigned mask = 0;           // of the warp's lanes that it waits for
  std::int64_t exchanges = 0;  // of its warp so far: the parity says which slots are in use
  int vote = 0;                // for __syncthreads_or and its like
  const Phases *phases = nullptr;  // of which the phase with this parity must have ended
  unsigned parity = 0;
  std::unique_ptr<char[]> stack;
};

struct Warp {
  alignas(16) unsigned char slot[2][lanes][16];
};

struct State {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<unsigned char> shared;
  jmp_buf scheduler;
  Fiber *current = nullptr;
  std::function<void()> kernel;
  uint3 block;
  dim3 threads, blocks;
  int live = 0, counted = 0;
  std::mt19937 random{5489};
};
inline State &state() {
  static State the;
  return the;
}

inline void yield(Wait why, unsigned mask = ~0u) {
  State &s = state();
  s.current->wait = why;
  s.current->mask = mask;
  if (!_setjmp(s.current->place)) _longjmp(s.scheduler, 1);
}

// Comes back when the fiber yields.
__attribute__((noinline)) inline void go_on(Fiber &fiber) {
  State &s = state();
  s.current = &fiber;
  if (_setjmp(s.scheduler)) return;
  if (fiber.entered) _longjmp(fiber.place, 1);
  fiber.entered = true;
  setcontext(&fiber.context);
}

inline void enter() {
  state().kernel();
  yield(Wait::finished);
}

inline Warp &warp() { return state().warps[state().current->number / lanes]; }
inline int lane() { return state().current->number % lanes; }

// Each lane gives `mine` and takes what `lane_of` it says others gave.
template <class T> const T *exchange(unsigned mask, const T &mine) {
  static_assert(sizeof(T) <= 16, "a shuffle moves up to 16 bytes here");
  Fiber *me = state().current;
  unsigned char (*slot)[16] = warp().slot[me->exchanges++ & 1];
  std::memcpy(slot[lane()], &mine, sizeof(T));
  yield(Wait::warp, mask);
  return reinterpret_cast<const T *>(slot);
}
template <class T> T taken(unsigned mask, T mine, int from) {
  T value;
  std::memcpy(&value, reinterpret_cast<const unsigned char *>(exchange(mask, mine)) + 16 * from, sizeof(T));
  return value;
}

inline bool alive(const Fiber &fiber) { return fiber.wait != Wait::finished; }

inline bool release() {
  State &s = state();
  bool any = false, all_at_block = true;
  for (std::size_t w = 0; w < s.warps.size(); ++w) {
    const std::size_t begin = w * lanes, end = std::min(begin + lanes, s.fibers.size());
    for (std::size_t i = begin; i < end; ++i) {
      Fiber &fiber = s.fibers[i];
      if (fiber.wait != Wait::warp) continue;
      bool ready = true;
      for (std::size_t k = begin; k < end; ++k)
        if (fiber.mask >> (k - begin) & 1 && alive(s.fibers[k]))
          ready &= s.fibers[k].wait == Wait::warp && s.fibers[k].mask == fiber.mask &&
                   s.fibers[k].exchanges == fiber.exchanges;
      if (!ready) continue;
      const unsigned mask = fiber.mask;
      for (std::size_t k = begin; k < end; ++k)
        if (mask >> (k - begin) & 1 && alive(s.fibers[k])) s.fibers[k].wait = Wait::none;
      any = true;
    }
  }
  for (Fiber &fiber : s.fibers)
    if (fiber.wait == Wait::phase && fiber.phases->parity != fiber.parity) fiber.wait = Wait::none, any = true;
  for (const Fiber &fiber : s.fibers) all_at_block &= !alive(fiber) || fiber.wait == Wait::block;
  if (all_at_block && s.live) {
    s.counted = 0;
    for (const Fiber &fiber : s.fibers) s.counted += alive(fiber) && fiber.vote;
    for (Fiber &fiber : s.fibers)
      if (alive(fiber)) fiber.wait = Wait::none;
    any = true;
  }
  return any;
}

inline void run_block(const char *name, std::size_t n) {
  State &s = state();
  std::fill(s.shared.begin(), s.shared.end(), 0xff);  // NaN
  s.live = static_cast<int>(n);
  for (std::size_t i = 0; i < n; ++i) {
    Fiber &fiber = s.fibers[i];
    if (!fiber.stack) fiber.stack.reset(new char[stack_bytes]);
    const unsigned k = static_cast<unsigned>(i);
    fiber.thread = {k % s.threads.x, k / s.threads.x % s.threads.y, k / (s.threads.x * s.threads.y)};
    fiber.number = static_cast<int>(i);
    fiber.wait = Wait::none, fiber.exchanges = 0, fiber.vote = 0;
    fiber.entered = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = stack_bytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  std::vector<std::size_t> order(n);
  for (std::size_t i = 0; i < n; ++i) order[i] = i;
  while (s.live) {
    std::shuffle(order.begin(), order.end(), s.random);
    for (std::size_t i : order) {
      if (s.fibers[i].wait != Wait::none) continue;
      go_on(s.fibers[i]);
      s.live -= s.current->wait == Wait::finished;
    }
    if (s.live && !release())
      throw std::runtime_error(std::string(name) + ": its threads wait for each other for ever");
  }
}

inline void end_if_over(Phases &phases) {
  if (phases.pending || phases.bytes) return;
  phases.pending = phases.count, phases.parity ^= 1;
}
inline void arrive(Phases &phases, unsigned bytes) {
  --phases.pending;
  phases.bytes += bytes;
  end_if_over(phases);
}
inline void do_copy(const Copy &copy) {
  std::memcpy(copy.to, copy.from, copy.bytes);
  copy.counted_by->bytes -= copy.bytes;
  end_if_over(*copy.counted_by);
}
inline std::vector<Copy> &late_copies() {
  static std::vector<Copy> all;
  return all;
}
// At once, or only when it is waited for.
inline void copy_sometime(const Copy &copy) {
  if (copy.counted_by->bytes < copy.bytes) throw std::runtime_error("a bulk copy of more bytes than were announced");
  if (state().random() & 1)
    do_copy(copy);
  else
    late_copies().push_back(copy);
}
inline void wait_for_phase(Phases &phases, unsigned parity) {
  std::vector<Copy> &late = late_copies(), mine;
  const auto others = std::partition(late.begin(), late.end(), [&](const Copy &c) { return c.counted_by != &phases; });
  mine.assign(others, late.end());
  late.erase(others, late.end());
  for (const Copy &copy : mine) do_copy(copy);
  state().current->phases = &phases, state().current->parity = parity;
  while (phases.parity == parity) yield(Wait::phase);
}

inline unsigned counted_at_barrier(int vote) {
  state().current->vote = vote;
  yield(Wait::block);
  return static_cast<unsigned>(state().counted);
}

}  // namespace emulator

struct Grid;
template <class... Parameters, class... Arguments>
void launch(const char *name, void (*kernel)(Parameters...), const Grid &grid, Arguments... arguments);

inline int compute_capability() {  // a test may ask for another
  const char *wanted = std::getenv("HW4FAST_EMULATED_CAPABILITY");
  return wanted ? std::atoi(wanted) : 80;
}
inline int shared_kilobytes() {  // that a block may ask for
  const int capability = compute_capability();
  return capability < 80 ? 64 : capability == 80 ? 163 : capability / 10 == 8 || capability >= 120 ? 99 : 227;
}
inline int attribute(cudaDeviceAttr which) {
  switch (which) {
    case cudaDevAttrMultiProcessorCount:
      return 3;
    case cudaDevAttrComputeCapabilityMajor:
      return compute_capability() / 10;
    case cudaDevAttrComputeCapabilityMinor:
      return compute_capability() % 10;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return shared_kilobytes() << 10;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return (shared_kilobytes() + (compute_capability() >= 80)) << 10;
    default:
      throw std::runtime_error("the emulator doesn't know this property of a device");
  }
}

}  // namespace hw4fast

#include "intrinsics.h"

namespace hw4fast {
struct Grid {
  dim3 blocks, threads;
  std::size_t shared;
  cudaStream_t stream;
  unsigned cluster = 1;
};
inline int multiprocessors() { return attribute(cudaDevAttrMultiProcessorCount); }
inline void let_next_begin() {}
inline void in_turn() {}

template <class Kernel> std::int64_t clusters_that_fit(const char *, Kernel, const Grid &) { return 1; }

template <class... Parameters, class... Arguments>
void launch(const char *name, void (*kernel)(Parameters...), const Grid &grid, Arguments... arguments) {
  emulator::State &s = emulator::state();
  const std::size_t n = std::size_t{grid.threads.x} * grid.threads.y * grid.threads.z;
  if (grid.cluster > 1) throw std::runtime_error(std::string(name) + ": there are no clusters here");
  if (n == 0 || n > 1024 || grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0 || grid.blocks.y > 65535 ||
      grid.blocks.z > 65535 || grid.shared > (static_cast<std::size_t>(shared_kilobytes()) << 10))
    throw std::runtime_error(std::string(name) + ": invalid configuration argument");
  s.fibers = std::vector<emulator::Fiber>(n);
  s.warps.resize((n + emulator::lanes - 1) / emulator::lanes);
  s.shared.assign(grid.shared, 0xff);
  s.blocks = grid.blocks, s.threads = grid.threads;
  s.kernel = [&] { kernel(static_cast<Parameters>(arguments)...); };
  for (unsigned z = 0; z < grid.blocks.z; ++z)
    for (unsigned y = 0; y < grid.blocks.y; ++y)
      for (unsigned x = 0; x < grid.blocks.x; ++x) {
        s.block = {x, y, z};
        emulator::run_block(name, n);
      }
}
}  // namespace hw4fast
