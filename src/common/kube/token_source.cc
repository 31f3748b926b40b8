#include "src/common/kube/token_source.h"

#include <mutex>

#include "src/common/base/files.h"
#include "src/common/base/log.h"
#include "src/common/kube/exec_plugin.h"

namespace dormouse::kube {
namespace {

/// client-go transport/token_source.go: a minute, less 10 s of leeway.
constexpr auto kRereadEach = std::chrono::seconds(50);

class ConstantToken : public TokenSource {
 public:
  explicit ConstantToken(std::string token) : identity_{std::move(token), "", ""} {}
  Result<ClientIdentity> Get() override { return identity_; }
  void Drop(const ClientIdentity&) override {}

 private:
  ClientIdentity identity_;
};

class TokenFile : public TokenSource {
 public:
  TokenFile(std::string path, const Clock& clock) : path_(std::move(path)), clock_(clock) {}

  Result<ClientIdentity> Get() override {
    std::lock_guard lock(mutex_);
    const MonotonicTime now = clock_.Now();
    if (!token_.empty() && now < reread_at_) return ClientIdentity{token_, "", ""};
    auto text = ReadFile(path_, kMaxTokenBytes);
    if (text) {
      const std::size_t end = text->find_last_not_of(" \t\r\n");
      text->resize(end == std::string::npos ? 0 : end + 1);
    }
    if (text && !text->empty() && text->find_first_of("\r\n") == std::string::npos) {
      token_ = *text;
      reread_at_ = now + kRereadEach;
      return ClientIdentity{token_, "", ""};
    }
    const Error error =
        text ? Error(ErrorCode::kUnavailable, path_ + " holds no token") : text.error();
    if (token_.empty()) return Fail(error);
    log::Warning("token not read again, the old one is kept", {{"error", error.message()}});
    reread_at_ = now + std::chrono::seconds(10);
    return ClientIdentity{token_, "", ""};
  }

  void Drop(const ClientIdentity& used) override {
    std::lock_guard lock(mutex_);
    // Kept, for the case that the file cannot be read; but looked at before the next use.
    if (used.token == token_) reread_at_ = MonotonicTime();
  }

 private:
  const std::string path_;
  const Clock& clock_;
  std::mutex mutex_;
  std::string token_;
  MonotonicTime reread_at_{};
};

}  // namespace

std::unique_ptr<TokenSource> MakeTokenSource(const ClusterConfig& config, const Clock& clock) {
  if (!config.token_file.empty()) return std::make_unique<TokenFile>(config.token_file, clock);
  if (!config.token.empty()) return std::make_unique<ConstantToken>(config.token);
  if (config.exec) return MakeExecPlugin(*config.exec, std::chrono::seconds(60), clock);
  return std::make_unique<ConstantToken>("");
}

}  // namespace dormouse::kube
