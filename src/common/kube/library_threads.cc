#include "src/common/kube/library_threads.h"

// clang-format off: Boost 1.74's awaitable.hpp uses std::exchange without <utility>.
#include <utility>
// clang-format on

#include <pplx/pplx.h>
#include <pplx/threadpool.h>
#include <signal.h>

#include <boost/asio/post.hpp>
#include <memory>

#include "src/common/base/log.h"
#include "src/common/kube/in_flight.h"

namespace dormouse::kube {
namespace {

/// As the library's own, which posts to the pool too, but counting.
class CountingScheduler final : public pplx::scheduler_interface {
 public:
  void schedule(pplx::TaskProc_t work, void* with) override {
    boost::asio::post(crossplat::threadpool::shared_instance().service(),
                      [work, with, ticket = tasks_.Enter()] { work(with); });
  }
  InFlight& tasks() { return tasks_; }

 private:
  InFlight tasks_;
};

/// Shared with the library, which may schedule after our statics are gone.
const std::shared_ptr<CountingScheduler>& Scheduler() {
  static const auto scheduler = std::make_shared<CountingScheduler>();
  return scheduler;
}

}  // namespace

void StartLibraryThreads(int threads) {
  // They inherit the mask: a SIGTERM that a program waits for would else end it, on one of them.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    crossplat::threadpool::initialize_with_threads(static_cast<size_t>(threads));
    pplx::set_ambient_scheduler(Scheduler());
  } catch (const std::exception& exception) {
    log::Warning("thread pool already made", {{"error", exception.what()}});
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

bool WaitForLibraryThreads(std::chrono::milliseconds limit) {
  return Scheduler()->tasks().WaitUntilNone(limit);
}

}  // namespace dormouse::kube
