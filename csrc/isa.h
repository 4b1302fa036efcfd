// The instruction sets that kernels are compiled for, and which one runs. Nothing here or below needs Python.
#pragma once

#include <array>
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

}  // namespace hw4fast
