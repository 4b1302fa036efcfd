// The Python module hw4fast._C: binds every kernel in the list and says what can run and what did.
#include "kernel.h"
#include "parallel.h"

#include <pybind11/stl.h>

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

}  // namespace hw4fast

PYBIND11_MODULE(_C, m) {
  using namespace hw4fast;
  namespace py = pybind11;
  m.doc() = "hw4fast's compiled kernels; hw4fast.kernels is the face to use.";
  for (Kernel *kernel = first_kernel(); kernel; kernel = kernel->next) kernel->bind(m);
  m.def("rest", &hw4fast::rest_open_mp, "Lets torch's pool of threads go until its next call.");
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
