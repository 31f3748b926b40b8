// Where cpprestsdk writes a body: a stream buffer that hands bytes to a sink and keeps none of
// them.
//
// cpprestsdk reads the next bytes from the connection when the task of the last write is done; so a
// write that completes only after its bytes were consumed is back-pressure, where the library's own
// buffer grows without bound. The library learns the status before the first byte, but tells us on
// another thread: a write that comes first waits for OnStatus.
//
// Thread-safe. Private to cpprest_transport.cc (it needs the library's headers).
#pragma once

#ifndef _TURN_OFF_PLATFORM_STRING
#define _TURN_OFF_PLATFORM_STRING  // cpprestsdk would define a macro named U, which other headers
                                   // trip over
#endif
#include <cpprest/astreambuf.h>

#include <chrono>
#include <functional>
#include <mutex>
#include <optional>
#include <string_view>

#include "src/common/base/result.h"
#include "src/common/kube/in_flight.h"

namespace dormouse::kube {

class SinkBuffer : public concurrency::streams::details::streambuf_state_manager<uint8_t> {
 public:
  /// Gets each piece of the body, with the status it belongs to.
  using Sink = std::function<Result<>(int status, std::string_view bytes)>;

  /// `ticket` is let go with the buffer, which the library holds until its exchange has ended, or
  /// has been torn down.
  explicit SinkBuffer(Sink sink, InFlight::Ticket ticket = nullptr)
      : streambuf_state_manager(std::ios_base::out),
        sink_(std::move(sink)),
        ticket_(std::move(ticket)) {}

  /// The answer has begun: writes may go on.
  void OnStatus(int status);
  /// No call of the sink runs, or ever will, once this has returned; writes fail.
  void Detach();
  /// What the sink refused the body with, if it did.
  [[nodiscard]] std::optional<Error> refusal() const;
  [[nodiscard]] std::chrono::steady_clock::time_point last_activity() const;

  bool can_seek() const override { return false; }
  bool has_size() const override { return false; }
  size_t buffer_size(std::ios_base::openmode) const override { return 0; }
  void set_buffer_size(size_t, std::ios_base::openmode) override {}
  size_t in_avail() const override { return 0; }
  pos_type getpos(std::ios_base::openmode) const override { return -1; }
  pos_type seekpos(pos_type, std::ios_base::openmode) override { return -1; }
  pos_type seekoff(off_type, std::ios_base::seekdir, std::ios_base::openmode) override {
    return -1;
  }
  bool acquire(uint8_t*&, size_t&) override { return false; }
  void release(uint8_t*, size_t) override {}

 protected:
  pplx::task<size_t> _putn(const uint8_t* bytes, size_t count) override;
  pplx::task<int_type> _putc(uint8_t byte) override;
  pplx::task<bool> _sync() override { return pplx::task_from_result(true); }
  uint8_t* _alloc(size_t) override { return nullptr; }
  void _commit(size_t) override {}
  // It is never read from.
  pplx::task<int_type> _bumpc() override { return pplx::task_from_result<int_type>(-1); }
  int_type _sbumpc() override { return -1; }
  pplx::task<int_type> _getc() override { return pplx::task_from_result<int_type>(-1); }
  int_type _sgetc() override { return -1; }
  pplx::task<int_type> _nextc() override { return pplx::task_from_result<int_type>(-1); }
  pplx::task<int_type> _ungetc() override { return pplx::task_from_result<int_type>(-1); }
  pplx::task<size_t> _getn(uint8_t*, size_t) override { return pplx::task_from_result<size_t>(0); }
  size_t _scopy(uint8_t*, size_t) override { return 0; }

 private:
  struct Held {
    std::string_view bytes;
    pplx::task_completion_event<size_t> done;
  };
  /// False when the bytes were refused.
  bool ConsumeLocked(std::string_view bytes);

  mutable std::mutex mutex_;
  Sink sink_;  ///< null after Detach
  const InFlight::Ticket ticket_;
  int status_ = 0;
  std::optional<Held> held_;  ///< a write that came before the status
  std::optional<Error> refusal_;
  std::chrono::steady_clock::time_point last_activity_ = std::chrono::steady_clock::now();
};

}  // namespace dormouse::kube
