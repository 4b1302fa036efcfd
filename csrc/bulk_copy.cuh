// Bulk copies from global to shared memory, Hopper's: one thread asks for kilobytes, which come past the registers
// while all threads go on with their work. A barrier in shared memory ("mbarrier") counts the bytes that have come; its
// phases alternate, and each is waited for by its parity. The emulator's plain twin copies as early or as late as it
// may.
#pragma once

#include "cuda.cuh"

#if defined(HW4FAST_EMULATED) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
#define HW4FAST_BULK_COPY 1
#endif

namespace hw4fast {

using BulkBarrier = std::uint64_t;  // in shared memory

#ifdef HW4FAST_EMULATED

namespace emulator {
struct LateCopy {
  BulkBarrier *barrier;
  void *to;
  const void *from;
  unsigned bytes;
};
inline std::vector<LateCopy> &late_copies() {
  static std::vector<LateCopy> all;
  return all;
}
}  // namespace emulator

// bit 0: the phase's parity; bit 1: its bytes are known; the rest: how many are still to be asked for
inline void bulk_begin(BulkBarrier *barrier) { *barrier = 0; }
inline void bulk_expect(BulkBarrier *barrier, unsigned bytes) {
  if (*barrier > 1) throw std::runtime_error("a bulk copy's barrier was told twice what comes in one phase");
  *barrier |= 2 | std::uint64_t{bytes} << 2;
}
inline void bulk_copy(void *to, const void *from, unsigned bytes, BulkBarrier *barrier) {
  if ((reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from) | bytes) & 15)
    throw std::runtime_error("a bulk copy takes multiples of 16 bytes from and to such addresses");
  *barrier -= std::uint64_t{bytes} << 2;
  if (emulator::state().random() & 1)
    std::memcpy(to, from, bytes);
  else
    emulator::late_copies().push_back({barrier, to, from, bytes});
}
inline void bulk_wait(BulkBarrier *barrier, int parity) {
  while (static_cast<int>(*barrier & 1) == parity && *barrier >> 1 != 1) emulator::yield(emulator::Wait::none);
  if (static_cast<int>(*barrier & 1) != parity) return;
  auto &late = emulator::late_copies();
  for (const emulator::LateCopy &copy : late)
    if (copy.barrier == barrier) std::memcpy(copy.to, copy.from, copy.bytes);
  late.erase(std::remove_if(late.begin(), late.end(), [&](const auto &copy) { return copy.barrier == barrier; }),
             late.end());
  *barrier = static_cast<std::uint64_t>(parity) ^ 1;
}

#elif defined(HW4FAST_BULK_COPY)

__device__ inline unsigned in_shared(const void *p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

// By the one thread that asks for copies, before a barrier among those that wait for them.
__device__ inline void bulk_begin(BulkBarrier *barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n\tfence.proxy.async.shared::cta;" ::"r"(in_shared(barrier))
               : "memory");
}
// The phase ends when so many bytes have come; before the copies.
__device__ inline void bulk_expect(BulkBarrier *barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(in_shared(barrier)), "r"(bytes)
               : "memory");
}
// Multiples of 16 bytes, from and to such addresses. The policy: what has been read will not be read again.
__device__ inline void bulk_copy(void *to, const void *from, unsigned bytes, BulkBarrier *barrier) {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], "
      "%4;" ::"r"(in_shared(to)),
      "l"(from), "r"(bytes), "r"(in_shared(barrier)), "l"(policy)
      : "memory");
}
// By each thread that reads what has come.
__device__ inline void bulk_wait(BulkBarrier *barrier, int parity) {
  asm volatile(
      "{\n\t.reg .pred done;\nwait:\n\t"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t@!done bra wait;\n}" ::"r"(in_shared(barrier)),
      "r"(parity)
      : "memory");
}

#endif

}  // namespace hw4fast
