// Working memory of a kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>

namespace hw4fast {

// Uninitialised, aligned to cache lines, freed at the end of the scope.
template <class T> class Scratch {
 public:
  explicit Scratch(std::int64_t size) {
    if (size < 0 || size > std::numeric_limits<std::ptrdiff_t>::max() / static_cast<std::int64_t>(sizeof(T)))
      throw std::bad_alloc();
    data_.reset(static_cast<T *>(::operator new(sizeof(T) * static_cast<std::size_t>(size), std::align_val_t(64))));
  }
  T *get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T *data) const { ::operator delete(data, std::align_val_t(64)); }
  };
  std::unique_ptr<T, Free> data_;
};

}  // namespace hw4fast
