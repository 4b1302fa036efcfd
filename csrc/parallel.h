// The one way to use more than one core: parallel_for over [0, n) in contiguous chunks.
//
// When an OpenMP runtime is in the process already (torch brings one), its pool runs the chunks: a second pool
// would fight with the first one's spinning threads for the cores. It is found by name, so that nothing links to
// it. Without one (classify never loads torch) plain threads are started; that costs some 20 µs, which is why
// callers give a grain.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>
#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#endif

namespace hw4fast {

struct OpenMP {  // GCC's entry points, which LLVM's runtime answers to as well
  void (*parallel)(void (*)(void *), void *, unsigned threads, unsigned flags) = nullptr;
  int (*thread_number)() = nullptr;
  int (*team_size)() = nullptr;
  int (*max_threads)() = nullptr;
  bool found() const { return parallel && thread_number && team_size && max_threads; }
};

// Looked for again until it is found: torch may be imported after us.
inline OpenMP open_mp() {
  static std::atomic<bool> found{false};
  static OpenMP runtime;  // written before `found` is set, never after
  if (found.load(std::memory_order_acquire)) return runtime;
  OpenMP now;
#if defined(__unix__) || defined(__APPLE__)
  now.parallel = reinterpret_cast<decltype(now.parallel)>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  now.thread_number = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_thread_num"));
  now.team_size = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_num_threads"));
  now.max_threads = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"));
#endif
  static std::mutex writing;
  const std::lock_guard<std::mutex> lock(writing);
  if (now.found() && !found.load(std::memory_order_relaxed)) {
    runtime = now;
    found.store(true, std::memory_order_release);
  }
  return now;
}

// Asked for once: the system reads a file to answer, which took longer than a small net.
inline int cores() {
  static const int found = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return found;
}

// What the OpenMP runtime would use (torch.set_num_threads sets it), else the cores. HW4FAST_THREADS is read by the
// Python faces.
inline int default_threads() {
  const OpenMP runtime = open_mp();
  if (runtime.found()) return std::max(1, runtime.max_threads());
  return cores();
}

// Lets the threads of the OpenMP runtime's pool go, if there is one: they look for work for some milliseconds after a
// call, and take the cores from who comes next. Whoever comes back to the pool starts them again (some 50 µs).
// OpenMP 5.0, 3.2.43; inside a parallel region it does nothing.
inline void rest_open_mp() {
#if defined(__unix__) || defined(__APPLE__)
  constexpr int soft = 1;
  using Pause = int (*)(int);
  static std::atomic<Pause> known{nullptr};  // to look for it among all of torch's libraries takes long
  Pause pause = known.load(std::memory_order_relaxed);
  if (!pause) {
    pause = reinterpret_cast<Pause>(dlsym(RTLD_DEFAULT, "omp_pause_resource_all"));
    known.store(pause, std::memory_order_relaxed);
  }
  if (pause) pause(soft);
#endif
}

// How many threads work. A host that has threads of its own (onnxruntime) lends them: `lent` calls chunk(data, i) for
// each i below `chunks` on them, and comes back when all are done.
struct Threads {
  Threads(int all) : count(all) {}
  Threads(int all, void (*lend)(void *host, void (*chunk)(void *, std::size_t), std::size_t chunks, void *data),
          void *lender)
      : count(all), lent(lend), host(lender) {}
  int count;
  void (*lent)(void *, void (*)(void *, std::size_t), std::size_t, void *) = nullptr;
  void *host = nullptr;
};

// Calls body(begin, end) for chunks that cover [0, n), on at most `threads.count` threads, none below `grain` long.
// The chunks depend on n, grain and threads; a kernel whose rows are independent gives the same bits for any.
template <class Body> void parallel_for(std::int64_t n, std::int64_t grain, Threads threads, const Body &body) {
  const std::int64_t chunks = std::min<std::int64_t>(threads.count, n / std::max<std::int64_t>(grain, 1));
  if (chunks <= 1) {
    if (n > 0) body(std::int64_t{0}, n);
    return;
  }
  std::exception_ptr failure;  // the first: an exception must not leave a thread
  std::mutex failing;
  const auto chunk = [&](std::int64_t i) {
    try {
      body(n * i / chunks, n * (i + 1) / chunks);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(failing);
      if (!failure) failure = std::current_exception();
    }
  };
  const OpenMP runtime = threads.lent ? OpenMP{} : open_mp();
  if (threads.lent) {
    threads.lent(
        threads.host,
        [](void *data, std::size_t i) { (*static_cast<const decltype(chunk) *>(data))(static_cast<std::int64_t>(i)); },
        static_cast<std::size_t>(chunks), const_cast<void *>(static_cast<const void *>(&chunk)));
  } else if (runtime.found()) {
    struct Work {
      const decltype(chunk) &run;
      std::int64_t chunks;
      const OpenMP &runtime;
    } work{chunk, chunks, runtime};
    runtime.parallel(
        [](void *data) {  // the runtime may give fewer threads than asked for
          const Work &w = *static_cast<Work *>(data);
          for (std::int64_t i = w.runtime.thread_number(); i < w.chunks; i += w.runtime.team_size()) w.run(i);
        },
        &work, static_cast<unsigned>(chunks), 0);
  } else {
    std::vector<std::thread> team;
    team.reserve(static_cast<std::size_t>(chunks));
    std::int64_t next = 1;
    try {
      for (; next < chunks; ++next) team.emplace_back(chunk, next);
    } catch (const std::system_error &) {  // no more threads to be had: the rest is done here
    }
    chunk(0);
    for (; next < chunks; ++next) chunk(next);
    for (std::thread &thread : team) thread.join();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace hw4fast
