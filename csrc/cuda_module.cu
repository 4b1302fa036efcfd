// The Python module hw4fast._cuda: binds every CUDA kernel in the list and says what GPUs there are and what did run.
#include "cuda.cuh"

namespace hw4fast {

static CudaKernel *&kernels() {
  static CudaKernel *list = nullptr;
  return list;
}
CudaKernel::CudaKernel(const char *kernel_name, void (*kernel_bind)(pybind11::module_ &))
    : name(kernel_name), bind(kernel_bind), next(kernels()) {
  kernels() = this;
}

}  // namespace hw4fast

#ifndef __CUDA_ARCH__
PYBIND11_MODULE(_cuda, m) {
  using namespace hw4fast;
  namespace py = pybind11;
  m.doc() = "hw4fast's CUDA kernels; hw4fast.nn is the face to use.";
  for (CudaKernel *kernel = kernels(); kernel; kernel = kernel->next) kernel->bind(m);
  m.attr("architectures") = HW4FAST_CUDA_ARCHS;
  m.def("versions", [] {  // (the driver's CUDA, 0 without a driver; that which this was built with), as 13000 for 13.0
    int driver = 0, runtime = 0;
    check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
    return py::make_tuple(driver, runtime);
  });
  m.def("devices", [] {  // a dict per GPU; RuntimeError where there is none
    int count = 0;
    check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
    py::list all;
    for (int i = 0; i < count; ++i) {
      cudaDeviceProp found;
      check(cudaGetDeviceProperties(&found, i), "cudaGetDeviceProperties");
      py::dict device;
      device["name"] = std::string(found.name);
      device["capability"] = 10 * found.major + found.minor;
      device["memory"] = found.totalGlobalMem;
      device["multiprocessors"] = found.multiProcessorCount;
      all.append(device);
    }
    return all;
  });
  m.def("calls", [] {  // {kernel: calls so far}
    py::dict all;
    for (CudaKernel *kernel = kernels(); kernel; kernel = kernel->next) all[kernel->name] = kernel->calls.load();
    return all;
  });
}
#endif
