// What every kernel's binding shares: the list that module.cpp walks, and the count of what ran. A kernel's .cpp says
// HW4FAST_KERNEL(name, bind); nothing else names it.
#pragma once

#include "isa.h"

#include <pybind11/pybind11.h>
#include <array>
#include <atomic>
#include <cstdint>

namespace hw4fast {

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
