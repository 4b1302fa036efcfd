// Which instruction sets this processor has.
#include "isa.h"

#include <cstdlib>
#include <stdexcept>

namespace hw4fast {

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
