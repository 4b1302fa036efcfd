// What every kernel's binding shares: the list that module.cpp walks, the choice of an instruction set, and
// the count of what ran. A kernel's .cpp says HW4FAST_KERNEL(name, bind); nothing else names it.
#pragma once

#include <pybind11/pybind11.h>
#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace hw4fast {

enum class Isa : int { avx512, avx2, baseline };  // best first
constexpr std::array<const char *, 3> isa_names = {"avx512", "avx2", "baseline"};

// Floats in a vector of `isa`.
constexpr std::int64_t isa_lanes(Isa isa) { return isa == Isa::avx512 ? 16 : isa == Isa::avx2 ? 8 : 4; }

// The instruction sets that this processor has and this build carries, best first.
const std::vector<Isa> &supported_isas();

// `name` empty: what HW4FAST_ISA names, else the best supported one.
// Throws std::invalid_argument for a name that is unknown or that this processor lacks: never a fallback.
Isa choose_isa(const std::string &name);

struct Kernel {
  Kernel(const char *name, void (*bind)(pybind11::module_ &));
  void count(Isa isa) { calls[static_cast<int>(isa)].fetch_add(1, std::memory_order_relaxed); }

  const char *name;
  void (*bind)(pybind11::module_ &);
  std::array<std::atomic<std::int64_t>, isa_names.size()> calls{};
  Kernel *next;
};
Kernel *first_kernel();

template <class T> T *pointer(std::uintptr_t address) { return reinterpret_cast<T *>(address); }

}  // namespace hw4fast

#define HW4FAST_KERNEL(NAME, BIND) static hw4fast::Kernel NAME##_kernel(#NAME, BIND)
