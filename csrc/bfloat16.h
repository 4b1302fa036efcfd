// bfloat16 as a kernel meets it: a float32 without its lower sixteen bits. It is only stored; all arithmetic is done in
// Computing<BFloat16> = float.
#pragma once

#include <cstdint>
#include <cstring>

namespace hw4fast {

struct BFloat16 {
  std::uint16_t bits;
};

template <class Stored> struct ComputingType {
  using type = Stored;
};
template <> struct ComputingType<BFloat16> {
  using type = float;
};
template <class Stored> using Computing = typename ComputingType<Stored>::type;

template <class T> inline T widen(T value) { return value; }
inline float widen(BFloat16 value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

// To the nearest, of two equally near ones the even; a NaN stays one (the carry could make an infinity of it).
inline void narrow(float value, BFloat16 *to) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits = value == value ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000;
  to->bits = static_cast<std::uint16_t>(bits >> 16);
}
template <class T> inline void narrow(T value, T *to) { *to = value; }

}  // namespace hw4fast
