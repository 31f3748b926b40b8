// A thread that makes things ahead of their need, one at a time, and stays out of the way of work
// that needs the processor more: a burst of creations is served from what is there.
//
// Thread-safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "src/common/base/result.h"

namespace dormouse::host {

struct RefillSpec {
  std::string what;                    ///< "network": for the log
  std::function<bool()> wanted;        ///< whether one is; must not block, nor touch the Refill
  std::function<Result<>()> make_one;  ///< called by the thread only
};

class Refill {
 public:
  explicit Refill(RefillSpec spec);

  /// From now on. Called once, in the namespaces that the thread shall be in.
  void Start();

  /// While one lives, and for a second after, nothing is begun.
  class Work {
   public:
    explicit Work(Refill* refill);
    ~Work();
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;

   private:
    Refill* refill_;
  };

 private:
  void Run(const std::stop_token& stop);

  const RefillSpec spec_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  int working_ = 0;
  uint64_t works_ = 0;  ///< that there have been
  std::jthread thread_;
};

}  // namespace dormouse::host
