// An API server that is a list of answers, for tests of what stands above the transport. No thread,
// no socket, no time but the FakeClock's.
//
// Thread-safe, so that a loop under test may run in its own thread.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "src/common/base/clock.h"
#include "src/common/kube/http_transport.h"

namespace dormouse::kube {

class FakeHttpTransport : public HttpTransport {
 public:
  struct Answer {
    int status = 200;
    std::string body{};
    std::optional<std::chrono::seconds> retry_after{};
    std::optional<Error> error{};       ///< after the body
    std::chrono::nanoseconds takes{0};  ///< moves the clock
  };
  using Handler = std::function<Answer(const HttpRequest&)>;

  explicit FakeHttpTransport(FakeClock* clock = nullptr) : clock_(clock) {}

  /// The answer to the next request that has none yet, of either kind.
  void Push(Answer answer) {
    std::lock_guard lock(mutex_);
    answers_.push_back(std::move(answer));
  }
  /// Answers whatever the list does not.
  void Serve(Handler handler) { handler_ = std::move(handler); }
  std::vector<HttpRequest> Seen() const {
    std::lock_guard lock(mutex_);
    return seen_;
  }
  const std::string& LastTarget() const { return seen_.back().target; }

  Result<HttpResponse> Request(const HttpRequest& request, const std::stop_token&) override {
    Answer answer = Next(request);
    if (answer.error) return Fail(*answer.error);
    return HttpResponse{answer.status, answer.retry_after, answer.body};
  }

  Result<HttpResponse> Stream(const StreamRequest& request, const StreamSink& sink,
                              const std::stop_token&) override {
    HttpRequest as_request;
    as_request.target = request.target;
    Answer answer = Next(as_request);
    if (answer.status != 200) {
      if (answer.error) return Fail(*answer.error);
      return HttpResponse{answer.status, answer.retry_after, answer.body};
    }
    // In small pieces: no event may depend on where a read ends.
    for (std::size_t at = 0; at < answer.body.size(); at += 7) {
      DORMOUSE_TRY(sink(std::string_view(answer.body).substr(at, 7)));
    }
    if (answer.error) return Fail(*answer.error);
    return HttpResponse{200, std::nullopt, ""};
  }

 private:
  Answer Next(const HttpRequest& request) {
    std::unique_lock lock(mutex_);
    seen_.push_back(request);
    Answer answer{.status = 500, .body = "nothing scripted"};
    if (!answers_.empty()) {
      answer = std::move(answers_.front());
      answers_.pop_front();
    } else if (handler_) {
      lock.unlock();
      answer = handler_(request);
    }
    if (clock_ != nullptr && answer.takes.count() > 0) clock_->Advance(answer.takes);
    return answer;
  }

  FakeClock* clock_;
  mutable std::mutex mutex_;
  std::deque<Answer> answers_;
  std::vector<HttpRequest> seen_;
  Handler handler_;
};

}  // namespace dormouse::kube
