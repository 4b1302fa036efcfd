// The Python module hw4fast._C: binds every kernel in the list and says what can run and what did.
#include "kernel.h"
#include "parallel.h"

#include <pybind11/stl.h>
#include <cstdlib>

namespace hw4fast {

static Kernel *&kernels() {
  static Kernel *list = nullptr;
  return list;
}
Kernel *first_kernel() { return kernels(); }
Kernel::Kernel(const char *kernel_name, void (*kernel_bind)(pybind11::module_ &))
    : name(kernel_name), bind(kernel_bind), next(kernels()) {
  kernels() = this;
}

const std::vector<Isa> &supported_isas() {
  static const std::vector<Isa> list = [] {
    std::vector<Isa> found;
#if (defined(__x86_64__) || defined(_M_X64)) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      found.push_back(Isa::avx512);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(Isa::avx2);
#endif
    found.push_back(Isa::baseline);
    return found;
  }();
  return list;
}

static std::string supported_names() {
  std::string names;
  for (Isa isa : supported_isas()) names += (names.empty() ? "" : ", ") + std::string(isa_names[static_cast<int>(isa)]);
  return names;
}

Isa choose_isa(const std::string &name) {
  std::string wanted = name, origin = "instruction set";
  if (wanted.empty())
    if (const char *forced = std::getenv("HW4FAST_ISA"); forced && *forced) wanted = forced, origin = "HW4FAST_ISA";
  if (wanted.empty()) return supported_isas().front();
  for (Isa isa : supported_isas())
    if (wanted == isa_names[static_cast<int>(isa)]) return isa;
  throw std::invalid_argument(origin + " '" + wanted +
                              "' is not to be had here; this processor and build have: " + supported_names());
}

}  // namespace hw4fast

PYBIND11_MODULE(_C, m) {
  using namespace hw4fast;
  namespace py = pybind11;
  m.doc() = "hw4fast's compiled kernels; hw4fast.kernels is the face to use.";
  for (Kernel *kernel = first_kernel(); kernel; kernel = kernel->next) kernel->bind(m);
  m.def("isas", [] {
    py::list names;
    for (Isa isa : supported_isas()) names.append(isa_names[static_cast<int>(isa)]);
    return names;
  });
  m.def("chosen_isa", [] { return isa_names[static_cast<int>(choose_isa(""))]; });
  m.def("default_threads", &default_threads);
  m.def("shares_openmp", [] { return open_mp().found(); });
  m.def("calls", [] {  // {kernel: {isa: calls so far}}
    py::dict all;
    for (Kernel *kernel = first_kernel(); kernel; kernel = kernel->next) {
      py::dict counts;
      for (Isa isa : supported_isas()) {
        const int i = static_cast<int>(isa);
        counts[isa_names[i]] = kernel->calls[i].load();
      }
      all[kernel->name] = counts;
    }
    return all;
  });
}
