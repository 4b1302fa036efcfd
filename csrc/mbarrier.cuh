// Barriers in shared memory ("mbarrier", 8 bytes), and the bulk copies that they count: from Hopper on, each with a
// plain twin for the emulator.
//
// A phase of a barrier ends when all that it waits for has come: so many arrivals, and the bytes that an arrival has
// announced. Then the next one begins. Phases are told apart by their parity: 0 the first, 1 the second, 0 the third.
//
// A bulk copy moves kilobytes from global to shared memory, which come past the registers while all threads go on with
// their work; one thread asks for it. The twin copies as early or as late as it may.
#pragma once

#include "cuda.cuh"

#if defined(HW4FAST_EMULATED) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
#define HW4FAST_MBARRIER 1
#endif

namespace hw4fast {

#ifdef HW4FAST_EMULATED

using Shared = std::uintptr_t;  // an address in shared memory
inline Shared shared_address(const void *p) { return reinterpret_cast<Shared>(p); }

inline emulator::Phases &phases_at(Shared barrier) { return *reinterpret_cast<emulator::Phases *>(barrier); }
inline void barrier_init(Shared barrier, int arrivals) {
  const auto count = static_cast<std::uint16_t>(arrivals);
  phases_at(barrier) = {count, count, 0, 0};
}
inline void barrier_arrive(Shared barrier) { emulator::arrive(phases_at(barrier), 0); }
inline void barrier_expect(Shared barrier, unsigned bytes) { emulator::arrive(phases_at(barrier), bytes); }
inline void barrier_wait(Shared barrier, unsigned parity) { emulator::wait_for_phase(phases_at(barrier), parity); }
inline void fence_proxy_async() {}
inline void bulk_copy(void *to, const void *from, unsigned bytes, Shared barrier) {
  if ((reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from) | bytes) & 15)
    throw std::runtime_error("a bulk copy takes multiples of 16 bytes from and to such addresses");
  emulator::copy_sometime({&phases_at(barrier), to, from, bytes});
}

#else

using Shared = std::uint32_t;
__device__ inline Shared shared_address(const void *p) { return static_cast<Shared>(__cvta_generic_to_shared(p)); }

#ifdef HW4FAST_MBARRIER

__device__ inline void barrier_init(Shared barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// What this thread did before is there for those who wait.
__device__ inline void barrier_arrive(Shared barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// The same, and the phase waits for so many bytes of bulk copies, which are asked for afterwards.
__device__ inline void barrier_expect(Shared barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Until the phase of this parity has ended. Nobody may be two phases behind.
__device__ inline void barrier_wait(Shared barrier, unsigned parity) {
  std::uint32_t ended;
  do
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(ended)
                 : "r"(barrier), "r"(parity)
                 : "memory");
  while (!ended);
}
// What this thread wrote to shared memory (barriers that it began and its copies, once waited for, included) becomes
// visible to bulk copies and to wgmma's reads, those that other threads ask for behind the next barrier.
__device__ inline void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Multiples of 16 bytes, from and to such addresses. The policy: what has been read will not be read again.
__device__ inline void bulk_copy(void *to, const void *from, unsigned bytes, Shared barrier) {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], "
      "%4;" ::"r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

#endif  // HW4FAST_MBARRIER
#endif  // HW4FAST_EMULATED

}  // namespace hw4fast
